"""Bias and variance of the estimators on problems whose gradient is known exactly.

    python -m examples.papers.bias_variance [--problems quadratic-8x4 ...] [--samples 20000]

Per method: cosine between mean estimate and exact gradient; relative bias |mean - exact| / |exact|, with the
Monte Carlo error of the mean beside it; relative standard deviation of one estimate; and the "signal" of one
estimate, its expected inner product with the exact direction over its root mean square length (1 would be
perfect).  Exact gradients by enumeration of every outcome, or in closed form where the loss is a sum over
variables or a quadratic.  Methods with K samples call the loss K times per estimate.
"""

import sys
from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from examples._shared.commands import one_line_errors
from examples._shared.pictures import save_curves
from examples._shared.runs import Checkpoint, run_grid
from examples._shared.tables import save_table
from examples.papers._estimators import Method, arguments, prepare
from examples.papers._polynomial import expected_loss, polynomial

METHODS = [
    "reinmax",
    "reinmax,tau=1.3",
    "reinmax_loo",
    "unbiased_reinmax",
    "st",
    "st,tau=1.5",
    "st_gumbel",
    "st_gumbel,tau=0.5",
    "st_gumbel,tau=0.1",
    "gumbel_rao,tau=0.5,samples=10",
    "gumbel_rao,tau=0.1,samples=10",
    "gapped_st,tau=0.7",
    "gapped_st,tau=0.7,gap=p",
    "soft",
    "reinforce",
    "rloo,samples=2",
    "rloo,samples=4",
]
PROBLEMS = [
    "polynomial-1.5",
    "polynomial-2",
    "polynomial-3",
    "quadratic-8x4",
    "quadratic-8x16",
    "network-4x8-scale-1",
    "network-4x8-scale-2",
]


class Problem(NamedTuple):
    """A loss ``[..., n, V] -> [...]``, scores ``[n, V]``, and the exact expected loss of any scores."""

    scores: Tensor
    loss: Callable[[Tensor], Tensor]
    expected: Callable[[Tensor], Tensor]

    def exact_gradient(self) -> Tensor:
        scores = self.scores.clone().requires_grad_()
        (grad,) = torch.autograd.grad(self.expected(scores), scores)
        return grad


def polynomial_problem(exponent: float, variables: int = 32) -> Problem:
    """Independent binary variables; the loss is a sum over them."""
    scores = torch.randn(variables, 2)
    return Problem(
        scores,
        lambda z: polynomial(z, exponent),
        lambda theta: expected_loss(theta.softmax(-1)[:, 0], exponent).mean(),
    )


def quadratic_problem(n: int, V: int) -> Problem:
    """Random quadratic form over all pairs of variables, plus a linear part."""
    scores, square, linear = torch.randn(n, V), torch.randn(n * V, n * V) / n**0.5, torch.randn(n * V)
    square = square + square.T
    across = square.clone()  # without the pairs inside one variable, where E[x x^T] = diag(p), not p p^T
    for i in range(n):
        across[i * V : (i + 1) * V, i * V : (i + 1) * V] = 0

    def loss(z: Tensor) -> Tensor:
        x = z.flatten(-2)
        return ((x @ square) * x).sum(-1) + x @ linear

    def expected(theta: Tensor) -> Tensor:
        p = theta.softmax(-1).flatten()
        return p @ across @ p + p @ square.diagonal() + p @ linear

    return Problem(scores, loss, expected)


def network_problem(n: int, V: int, scale: float) -> Problem:
    """Tanh network with two hidden layers; the larger the scale, the more it saturates."""
    first, second = torch.randn(n * V, 64) / 2 * scale, torch.randn(64, 64) / 8 * scale * 1.5
    last, scores = torch.randn(64) / 4, torch.randn(n, V)

    def loss(z: Tensor) -> Tensor:
        return torch.tanh(torch.tanh(z.flatten(-2) @ first) @ second) @ last

    outcomes = F.one_hot(torch.tensor(list(product(range(V), repeat=n))), V).double()
    losses = loss(outcomes)

    def expected(theta: Tensor) -> Tensor:
        return (outcomes * theta.log_softmax(-1)).sum((-2, -1)).exp() @ losses

    return Problem(scores, loss, expected)


def make_problem(name: str) -> Problem:
    """Always the same random problem for a name, in float64."""
    kind, *numbers = name.replace("x", "-").replace("-scale", "").split("-")
    makers = {
        "polynomial": lambda p: polynomial_problem(float(p)),
        "quadratic": lambda n, V: quadratic_problem(int(n), int(V)),
        "network": lambda n, V, scale: network_problem(int(n), int(V), float(scale)),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        torch.set_default_dtype(torch.float64)
        try:
            return makers[kind](*numbers)
        finally:
            torch.set_default_dtype(torch.float32)


def measure(problem: Problem, method: Method, samples: int, chunk: int = 500) -> dict[str, float]:
    """Statistics of ``samples`` independent estimates of the gradient."""
    first, second = torch.zeros_like(problem.scores), torch.zeros_like(problem.scores)
    for start in range(0, samples, chunk):
        rows = min(chunk, samples - start)
        scores = problem.scores.expand(rows, *problem.scores.shape).clone().requires_grad_()
        (grad,) = torch.autograd.grad(method.expected_loss(scores, problem.loss).sum(), scores)
        first += grad.sum(0) / samples
        second += grad.square().sum(0) / samples
    exact = problem.exact_gradient()
    length = exact.norm()
    deviation = (second - first**2).clamp(min=0).sum().sqrt() / length
    inner = (first * exact).sum() / length
    statistics = {
        "cosine": inner / first.norm(),
        "bias": (first - exact).norm() / length,
        "bias_error": deviation / samples**0.5,
        "deviation": deviation,
        "signal": inner / second.sum().sqrt(),
    }
    return {name: float(value) for name, value in statistics.items()}


def run_cell(cell: dict, _: Checkpoint) -> dict:
    """Statistics of one method on one problem."""
    return measure(make_problem(cell["problem"]), Method.parse(cell["method"]), cell["samples"])


@one_line_errors("bias_variance")
def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = arguments(__doc__, "bias_variance", METHODS)
    parser.add_argument("--problems", nargs="+", default=PROBLEMS)
    parser.add_argument("--samples", type=int, default=20_000, help="independent estimates per cell")
    options = parser.parse_args(argv)
    if options.quick:
        options.samples, options.problems = 200, options.problems[:2]
    where = prepare(options)
    cells = [
        {"problem": problem, "method": method, "samples": options.samples, **where}
        for problem in options.problems
        for method in options.methods
    ]
    results = {(r["problem"], r["method"]): r for r in run_grid(options.out, cells, run_cell)}
    rows = [
        [
            method,
            *(
                "{cosine:.3f} {bias:.2f}±{bias_error:.2f} {deviation:.1f} {signal:.2f}".format(**r)
                for r in found
            ),
        ]
        for method in options.methods
        if (found := [results[problem, method] for problem in options.problems])
    ]
    caption = (
        f"Cosine of the mean, bias ± its error, deviation, signal (see --help); {options.samples} estimates."
    )
    save_table(options.out / "table.md", caption, ["method", *options.problems], rows)
    for value, label in (("bias", "relative bias"), ("signal", "signal of one estimate")):
        curves = {m: [results[p, m][value] for p in options.problems] for m in options.methods}
        plot = options.out / f"{value}.png"
        save_curves(plot, "Gradient estimators", "problem", label, curves, x=options.problems)


if __name__ == "__main__":
    main(sys.argv[1:])
