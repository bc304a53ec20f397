"""German to English: scheduled sampling (Goyal et al. 2017, Table 1), minimum risk and direct loss.

    python -m examples.papers.translation                     # $DIFFDECODE_DATA/mt_tatoeba, 30,000 pairs
    python -m examples.papers.translation --systems ce risk --pairs 10000
    python -m examples.papers.translation --quick             # a generated language, hardly any training

fairseq's LSTM with attention is trained by cross entropy to a plateau, and goes on for as many epochs by more
of it; by scheduled sampling (the best word or a sample, hard or soft, alpha fixed or annealed, and ReinMax);
by minimum risk (Shen et al. 2016); and by direct loss on a soft beam (Goyal et al. 2018): the last two beside
cross entropy. An update of minimum risk takes about ten times that of cross entropy.
"""

from itertools import product

from examples.papers._fairseq import START, Experiment, Search, System
from examples.papers._translation import Translation

EPOCHS, COST = 4, 10
CONTINUED, AS_LONG = f"{START}, continued", f"{START}, as much time"
SOFT, RISK, DIRECT = "scheduled sampling, soft, greedy, annealed", "minimum risk", "direct loss"
CROSS_ENTROPY = "--criterion cross_entropy"
SAMPLING = (
    f"--criterion differentiable_scheduled_sampling --alpha 1 --gold-schedule linear --gold-decay {EPOCHS}"
)
GROWTH = {"alpha 1": "--alpha-growth 1", "annealed": "--alpha-growth 1.5"}
MINIMUM_RISK = (
    "--criterion minimum_risk --risk gleu --risk-remove-bpe sentencepiece --num-candidates 4 "
    "--include-reference --sharpness 0.1 --ce-weight 0.5"
)
SYSTEMS = (
    System(START, "start", 12, CROSS_ENTROPY, after=None, rate=8),
    System(CONTINUED, "ce", EPOCHS, CROSS_ENTROPY),
    System(AS_LONG, "ce_as_long", COST * EPOCHS, CROSS_ENTROPY),
    System("scheduled sampling, hard, greedy", "sampling_argmax", EPOCHS, f"{SAMPLING} --estimator argmax"),
    System("scheduled sampling, hard, sample", "sampling_sample", EPOCHS, f"{SAMPLING} --estimator sample"),
    *(
        System(
            f"scheduled sampling, soft, {way}, {name}",
            f"sampling_{estimator}_{number}",
            EPOCHS,
            f"{SAMPLING} --estimator {estimator} {growth}",
        )
        for (way, estimator), (number, (name, growth)) in product(
            {"greedy": "soft", "sample": "gumbel_soft"}.items(), enumerate(GROWTH.items())
        )
    ),
    System("scheduled sampling, ReinMax", "sampling_reinmax", EPOCHS, f"{SAMPLING} --estimator reinmax"),
    System(RISK, "risk", EPOCHS, MINIMUM_RISK),
    System(
        DIRECT,
        "direct",
        EPOCHS,
        "--criterion soft_beam --ce-weight 0.5 --alpha 1 --soft-beam-candidates 24 --soft-beam-tolerance 1",
    ),
)
EXPERIMENT = Experiment(
    module="examples.papers.translation",
    about=__doc__,
    material=Translation(pairs=30_000, units=256, vocabulary=4000),
    systems=SYSTEMS,
    searches=(Search("greedy", 1), Search("beam 4", 4), Search("beam 4, own lambda", 4, tuned=True)),
    main="beam 4, own lambda",
    pairs=tuple(
        product((SOFT, "scheduled sampling, soft, sample, annealed", RISK, DIRECT), (CONTINUED, AS_LONG))
    ),
    data="mt_tatoeba",
    quick=("ce", "sampling_gumbel_soft_1", "risk", "direct"),
    seeds=3,
    rates=(0.0003, 0.0006),
    lambdas=(0.5, 0.75, 1.0),
    paper={
        START: {"greedy": 20.35},
        "scheduled sampling, hard, greedy": {"greedy": 20.52},
        "scheduled sampling, hard, sample": {"greedy": 20.40},
        "scheduled sampling, soft, greedy, alpha 1": {"greedy": 21.32},
        SOFT: {"greedy": 21.28},
        "scheduled sampling, soft, sample, alpha 1": {"greedy": 20.48},
        "scheduled sampling, soft, sample, annealed": {"greedy": 21.36},
    },
)
main = EXPERIMENT.main_program

if __name__ == "__main__":
    main()
