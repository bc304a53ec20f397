"""What surrogate gradients and projections cost, beside a parser's training step and beside peers.

    python -m benchmarks.structure_surrogates [--words 40] [--batch 32]

* every surrogate, forward and backward, as a share of one training step of a small BiLSTM-biaffine parser
  (sizes of Peng, Thomson and Smith 2018: two layers of 200 units a direction, 100-dimensional scorers);
* projection onto P_DEP beside entmax's sparsemax (if it is installed: pip install entmax);
* exact projection onto the tree polytope, to a distance of 1e-6.

One thread, CPU time, medians; what is compared runs in turns.
"""

import argparse

import torch
from torch import nn

from benchmarks._measure import cpu_medians, save
from diffdecode.structure import (
    SURROGATES,
    heads_to_arcs,
    nonprojective_tree,
    project_dep,
    project_trees,
    projective_tree,
    tree_argmax,
)

SLOW = {"spigot_exact"}  # measured with fewer repeats
CALLS = 20  # of a projection in its turn: one call is too short to be timed


class BiaffineParser(nn.Module):
    """Embedding, BiLSTM, one hidden layer for words as dependents and as heads, biaffine scores."""

    def __init__(self, vocabulary=10_000, embedded=100, hidden=200, scorer=100):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, embedded)
        self.encode = nn.LSTM(embedded, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.dependent = nn.Sequential(nn.Linear(2 * hidden, scorer), nn.Tanh())
        self.head = nn.Sequential(nn.Linear(2 * hidden, scorer), nn.Tanh())
        self.bilinear = nn.Parameter(torch.randn(scorer, scorer) / scorer)

    def forward(self, words):
        """``words [B, N+1]`` (a root symbol first) to scores ``[B, N+1, N+1]``."""
        states, _ = self.encode(self.embed(words))
        return self.dependent(states) @ self.bilinear @ self.head(states).transpose(1, 2)


def training_step(batch: int, words: int):
    """One step of head selection (cross-entropy over heads) with Adam: the cheapest loss there is."""
    parser = BiaffineParser()
    optimizer = torch.optim.Adam(parser.parameters())
    text = torch.randint(0, 10_000, (batch, words + 1))
    gold = projective_tree(torch.randn(batch, words + 1, words + 1))

    def step():
        optimizer.zero_grad()
        scores = parser(text)
        nn.functional.cross_entropy(scores[:, 1:].flatten(0, 1), gold.flatten()).backward()
        optimizer.step()

    return step


def surrogate_step(name: str, projective: bool, batch: int, words: int):
    """Decide, then pull a downstream gradient back to the scores."""
    scores = torch.randn(batch, words + 1, words + 1).requires_grad_()
    g = torch.randn(batch, words + 1, words + 1) / words
    generator = torch.Generator().manual_seed(0)

    def step():
        scores.grad = None
        tree_argmax(scores, surrogate=name, projective=projective, generator=generator).backward(g)

    return step


def measure_surrogates(batch: int, words: int, repeats: int) -> dict:
    """CPU seconds of the training step and of every surrogate; forward and backward."""
    steps = {"training step": training_step(batch, words)}
    for projective in (True, False):
        kind = "projective" if projective else "non-projective"
        steps |= {f"{name}, {kind}": surrogate_step(name, projective, batch, words) for name in SURROGATES}
    slow = {name: step for name, step in steps.items() if name.split(",")[0] in SLOW}
    quick = {name: step for name, step in steps.items() if name not in slow}
    return cpu_medians(quick, repeats) | cpu_medians(slow, 3)


def measure_p_dep(batch: int, words: int, repeats: int) -> dict:
    """CPU seconds of one batch of projections, without gradient; sparsemax sees rows of the same length."""
    point = torch.randn(batch, words + 1, words + 1)
    steps = {"project_dep": lambda: project_dep(point)}
    try:
        from entmax import sparsemax
    except ImportError:
        print("entmax is not installed: P_DEP is measured alone")
    else:
        steps["entmax.sparsemax"] = lambda: sparsemax(point, -1)
    many = {name: lambda step=step: [step() for _ in range(CALLS)] for name, step in steps.items()}
    return {name: seconds / CALLS for name, seconds in cpu_medians(many, repeats).items()}


def measure_exact(batch: int, words: int, repeats: int) -> dict:
    """CPU seconds per sentence of exact projections of ``z - g`` with a dense random ``g``; their gaps."""
    found = {}
    for name, decide in (("projective", projective_tree), ("non-projective", nonprojective_tree)):
        heads = decide(torch.randn(batch, words + 1, words + 1))
        point = heads_to_arcs(heads) - torch.randn(batch, words + 1, words + 1)
        result = project_trees(point, projective=name == "projective", start=heads)
        step = {
            name: lambda p=point, n=name, h=heads: project_trees(p, projective=n == "projective", start=h)
        }
        found[name] = {
            "cpu_seconds_per_sentence": cpu_medians(step, max(3, repeats // 3))[name] / batch,
            "largest_distance": float(result.gap.clamp(min=0).max().sqrt()),
            "mean_steps": float(result.steps.double().mean()),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--words", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size = arguments.batch, arguments.words, arguments.repeats
    surrogates, p_dep, exact = measure_surrogates(*size), measure_p_dep(*size), measure_exact(*size)
    step = surrogates["training step"]
    print(f"{arguments.batch} sentences of {arguments.words} words, one thread, median CPU time")
    print(f"training step of a BiLSTM-biaffine parser {step * 1e3:8.1f} ms")
    for name, seconds in surrogates.items():
        if name != "training step":
            print(f"  {name:36s} {seconds * 1e3:8.2f} ms {100 * seconds / step:7.2f} % of the step")
    for name, seconds in p_dep.items():
        print(f"P_DEP, {name:18s} {seconds * 1e3:8.3f} ms {seconds / p_dep['project_dep']:7.1f} x")
    for name, row in exact.items():
        print(
            f"exact projection, {name:15s} {row['cpu_seconds_per_sentence'] * 1e3:7.2f} ms a sentence, "
            f"{row['mean_steps']:.0f} steps, at most {row['largest_distance']:.0e} from exact"
        )
    results = {"surrogates_cpu_seconds": surrogates, "p_dep_cpu_seconds": p_dep, "exact_projection": exact}
    print(f"saved {save('structure_surrogates', {'settings': vars(arguments), **results})}")


if __name__ == "__main__":
    main()
