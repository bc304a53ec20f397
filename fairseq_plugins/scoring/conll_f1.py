"""``--scoring conll_f1``: token accuracy and, for BIO tags, precision, recall and F1 of labelled spans."""

from dataclasses import dataclass

from fairseq.dataclass import FairseqDataclass
from fairseq.scoring import BaseScorer, register_scorer

from fairseq_plugins.scoring.span_f1 import SpanCounts, f1, is_bio

# How fairseq-generate writes a gold label that is not in the label dictionary: a span cannot be read off it.
UNKNOWN_LABEL = "<<unk>>"


@dataclass
class ConllF1Config(FairseqDataclass):
    pass


@register_scorer("conll_f1", dataclass=ConllF1Config)
class ConllF1Scorer(BaseScorer):
    """Scores lines of labels separated by spaces; all numbers are percentages."""

    def __init__(self, cfg: ConllF1Config):
        super().__init__(cfg)
        self.counts = SpanCounts()
        self.right = self.tokens = 0
        self.labels = set()

    def add_string(self, ref: str, pred: str) -> None:
        """Count one sentence. Raises ValueError if the two lines do not hold as many labels."""
        gold, predicted = ref.split(), pred.split()
        if len(gold) != len(predicted):
            raise ValueError(
                f"conll_f1 needs one label per word: {len(gold)} gold, {len(predicted)} predicted"
            )
        self.right += sum(a == b for a, b in zip(gold, predicted))
        self.tokens += len(gold)
        self.labels.update(gold, predicted)
        self.counts.add(gold, predicted)

    def accuracy(self) -> float:
        """Percentage of words with the right label."""
        return 100.0 * self.right / self.tokens if self.tokens else 0.0

    def score(self) -> float:
        """Micro F1 of spans; token accuracy if the labels are not BIO tags."""
        return 100.0 * self.counts.micro_f1() if self._has_spans() else self.accuracy()

    def result_string(self) -> str:
        """One line of all scores in percent, and one for each type of span."""
        line = f"accuracy {self.accuracy():.2f}"
        if not self._has_spans():
            return f"{line} ({self.tokens} words; no span F1: the labels are not BIO tags)"
        rows = [f"  {kind}: {_describe(*self.counts.of(kind))}" for kind in self.counts.types]
        line += f", {_describe(*self.counts.total)}, macro F1 {100 * self.counts.macro_f1():.2f}"
        return "\n".join([line, *rows])

    def _has_spans(self):
        return is_bio(self.labels - {UNKNOWN_LABEL})


def _describe(gold, predicted, correct):
    precision = 100.0 * correct / predicted if predicted else 0.0
    recall = 100.0 * correct / gold if gold else 0.0
    return (
        f"precision {precision:.2f}, recall {recall:.2f}, F1 {100 * f1(gold, predicted, correct):.2f} "
        f"({correct} of {gold} gold and {predicted} predicted spans)"
    )
