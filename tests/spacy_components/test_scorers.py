"""Scorers on partly annotated corpora: against brute force, against spaCy where it is right, and traps."""

import random

import pytest
import spacy
from exploring import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy import registry
from spacy.pipeline.spancat import spancat_score
from spacy.scorer import Scorer
from spacy.tokens import Doc
from spacy.training import Example

from spacy_components.sdp_graph import SdpGraph, set_graph
from spacy_components.training import scorers  # noqa: F401 - registers the scorers
from spacy_components.training.graph_scores import GraphPRF, graph_edges

NLP = spacy.blank("en")
WORDS = list("abcdefgh")


def scorer(name, **options):
    return registry.resolve({"scorer": {"@scorers": name, **options}})["scorer"]


def tree(heads, deps, words=None):
    return Doc(NLP.vocab, words=words or WORDS[: len(heads)], heads=heads, deps=deps)


def plain(n):
    return Doc(NLP.vocab, words=WORDS[:n])


def graph(arcs, top=(), n=4):
    doc = plain(n)
    set_graph(doc, arcs, top)
    return doc


# ---- semantic graphs -----------------------------------------------------------------------------


def brute_force(pairs, tops):
    """The definitions of the task page, word for word, over lists: no shared code with the scorer."""
    counts = {"u": [0, 0, 0, 0], "l": [0, 0, 0, 0]}
    for gold, system in pairs:
        for kind in "ul":
            edges = []
            for arcs, top in (gold, system):
                found = []
                for head, dep, label in [*arcs, *(("ROOT", t, "TOP") for t in (top if tops else []))]:
                    edge = (head, dep, label) if kind == "l" else (head, dep)
                    if edge not in found:
                        found.append(edge)
                edges.append(found)
            both = [edge for edge in edges[0] if edge in edges[1]]
            counts[kind][0] += len(edges[0])
            counts[kind][1] += len(edges[1])
            counts[kind][2] += len(both)
            counts[kind][3] += len(both) == len(edges[0]) == len(edges[1])
    result = {}
    for kind, (gold, system, both, exact) in counts.items():
        p, r = both / system if system else 0.0, both / gold if gold else 0.0
        result[f"sdp_{kind}p"], result[f"sdp_{kind}r"] = p, r
        result[f"sdp_{kind}f"] = 2 * p * r / (p + r) if p + r else 0.0
        result[f"sdp_{kind}m"] = exact / len(pairs)
    return result


ARCS = st.sets(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from("XY")).filter(lambda a: a[0] != a[1]),
    max_size=5,
)
GRAPHS = st.tuples(ARCS, st.sets(st.integers(0, 3), max_size=2))


@settings(max_examples=cases(50, 300))
@given(st.lists(st.tuples(GRAPHS, GRAPHS), min_size=1, max_size=4), st.booleans())
def test_sdp_scores_against_brute_force(pairs, tops):
    examples = [Example(graph(*system), graph(*gold)) for gold, system in pairs]
    scores = scorer("diffdecode.sdp_scorer.v1", tops=tops)(examples)
    for key, value in brute_force(pairs, tops).items():
        assert scores[key] == pytest.approx(value, abs=1e-12), key


def test_sdp_scores_by_hand():
    gold = graph([(1, 0, "ARG1"), (1, 2, "ARG2"), (2, 3, "BV")], top=[1])
    system = graph([(1, 0, "ARG1"), (1, 2, "ARG3")], top=[1])
    scores = scorer("diffdecode.sdp_scorer.v1")([Example(system, gold)])
    assert scores["sdp_lp"] == pytest.approx(2 / 3) and scores["sdp_lr"] == pytest.approx(2 / 4)
    assert scores["sdp_up"] == pytest.approx(3 / 3) and scores["sdp_ur"] == pytest.approx(3 / 4)
    assert scores["sdp_lm"] == scores["sdp_um"] == 0.0
    assert scores["sdp_lf_per_type"]["ARG1"] == {"p": 1.0, "r": 1.0, "f": 1.0}
    without = scorer("diffdecode.sdp_scorer.v1", tops=False)([Example(system, gold)])
    assert without["sdp_lp"] == pytest.approx(1 / 2) and without["sdp_ur"] == pytest.approx(2 / 3)


def test_sdp_scores_leave_out_unannotated_documents():
    score = scorer("diffdecode.sdp_scorer.v1")
    right = Example(graph([(0, 1, "X")], [0]), graph([(0, 1, "X")], [0]))
    unannotated = Example(graph([(0, 1, "X")], [0]), plain(4))
    scores = score([right, unannotated])
    assert scores["sdp_lf"] == scores["sdp_lm"] == 1.0
    assert score([unannotated])["sdp_lf"] is None and score([])["sdp_um"] is None


def test_sdp_scores_count_a_missing_prediction_as_empty():
    scores = scorer("diffdecode.sdp_scorer.v1")([Example(plain(4), graph([(0, 1, "X")]))])
    assert (scores["sdp_lp"], scores["sdp_lr"], scores["sdp_lm"]) == (0.0, 0.0, 0.0)
    empty = scorer("diffdecode.sdp_scorer.v1")([Example(plain(4), graph([]))])
    assert empty["sdp_lm"] == 1.0


def test_sdp_edges_on_misaligned_tokens_are_wrong():
    reference = Doc(NLP.vocab, words=["go", "ice-cream"])
    set_graph(reference, [(0, 1, "B")], top=[0])
    predicted = Doc(NLP.vocab, words=["go", "ice", "-", "cream"], spaces=[True, False, False, False])
    set_graph(predicted, [(0, 1, "B"), (0, 3, "B")], top=[0])
    scores = scorer("diffdecode.sdp_scorer.v1")([Example(predicted, reference)])
    assert scores["sdp_lp"] == pytest.approx(1 / 3) and scores["sdp_lr"] == pytest.approx(1 / 2)


def test_two_labels_on_one_pair_are_one_unlabelled_edge():
    scores = GraphPRF()
    gold = SdpGraph(((0, 1, "X"), (0, 1, "Y")), ())
    scores.add(graph_edges(gold), graph_edges(SdpGraph(((0, 1, "X"),), ())))
    assert (scores.labelled.gold, scores.unlabelled.gold) == (2, 1)
    assert (scores.labelled.exact, scores.unlabelled.exact) == (0.0, 1.0)


def test_sdp_scores_of_a_key_have_its_name_and_no_other_graph():
    gold, system = graph([(0, 1, "X")]), graph([(1, 0, "X")])
    for doc in (gold, system):
        set_graph(doc, [(2, 3, "Y")], key="psd")
    scores = scorer("diffdecode.sdp_scorer.v1")([Example(system, gold)], key="psd")
    assert scores["psd_lf"] == scores["psd_lf_per_type"]["Y"]["f"] == 1.0
    assert all(name.startswith("psd_") for name in scores)
    assert scorer("diffdecode.sdp_scorer.v1")([Example(system, gold)])["sdp_lf"] == 0.0
    assert scorer("diffdecode.sdp_scorer.v1")([Example(system, gold)], key="ccd")["ccd_lf"] is None


# ---- trees ---------------------------------------------------------------------------------------


@st.composite
def parses(draw, words=None):
    """A document with any heads at all (cycles do not matter to a scorer), one per token."""
    n = len(words)
    heads = [draw(st.integers(0, j)) for j in range(n)]
    deps = [draw(st.sampled_from(["nsubj", "obj", "punct"])) for _ in range(n)]
    return tree(heads, deps, words)


@st.composite
def parsed_examples(draw):
    words = [*WORDS[:3], "x-y", *WORDS[4 : draw(st.integers(4, 7))]]
    predicted = [*WORDS[:3], "x", "-", "y", *words[4:]] if draw(st.booleans()) else words
    spaces = [True] * 3 + [False, False, True] + [True] * len(words[4:])
    system = draw(parses(predicted))
    if predicted != words:
        arcs = {"heads": [t.head.i for t in system], "deps": [t.dep_ for t in system]}
        system = Doc(NLP.vocab, words=predicted, spaces=spaces, **arcs)
    return Example(system, draw(parses(words)))


@settings(max_examples=cases(40, 150))
@given(st.lists(parsed_examples(), min_size=1, max_size=3))
def test_parse_scores_are_spacys_where_everything_is_annotated(examples):
    stock = Scorer.score_deps(examples, "dep", getter=lambda t, _: t.dep_, ignore_labels=("p", "punct"))
    ours = scorer("diffdecode.parse_scorer.v1")(examples)
    if stock["dep_uas"] is None:
        assert ours["dep_uas"] is None
        return
    assert ours["dep_uas"] == pytest.approx(stock["dep_uas"], abs=1e-12)
    assert ours["dep_las"] == pytest.approx(stock["dep_las"], abs=1e-12)
    for label, values in stock["dep_las_per_type"].items():
        assert ours["dep_las_per_type"].get(label, {"f": 0.0})["f"] == pytest.approx(values["f"], abs=1e-9)


def perfect_parses(n):
    return [Example(tree([1, 1, 1], ["nsubj", "root", "obj"]), tree([1, 1, 1], ["nsubj", "root", "obj"]))] * n


def test_stock_score_deps_leaks_missing_tokens_into_later_documents():
    unparsed = Example(tree([0, 0, 0], ["root", "obj", "obj"]), plain(3))
    examples = [unparsed] * 2 + perfect_parses(5)
    assert Scorer.score_deps(examples, "dep")["dep_uas"] < 0.1
    scores = scorer("diffdecode.parse_scorer.v1")(examples)
    assert scores["dep_uas"] == scores["dep_las"] == 1.0


def test_stock_score_deps_leaks_from_partly_parsed_documents_too():
    """Filtering whole documents would not help here: one token without a relation is enough."""
    partly = Example(tree([1, 1, 1], ["nsubj", "root", "obj"]), tree([1, 1, 1], ["nsubj", "root", ""]))
    wrong = Example(tree([1, 1, 0], ["nsubj", "root", "obj"]), tree([1, 1, 1], ["nsubj", "root", "obj"]))
    assert Scorer.score_deps([partly, wrong], "dep")["dep_uas"] == pytest.approx(
        8 / 9
    )  # 4 right of 4, 5 gold
    ours = scorer("diffdecode.parse_scorer.v1")([partly, wrong])
    assert ours["dep_uas"] == pytest.approx(4 / 5)


def test_parse_scores_ignore_labels_of_the_option():
    wrong_punct = Example(
        tree([1, 1, 0], ["nsubj", "root", "PUNCT"]), tree([1, 1, 1], ["nsubj", "root", "punct"])
    )
    assert scorer("diffdecode.parse_scorer.v1")([wrong_punct])["dep_uas"] == 1.0
    everything = scorer("diffdecode.parse_scorer.v1", ignore_labels=[])([wrong_punct])
    assert everything["dep_uas"] == pytest.approx(2 / 3)


def test_parse_scores_without_gold_are_none():
    unparsed = Example(tree([0, 0, 0], ["root", "obj", "obj"]), plain(3))
    assert scorer("diffdecode.parse_scorer.v1")([unparsed])["dep_las"] is None


def test_parse_scores_do_not_read_a_missing_prediction_as_roots():
    gold = tree([0, 0, 0], ["root", "obj", "obj"])
    scores = scorer("diffdecode.parse_scorer.v1")([Example(plain(3), gold)])
    assert (
        scores["dep_uas"] == scores["dep_las"] == scores["sents_f"] == 0.0
        and not scores["dep_las_per_type"]["root"]["p"]
    )
    partly = Example(tree([0, 0, 0], ["root", "obj", ""]), gold)
    found = scorer("diffdecode.parse_scorer.v1")([partly])
    assert found["dep_uas"] == pytest.approx(2 * 2 / (2 + 3))  # 2 arcs, both right, of 3


def sentences(starts, gold=True):
    return Doc(
        NLP.vocab, words=WORDS[: len(starts)], sent_starts=[bool(start) for start in starts] if gold else None
    )


@settings(max_examples=cases(30, 60))
@given(st.lists(st.tuples(*[st.lists(st.booleans(), min_size=4, max_size=4)] * 2, st.booleans()), max_size=4))
def test_sentence_scores_are_those_of_spacys_parser(cases):
    examples = [
        Example(sentences([1, *system]), sentences([1, *gold], known)) for system, gold, known in cases
    ]
    ours = scorer("diffdecode.parse_scorer.v1")(examples)
    stock = registry.scorers.get("spacy.parser_scorer.v1")()(examples)
    assert [ours[f"sents_{key}"] for key in "prf"] == [stock[f"sents_{key}"] for key in "prf"]
    assert (ours["sents_f"] is None) == (not any(known for _, _, known in cases))


def test_sentence_scores_by_hand():
    found = Example(sentences([1, 0, 1, 0]), sentences([1, 0, 1, 1]))  # a b | c d, of a b | c | d
    missed = Example(plain(4), sentences([1, 0, 0, 0]))
    unknown = Example(sentences([1, 0, 1, 0]), plain(4))
    scores = scorer("diffdecode.parse_scorer.v1")([found, missed, unknown])
    assert (scores["sents_p"], scores["sents_r"]) == (1 / 2, 1 / 4)


# ---- categories and spans ------------------------------------------------------------------------


def classified(gold, predicted):
    reference, doc = plain(3), plain(3)
    reference.cats, doc.cats = gold, predicted
    return Example(doc, reference)


def test_stock_score_cats_counts_unlabelled_documents_as_false_positives():
    right = classified({"A": 1.0, "B": 0.0}, {"A": 0.9, "B": 0.1})
    other = classified({"A": 0.0, "B": 1.0}, {"A": 0.2, "B": 0.8})
    unlabelled = classified({}, {"A": 0.9, "B": 0.1})
    examples = [right, other] + [unlabelled] * 8
    options = {"labels": ["A", "B"], "threshold": 0.5}
    assert Scorer.score_cats(examples, "cats", multi_label=False, **options)["cats_micro_p"] == pytest.approx(
        0.2
    )
    scores = scorer("diffdecode.cats_scorer.v1")(examples, **options)
    assert (
        scores["cats_micro_p"]
        == scores["cats_score"]
        == scores["cats_acc"]
        == scores["cats_macro_auc"]
        == 1.0
    )


def test_cats_scores_are_spacys_on_a_fully_labelled_corpus():
    draw = random.Random(0)
    examples = []
    for _ in range(30):
        gold, p = draw.choice("AB"), draw.random()
        examples.append(classified({c: float(c == gold) for c in "AB"}, {"A": p, "B": 1 - p}))
    for multi_label in (False, True):
        stock = Scorer.score_cats(examples, "cats", labels=["A", "B"], multi_label=multi_label)
        ours = scorer("diffdecode.cats_scorer.v1", multi_label=multi_label)(examples, labels=["A", "B"])
        assert {key: ours[key] for key in stock} == stock
    hits = sum((eg.x.cats["A"] > 0.5) == (eg.y.cats["A"] == 1.0) for eg in examples)
    assert scorer("diffdecode.cats_scorer.v1")(examples, labels=["A", "B"])["cats_acc"] == hits / 30


def test_cats_scores_without_gold_are_none_not_zero():
    unlabelled = classified({}, {"A": 0.9, "B": 0.1})
    assert Scorer.score_cats([], "cats", labels=["A"], multi_label=False)["cats_score"] == 0.0
    scores = scorer("diffdecode.cats_scorer.v1")([unlabelled], labels=["A", "B"])
    assert scores["cats_score"] is None and scores["cats_acc"] is None


def test_stock_span_scorer_already_leaves_out_documents_without_the_key():
    annotated, unannotated = plain(3), plain(3)
    annotated.spans["sc"] = [annotated[0:1]]
    annotated.spans["sc"][0].label_ = "X"
    examples = [Example(annotated.copy(), annotated), Example(annotated.copy(), unannotated)]
    assert spancat_score(examples, spans_key="sc")["spans_sc_f"] == 1.0


def test_cats_scores_leave_out_documents_of_which_no_category_is_known():
    right = classified({"A": 0.0, "B": 1.0}, {"A": 0.2, "B": 0.8})
    nothing = classified({"A": 0.0, "B": 0.0}, {"A": 0.9, "B": 0.1})
    scores = scorer("diffdecode.cats_scorer.v1")([right, nothing, nothing], labels=["A", "B"])
    assert scores["cats_acc"] == scores["cats_micro_f"] == 1.0
    assert scorer("diffdecode.cats_scorer.v1")([nothing], labels=["A", "B"])["cats_acc"] is None


@pytest.mark.parametrize("multi_label", [False, True])
def test_cats_that_were_not_predicted_are_an_error(multi_label):
    missing = classified({"A": 1.0, "B": 0.0}, {})
    with pytest.raises(ValueError, match="no categories were predicted for 'a b c"):
        scorer("diffdecode.cats_scorer.v1", multi_label=multi_label)([missing], labels=["A", "B"])
    unlabelled = classified({}, {})
    assert scorer("diffdecode.cats_scorer.v1", multi_label=multi_label)([unlabelled])["cats_acc"] is None
