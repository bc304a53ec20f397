"""What the papers claim, and the comparison that each claim is held against."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from examples._shared.records import Record

ENOUGH = 3
"""Seeds below which nothing is confirmed."""


@dataclass(frozen=True)
class Claim:
    """One system is better than another.

    Attributes:
        paper: who says it, where.
        text: what is said.
        experiment: the module that measures it.
        systems: the one said to be better, and the other, by their names in the record.
        measure: what they are compared by.
        remark: what made it work, what it costs, or how the experiment differs from the paper's.
    """

    paper: str
    text: str
    experiment: str
    systems: tuple[str, str]
    measure: str
    remark: str = ""

    def verdict(self, record: Record | None) -> str:
        """Confirmed: better with every seed of at least three; partly: on average, and with most of them."""
        found = record.differences(*self.systems, self.measure) if record else []
        if not found:
            return "not run"
        mean = statistics.mean(found)
        if len(found) < ENOUGH:
            return f"too few seeds ({'for' if mean > 0 else 'against'})"
        better = sum(one > 0 for one in found)
        if mean <= 0 or 2 * better <= len(found):
            return "not seen here"
        return "confirmed" if better == len(found) else "partly"


SPIGOT = "Peng et al. 2018 (SPIGOT)"
SOFT_BEAM = "Goyal et al. 2018 (soft beam)"
SAMPLING = "Goyal et al. 2017 (differentiable scheduled sampling)"
GLOBAL = "Andor et al. 2016; Goyal, Dyer and Berg-Kirkpatrick 2019 (global normalisation)"
REINMAX = "Liu et al. 2023 (ReinMax)"
POLYNOMIAL, VAE = "examples.estimators.polynomial", "examples.estimators.vae"
LISTOPS = "examples.estimators.listops"
INCREMENTAL, TUNED = "examples.papers.incremental_tagging", "beam 10, tuned lambda"
INCREMENTAL_DATA = "CCG supertags without right context, each system with its own normaliser"
CROSS_ENTROPY = "cross entropy"  # the start of all; continued, it is no better
TEACH = "examples.spacy.teach_parser"
FEW_TREES = "CCG supertags over a parser with 300 trees"


def few_trees(text: str, system: str, other: str, measure: str) -> Claim:
    """A claim about what comes back through hard trees."""
    systems = (f"{system}, word, 300 trees", f"{other}, word, 300 trees")
    return Claim(SPIGOT, text, TEACH, systems, measure, FEW_TREES)


CLAIMS: list[Claim] = [
    few_trees("SPIGOT is better at the end task than a pipeline", "spigot", "pipeline", "accuracy"),
    few_trees("SPIGOT is better at the end task than straight-through", "spigot", "ste", "accuracy"),
    few_trees("(ours) `structured_st` is better at the end task", "structured_st", "pipeline", "accuracy"),
    few_trees("(ours) and its trees are better", "structured_st", "pipeline", "uas"),
    Claim(
        SOFT_BEAM,
        "direct loss is better than cross entropy that goes on, with a beam",
        INCREMENTAL,
        ("direct loss + own history", CROSS_ENTROPY),
        TUNED,
        f"{INCREMENTAL_DATA}; half of it cross entropy on the model's own history",
    ),
    Claim(
        SAMPLING,
        "scheduled sampling is better than cross entropy",
        INCREMENTAL,
        ("scheduled sampling", CROSS_ENTROPY),
        TUNED,
        f"{INCREMENTAL_DATA}; always own words",
    ),
    Claim(
        SAMPLING,
        "the same, decoded greedily",
        INCREMENTAL,
        ("scheduled sampling", CROSS_ENTROPY),
        "greedy",
        INCREMENTAL_DATA,
    ),
    Claim(
        GLOBAL,
        "a global objective is better than cross entropy",
        INCREMENTAL,
        ("global + own history", CROSS_ENTROPY),
        TUNED,
        INCREMENTAL_DATA,
    ),
    Claim(
        GLOBAL,
        "(ours) and than scheduled sampling, in about the same time",
        INCREMENTAL,
        ("global + own history", "scheduled sampling"),
        TUNED,
        INCREMENTAL_DATA,
    ),
    *(
        Claim(
            REINMAX,
            f"polynomial, p = {p}: ReinMax ends lower than straight-through",
            POLYNOMIAL,
            ("reinmax", "st"),
            f"loss, p = {p}",
            "straight-through stops where its expected gradient vanishes",
        )
        for p in ("1.5", "2", "3")
    ),
    *(
        Claim(
            REINMAX,
            f"polynomial, p = {p}: and lower than straight-through Gumbel-softmax",
            POLYNOMIAL,
            ("reinmax", "st_gumbel,tau=0.1"),
            f"loss, p = {p}",
            "tau = 0.1 is the better of two for Gumbel-softmax",
        )
        for p in ("1.5", "2", "3")
    ),
    Claim(
        REINMAX,
        "VAE: ReinMax has a lower negative ELBO than straight-through",
        VAE,
        ("reinmax", "st"),
        "train, nats",
        "scikit-learn's digits, 4 latent variables of 8 values, instead of MNIST",
    ),
    Claim(
        REINMAX,
        "VAE: and than Gumbel-Rao",
        VAE,
        ("reinmax", "gumbel_rao,tau=0.5,samples=10"),
        "train, nats",
        "the same; Gumbel-Rao with ten samples of noise",
    ),
    Claim(
        REINMAX,
        "VAE: a temperature above 1 helps ReinMax",
        VAE,
        ("reinmax,tau=1.3", "reinmax"),
        "train, nats",
        "the differences are inside the spread",
    ),
    *(
        Claim(
            REINMAX,
            f"ListOps: ReinMax is better than {name}",
            LISTOPS,
            ("reinmax", other),
            "last, percent",
            "short expressions and a small model of our own; random trees are as good as most methods",
        )
        for name, other in (
            ("straight-through", "st"),
            ("straight-through Gumbel-softmax", "st_gumbel,tau=0.5"),
            ("Gumbel-Rao", "gumbel_rao,tau=0.5,samples=10"),
        )
    ),
]
