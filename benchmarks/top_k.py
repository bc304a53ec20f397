"""Strengths and weaknesses of each continuous top-k operator, in numbers.

    python -m benchmarks.top_k [--plot top_k.png]

* near ties: the alpha that tells two candidates with a small gap apart;
* hardness: distance to the hard selection, shared mass of two rows, gradient norm, at several alphas;
* vanishing gradient: how the inclusion of a candidate below the beam depends on its own score;
* rescue: how many gradient steps bring such a candidate into the beam;
* monotonicity and largest inclusion;
* collapse: how many of 100 random decoders end a soft beam search with two (nearly) equal beam elements.

Scores are cumulative log-probabilities of 3 beam elements over 1,000 words in float32; medians over random
draws.
"""

import argparse
import math
import statistics

import torch
from torch import Tensor

from benchmarks._measure import save
from diffdecode.categorical import beam_overlap, continuous_top_k, hard_top_k
from diffdecode.files.atomic import atomic_write
from diffdecode.sequence import SearchSpace, SoftBeamOptions, hard_beam, soft_beam

OPERATORS = ("peaked", "softsort", "lapsum", "successive")
ALPHAS = (1.0, 10.0, 100.0, 1000.0)
GAPS = (0.3, 0.1, 0.03, 0.01, 0.003)
DISTANCES = (1.0, 2.0, 4.0, 6.0, 8.0, 12.0)
K = 3


def scores(seed: int, gap: float | None = None) -> Tensor:
    """``[1, 3000]`` candidates' scores; ``gap`` between the second and the third best, if given."""
    generator = torch.Generator().manual_seed(seed)
    local = (3 * torch.randn(K, 1000, generator=generator)).double().log_softmax(-1)
    flat = (torch.tensor([-5.0, -5.5, -6.0], dtype=torch.double)[:, None] + local).flatten()
    if gap is not None:
        best = flat.topk(K + 1).indices
        flat[best[2]] = flat[best[1]] - gap
        # The fourth must not come between them.
        flat[best[3]] = torch.minimum(flat[best[3]], flat[best[2]] - 0.5)
    return flat.float()[None]


def alpha_for_gap(operator: str, gap: float) -> float:
    """Smallest alpha at which rows 2 and 3 share less than a tenth, by bisection of log alpha."""
    low, high = math.log(0.1), math.log(1e9)
    for _ in range(30):
        middle = 0.5 * (low + high)
        shared = statistics.median(
            float(beam_overlap(continuous_top_k(scores(seed, gap), K, math.exp(middle), operator)[:, 1:]))
            for seed in range(5)
        )
        low, high = (low, middle) if shared < 0.1 else (middle, high)
    return math.exp(high)


def hardness(operator: str, alpha: float, gap: float | None) -> dict[str, float]:
    """Distance to the hard rows, largest overlap of two rows, gradient norm: medians of 12 draws."""
    found = {"distance": [], "overlap": [], "gradient": []}
    for seed in range(12):
        leaf = scores(seed, gap).requires_grad_()
        rows = continuous_top_k(leaf, K, alpha, operator)
        weights = torch.randn(rows.shape, generator=torch.Generator().manual_seed(100 + seed))
        (rows * weights).sum().backward()
        rows = rows.detach()
        found["distance"].append(float(0.5 * (rows - hard_top_k(leaf, K)).abs().sum(-1).mean()))
        found["overlap"].append(float(beam_overlap(rows)))
        found["gradient"].append(float(leaf.grad.norm()))
    return {name: statistics.median(values) for name, values in found.items()}


def slope_below_beam(operator: str, alpha: float, distance: float) -> float:
    """d inclusion / d score of a candidate ``distance`` nats below the third best."""
    leaf = torch.cat([scores(0)[0], torch.zeros(1)])[None]
    leaf[0, -1] = leaf[0].topk(K).values[-1] - distance
    leaf.requires_grad_()
    continuous_top_k(leaf, K, alpha, operator)[0, :, -1].sum().backward()
    return float(leaf.grad[0, -1])


def steps_to_rescue(operator: str, alpha: float, rank: int, limit: int = 300) -> int | None:
    """Adam steps (learning rate .1 on the scores) until the candidate of that rank is in the beam."""
    leaf = scores(0)
    wanted = int(leaf[0].argsort(descending=True)[rank - 1])
    leaf.requires_grad_()
    optimizer = torch.optim.Adam([leaf], lr=0.1)
    for step in range(1, limit + 1):
        optimizer.zero_grad()
        (-continuous_top_k(leaf, K, alpha, operator)[0, :, wanted].sum()).backward()
        optimizer.step()
        if wanted in leaf.detach()[0].topk(K).indices:
            return step
    return None


def inclusion(operator: str, alpha: float) -> dict[str, float]:
    """Largest inclusion of a candidate, and by how much that of one falls while its own score rises."""
    rising = torch.linspace(-6, 3, 181, dtype=torch.double)
    others = torch.arange(0, -6, -1, dtype=torch.double).expand(len(rising), -1)
    included = continuous_top_k(torch.cat([others, rising[:, None]], 1), K, alpha, operator).sum(1)
    of_rising = included[:, -1]
    return {
        "largest": float(included.max()),
        "drop": float((of_rising.cummax(0).values - of_rising).max()),
    }


class RandomRNNs:
    """Sentence b is decoded by its own random RNN; ``last`` remembers the states ``[B * K, d]``."""

    def __init__(self, count: int = 100, vocabulary: int = 50, width: int = 32):
        generator = torch.Generator().manual_seed(0)
        self.embedding = torch.randn(vocabulary, width, generator=generator)
        self.start = 0
        self.recurrent = torch.randn(count, width, width, generator=generator) / width**0.5
        self.input = torch.randn(count, width, width, generator=generator) * 1.2 / width**0.5
        self.output = torch.randn(count, width, vocabulary, generator=generator) * 3 / width**0.5
        self.count, self.last = count, None

    def init_state(self) -> Tensor:
        return torch.zeros(self.count, self.recurrent.size(1))

    def step(self, state: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        h, e = (rows.view(self.count, -1, rows.size(1)) for rows in (state, vectors))
        h = torch.tanh(h @ self.recurrent + e @ self.input)
        self.last = h
        return (h @ self.output).log_softmax(-1).flatten(0, 1), h.flatten(0, 1)

    def map_state(self, state: Tensor, change) -> Tensor:
        return change(state)

    def collapsed(self) -> int:
        """How many decoders' closest two states differ by less than 5 % of the mean norm."""
        first, second = torch.triu_indices(K, K, offset=1)
        distance = (self.last[:, first] - self.last[:, second]).norm(dim=-1).amin(1)
        return int((distance < 0.05 * self.last.norm(dim=-1).mean(1)).sum())


@torch.no_grad()
def collapsed_beams(operator: str | None, alpha: float = 1.0, steps: int = 11) -> int:
    """Of 100 random decoders, after 10 selections; ``operator=None`` is the hard beam."""
    decoder = RandomRNNs()
    space, lengths = SearchSpace(torch.arange(50)), torch.full((100,), steps)
    if operator is None:
        hard_beam(decoder, decoder.init_state(), lengths, K, space)
    else:
        soft_beam(decoder, decoder.init_state(), lengths, space, SoftBeamOptions(K, alpha, operator))
    return decoder.collapsed()


def measure(operator: str) -> dict:
    """Everything about one operator."""
    return {
        "alpha for gap": {str(gap): alpha_for_gap(operator, gap) for gap in GAPS},
        "hardness": {str(alpha): hardness(operator, alpha, None) for alpha in ALPHAS},
        "hardness, gap .01": {str(alpha): hardness(operator, alpha, 0.01) for alpha in ALPHAS},
        "slope": {
            str(alpha): {str(distance): slope_below_beam(operator, alpha, distance) for distance in DISTANCES}
            for alpha in ALPHAS[:2]
        },
        "rescue": {str(rank): steps_to_rescue(operator, 1.0, rank) for rank in (5, 20, 200)},
        "inclusion": {str(alpha): inclusion(operator, alpha) for alpha in (1.0, 5.0)},
        "collapsed": {str(alpha): collapsed_beams(operator, alpha) for alpha in ALPHAS},
    }


def table(title: str, columns: list[str], rows: dict[str, list[str]]) -> None:
    """Print a table with a row for each operator."""
    print(f"\n{title}\n{'':12s}" + "".join(f"{column:>12s}" for column in columns))
    for name, cells in rows.items():
        print(f"{name:12s}" + "".join(f"{cell:>12s}" for cell in cells))


def show(found: dict[str, dict], hard: int) -> None:
    """The tables."""

    def rows(key: str, text) -> dict[str, list[str]]:
        return {
            operator: [text(value) for value in numbers[key].values()] for operator, numbers in found.items()
        }

    table(
        "alpha that tells a gap apart", [f"gap {gap}" for gap in GAPS], rows("alpha for gap", "{:.3g}".format)
    )
    columns = [f"alpha {alpha:g}" for alpha in ALPHAS]
    for key in ("hardness", "hardness, gap .01"):
        table(
            f"{key}: distance to hard / overlap",
            columns,
            rows(key, lambda v: f"{v['distance']:.2f}/{v['overlap']:.2f}"),
        )
    table("hardness: gradient norm", columns, rows("hardness", lambda v: f"{v['gradient']:.1e}"))
    for alpha in ALPHAS[:2]:
        slopes = {
            operator: [f"{slope:.0e}" for slope in numbers["slope"][str(alpha)].values()]
            for operator, numbers in found.items()
        }
        table(f"d inclusion / d score, alpha {alpha:g}", [f"{d:g} below" for d in DISTANCES], slopes)
    table(
        "Adam steps into the beam from rank r, alpha 1 (limit 300)",
        ["5", "20", "200"],
        rows("rescue", lambda v: "never" if v is None else str(v)),
    )
    table(
        "largest inclusion / largest drop of a rising score's",
        ["alpha 1", "alpha 5"],
        rows("inclusion", lambda v: f"{v['largest']:.2f}/{v['drop']:.3f}"),
    )
    table(f"collapsed beams of 100 (hard beam: {hard})", columns, rows("collapsed", str))


def plot(found: dict[str, dict], hard: int, path: str) -> None:
    """Three panels: near ties, vanishing gradient, collapse."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (ties, slopes, collapse) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    for operator, numbers in found.items():
        ties.loglog(GAPS, list(numbers["alpha for gap"].values()), "o-", label=operator)
        slope = [abs(value) for value in numbers["slope"]["1.0"].values()]
        slopes.semilogy(DISTANCES, [max(value, 1e-20) for value in slope], "o-", label=operator)
        collapse.semilogx(ALPHAS, list(numbers["collapsed"].values()), "o-", label=operator)
    collapse.axhline(hard, color="grey", linestyle=":", label="hard beam")
    ties.set(xlabel="gap between two candidates", ylabel="alpha that tells them apart")
    slopes.set(xlabel="nats below the beam", ylabel="d inclusion / d score, alpha = 1")
    collapse.set(xlabel="alpha", ylabel="collapsed beams of 100")
    collapse.legend()
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
    print(f"\nsaved {path}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--plot", metavar="FILE", help="also draw the main findings")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {operator: measure(operator) for operator in OPERATORS}
    hard = collapsed_beams(None)
    show(found, hard)
    saved = save("top_k", {"operators": found, "collapsed hard beams": hard})
    print(f"\nsaved {saved}")
    if arguments.plot:
        plot(found, hard, arguments.plot)


if __name__ == "__main__":
    main()
