"""Linear layers run at every step: results and gradients are those of ordinary layers."""

import copy
import gc
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from diffdecode.sequence import repeated_layers
from diffdecode.sequence.repeated_layers import RepeatedLayers


class Scaled(nn.Linear):
    """A layer of a class of its own."""

    def forward(self, inputs):
        return 2 * super().forward(inputs)


class Cell(nn.Module):
    """A step: two layers, one of which runs twice, and one that no step reaches."""

    def __init__(self, bias: bool, dtype=torch.float64):
        super().__init__()
        kind = {"bias": bias, "dtype": dtype}
        self.inner, self.outer = nn.Linear(3, 3, **kind), nn.Linear(3, 3, **kind)
        self.scaled, self.unused = Scaled(3, 3, **kind), nn.Linear(3, 2, **kind)

    def forward(self, vectors):
        hidden = self.inner(vectors)
        hidden *= 0.5  # in place, as fairseq's attention does it
        return torch.tanh(self.scaled(self.outer(hidden)) + self.inner(torch.tanh(hidden)))


def cell(bias=True, **options):
    torch.manual_seed(0)
    return Cell(bias, **options)


def search(module, first, steps, recomputed=(), layers=None):
    """A sum over all steps; with ``layers`` they run in it."""

    def step(vectors):
        if layers is None:
            return module(vectors)
        with layers.running():
            return module(vectors)

    vectors, total = first, 0.0
    for t in range(steps):
        vectors = checkpoint(step, vectors, use_reentrant=False) if t in recomputed else step(vectors)
        total = total + vectors.square().sum() * (t + 1)
    return total


def leaves(module, first):
    return [*module.parameters(), first]


def gradients(loss, wanted):
    return torch.autograd.grad(loss, wanted, allow_unused=True, retain_graph=True)


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


@given(
    shape=st.lists(st.integers(0, 3), max_size=2),
    steps=st.integers(1, 6),
    recomputed=st.sets(st.integers(0, 5)),
    bias=st.booleans(),
    at_once=st.integers(1, 20),
    wait=st.integers(0, 4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_results_and_gradients_are_those_of_ordinary_layers(
    shape, steps, recomputed, bias, at_once, wait, dtype
):
    torch.manual_seed(0)
    module = Cell(bias, dtype)
    first = torch.randn(*shape, 3, dtype=dtype, requires_grad=True)
    expected = search(module, first, steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeated_layers, "AT_ONCE", at_once)
        patch.setattr(repeated_layers, "WAIT", wait)
        found = search(module, first, steps, recomputed, RepeatedLayers(module))
        torch.testing.assert_close(found, expected)
        assert_equal(gradients(found, leaves(module, first)), gradients(expected, leaves(module, first)))


def test_after_a_step_the_layers_are_as_before():
    module = cell()
    layers = RepeatedLayers(module)
    with pytest.raises(ZeroDivisionError), layers.running():
        assert "forward" in vars(module.inner)
        1 / 0  # noqa: B018
    assert not any("forward" in vars(one) for one in module.modules())
    copy.deepcopy(module)


@pytest.mark.parametrize("wanted", ["all", "input"])
def test_a_backward_pass_may_be_repeated(wanted):
    """Also where one did not go as far as the parameters: what its steps have left does not count."""
    module, first = cell(), torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    loss = search(module, first, 3, layers=RepeatedLayers(module))
    gradients(loss, [first] if wanted == "input" else leaves(module, first))
    expected = gradients(search(module, first, 3), leaves(module, first))
    assert_equal(gradients(loss, leaves(module, first)), expected)


def test_frozen_parameters_have_no_gradient():
    module, first = cell(), torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    module.inner.requires_grad_(False)
    module.outer.bias.requires_grad_(False)
    layers = RepeatedLayers(module)
    assert [layer for layer, _ in layers.layers] == [module.outer, module.unused]
    search(module, first, 3, layers=layers).backward()
    found = [parameter.grad for parameter in leaves(module, first)]
    for parameter in leaves(module, first):
        parameter.grad = None
    search(module, first, 3).backward()
    assert_equal(found, [parameter.grad for parameter in leaves(module, first)])


@pytest.mark.parametrize("backward", [True, False])
def test_a_search_is_freed_without_the_garbage_collector(backward):
    module, first = cell(), torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    gc.disable()
    try:
        layers = RepeatedLayers(module)
        loss = search(module, first, 3, {1}, layers)
        if backward:
            loss.backward()
        alive = [weakref.ref(repeated.left) for _, repeated in layers.layers]
        del layers, loss
        assert not any(one() for one in alive)
    finally:
        gc.enable()


def test_without_gradients_nothing_is_kept():
    module, first = cell(), torch.randn(2, 3, dtype=torch.float64)
    layers = RepeatedLayers(module)
    with torch.no_grad():
        torch.testing.assert_close(search(module, first, 3, layers=layers), search(module, first, 3))
    assert search(module, first, 3, layers=layers).requires_grad


def test_layers_that_were_taken_without_gradients_have_some_all_the_same():
    module, first = cell(), torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        layers = RepeatedLayers(module)
    found, expected = search(module, first, 3, layers=layers), search(module, first, 3)
    assert_equal(gradients(found, leaves(module, first)), gradients(expected, leaves(module, first)))


def test_under_autocast_layers_run_as_they_are():
    module, first = cell(dtype=torch.float32), torch.randn(2, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = search(module, first, 3)
        found = search(module, first, 3, layers=RepeatedLayers(module))
    assert_equal(gradients(found, leaves(module, first)), gradients(expected, leaves(module, first)))


def test_a_weight_that_was_changed_in_between_is_an_error():
    module, first = cell(), torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    loss = search(module, first, 3, layers=RepeatedLayers(module))
    with torch.no_grad():
        module.outer.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
