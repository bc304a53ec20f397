"""Named entities: the soft beam (Goyal et al. 2018, Table 2) and scheduled sampling (2017, Tables 1 and 2).

    python -m examples.papers.ner                         # $DIFFDECODE_DATA/ner_germeval14, 6,000 sentences
    python -m examples.papers.ner --sentences 0 --seeds 3
    python -m examples.papers.ner --quick                 # a generated language, hardly any training

A tagger (bidirectional LSTM, an LSTM over its own labels) is trained by cross entropy to a plateau, and goes
on for as many epochs by more of it; by scheduled sampling that always feeds own labels (hard or soft, the
best or a sample, alpha fixed or annealed) or gold ones less and less (Table 2, k); and by hinge and direct
loss, with the paper's cost, in which a wrong O counts twice, with Hamming's, and with that of spans. The
measure is F1 of spans; 12 types, German. In the table of 2017 the figure of cross entropy is 49.43.
"""

from itertools import product

from examples.papers._fairseq import START, Experiment, System
from examples.papers._tagging import SEARCHES, Tagging

EPOCHS, COST = 4, 4  # an update through the beam takes about four times that of cross entropy
CONTINUED, AS_LONG = f"{START}, continued", f"{START}, as much time"
CROSS_ENTROPY = "--criterion cross_entropy"
SAMPLING = "--criterion differentiable_scheduled_sampling --alpha 1"
ALWAYS = f"{SAMPLING} --gold-schedule never"
SOFT_BEAM = "--criterion soft_beam --alpha 1 --operator peaked"
GROWTH = {"alpha 1": "--alpha-growth 1", "annealed": "--alpha-growth 1.3"}
DOUBLED = "--wrong-label-costs O=2"
SOFT = "scheduled sampling, soft, greedy, annealed"
HARD = "scheduled sampling, hard, greedy"
DIRECT = "direct loss, annealed"
SPANS = "direct loss, annealed, cost of spans"
BOTH = "direct loss, cost of spans + own history"


def decayed(k: int) -> System:
    """Gold labels with a probability that decays with strength k."""
    options = f"{SAMPLING} {GROWTH['annealed']} --gold-schedule inverse_sigmoid --gold-decay {k}"
    return System(f"{SOFT}, k = {k}", f"sampling_k{k}", EPOCHS, options)


SYSTEMS = (
    System("no history", "no_history", 20, f"{CROSS_ENTROPY} --no-label-history", after=None),
    System(START, "start", 20, CROSS_ENTROPY, after=None),
    System(CONTINUED, "ce", EPOCHS, CROSS_ENTROPY),
    System(AS_LONG, "ce_as_long", COST * EPOCHS, CROSS_ENTROPY),
    *(
        System(
            f"hinge, {name}", f"hinge_{number}", EPOCHS, f"{SOFT_BEAM} --objective hinge {DOUBLED} {growth}"
        )
        for number, (name, growth) in enumerate(GROWTH.items())
    ),
    *(
        System(f"direct loss, {name}", f"direct_{number}", EPOCHS, f"{SOFT_BEAM} {DOUBLED} {growth}")
        for number, (name, growth) in enumerate(GROWTH.items())
    ),
    System(f"{DIRECT}, Hamming cost", "direct_hamming", EPOCHS, f"{SOFT_BEAM} {GROWTH['annealed']}"),
    System(SPANS, "direct_spans", EPOCHS, f"{SOFT_BEAM} {GROWTH['annealed']} --cost spans"),
    System(
        BOTH,
        "direct_spans_own",
        EPOCHS,
        f"{SOFT_BEAM} --operator softsort --cost spans --ce-weight 0.5 --ce-history own",
    ),
    System(HARD, "sampling_argmax", EPOCHS, f"{ALWAYS} --estimator argmax"),
    System("scheduled sampling, hard, sample", "sampling_sample", EPOCHS, f"{ALWAYS} --estimator sample"),
    *(
        System(
            f"scheduled sampling, soft, {way}, {name}",
            f"sampling_{estimator}_{number}",
            EPOCHS,
            f"{ALWAYS} --estimator {estimator} {growth}",
        )
        for (way, estimator), (number, (name, growth)) in product(
            {"greedy": "soft", "sample": "gumbel_soft"}.items(), enumerate(GROWTH.items())
        )
    ),
    *(decayed(k) for k in (1, 10, 100)),
)
EXPERIMENT = Experiment(
    module="examples.papers.ner",
    about=__doc__,
    material=Tagging("f1", sentences=6000, label_embedding=8),
    systems=SYSTEMS,
    searches=SEARCHES,
    main="beam 3, own lambda",
    pairs=(
        *product((DIRECT, SPANS, BOTH, SOFT), (CONTINUED, AS_LONG)),
        (DIRECT, "hinge, annealed"),
        (SOFT, HARD),
        (START, "no history"),
    ),
    data="ner_germeval14",
    quick=("ce", "direct_1", "direct_spans_own", "sampling_gumbel_soft_1", "sampling_k10"),
    paper={
        START: {"greedy": 50.21, "beam 3": 46.22, "soft beam 3": 47.50},
        "hinge, annealed": {"beam 3": 41.10, "soft beam 3": 41.24},
        "hinge, alpha 1": {"beam 3": 40.09, "soft beam 3": 39.67},
        "direct loss, alpha 1": {"beam 3": 49.88, "soft beam 3": 50.73},
        DIRECT: {"beam 3": 51.86, "soft beam 3": 51.96},
        HARD: {"greedy": 49.75},
        "scheduled sampling, hard, sample": {"greedy": 50.90},
        "scheduled sampling, soft, greedy, alpha 1": {"greedy": 51.65},
        SOFT: {"greedy": 51.43},
        "scheduled sampling, soft, sample, alpha 1": {"greedy": 51.13},
        "scheduled sampling, soft, sample, annealed": {"greedy": 50.99},
    },
)
main = EXPERIMENT.main_program

if __name__ == "__main__":
    main()
