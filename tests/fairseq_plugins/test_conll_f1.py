"""Span F1: conlleval's conventions as a table, an independent chunker, and the scorer of fairseq-generate."""

import random
from itertools import pairwise

import pytest
from fairseq.scoring import build_scorer

from fairseq_plugins.scoring.conll_f1 import ConllF1Scorer
from fairseq_plugins.scoring.span_f1 import SpanCounts, f1, is_bio, spans

# tags, the spans that conlleval finds as "type start end" (end exclusive)
CONLLEVAL = [
    ("", ""),
    ("O", ""),
    ("O O O", ""),
    ("B-PER", "PER 0 1"),
    ("I-PER", "PER 0 1"),
    ("O B-PER I-PER O", "PER 1 3"),
    # IOB1: a span opens with I, unless its neighbour has the same type
    ("I-PER I-PER O I-LOC", "PER 0 2, LOC 3 4"),
    ("I-PER B-PER I-PER", "PER 0 1, PER 1 3"),
    ("B-PER B-PER", "PER 0 1, PER 1 2"),
    # lenient: an I of another type, or after O, opens a span
    ("B-PER I-LOC", "PER 0 1, LOC 1 2"),
    ("I-PER I-LOC I-PER", "PER 0 1, LOC 1 2, PER 2 3"),
    ("O I-PER I-PER", "PER 1 3"),
    ("B-LOC I-LOC I-ORG I-ORG B-ORG", "LOC 0 2, ORG 2 4, ORG 4 5"),
    # a span that ends with the sentence
    ("O B-LOC I-LOC", "LOC 1 3"),
    # the type is what follows the first hyphen; it may be missing
    ("B-LOC-deriv I-LOC-deriv I-LOC", "LOC-deriv 0 2, LOC 2 3"),
    ("B I O I", " 0 2,  3 4"),
    # anything else is outside
    ("B-PER <unk> I-PER", "PER 0 1, PER 2 3"),
]


@pytest.mark.parametrize(("tags", "expected"), CONLLEVAL)
def test_spans_as_conlleval_finds_them(tags, expected):
    found = {f"{kind} {start} {end}" for kind, start, end in spans(tags.split())}
    assert found == (set(expected.split(", ")) if expected else set())


def spans_by_borders(tags):
    """The conventions said differently: where between two words does a span end, where does one begin?"""
    split = [tuple((tag + "-").split("-", 1)) if tag[0] in "BI" else ("O", "") for tag in tags]
    padded = [("O", ""), *split, ("O", "")]
    begins, ends = [], []
    for position, ((last, last_type), (now, now_type)) in enumerate(pairwise(padded)):
        continues = last != "O" and now == "I" and last_type == now_type
        if last != "O" and not continues:
            ends.append(position)
        if now != "O" and not continues:
            begins.append((position, now_type.rstrip("-")))
    return {(kind, begin, end) for (begin, kind), end in zip(begins, ends, strict=True)}


def random_tags(rng, length):
    return [rng.choice(["O", "B-A", "I-A", "B-B", "I-B", "I-C"]) for _ in range(length)]


def test_spans_agree_with_an_independent_chunker():
    rng = random.Random(0)
    for _ in range(5000):
        tags = random_tags(rng, rng.randrange(12))
        assert spans(tags) == spans_by_borders(tags)


def to_iob1(tags):
    """IOB1 spelling of a well-formed IOB2 sequence: B only after a span of the same type."""
    return [
        "I" + tag[1:] if tag[0] == "B" and (i == 0 or tags[i - 1][1:] != tag[1:]) else tag
        for i, tag in enumerate(tags)
    ]


def test_iob1_and_iob2_spell_the_same_spans():
    rng = random.Random(1)
    seen = 0
    for _ in range(500):
        tags = random_tags(rng, 10)
        # Make it IOB2: every span opens with B.
        opening = {start: kind for kind, start, _ in spans(tags)}
        iob2 = [f"B-{opening[i]}" if i in opening else tag for i, tag in enumerate(tags)]
        assert spans(iob2) == spans(to_iob1(iob2)) == spans(tags)
        seen += to_iob1(iob2) != iob2
    assert seen > 100


def test_counts_of_sentences_add_up():
    counts = SpanCounts()
    counts.add(["B-PER", "I-PER", "O", "B-LOC"], ["B-PER", "I-PER", "O", "O"])
    counts.add(["O", "B-LOC", "O"], ["B-ORG", "B-LOC", "O"])
    assert counts.types == ["LOC", "ORG", "PER"]
    assert counts.total == (3, 3, 2)
    assert counts.micro_f1() == pytest.approx(2 / 3)
    assert counts.macro_f1() == pytest.approx((f1(2, 1, 1) + 0.0 + 1.0) / 3)


def test_a_span_must_match_in_type_start_and_end():
    gold = ["B-PER", "I-PER", "O"]
    for predicted, correct in (
        ("B-PER I-PER O", 1),
        ("B-LOC I-LOC O", 0),
        ("B-PER O O", 0),
        ("O B-PER O", 0),
    ):
        counts = SpanCounts()
        counts.add(gold, predicted.split())
        assert counts.total[2] == correct


def test_no_spans_at_all_is_zero():
    counts = SpanCounts()
    counts.add(["O"], ["O"])
    assert counts.micro_f1() == counts.macro_f1() == 0.0


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["O", "B-X", "I-X"], True),
        (["B", "I", "O"], True),
        (["O"], False),
        (["NP", "N/N", "O"], False),
        (["B-X", "E-X"], False),
        ([], False),
    ],
)
def test_is_bio(tags, expected):
    assert is_bio(tags) is expected


def scorer():
    return build_scorer("conll_f1", None)


def test_scorer_is_registered_and_reports_percentages():
    score = scorer()
    assert isinstance(score, ConllF1Scorer)
    score.add_string("B-PER I-PER O B-LOC", "B-PER I-PER O O")
    score.add_string("O B-LOC O", "O B-LOC O")
    assert score.accuracy() == pytest.approx(100 * 6 / 7)
    assert score.score() == pytest.approx(80.0)
    first, *types = score.result_string().splitlines()
    assert first.startswith("accuracy 85.71, precision 100.00, recall 66.67, F1 80.00")
    assert first.endswith("macro F1 83.33")
    assert [line.split(":")[0].strip() for line in types] == ["LOC", "PER"]


def test_scorer_falls_back_to_accuracy_without_bio_tags():
    score = scorer()
    score.add_string("NP N/N <<unk>>", "NP NP NP")
    assert score.score() == pytest.approx(100 / 3)
    assert "not BIO" in score.result_string()


def test_scorer_counts_an_unknown_gold_label_as_a_mistake():
    score = scorer()
    score.add_string("B-PER <<unk>>", "B-PER O")
    assert score.accuracy() == 50.0
    assert score.score() == 100.0


def test_scorer_refuses_lines_of_unequal_length():
    with pytest.raises(ValueError, match="2 gold, 1 predicted"):
        scorer().add_string("O O", "O")
