"""Token accuracy and span F1 in validation, summed over batches and workers before anything is divided."""

from collections import Counter

from fairseq import metrics, utils
from fairseq.data import Dictionary
from torch import Tensor

from fairseq_plugins.scoring.span_f1 import SpanCounts, is_bio

WORDS, RIGHT = "_words", "_right_words"
SPAN_METRICS = ("f1", "macro_f1")
SPANS = {name: f"_{name}_spans:" for name in ("gold", "predicted", "correct")}


class TagCounter:
    """Counts right labels and, with BIO labels, spans of each type.

    Args:
        dictionary: the label dictionary.
        label_ids: ``[L]`` its real labels.
    """

    def __init__(self, dictionary: Dictionary, label_ids: Tensor):
        self.dictionary = dictionary
        self.names = [dictionary[i] for i in label_ids.tolist()]
        spans = set(self.names) - {"O"} if is_bio(self.names) else ()
        self.types = sorted({name.partition("-")[2] for name in spans})

    def refuse_missing(self, metric: str) -> None:
        """Refuse a *metric* that these labels do not have, before it is looked for after the first epoch.

        Raises:
            ValueError: naming the option and what to do.
        """
        if metric in SPAN_METRICS and not self.types:
            shown = f"{', '.join(self.names[:5])}{' ...' if self.names[5:] else ''}"
            raise ValueError(
                f"--best-checkpoint-metric {metric} needs the labels O, B-... and I-...; these are {shown}: "
                "use accuracy"
            )

    def count(self, gold: Tensor, predicted: Tensor) -> dict[str, int]:
        """What a worker logs for a batch: integers under the same keys for every batch of a data set.

        A gold label that is not in the dictionary is a mistake in accuracy and outside of all spans.

        Args:
            gold: ``[B, T]`` label ids, padded.
            predicted: ``[B, T]`` label ids; ignored where *gold* is padding.
        """
        inside = gold != self.dictionary.pad()
        counts = {WORDS: int(inside.sum()), RIGHT: int(((gold == predicted) & inside).sum())}
        if self.types:
            counts.update(self._count_spans(gold.tolist(), predicted.tolist(), inside.sum(1).tolist()))
        return counts

    def _count_spans(self, gold, predicted, lengths):
        spans = SpanCounts()
        for gold_ids, predicted_ids, length in zip(gold, predicted, lengths):
            spans.add(*([self.dictionary[i] for i in ids[:length]] for ids in (gold_ids, predicted_ids)))
        return {
            prefix + kind: getattr(spans, name)[kind] for name, prefix in SPANS.items() for kind in self.types
        }


def reduce_counts(logging_outputs: list[dict]) -> None:
    """Log ``accuracy`` and, with BIO labels, ``f1`` (micro) and ``macro_f1``, in percent."""
    keys = [
        key for key in logging_outputs[0] if key in (WORDS, RIGHT) or key.startswith(tuple(SPANS.values()))
    ]
    for key in keys:
        metrics.log_scalar_sum(key, sum(utils.item(output.get(key, 0)) for output in logging_outputs))
    if keys:
        metrics.log_derived("accuracy", _accuracy)
    if any(key.startswith(SPANS["gold"]) for key in keys):
        metrics.log_derived("f1", lambda meters: 100.0 * _spans(meters).micro_f1())
        metrics.log_derived("macro_f1", lambda meters: 100.0 * _spans(meters).macro_f1())


def _accuracy(meters):
    words = meters[WORDS].sum
    return 100.0 * meters[RIGHT].sum / words if words else 0.0


def _spans(meters):
    return SpanCounts(**{name: _counter(meters, prefix) for name, prefix in SPANS.items()})


def _counter(meters, prefix):
    return Counter({key.removeprefix(prefix): meters[key].sum for key in meters if key.startswith(prefix)})
