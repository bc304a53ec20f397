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
        figures: the paper's, of the two.
    """

    paper: str
    text: str
    experiment: str
    systems: tuple[str, str]
    measure: str
    remark: str = ""
    figures: str = ""

    def verdict(self, record: Record | None) -> str:
        """Confirmed: better with every seed of at least three; partly: on average, and with most of them.

        Neither, where an interval is known and holds 0.
        """
        found = record.differences(*self.systems, self.measure) if record else []
        if not found:
            return "not run"
        mean = statistics.mean(found)
        if len(found) < ENOUGH:
            return f"too few seeds ({'for' if mean > 0 else 'against'})"
        better = sum(one > 0 for one in found)
        low = min(record.interval(*self.systems, self.measure), default=mean)
        if low <= 0 or mean <= 0 or 2 * better <= len(found):
            return "not seen here"
        return "confirmed" if better == len(found) else "partly"


SPIGOT = "Peng et al. 2018 (SPIGOT)"
SOFT_BEAM = "Goyal et al. 2018 (soft beam)"
SAMPLING = "Goyal et al. 2017 (differentiable scheduled sampling)"
GLOBAL = "Andor et al. 2016; Goyal, Dyer and Berg-Kirkpatrick 2019 (global normalisation)"
RISK = "Shen et al. 2016 (minimum risk)"
REINMAX = "Liu et al. 2023 (ReinMax)"
CROSS_ENTROPY = "cross entropy"
CONTINUED, AS_LONG = f"{CROSS_ENTROPY}, continued", f"{CROSS_ENTROPY}, as much time"
POLYNOMIAL, VAE = "examples.papers.polynomial", "examples.papers.vae"
LISTOPS = "examples.papers.listops"
INCREMENTAL, TUNED = "examples.papers.incremental_tagging", "beam 10, tuned lambda"
INCREMENTAL_DATA = "CCG supertags without right context, each system with its own normaliser"
TEACH = "examples.papers.teach_parser"
FEW_TREES = "CCG supertags over a parser with 300 trees"
SYNTAX, SENTIMENT = "examples.papers.syntax_semantics", "examples.papers.sentiment"
TREES = "examples.papers.tree_sentiment"
SUPERTAGS, NAMES = "examples.papers.supertagging", "examples.papers.ner"
TRANSLATION, ORDER = "examples.papers.translation", "examples.papers.word_ordering"
BEAM = "beam 3, own lambda"
ANNEALED = "direct loss, annealed, peaked"
SOFT = "scheduled sampling, soft, greedy, annealed"
SAMPLED = "scheduled sampling, soft, sample, annealed"


def few_trees(text: str, system: str, other: str, measure: str) -> Claim:
    """A claim about what comes back through hard trees."""
    systems = (f"{system}, word, 300 trees", f"{other}, word, 300 trees")
    return Claim(SPIGOT, text, TEACH, systems, measure, FEW_TREES)


def through_syntax(text: str, system: str, other: str, measure: str, figures: str = "") -> Claim:
    """A claim of Table 1 or of section 5."""
    remark = "DM of Wikipedia, trees of EWT; both from scratch"
    return Claim(SPIGOT, f"syntax, semantics: {text}", SYNTAX, (system, other), measure, remark, figures)


def in_sentiment(text: str, system: str, other: str, figures: str = "") -> Claim:
    """A claim of Table 2."""
    return Claim(SPIGOT, f"sentiment: {text}", SENTIMENT, (system, other), "accuracy", "SST, dev", figures)


def trees_in_sentiment(text: str, system: str, other: str, measure: str = "accuracy") -> Claim:
    """A claim about trees for a classifier, which is ours."""
    remark = "SST, dev, trees of EWT"
    return Claim(SPIGOT, f"(ours) sentiment: {text}", TREES, (system, other), measure, remark)


def in_supertags(text: str, system: str, other: str, figures: str = "") -> Claim:
    """A claim of the soft beam's Table 1."""
    remark = "CCG categories of EWT, each system with its own normaliser"
    return Claim(SOFT_BEAM, f"supertags: {text}", SUPERTAGS, (system, other), BEAM, remark, figures)


def in_names(
    paper: str, text: str, system: str, other: str, figures: str = "", measure: str = "greedy"
) -> Claim:
    """A claim about named entities."""
    return Claim(paper, f"names: {text}", NAMES, (system, other), measure, "GermEval, 12 types", figures)


def in_translation(paper: str, text: str, system: str, other: str, figures: str = "") -> Claim:
    """A claim about translation, decoded greedily."""
    remark = "Tatoeba, German to English"
    return Claim(paper, f"translation: {text}", TRANSLATION, (system, other), "greedy", remark, figures)


CLAIMS: list[Claim] = [
    through_syntax("trees help a semantic parser", "pipeline", "no syntax", "DM LF", "90.8, 89.4"),
    through_syntax("SPIGOT is better than the pipeline", "spigot", "pipeline", "DM LF", "91.6, 90.8"),
    through_syntax("and than straight-through", "spigot", "ste", "DM LF", "91.6, 91.1"),
    through_syntax("and than structured attention", "spigot", "structured attention", "DM LF", "91.6, 90.6"),
    through_syntax("straight-through is better than the pipeline", "ste", "pipeline", "DM LF", "91.1, 90.8"),
    through_syntax("SPIGOT costs syntax less than straight-through", "spigot", "ste", "UAS", "92.5, 91.8"),
    through_syntax("but it does cost some", "pipeline", "spigot", "UAS", "92.9, 92.5"),
    through_syntax("(ours) exact projections are better", "spigot_exact", "spigot", "DM LF"),
    through_syntax(
        "(ours) `structured_st` is better than the pipeline", "structured_st", "pipeline", "DM LF"
    ),
    through_syntax("(ours) and its trees are better", "structured_st", "pipeline", "UAS"),
    in_sentiment("semantic graphs help", "pipeline", "BiLSTM", "85.7, 84.8"),
    in_sentiment("SPIGOT is better than the pipeline", "spigot", "pipeline", "86.3, 85.7"),
    in_sentiment("and than straight-through", "spigot", "ste", "86.3, 85.4"),
    in_sentiment("(ours) `structured_st` is better than the pipeline", "structured_st", "pipeline"),
    trees_in_sentiment("syntactic trees help", "pipeline", "BiLSTM"),
    trees_in_sentiment("SPIGOT through trees is better than the pipeline", "spigot", "pipeline"),
    trees_in_sentiment("`structured_st` through trees is better", "structured_st", "pipeline"),
    trees_in_sentiment("and its trees are better", "structured_st", "pipeline", "UAS"),
    few_trees("SPIGOT is better at the end task than a pipeline", "spigot", "pipeline", "accuracy"),
    few_trees("SPIGOT is better at the end task than straight-through", "spigot", "ste", "accuracy"),
    few_trees("and its trees are no worse than the pipeline's", "spigot", "pipeline", "uas"),
    few_trees("(ours) `structured_st` is better at the end task", "structured_st", "pipeline", "accuracy"),
    few_trees("(ours) and its trees are better", "structured_st", "pipeline", "uas"),
    in_supertags("direct loss is better than where it starts", ANNEALED, CROSS_ENTROPY, "85.69, 82.17"),
    in_supertags("and than cross entropy that goes on", ANNEALED, CONTINUED),
    in_supertags("and than that for as much time", ANNEALED, AS_LONG),
    in_supertags(
        "annealing alpha is better than alpha 1", ANNEALED, "direct loss, alpha 1, peaked", "85.69, 83.23"
    ),
    in_supertags("direct loss is better than hinge", ANNEALED, "hinge, annealed, peaked", "85.69, 83.03"),
    in_supertags("(ours) with `softsort` it is better", "direct loss, annealed, softsort", ANNEALED),
    in_supertags(
        "(ours) with own history it is better than cross entropy that goes on",
        "direct loss + own history",
        CONTINUED,
    ),
    in_supertags("(ours) and than that for as much time", "direct loss + own history", AS_LONG),
    in_names(
        SOFT_BEAM,
        "direct loss is better than where it starts",
        "direct loss, annealed",
        CROSS_ENTROPY,
        "51.86, 46.22",
        "beam 3",
    ),
    in_names(
        SOFT_BEAM, "and than cross entropy that goes on", "direct loss, annealed", CONTINUED, measure=BEAM
    ),
    in_names(
        SOFT_BEAM,
        "hinge is worse than where it starts",
        CROSS_ENTROPY,
        "hinge, annealed",
        "46.22, 41.10",
        "beam 3",
    ),
    in_names(
        SOFT_BEAM,
        "(ours) a cost of spans is better than the doubled O",
        "direct loss, annealed, cost of spans",
        "direct loss, annealed",
        measure=BEAM,
    ),
    Claim(
        SOFT_BEAM,
        "direct loss is better than cross entropy that goes on, with a beam",
        INCREMENTAL,
        ("direct loss + own history", CONTINUED),
        TUNED,
        f"{INCREMENTAL_DATA}; half of it cross entropy on the model's own history",
    ),
    Claim(
        SAMPLING,
        "scheduled sampling is better than cross entropy that goes on",
        INCREMENTAL,
        ("scheduled sampling", CONTINUED),
        TUNED,
        f"{INCREMENTAL_DATA}; always own words",
    ),
    Claim(
        SAMPLING,
        "the same, decoded greedily",
        INCREMENTAL,
        ("scheduled sampling", CONTINUED),
        "greedy",
        INCREMENTAL_DATA,
    ),
    Claim(
        GLOBAL,
        "a global objective is better than cross entropy that goes on",
        INCREMENTAL,
        ("global + own history", CONTINUED),
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
    in_names(SAMPLING, "soft decisions are better than cross entropy", SOFT, CROSS_ENTROPY, "51.43, 49.43"),
    in_names(SAMPLING, "and than cross entropy that goes on", SOFT, CONTINUED),
    in_names(SAMPLING, "and than hard ones", SOFT, "scheduled sampling, hard, greedy", "51.43, 49.75"),
    in_names(
        SAMPLING, "gentle decay is better than own labels always", f"{SOFT}, k = 100", SOFT, "56.33, 54.83"
    ),
    in_translation(
        SAMPLING, "soft samples are better than cross entropy", SAMPLED, CROSS_ENTROPY, "21.36, 20.35"
    ),
    in_translation(SAMPLING, "and than cross entropy that goes on", SAMPLED, CONTINUED),
    in_translation(
        SAMPLING, "and than hard ones", SAMPLED, "scheduled sampling, hard, sample", "21.36, 20.40"
    ),
    in_translation(RISK, "minimum risk is better than cross entropy that goes on", "minimum risk", CONTINUED),
    in_translation(RISK, "and than that for as much time", "minimum risk", AS_LONG),
    Claim(
        GLOBAL,
        "(ours) word order: a global objective is better than cross entropy that goes on",
        ORDER,
        ("global", CONTINUED),
        "beam 5, own lambda",
        "Tatoeba, English, free to write other words",
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
