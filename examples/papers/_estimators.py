"""One spelling of all estimators (``reinmax``, ``st,tau=1.3``), and the options of every experiment."""

import argparse
import ast
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diffdecode.categorical import ESTIMATORS, draw, reinforce, rloo, sample, unbiased_reinmax
from examples._shared.commands import Help, add_experiment, device
from examples._shared.records import Record, by_seed, typed

SCORE_FUNCTION = {"reinforce", "rloo"}
SEEDS = 3
QUICK = ["reinmax", "st", "rloo,samples=2"]


@dataclass(frozen=True)
class Method:
    """An estimator and its options, from its spelling on the command line."""

    name: str
    options: dict

    @classmethod
    def parse(cls, spelling: str) -> "Method":
        """Raises ValueError for an unknown name, or an option that is no number."""
        name, *pairs = spelling.split(",")
        if name not in SCORE_FUNCTION | {"unbiased_reinmax"} | set(ESTIMATORS):
            raise ValueError(
                f"unknown method {name!r}; there are: {', '.join(ESTIMATORS)}, reinforce, rloo, "
                "unbiased_reinmax"
            )
        options = {}
        for pair in pairs:
            key, _, value = pair.partition("=")
            try:
                options[key] = value if value == "p" else ast.literal_eval(value)
            except (SyntaxError, ValueError):
                raise ValueError(f"{key}={value} in {spelling!r}: the value is no number") from None
        return cls(name, options)

    def expected_loss(self, logits: Tensor, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
        """Losses whose gradient with respect to ``logits`` is the estimate.

        Args:
            logits: ``[B, n, V]``, n independent choices per instance.
            loss_of: from decisions ``[K, B, n, V]`` to losses ``[K, B]``.

        Returns:
            ``[B]``, the mean over the K samples.
        """
        if self.name == "unbiased_reinmax":
            return unbiased_reinmax(logits, loss_of)
        if self.name in SCORE_FUNCTION:
            index, log_probs = draw(logits, self.options.get("samples", 1))
            losses = loss_of(F.one_hot(index, logits.shape[-1]).to(logits.dtype))
            return {"reinforce": reinforce, "rloo": rloo}[self.name](losses, log_probs.sum(-1)).mean(0)
        decision = sample(logits, self.name, **self.options).one_hot
        return loss_of(decision if ESTIMATORS[self.name].index_has_k else decision[None]).mean(0)


def arguments(doc: str, name: str, methods: list[str], others: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Parser with the options of every experiment.

    Args:
        doc: what the help says.
        name: of the experiment.
        methods: its default methods.
        others: what it takes as a method besides estimators.
    """

    def spelling(text: str) -> str:
        try:
            if text not in others:
                Method.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    parser = argparse.ArgumentParser(
        prog=f"python -m examples.papers.{name}",
        description=doc,
        formatter_class=Help,
    )
    add_experiment(parser, name, SEEDS)
    parser.add_argument(
        "--methods", nargs="+", type=spelling, default=methods, help="e.g. reinmax st,tau=1.3 rloo,samples=4"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    return parser


def prepare(options: argparse.Namespace) -> dict[str, str]:
    """Let torch work where the options say; what cells that are not on the CPU have to say about it.

    With ``--quick``, one seed and few methods.

    Raises ValueError if there is no GPU where one is asked for.
    """
    torch.set_num_threads(options.threads)
    if options.quick:
        options.seeds, options.methods = 1, QUICK
    chosen = device(options.device)
    if chosen == "cpu":
        return {}
    torch.set_default_device(chosen)
    return {"device": chosen}


def record(
    name: str,
    argv: Sequence[str] | None,
    better: int,
    measures: dict[str, Callable[[dict], float]],
    by_method: dict[str, list[dict]],
) -> Record:
    """What an experiment has measured in cells of one method and one seed each.

    Args:
        name: its module.
        argv: its command line.
        better: whether more of what is measured is better (1) or less (-1).
        measures: what is read of a cell, by the name of the measure.
        by_method: the cells of each method, in the order of the seeds.
    """
    return Record(
        name,
        typed(name, argv),
        dict.fromkeys(measures, better),
        {
            method: {measure: by_seed(map(read, cells)) for measure, read in measures.items()}
            for method, cells in by_method.items()
        },
        {method: statistics.mean(cell["seconds"] for cell in cells) for method, cells in by_method.items()},
    )
