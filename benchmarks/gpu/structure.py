"""Trees on the card beside torch-struct and supar, where they are installed; waits and launches of a step."""

from collections.abc import Iterator

import torch

from benchmarks._tree_peers import (
    ANY,
    BACKWARD,
    INSIDE_OUTSIDE,
    MATRIX_TREE,
    PROJECTIVE,
    backward,
    installed_peers,
)
from benchmarks.gpu.card import Card, Step, row, without_failures
from diffdecode.structure import (
    nonprojective_marginals,
    nonprojective_tree,
    projective_marginals,
    projective_tree,
    sample_nonprojective_trees,
    sample_projective_trees,
    tree_argmax,
    unchecked,
)

OURS = {
    PROJECTIVE: projective_tree,
    ANY: nonprojective_tree,
    INSIDE_OUTSIDE: lambda scores: projective_marginals(scores)[0],
    MATRIX_TREE: lambda scores: nonprojective_marginals(scores)[0],
    BACKWARD: lambda scores: backward(lambda given: projective_marginals(given)[0], scores),
    f"{MATRIX_TREE} and their backward pass": lambda scores: backward(
        lambda given: nonprojective_marginals(given)[0], scores
    ),
    "16 projective samples": lambda scores: sample_projective_trees(scores, samples=16),
    "16 samples of all trees": lambda scores: sample_nonprojective_trees(scores, samples=16),
}
SIZES = [(32, 20), (32, 40), (256, 40), (32, 80), (128, 160)]
SURROGATES = ("spigot", "structured_st", "marginals", "perturbed")


def measure(card: Card) -> Iterator[tuple[str, list[dict]]]:
    """Tables by size."""
    peers = installed_peers()[0]
    for batch, words in SIZES if card.is_real else [(3, 6)]:
        torch.manual_seed(0)
        scores = torch.randn(batch, words + 1, words + 1, device=card.device)
        rows: list[dict] = []
        for task, ours in OURS.items():
            steps = {"diffdecode": _on(ours, scores), "diffdecode, unchecked": _unchecked(_on(ours, scores))}
            for peer in peers:
                if peer.task == task and peer.name in ("torch-struct", "supar") and words <= peer.longest:
                    steps[peer.name] = _on(peer.run, peer.prepare(scores.clone()))
            steps, failed = without_failures(steps)
            found = card.medians(steps)
            rows += [{"what": f"{task}, {one['what']}", "peer fails": one["failed"]} for one in failed]
            rows += [row(f"{task}, {name}", found[name], found["diffdecode"]) for name in found]
        for surrogate in SURROGATES:
            step = _surrogate_step(scores, surrogate)
            seconds = card.medians({"step": step})["step"]
            step = _unchecked(step)
            counted = {"waits": card.waits(step), "launches": card.launches(step)}
            rows.append(row(f"step of {surrogate} (counts: unchecked)", seconds, **counted))
        yield f"{batch} sentences of {words} words", rows


def _on(function, given) -> Step:
    return lambda: function(given)


def _unchecked(step: Step) -> Step:
    def run():
        with unchecked():
            step()

    return run


def _surrogate_step(scores: torch.Tensor, surrogate: str) -> Step:
    leaf, g = scores.clone().requires_grad_(), torch.randn_like(scores)

    def step():
        leaf.grad = None
        tree_argmax(leaf, surrogate=surrogate).backward(g)

    return step
