"""Direct loss and hinge on a soft beam for CCG supertags (Goyal et al. 2018, Table 1).

    python -m examples.papers.supertagging                    # $DIFFDECODE_DATA/ccg_ewt, 4,000 sentences
    python -m examples.papers.supertagging --sentences 0 --seeds 3
    python -m examples.papers.supertagging --quick            # a generated language, hardly any training

A tagger (bidirectional LSTM, an LSTM over its own labels) is trained by cross entropy to a plateau, and goes
on for as many epochs by more of it, by cross entropy on its own history, and by hinge and direct loss, with
each continuous top-k, alpha fixed and annealed; and by cross entropy for about as much CPU time as direct
loss takes. Without history it cannot be misled by its own labels: what it loses bounds what the others can
gain.
"""

from itertools import product

from examples.papers._fairseq import START, Experiment, System
from examples.papers._tagging import SEARCHES, Tagging

EPOCHS, COST = 4, 4  # an update through the beam takes about four times that of cross entropy
CONTINUED, AS_LONG = f"{START}, continued", f"{START}, as much time"
OWN = "cross entropy on own history"
HARD_OWN = "the same, hard"
BOTH = "direct loss + own history"
CROSS_ENTROPY = "--criterion cross_entropy"
SAMPLING = "--criterion differentiable_scheduled_sampling --gold-schedule never --alpha 1 --alpha-growth 1"
SOFT_BEAM = "--criterion soft_beam --alpha 1 --soft-beam-candidates 24 --soft-beam-tolerance 1"
GROWTH = {"alpha 1": 1.0, "annealed": 1.3}
OBJECTIVES = {"hinge": "hinge", "direct loss": "direct"}


def through_the_beam(objective: str, alpha: str, operator: str) -> System:
    """One of the paper's, with its own operator (``peaked``) or another."""
    options = f"--objective {OBJECTIVES[objective]} --alpha-growth {GROWTH[alpha]} --operator {operator}"
    folder = f"{OBJECTIVES[objective]}_{'annealed' if GROWTH[alpha] > 1 else 'fixed'}_{operator}"
    return System(f"{objective}, {alpha}, {operator}", folder, EPOCHS, f"{SOFT_BEAM} {options}")


SYSTEMS = (
    System("no history", "no_history", 24, f"{CROSS_ENTROPY} --no-label-history", after=None),
    System(START, "start", 24, CROSS_ENTROPY, after=None),
    System(CONTINUED, "ce", EPOCHS, CROSS_ENTROPY),
    System(AS_LONG, "ce_as_long", COST * EPOCHS, CROSS_ENTROPY),
    System(OWN, "own", EPOCHS, SAMPLING),
    System(HARD_OWN, "own_hard", EPOCHS, f"{SAMPLING} --estimator argmax"),
    *(
        through_the_beam(objective, alpha, operator)
        for operator, objective, alpha in product(("peaked", "softsort", "lapsum"), OBJECTIVES, GROWTH)
    ),
    System(BOTH, "direct_own", EPOCHS, f"{SOFT_BEAM} --ce-weight 0.5 --ce-history own"),
)
OURS = "direct loss, annealed, softsort"
EXPERIMENT = Experiment(
    module="examples.papers.supertagging",
    about=__doc__,
    material=Tagging("accuracy", sentences=4000),
    systems=SYSTEMS,
    searches=SEARCHES,
    main="beam 3, own lambda",
    pairs=(
        *product(("direct loss, annealed, peaked", OURS, OWN, BOTH), (CONTINUED, AS_LONG)),
        ("direct loss, annealed, peaked", "hinge, annealed, peaked"),
        (START, "no history"),
    ),
    data="ccg_ewt",
    rates=(0.008, 0.016),  # with less, cross entropy is far from its plateau after 24 epochs
    quick=("no_history", "ce", "own", "hinge_fixed_peaked", "direct_own"),
    paper={
        START: {"greedy": 80.15, "beam 3": 82.17, "soft beam 3": 81.62},
        "hinge, annealed, peaked": {"beam 3": 83.03, "soft beam 3": 82.82},
        "hinge, alpha 1, peaked": {"beam 3": 83.02, "soft beam 3": 82.49},
        "direct loss, alpha 1, peaked": {"beam 3": 83.23, "soft beam 3": 82.58},
        "direct loss, annealed, peaked": {"beam 3": 85.69, "soft beam 3": 85.58},
    },
)
main = EXPERIMENT.main_program

if __name__ == "__main__":
    main()
