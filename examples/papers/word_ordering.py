"""English sentences from their words in a random order: search-aware training against cross entropy.

    python -m examples.papers.word_ordering                   # $DIFFDECODE_DATA/mt_tatoeba, 12,000 sentences
    python -m examples.papers.word_ordering --quick           # a generated language, hardly any training

Early choices decide what is left for later ones (Wiseman and Rush 2016, section 5.1). fairseq's LSTM with
attention, which is free to write other words, is trained by cross entropy to a plateau, and goes on by the
global objective, minimum risk and direct loss on a soft beam, each beside cross entropy. The normaliser of
the scores is tuned for all: in early experiments that alone gained as much as the best of them.
"""

from itertools import product

from examples.papers._fairseq import START, Experiment, Search, System
from examples.papers._translation import WordOrder

EPOCHS, COST = 4, 10
CONTINUED, AS_LONG = f"{START}, continued", f"{START}, as much time"
GLOBAL, RISK, DIRECT = "global", "minimum risk", "direct loss"
CROSS_ENTROPY = "--criterion cross_entropy"
SOFT_BEAM = "--criterion soft_beam --score-normalizer 0 --ce-weight 0.5"
EXPERIMENT = Experiment(
    module="examples.papers.word_ordering",
    about=__doc__,
    material=WordOrder(pairs=12_000, units=128, vocabulary=2000),
    systems=(
        System(START, "start", 20, CROSS_ENTROPY, after=None, rate=8),
        System(CONTINUED, "ce", EPOCHS, CROSS_ENTROPY),
        System(AS_LONG, "ce_as_long", COST * EPOCHS, CROSS_ENTROPY),
        System(GLOBAL, "global", EPOCHS, f"{SOFT_BEAM} --objective global --soft-beam-size 6"),
        System(
            RISK,
            "risk",
            EPOCHS,
            "--criterion minimum_risk --risk gleu --risk-remove-bpe sentencepiece --num-candidates 4 "
            "--include-reference --sharpness 0.1 --ce-weight 0.5",
        ),
        System(
            DIRECT,
            "direct",
            EPOCHS,
            f"{SOFT_BEAM} --alpha 1 --soft-beam-candidates 24 --soft-beam-tolerance 1",
        ),
    ),
    searches=(Search("greedy", 1), Search("beam 5", 5), Search("beam 5, own lambda", 5, tuned=True)),
    main="beam 5, own lambda",
    pairs=tuple(product((GLOBAL, RISK, DIRECT), (CONTINUED, AS_LONG))),
    data="mt_tatoeba",
    quick=("ce", "global", "direct"),
    seeds=3,
    rates=(0.0003, 0.0006),
    lambdas=(0.0, 0.25, 0.5, 0.75, 1.0),
)
main = EXPERIMENT.main_program

if __name__ == "__main__":
    main()
