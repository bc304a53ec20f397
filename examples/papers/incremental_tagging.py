"""Tagging without right context: ways to go on from cross entropy, each with its own best normaliser.

    python -m examples.papers.incremental_tagging             # $DIFFDECODE_DATA/ccg_ewt, 4,000 sentences
    python -m examples.papers.incremental_tagging --quick     # a generated language, hardly any training

Where labels are written while words still arrive, a tagger cannot look to the right. A beam could make up for
it, since later words revise earlier labels; but log-probabilities hardly let them (label bias), and scores
that are not normalised do (Andor et al. 2016, section 3; Goyal, Dyer and Berg-Kirkpatrick 2019).

Cross entropy trains a tagger that sees one word at a time, and its letters, to a plateau. It goes on by cross
entropy, by scheduled sampling on its own words, by direct loss, hinge and the global objective, on the hard
beam and on the soft one (these beside cross entropy on the model's own history). Numbers of epochs are such
that all but the first take about the same time; cross entropy gains nothing by more.
"""

from itertools import product

from examples.papers._fairseq import START, Experiment, Search, System
from examples.papers._tagging import Tagging

VALIDATED = "--eval-beam 5"
SOFT_BEAM = f"--criterion soft_beam --score-normalizer 0 --ce-weight 0.5 --ce-history own {VALIDATED}"
SOFTSORT = (
    "--operator softsort --alpha 1 --alpha-growth 1.3 --soft-beam-candidates 24 --soft-beam-tolerance 1"
)
CONTINUED = System(
    f"{START}, continued", "ce", 16, f"--criterion cross_entropy --score-normalizer 0.25 {VALIDATED}"
)
SAMPLING = System(
    "scheduled sampling",
    "sampling",
    12,
    "--criterion differentiable_scheduled_sampling --gold-schedule never --alpha 1 --alpha-growth 1 "
    f"--score-normalizer 0.25 {VALIDATED}",
)
DIRECT = System("direct loss + own history", "direct", 4, f"{SOFT_BEAM} {SOFTSORT}")
HINGE = System("hinge + own history", "hinge", 4, f"{SOFT_BEAM} {SOFTSORT} --objective hinge")
GLOBAL = System("global + own history", "global", 4, f"{SOFT_BEAM} --objective global --soft-beam-size 6")
SOFT_GLOBAL = System(
    "soft global + own history", "soft_global", 4, f"{SOFT_BEAM} {SOFTSORT} --objective soft_global"
)
EXPERIMENT = Experiment(
    module="examples.papers.incremental_tagging",
    about=__doc__,
    material=Tagging("accuracy", sentences=4000, direction="word", letters="suffix"),
    systems=(
        System(START, "start", 20, "--criterion cross_entropy", after=None),
        CONTINUED,
        SAMPLING,
        DIRECT,
        HINGE,
        GLOBAL,
        SOFT_GLOBAL,
    ),
    searches=(
        Search("greedy", 1),
        Search("beam 3, tuned lambda", 3, tuned=True),
        Search("beam 10, lambda 1", 10),
        Search("beam 10, tuned lambda", 10, tuned=True),
    ),
    main="beam 10, tuned lambda",
    pairs=tuple(product((DIRECT.name, GLOBAL.name), (START, CONTINUED.name, SAMPLING.name))),
    data="ccg_ewt",
    quick=("ce", "sampling", "direct", "global"),
)
main = EXPERIMENT.main_program

if __name__ == "__main__":
    main()
