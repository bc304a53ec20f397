"""The stand-in for a card refuses and counts what a card refuses and waits for."""

import copy
from unittest.mock import patch

import pytest
import standin_card
import torch
from accelerators import accelerator_named
from standin_card import CardTensor
from torch import nn


@pytest.fixture
def standin():
    with accelerator_named("standin") as found:
        yield found


@pytest.fixture
def there(standin):
    return torch.tensor([[1.0, -2.0], [3.0, 0.0]], device=standin.device)


@pytest.mark.parametrize(
    ("step", "waits"),
    [
        (lambda x: x + 1, 0),
        (lambda x: x.sum().item(), 1),
        (lambda x: float(x.max()), 1),
        (lambda x: bool(x.any()), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: x.to("cpu", non_blocking=True), 0),
        (lambda x: torch.zeros(2).to(x.device), 1),
        (lambda x: torch.zeros(2).pin_memory().to(x.device, non_blocking=True), 0),
        (lambda x: torch.zeros(2, device=x.device), 0),
        (lambda x: torch.tensor([1.0, 2.0], device=x.device), 1),
        (lambda x: torch.as_tensor([1.0, 2.0], device=x.device), 1),
        (lambda x: x[x > 0], 1),
        (lambda x: x[torch.tensor([0])], 1),
        (lambda x: x[0], 0),
        (lambda x: x.clone().masked_fill_(x > 0, 0.0), 0),
        (lambda x: x.__setitem__((0, 0), 1.0), 1),
        (lambda x: x.__setitem__(0, 1.0), 0),
        (lambda x: x.__setitem__(x > 0, 1.0), 0),
        (lambda x: x.__setitem__(x > 0, x.sum()), 1),
        (lambda x: x.__setitem__(x[0].long() * 0, 1.0), 1),
        (lambda x: x.__setitem__(x[0].long() * 0, x.sum()), 0),
        (lambda x: x.index_fill_(0, x[0].long() * 0, 1.0), 0),
        (lambda x: (x > 0).nonzero(), 1),
        (lambda x: torch.where(x > 0, x, 0.0), 0),
        (lambda x: torch.equal(x, x), 1),
        (lambda x: x.softmax(1).multinomial(1), 2),
        (lambda x: (x > 0).long().flatten().bincount(), 1),
        (lambda x: x.clone().copy_(torch.zeros(2, 2)), 1),
    ],
)
def test_waits_are_told_from_what_goes_on(standin, there, step, waits):
    assert len(standin.waits(step, there)) == waits


def test_two_devices_in_one_operation_are_refused(there):
    with pytest.raises(RuntimeError, match="same device"):
        there + torch.ones(2, 2)
    assert (there + torch.tensor(1.0)).tolist() == [[2, -1], [4, 1]]  # a number of the CPU is none


def test_what_is_made_on_the_current_card_is_on_another_one(there):
    made = torch.ones(2, 2, device="card")
    assert (made.device.index, there.device.index) == (0, 1)
    with pytest.raises(RuntimeError, match=r"found card:0 and card:1"):
        there + made
    assert (there + made.to(there.device)).tolist() == [[2, -1], [4, 1]]
    assert there.new_ones(2).device == torch.zeros_like(there).device == there.device


def test_what_the_cpu_does_for_a_card_is_a_round_trip(standin, there):
    """Backends have kernels for cards, and all else is the CPU's, on tensors of the card's."""
    from diffdecode.structure import kernels

    trees = kernels.backend(there.device).projective
    scores, lengths = there.new_ones(1, 3, 3), torch.full((1,), 2, device=there.device)
    assert standin.waits(trees.best, scores, lengths, False) == []
    of_the_cpu = kernels.backend(torch.device("cpu")).projective.best
    with patch.object(standin_card, "KERNELS", ()):
        trees = standin_card._kernels(kernels.backend(torch.device("cpu"))).projective
    assert trees.best is of_the_cpu
    assert len(standin.waits(trees.best, scores, lengths, False)) == 4


def test_what_only_the_cpu_has_is_refused(there):
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(2, device=there.device, generator=torch.Generator())


def test_values_and_gradients_are_those_of_the_cpu(standin):
    torch.manual_seed(0)
    expected = nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 3, bidirectional=True))
    found = copy.deepcopy(expected).to(standin.device)
    x = torch.randn(5, 2, 4)
    for module, inputs in ((expected, x), (found, x.to(standin.device))):
        module(inputs)[0].square().sum().backward()
    for mine, theirs in zip(found.parameters(), expected.parameters()):
        assert isinstance(mine, CardTensor) and isinstance(mine.grad, CardTensor)
        torch.testing.assert_close(mine.grad.cpu(), theirs.grad)


def test_kernels_are_counted_and_views_are_none(standin, there):
    assert standin.kernels(lambda: there.T[0].view(2)) == 0
    assert standin.kernels(lambda: (there + 1) * 2) == 2
