"""Polynomial programming (Liu et al. 2023): minimise E |X - 0.45|^p / L over L binary latent variables.

    python -m examples.papers.polynomial [--exponents 1.5 2 3] [--methods reinmax st ...] [--seeds 3]

Settings of the authors' script: L = 128, batch 64, Adam 1e-3, 40 epochs of 200 steps, scores uniform in
[-0.01, 0.01].  The optimum chooses X = 0 everywhere, 0.45^p; straight-through stalls where its expected
gradient vanishes, at q / (1 - q) = (0.45 / 0.55)^(p - 1), q = p(X = 1).  All seeds of a cell run in one.
"""

import argparse
import sys

import torch
from torch import Tensor

from examples._shared.commands import one_line_errors
from examples._shared.pictures import save_curves
from examples._shared.records import Record, by_seed, typed
from examples._shared.runs import Checkpoint, run_grid
from examples._shared.tables import save_table, spread
from examples.papers._estimators import Method, arguments, prepare
from examples.papers._polynomial import CENTRE, expected_loss, polynomial

STEPS = 200
NAME = "examples.papers.polynomial"
METHODS = [
    "reinmax",
    "reinmax,tau=1.5",
    "reinmax_loo",
    "st",
    "st_gumbel",
    "st_gumbel,tau=0.1",
    "gumbel_rao,tau=0.1,samples=4",
    "gapped_st,tau=0.5",
    "rloo,samples=4",
]


def optimum(exponent: float) -> float:
    """Loss when every X is 0."""
    return CENTRE**exponent


def st_fixed_point(exponent: float) -> float:
    """Loss at which the expected straight-through gradient is zero: (1-q) f'(0) + q f'(1) = 0."""
    odds = (CENTRE / (1 - CENTRE)) ** (exponent - 1)
    return expected_loss(odds / (1 + odds), exponent)


class Scores(torch.nn.Module):
    """Scores ``[S, L, 2]``: one problem per seed."""

    def __init__(self, seeds: int, variables: int):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.empty(seeds, variables, 2).uniform_(-0.01, 0.01))

    def losses(self, batch: int, exponent: float, method: Method) -> Tensor:
        """``[S, batch]``."""
        S, L, _ = self.theta.shape
        rows = self.theta.unsqueeze(1).expand(S, batch, L, 2).reshape(S * batch, L, 2)
        return method.expected_loss(rows, lambda decision: polynomial(decision, exponent)).view(S, batch)


def run_cell(cell: dict, checkpoint: Checkpoint) -> dict:
    """Minimise with one method, all seeds at once; loss after every epoch."""
    method, exponent = Method.parse(cell["method"]), cell["exponent"]
    scores = Scores(cell["seeds"], cell["variables"])
    optimizer = torch.optim.Adam(scores.parameters(), lr=1e-3)

    def run_epoch(_: int) -> list[float]:
        total = torch.zeros(cell["seeds"])
        for _ in range(STEPS):
            losses = scores.losses(64, exponent, method).mean(1)
            optimizer.zero_grad()
            losses.sum().backward()
            optimizer.step()
            total += losses.detach() / STEPS
        return total.tolist()

    history = checkpoint.epochs(cell["epochs"], run_epoch, scores=scores, optimizer=optimizer)
    exact = expected_loss(scores.theta.detach().softmax(-1)[..., 0], exponent).mean(-1)
    return {"history": history, "expected": exact.tolist()}


def record(
    options: argparse.Namespace, argv: list[str] | None, results: dict[tuple[float, str], dict]
) -> Record:
    """Losses of the last epoch, by method, exponent and seed."""
    measures = {p: f"loss, p = {p:g}" for p in options.exponents}
    return Record(
        NAME,
        typed(NAME, argv),
        dict.fromkeys(measures.values(), -1),
        {m: {measures[p]: by_seed(results[p, m]["history"][-1]) for p in measures} for m in options.methods},
        {m: sum(results[p, m]["seconds"] for p in measures) for m in options.methods},
    )


@one_line_errors("polynomial")
def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = arguments(__doc__, "polynomial", METHODS)
    parser.add_argument("--exponents", type=float, nargs="+", default=[1.5, 2.0, 3.0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--variables", type=int, default=128, help="L")
    options = parser.parse_args(argv)
    if options.quick:
        options.epochs, options.variables, options.exponents = 2, 8, [2.0]
    sizes = prepare(options) | {
        "epochs": options.epochs,
        "variables": options.variables,
        "seeds": options.seeds,
    }
    cells = [
        {"problem": f"p={p:g}", "exponent": p, "method": method, **sizes}
        for p in options.exponents
        for method in options.methods
    ]
    results = {(r["exponent"], r["method"]): r for r in run_grid(options.out, cells, run_cell)}
    rows = [["optimum", *(f"{optimum(p):.5f}" for p in options.exponents), ""]]
    rows.append(["fixed point of st", *(f"{st_fixed_point(p):.5f}" for p in options.exponents), ""])
    for method in options.methods:
        found = [results[p, method] for p in options.exponents]
        losses = [spread(r["history"][-1], 5) for r in found]
        rows.append([method, *losses, f"{sum(r['seconds'] for r in found):.0f}"])
    caption = f"Mean loss in epoch {options.epochs}, {options.seeds} seeds (mean ± standard deviation)."
    header = ["method", *(f"p = {p:g}" for p in options.exponents), "CPU s"]
    save_table(options.out / "table.md", caption, header, rows)
    record(options, argv, results).leave(options.out)
    for p in options.exponents:
        curves = {
            method: [sum(epoch) / len(epoch) for epoch in results[p, method]["history"]]
            for method in options.methods
        }
        title = f"Polynomial programming, p = {p:g}, L = {options.variables}"
        levels = {"optimum": optimum(p), "fixed point of st": st_fixed_point(p)}
        save_curves(options.out / f"p={p:g}.png", title, "epoch", "loss", curves, levels)


if __name__ == "__main__":
    main(sys.argv[1:])
