"""Cost of a soft beam training step (k = 3) beside a cross-entropy step: time and memory.

    python -m benchmarks.soft_beam_step [--batch 16] [--steps 20] [--vocabularies 1000 10000 32000]

Forward and backward of an LSTM decoder with attention (256 units) on one CPU thread; the competitors take
turns in one process, and the table shows medians of CPU time relative to cross entropy. Memory is the peak
during a step in a fresh process, over what it held before. For each operator, alpha is the smallest power of
sqrt(2) at which the bound on what 64 candidates leave out stays below a thousandth.
"""

import argparse

import torch

from benchmarks._decoder import AttentionDecoder, cross_entropy
from benchmarks._measure import cpu_medians, peak_megabytes, print_peak, save
from diffdecode.sequence import HammingCost, SearchSpace, SoftBeamOptions, soft_beam, truncated_soft_beam

TOLERANCE = 1e-3
SIZE = 64
K = 3


class Problem:
    """A decoder and a batch, and the training steps that compete on them."""

    def __init__(self, vocabulary: int, batch: int, steps: int):
        torch.manual_seed(0)
        self.decoder = AttentionDecoder(vocabulary)
        self.gold = torch.randint(1, vocabulary, (batch, steps))
        self.lengths = torch.full((batch,), steps)
        self.space = SearchSpace(torch.arange(1, vocabulary))
        self.cost = HammingCost(self.gold, 0)

    def cross_entropy(self):
        cross_entropy(self.decoder, self.gold).backward()

    def dense(self, operator: str, alpha: float, recompute: float):
        options = SoftBeamOptions(K, alpha, operator, recompute=recompute)
        state = self.decoder.init_state(len(self.gold))
        found = soft_beam(self.decoder, state, self.lengths, self.space, options, self.cost)
        found.direct_loss().sum().backward()

    def truncated(self, operator: str, alpha: float, recompute: float):
        found = self.search(operator, alpha, TOLERANCE, recompute)
        found.direct_loss().sum().backward()

    def search(self, operator: str, alpha: float, tolerance: float, recompute: float = 0.0):
        options = SoftBeamOptions(K, alpha, operator, recompute=recompute)
        state = self.decoder.init_state(len(self.gold))
        return truncated_soft_beam(
            self.decoder, state, self.lengths, self.space, options, self.cost, size=SIZE, tolerance=tolerance
        )

    def smallest_alpha(self, operator: str) -> tuple[float, float]:
        """The smallest tried alpha with an accepted bound, and that bound."""
        for exponent in range(40):
            alpha = 2 ** (exponent / 2)
            with torch.no_grad():
                tail = float(self.search(operator, alpha, 1.0).tail.max())
            if tail < TOLERANCE:
                return alpha, tail
        raise RuntimeError("no alpha below 700,000 leaves little enough out")

    def step(self, name: str, alpha: dict[str, float]):
        """The training step of that name in the tables."""
        loss = {
            "cross entropy": self.cross_entropy,
            "soft beam, plain autograd": lambda: self.dense("peaked", alpha["peaked"], 0.0),
            "soft beam, recomputed": lambda: self.dense("peaked", alpha["peaked"], 1.0),
            "truncated, peaked": lambda: self.truncated("peaked", alpha["peaked"], 0.0),
            "truncated, peaked, 60 % recomputed": lambda: self.truncated("peaked", alpha["peaked"], 0.6),
            "truncated, peaked, recomputed": lambda: self.truncated("peaked", alpha["peaked"], 1.0),
            "truncated, lapsum": lambda: self.truncated("lapsum", alpha["lapsum"], 0.0),
        }[name]

        def step():
            loss()
            self.decoder.zero_grad(set_to_none=True)

        return step


STEPS = (
    "cross entropy",
    "soft beam, plain autograd",
    "soft beam, recomputed",
    "truncated, peaked",
    "truncated, peaked, 60 % recomputed",
    "truncated, peaked, recomputed",
    "truncated, lapsum",
)


def compare(vocabulary: int, arguments: argparse.Namespace) -> dict:
    """All numbers for one vocabulary size."""
    problem = Problem(vocabulary, arguments.batch, arguments.steps)
    found = {operator: problem.smallest_alpha(operator) for operator in ("peaked", "lapsum")}
    alpha = {operator: pair[0] for operator, pair in found.items()}
    seconds = cpu_medians({name: problem.step(name, alpha) for name in STEPS}, arguments.repeats)
    sizes = [
        "--batch",
        str(arguments.batch),
        "--steps",
        str(arguments.steps),
        "--vocabularies",
        str(vocabulary),
    ]
    alphas = ["--alpha", str(alpha["peaked"]), str(alpha["lapsum"])]
    megabytes = {
        name: peak_megabytes("benchmarks.soft_beam_step", [*sizes, *alphas, "--peak", name]) for name in STEPS
    }
    bounds = {operator: pair[1] for operator, pair in found.items()}
    return {"alpha": alpha, "bound": bounds, "cpu_seconds": seconds, "peak_megabytes": megabytes}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[1000, 10_000, 32_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak", help=argparse.SUPPRESS)  # one step in this process, for its memory
    parser.add_argument("--alpha", type=float, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peak:
        problem = Problem(arguments.vocabularies[0], arguments.batch, arguments.steps)
        print_peak(problem.step(arguments.peak, dict(zip(("peaked", "lapsum"), arguments.alpha))))
        return
    results = {}
    for vocabulary in arguments.vocabularies:
        results[vocabulary] = found = compare(vocabulary, arguments)
        time, memory = found["cpu_seconds"], found["peak_megabytes"]
        print(
            f"V = {vocabulary}, batch {arguments.batch}, {arguments.steps} steps, alpha "
            + ", ".join(
                f"{found['alpha'][o]:.3g} ({o}, bound {found['bound'][o]:.0e})" for o in found["alpha"]
            )
            + f"; cross entropy {time['cross entropy'] * 1e3:.0f} ms CPU"
        )
        for name in STEPS:
            ratio, more = time[name] / time["cross entropy"], memory[name] / memory["cross entropy"]
            print(f"  {name:32s} time {ratio:5.2f}   peak {memory[name]:6.0f} MB {more:5.2f}", flush=True)
    saved = save("soft_beam_step", {"settings": vars(arguments), "by_vocabulary": results})
    print(f"saved {saved}")


if __name__ == "__main__":
    main()
