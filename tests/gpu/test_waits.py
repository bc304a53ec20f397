"""How often a CPU waits for its GPU: a constant, whatever the sizes."""

import importlib
import pkgutil

import pytest
import torch
from accelerators import accelerator_named
from standin_card import DEVICE
from torch import nn

from diffdecode.categorical import sample
from diffdecode.sequence import (
    HammingCost,
    OwnWord,
    SearchSpace,
    SoftBeamOptions,
    fused_scheduled_sampling,
    hard_beam,
    relaxed_decode,
    soft_beam,
    soft_beam_decode,
    truncated_soft_beam,
)
from diffdecode.structure import (
    SURROGATES,
    graph_argmax,
    k_best_trees,
    looked_at_once,
    nonprojective_marginals,
    nonprojective_tree,
    project_dep,
    project_trees,
    projective_marginals,
    projective_tree,
    sample_nonprojective_trees,
    sample_projective_trees,
    semantic_graph,
    tree_argmax,
    tree_entropy,
    tree_hinge_loss,
    tree_negative_log_likelihood,
    unchecked,
)

GRADIENTS_THAT_DECIDE = {
    "blackbox": 1,
    "imle": 1,
    "block_reinmax": 1,
    "structured_reinmax": 1,
    "spigot_ce": 1,
}
DECIDE_TWICE_OR_ON_THE_CPU = {"spigot_eg": 2, "spigot_exact": 4}
IN_BACKWARD = {**GRADIENTS_THAT_DECIDE, **DECIDE_TWICE_OR_ON_THE_CPU}


def trees_of(accelerator, batch=4, n=5):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, batch, n + 1, n + 1, generator=generator)
    lengths = torch.randint(1, n + 1, (batch,), generator=generator)
    return accelerator.moved((*scores, lengths))


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("projective", [True, False])
def test_a_decision_is_looked_at_once_and_unchecked_never(accelerator, surrogate, projective):
    scores, g, lengths = trees_of(accelerator)

    def step():
        leaf = scores.clone().requires_grad_()
        tree_argmax(leaf, lengths, surrogate=surrogate, projective=projective).backward(g)

    def trusted():
        leaf = scores.clone().requires_grad_()
        with unchecked():
            z = tree_argmax(leaf, lengths, surrogate=surrogate, projective=projective)
        z.backward(g)  # outside on purpose: autograd runs it in a thread of its own

    assert len(accelerator.waits(step)) == 1 + IN_BACKWARD.get(surrogate, 0)
    if surrogate != "spigot_exact":  # which goes through the CPU
        assert accelerator.waits(trusted) == []
        # Nor is anything brought to the device: a CUDA graph would do so again at each replay.
        assert accelerator.copies(trusted) == []


FUNCTIONS = {
    projective_tree: 1,
    nonprojective_tree: 1,
    projective_marginals: 1,
    nonprojective_marginals: 1,
    project_dep: 1,
    tree_entropy: 1,
    sample_projective_trees: 1,
    sample_nonprojective_trees: 1,
    k_best_trees: 2,
    project_trees: 3,
}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_what_is_done_with_trees_waits_a_constant_number_of_times(accelerator, function):
    for batch, n in ((2, 3), (9, 6)):
        scores, _, lengths = trees_of(accelerator, batch, n)
        assert len(accelerator.waits(function, scores, lengths)) <= FUNCTIONS[function]
        assert len(accelerator.waits(function, scores, lengths.tolist())) <= FUNCTIONS[function] + 1


class Launches:
    """A Triton kernel that is launched, and does nothing but hang all words on the root."""

    count = 0

    def __init__(self, kernel):
        self.arg_names = kernel.arg_names

    def __getitem__(self, grid):
        return self.launch

    def launch(self, *arguments, **options):
        Launches.count += 1
        tensors = {name: one for name, one in zip(self.arg_names, arguments) if isinstance(one, torch.Tensor)}
        assert {tensor.device for tensor in tensors.values()} == {DEVICE}
        if "heads" in tensors:
            tensors["heads"].held.zero_()


@pytest.fixture
def launches(monkeypatch):
    """Triton's kernels, which are only launched."""
    triton = pytest.importorskip("triton")
    from diffdecode.structure.kernels import triton as kernels

    for _, name, _ in pkgutil.iter_modules(kernels.__path__):
        module = importlib.import_module(f"{kernels.__name__}.{name}")
        for name, member in list(vars(module).items()):
            if isinstance(member, triton.JITFunction):
                monkeypatch.setattr(module, name, Launches(member))
    Launches.count = 0
    return Launches


@pytest.mark.parametrize("multi_root", [False, True])
def test_what_is_around_the_kernels_waits_for_nothing(multi_root, launches):
    """The stand-in's kernels are numba's: here are Triton's, from the outside."""
    from diffdecode.structure.kernels.triton import backend

    with accelerator_named("standin") as standin:
        scores, vector, lengths = trees_of(standin)
        seeds = torch.zeros(3, 4, dtype=torch.int64, device=scores.device)
        for function, *more in (
            (backend.eisner,),
            (backend.arborescence,),
            (backend.inside_outside,),
            (backend.inside_outside_covariance_product, vector),
            (backend.matrix_tree,),
            (backend.matrix_tree_covariance_product, vector),
            (backend.sample_projective, seeds),
            (backend.sample_arborescence, seeds),
        ):
            assert standin.waits(function, scores, lengths, multi_root, *more) == []


@pytest.mark.parametrize("function", ["matrix_tree", "matrix_tree_covariance_product"])
def test_marginals_of_all_trees_are_two_launches(function, launches):
    from diffdecode.structure.kernels.triton import backend

    with accelerator_named("standin") as standin:
        scores, vector, lengths = trees_of(standin)
        more = (vector,) if function == "matrix_tree_covariance_product" else ()
        assert standin.kernels(getattr(backend, function), scores, lengths, False, *more) == 0
        assert launches.count == 2


@pytest.mark.parametrize("projective", [False, True])
def test_a_step_of_spigot_is_25_launches_at_most(projective, launches, monkeypatch):
    """Forward and backward, unchecked: those of the kernels, and PyTorch's own around them."""
    from diffdecode.structure import kernels
    from diffdecode.structure.kernels.triton import backend

    with accelerator_named("standin") as standin:
        scores, g, lengths = trees_of(standin)
        on_card = backend.over(kernels.backend(torch.device("cpu")))
        monkeypatch.setattr(kernels, "_load", lambda name: on_card)
        leaf = scores.requires_grad_()

        def step():
            with unchecked():
                z = tree_argmax(leaf, lengths, surrogate="spigot", projective=projective)
            torch.autograd.grad(z, leaf, g)

        assert standin.kernels(step) + launches.count <= 25
        assert standin.waits(step) == standin.copies(step) == []


@pytest.mark.parametrize("loss", [tree_hinge_loss, tree_negative_log_likelihood])
@pytest.mark.parametrize("partly", [False, True])
def test_losses_wait_once_where_the_gold_heads_are_on_the_cpu(accelerator, loss, partly):
    scores, other, lengths = trees_of(accelerator)
    lengths = lengths.cpu()
    gold = projective_tree(other.cpu(), lengths)
    if partly:
        gold[1:] = gold[1:].masked_fill(torch.arange(gold.shape[1]) % 2 == 0, -1)

    def step():
        leaf = scores.clone().requires_grad_()
        loss(leaf, gold, lengths).sum().backward()

    assert len(accelerator.waits(step)) == 1
    on_device = accelerator.moved((gold, lengths))
    assert len(accelerator.waits(loss, scores, *on_device)) == 2


def test_graphs_wait_a_constant_number_of_times_also_where_labels_clash(accelerator):
    for batch, n in ((2, 3), (6, 7)):
        labels = torch.rand(batch, n, n, 3, generator=torch.Generator().manual_seed(0))
        labels[..., 0] += 1  # which every argument wants to be
        scores = labels.new_ones(batch, n, n), labels, labels.new_ones(batch, n)
        arcs, labels, predicates = accelerator.moved(scores)
        assert len(accelerator.waits(semantic_graph, arcs, labels, predicates)) == 1
        clashing = accelerator.waits(semantic_graph, arcs, labels, predicates, deterministic=[0, 1])
        assert len(clashing) == 3
        assert len(accelerator.waits(graph_argmax, arcs, labels, predicates, surrogate="spigot")) == 1


def test_several_decisions_are_looked_at_together(accelerator):
    scores, other, lengths = trees_of(accelerator)

    def three():
        return projective_tree(scores, lengths), nonprojective_tree(other), projective_marginals(other)

    assert len(accelerator.waits(three)) == 3
    assert len(accelerator.waits(looked_at_once, three)) == 1
    alone, together = three(), looked_at_once(three)
    assert torch.equal(alone[0].cpu(), together[0].cpu())


@pytest.mark.parametrize("fault", [torch.nan, torch.inf])
def test_what_is_looked_at_later_is_found_all_the_same(accelerator, fault):
    scores, other, lengths = trees_of(accelerator)
    scores[2, 1, 0] = fault
    with pytest.raises(ValueError, match="batch row 2"):
        looked_at_once(lambda: (projective_tree(other, lengths), projective_tree(scores, lengths)))
    with pytest.raises(ValueError, match="length 9 of batch row 1 is outside"):
        looked_at_once(lambda: projective_tree(other, accelerator.moved(torch.tensor([1, 9, 2, 2]))))
    huge = other * 1e37  # float32 cannot add these: decided again in float64
    expected = projective_tree(huge.cpu(), lengths.cpu())
    assert torch.equal(looked_at_once(lambda: projective_tree(huge, lengths)).cpu(), expected)


def test_gold_heads_outside_the_sentence_are_refused_and_harm_no_kernel(accelerator):
    scores, _, lengths = trees_of(accelerator)
    gold = torch.zeros(4, 5, dtype=torch.int64)
    gold[3, 0] = 77
    gold, lengths = accelerator.moved((gold, torch.full_like(lengths, 5)))
    with pytest.raises(ValueError, match="batch row 3 are outside the sentence"):
        tree_hinge_loss(scores, gold, lengths, multi_root=True)


class Decoder(nn.Module):
    """A recurrent layer and an output layer; at the step ``nan_at`` its scores are no numbers."""

    start = 0

    def __init__(self, vocabulary=40, nan_at=None):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.cell = nn.Embedding(vocabulary, 6), nn.LSTMCell(6, 8)
        self.out, self.nan_at = nn.Linear(8, vocabulary), nan_at

    embedding = property(lambda self: self.embed.weight)
    output_weight = property(lambda self: self.out.weight)
    output_bias = property(lambda self: self.out.bias)

    def init_state(self, batch):
        zeros = self.embedding.new_zeros(batch, 8)
        return {"h": zeros, "c": zeros, "t": 0}

    def features(self, state, vectors):
        h, c = self.cell(vectors, (state["h"], state["c"]))
        return h * (torch.nan if state["t"] == self.nan_at else 1), {"h": h, "c": c, "t": state["t"] + 1}

    def step(self, state, vectors):
        h, state = self.features(state, vectors)
        return self.out(h).log_softmax(-1), state

    def map_state(self, state, change):
        return {**state, "h": change(state["h"]), "c": change(state["c"])}


OPTIONS = SoftBeamOptions(3, 3.0, "softsort", recompute=0.5)
SOFT, ONE = OwnWord("soft", 0.3), OwnWord("st")


def space_on(gold):
    return SearchSpace(torch.arange(1, 40, device=gold.device), eos=1, pad=2)


SEARCHES = {
    "dense": lambda d, s, g, n: soft_beam(d, s, n, space_on(g), OPTIONS, HammingCost(g, 2)).direct_loss(),
    "truncated": lambda d, s, g, n: truncated_soft_beam(
        d, s, n, space_on(g), OPTIONS, HammingCost(g, 2), size=20, tolerance=1.0
    ).direct_loss(),
    "redone": lambda d, s, g, n: truncated_soft_beam(
        d, s, n, space_on(g), OPTIONS, HammingCost(g, 2), size=20, tolerance=0.0
    ).direct_loss(),
    "relaxed": lambda d, s, g, n: relaxed_decode(d, s, g, SOFT, 0.0),
    "straight through": lambda d, s, g, n: relaxed_decode(d, s, g, ONE, 0.0),
    "sampled": lambda d, s, g, n: relaxed_decode(d, s, g, OwnWord("sample"), 0.0),
    "fused": lambda d, s, g, n: fused_scheduled_sampling(d, s, g, n, SOFT, tolerance=1.0).gold_log_probs,
    "fused, sampled": lambda d, s, g, n: (
        fused_scheduled_sampling(d, s, g, n, OwnWord("sample"), tolerance=1.0).gold_log_probs
    ),
}
STEPWISE = {
    "hard": lambda d, s, g, n: hard_beam(d, s, n, 3, space_on(g)).scores,
    "decoded": lambda d, s, g, n: soft_beam_decode(d, s, n, space_on(g), OPTIONS).scores,
}


def search_on(accelerator, search, steps, nan_at=None):
    decoder = Decoder(nan_at=nan_at).to(accelerator.device)
    gold = torch.randint(3, 40, (4, steps), generator=torch.Generator().manual_seed(1))
    gold, lengths = accelerator.moved((gold, torch.tensor([steps, max(1, steps // 2), steps - 1, 1])))

    def step():
        found = search(decoder, decoder.init_state(4), gold, lengths)
        if found.requires_grad:
            found.sum().backward()

    return step


@pytest.mark.parametrize("search", SEARCHES)
def test_a_training_step_waits_six_times_at_most_whatever_its_length(accelerator, search):
    waits = [len(accelerator.waits(search_on(accelerator, SEARCHES[search], steps))) for steps in (4, 11)]
    assert waits[0] == waits[1] <= 6, accelerator.waits(search_on(accelerator, SEARCHES[search], 4))


@pytest.mark.parametrize("search", STEPWISE)
def test_a_search_that_ends_by_itself_waits_once_a_step(accelerator, search):
    for steps in (4, 11):
        assert len(accelerator.waits(search_on(accelerator, STEPWISE[search], steps))) <= steps + 6


@pytest.mark.parametrize("search", sorted(SEARCHES.keys() - {"fused", "fused, sampled", "truncated"}))
def test_scores_that_are_no_numbers_are_refused_at_the_end(accelerator, search):
    with pytest.raises(ValueError, match="row"):
        search_on(accelerator, SEARCHES[search], 5, nan_at=2)()


@pytest.mark.parametrize("place", ["cpu", "device"])
def test_samples_take_a_generator_of_either_device(accelerator, place):
    def generator():
        on_cpu = place == "cpu"
        return torch.Generator().manual_seed(3) if on_cpu else accelerator.generator(3)

    scores, _, lengths = trees_of(accelerator)
    labelled = accelerator.moved(torch.randn(4, 6, 6, 3, generator=torch.Generator().manual_seed(1)))
    for draw in (sample_projective_trees, sample_nonprojective_trees):
        assert len(accelerator.waits(draw, labelled, lengths, 3, generator=generator())) == 1
        first, second = (draw(scores, lengths, 3, generator=generator()).cpu() for _ in range(2))
        assert torch.equal(first, second)
        if place == "cpu":
            assert torch.equal(first, draw(scores.cpu(), lengths.cpu(), 3, generator=generator()))
            expected = draw(labelled.cpu(), lengths.cpu(), 3, generator=generator())
            found = draw(labelled, lengths, 3, generator=generator())
            assert all(torch.equal(a.cpu(), b) for a, b in zip(found, expected))
    logits = scores[:, 0]
    for estimator in ("st", "gumbel_soft", "gumbel_rao", "reinmax"):
        drawn = [sample(logits, estimator, generator=generator()).one_hot.cpu() for _ in range(2)]
        assert torch.equal(*drawn)
        if place == "cpu":
            assert torch.allclose(drawn[0], sample(logits.cpu(), estimator, generator=generator()).one_hot)
