"""Risks of a hypothesis against a reference, 0 (the same) to 1: sentence scores upside down.

Hypotheses and references are texts, words separated by spaces; tags are words.
"""

from collections import Counter
from collections.abc import Callable
from functools import lru_cache

from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from fairseq_plugins.scoring.span_f1 import f1, spans

Risk = Callable[[str, str], float]

BLEU_OF_SENTENCES = BLEU(effective_order=True)
CHRF_OF_SENTENCES = CHRF()
TOKENIZER = Tokenizer13a()


def bleu(hypothesis: str, reference: str) -> float:
    """1 - sentence BLEU: sacrebleu's, smoothed, with its tokenizer 13a."""
    return 1 - BLEU_OF_SENTENCES.sentence_score(hypothesis, [reference]).score / 100


def chrf(hypothesis: str, reference: str) -> float:
    """1 - chrF: sacrebleu's."""
    return 1 - CHRF_OF_SENTENCES.sentence_score(hypothesis, [reference]).score / 100


def gleu(hypothesis: str, reference: str) -> float:
    """1 - GLEU (Wu et al. 2016, "Google's neural machine translation system", section 5.2).

    The smaller of precision and recall of all n-grams of 1 to 4 tokens, those of sacrebleu's tokenizer 13a.
    """
    found, wanted = _ngrams(hypothesis), _ngrams(reference)
    most = max(found.total(), wanted.total())
    return 1 - (found & wanted).total() / most if most else 0.0


@lru_cache(maxsize=2**14)
def _tokens(text: str) -> tuple[str, ...]:
    return tuple(TOKENIZER(text).split())


def _ngrams(text: str) -> Counter:
    tokens = _tokens(text)
    return Counter(tokens[i : i + n] for n in range(1, 5) for i in range(len(tokens) - n + 1))


def edit(hypothesis: str, reference: str) -> float:
    """Levenshtein distance in words, divided by the words of the longer text."""
    found, wanted = hypothesis.split(), reference.split()
    row = list(range(len(wanted) + 1))
    for i, word in enumerate(found, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(wanted, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1] / max(len(found), len(wanted), 1)


def hamming(hypothesis: str, reference: str) -> float:
    """The share of wrong tags."""
    pairs = list(zip(hypothesis.split(), reference.split(), strict=True))
    return sum(tag != gold for tag, gold in pairs) / max(len(pairs), 1)


def span(hypothesis: str, reference: str) -> float:
    """1 - F1 of the labelled spans of BIO tags; 0 where neither has a span."""
    found, gold = spans(hypothesis.split()), spans(reference.split())
    return 1 - f1(len(gold), len(found), len(gold & found)) if gold or found else 0.0


OF_TEXTS: dict[str, Risk] = {"gleu": gleu, "bleu": bleu, "chrf": chrf, "edit": edit}
OF_TAGS: dict[str, Risk] = {"edit": edit, "hamming": hamming, "span": span}
RISKS = OF_TEXTS | OF_TAGS
