"""Probabilities of semantic graphs, against all graphs of small documents; how documents keep them."""

import itertools
import pickle
from functools import cache

import numpy as np
import pytest
import spacy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin
from thinc.api import Adam
from toy_pipelines import bare, example, make_pipeline, parsed_docs, sdp_config, train_step

from diffdecode.structure import GraphParts, SemanticGraph, graph_negative_log_likelihood, graph_scores
from spacy_components.confidence.annotations import GRAPH_CONFIDENCE, arc_probs
from spacy_components.display import render_svg
from spacy_components.ml.segments import lazy_segments, whole_docs
from spacy_components.sdp_graph import get_graph, graph_keys, set_graph

SEGMENTERS = {"whole": whole_docs(), "short": lazy_segments(max_length=2)}
TEXTS = ["the small cat saw a dog .", "", "run", " \n ", "dogs bark . she gave him  a book"]


@cache
def pipeline(key="sdp"):
    nlp, examples = make_pipeline(
        ("spigot_sdp", sdp_config(confidence=GRAPH_CONFIDENCE, deterministic=[], key=key)),
        initialize=None if key == "sdp" else {"spigot_sdp": {"labels": LABELS}},
    )
    optimizer = Adam(0.02)
    for _ in range(8):
        train_step(nlp, examples, optimizer)
    return nlp


LABELS = {"labels": {"labels": ["ARG1", "ARG2", "mwe"], "deterministic": []}}["labels"]


def every_decision(part, length):
    """All graphs of a batch of one segment, each word a predicate or not: labels and predicates."""
    count = part.parts.labels.shape[3]
    pairs = [(0, word) for word in range(1, length + 1)]
    pairs += list(itertools.permutations(range(1, length + 1), 2))
    options = [[-1, count - 1] if head == 0 else range(-1, count - 1) for head, _ in pairs]
    labels, predicates = [], []
    for chosen in itertools.product(*options):
        square = torch.full((length + 1, length + 1), -1)
        for (head, dep), label in zip(pairs, chosen):
            square[dep, head] = label
        needed = (square >= 0).any(0).tolist()
        for flags in itertools.product(*([True] if need else [False, True] for need in needed)):
            labels.append(square)
            predicates.append(torch.tensor(flags))
    return torch.stack(labels), torch.stack(predicates)


def every_graph(parser, doc):
    """``{arcs: (log of p, best decision)}`` of all graphs of a document, and the best decision's arcs."""
    found = {frozenset(): (0.0, 0.0)}
    for part in parser.model.predict([doc]).scores:
        for b, length in enumerate(part.batch.lengths.tolist()):
            labels, predicates = every_decision(part, length)
            here = (slice(length + 1),) * 2
            of_segment = GraphParts(*(x[b].detach().double() for x in part.parts))
            of_segment = GraphParts(
                of_segment.predicates[: length + 1], of_segment.arcs[here], of_segment.labels[here]
            )
            count = len(labels)
            parts = GraphParts(*(x.expand(count, *x.shape) for x in of_segment))
            values = graph_scores(parts, SemanticGraph(labels, predicates))
            log_p = (values / parser.temperature).log_softmax(0).tolist()
            words, of_graph = part.batch.tokens[b], {}
            for square, p, value in zip(labels, log_p, values.tolist()):
                arcs = frozenset(
                    (-1 if head == 0 else int(words[head - 1]), int(words[dep - 1]), int(square[dep, head]))
                    for dep, head in (square >= 0).nonzero().tolist()
                )
                before = of_graph.get(arcs, (-np.inf, -np.inf))
                of_graph[arcs] = np.logaddexp(before[0], p), max(before[1], value)
            found = {
                one | other: (p + q, value + more)
                for one, (p, value) in found.items()
                for other, (q, more) in of_graph.items()
            }
    return found


def arcs_of(parser, graph):
    number = {label: i for i, label in enumerate(parser.labels)}
    arcs = {(head, dep, number[label]) for head, dep, label in graph.arcs}
    return frozenset(arcs | {(-1, top, len(number)) for top in graph.top})


def named(parser, doc, arcs):
    """A copy of the document with these arcs."""
    copy, labels = bare(doc), parser.labels
    proper = [(head, dep, labels[label]) for head, dep, label in arcs if head >= 0]
    set_graph(copy, proper, [dep for head, dep, _ in arcs if head < 0])
    return copy


@given(
    words=st.lists(st.sampled_from(["dog", "saw", ".", "\n"]), max_size=3).filter(
        lambda words: len([word for word in words if word != "\n"]) < 3
    ),
    segmenter=st.sampled_from(sorted(SEGMENTERS)),
    temperature=st.sampled_from([1, 0.5, 3.0]),
)
@settings(deadline=None, max_examples=12)
def test_all_graphs_of_a_small_document(words, segmenter, temperature):
    check_against_enumeration(words, segmenter, temperature)


def test_graphs_of_several_segments():
    check_against_enumeration("dog saw the".split(), "short", 2.0)


def check_against_enumeration(words, segmenter, temperature):
    parser = pipeline().get_pipe("spigot_sdp")
    parser.model.attrs["segmenter"], parser.temperature = SEGMENTERS[segmenter], temperature
    doc = Doc(parser.vocab, words=words)
    expected = every_graph(parser, doc)
    p = np.exp([log_p for log_p, _ in expected.values()])
    assert p.sum() == pytest.approx(1)
    written = parser(doc.copy())
    predicted = arcs_of(parser, get_graph(written))
    assert expected[predicted][1] == pytest.approx(max(value for _, value in expected.values()))
    assert written._.sdp_entropy == pytest.approx(-(p * np.log(p)).sum(), abs=1e-6)
    number = {label: i for i, label in enumerate(parser.labels)} | {"": len(parser.labels)}
    probs = {(head, dep, number[label]): x for (head, dep, label), x in arc_probs(written).items()}
    assert probs.keys() == predicted
    for arc, x in probs.items():
        assert x == pytest.approx(sum(q for arcs, q in zip(expected, p) if arc in arcs), abs=1e-6)

    found = parser.k_best(doc, len(expected) + 1)
    assert arcs_of(parser, found[0]) == predicted
    assert {arcs_of(parser, graph) for graph in found} == expected.keys() and len(found) == len(expected)
    values = [expected[arcs_of(parser, graph)] for graph in found]
    assert [graph.log_prob for graph in found] == pytest.approx([log_p for log_p, _ in values], abs=1e-5)
    assert [value for _, value in values] == pytest.approx(sorted((v for _, v in values), reverse=True))
    few = parser.k_best(doc, 3)
    assert [arcs_of(parser, graph) for graph in few] == [arcs_of(parser, graph) for graph in found[:3]]
    for graph in few:
        assert parser.log_prob(graph.on(doc)) == pytest.approx(graph.log_prob)
        assert parser.log_prob(doc, get_graph(graph.on(doc))) == pytest.approx(graph.log_prob)
    assert doc._.sdp is None
    parser.temperature = 1.0


def test_samples():
    parser = pipeline().get_pipe("spigot_sdp")
    parser.model.attrs["segmenter"] = SEGMENTERS["whole"]
    doc = Doc(parser.vocab, words=["dogs", "bark"])
    expected = every_graph(parser, doc)
    drawn = parser.sample(doc, 600, generator=torch.Generator().manual_seed(0))
    again = parser.sample(doc, 5, generator=torch.Generator().manual_seed(0))
    assert drawn[:5] == again
    shares = dict.fromkeys(expected, 0.0)
    for graph in drawn:
        shares[arcs_of(parser, graph)] += 1 / len(drawn)
        assert graph.log_prob == pytest.approx(expected[arcs_of(parser, graph)][0], abs=1e-5)
    for arcs, share in shares.items():
        p = np.exp(expected[arcs][0])
        assert abs(share - p) < 5 * np.sqrt(p * (1 - p) / len(drawn)) + 1 / len(drawn)


def test_impossible_graphs_and_questions():
    nlp = pipeline()
    parser = nlp.get_pipe("spigot_sdp")
    parser.model.attrs["segmenter"] = SEGMENTERS["short"]
    doc = nlp.make_doc("dogs bark she saw")
    for arcs in ([(0, 3, "ARG1")], [(0, 1, "other")], [(0, 1, "ARG1"), (0, 1, "ARG2")]):
        other = doc.copy()
        set_graph(other, arcs)
        assert parser.log_prob(other) == -np.inf
    with pytest.raises(ValueError, match=r"no graph in doc\._\.sdp"):
        parser.log_prob(doc)
    for ask in (parser.k_best, parser.sample):
        with pytest.raises(ValueError, match="must be 1 or more"):
            ask(doc, 0)
    with pytest.raises(ValueError, match="no confidence 'head_probs'; there are arc_probs, entropy"):
        make_pipeline(("spigot_sdp", sdp_config(confidence=["head_probs"])))


def test_determinism_is_refused_in_one_line_where_it_is_not_known():
    nlp, _ = make_pipeline(("spigot_sdp", sdp_config(deterministic=["ARG1"])))
    parser, doc = nlp.get_pipe("spigot_sdp"), nlp.make_doc("dogs bark")
    for ask in (parser.k_best, parser.sample):
        with pytest.raises(
            ValueError, match="does not know that ARG1 are deterministic; with determinism=False"
        ):
            ask(doc)
        assert ask(doc, 1, determinism=False)
    assert parser.log_prob(nlp(doc)) < 0


def assert_same(docs, expected, key="sdp"):
    for doc, (probs, entropy) in zip(docs, expected, strict=True):
        assert arc_probs(doc, key) == pytest.approx(probs, abs=1e-5)
        assert doc._.get(f"{key}_entropy") == pytest.approx(entropy, abs=1e-4)


def test_alone_as_in_company_and_wherever_documents_go(tmp_path):
    nlp = pipeline()
    nlp.get_pipe("spigot_sdp").model.attrs["segmenter"] = lazy_segments(max_length=96)
    expected = [(arc_probs(doc), doc._.sdp_entropy) for doc in map(nlp, TEXTS)]
    assert expected[1] == ({}, 0.0) == expected[3] and len(expected[0][0]) > 1 and expected[0][1] > 0
    for size in (2, len(TEXTS)):
        assert_same(nlp.pipe(TEXTS, batch_size=size), expected)
    assert_same(list(nlp.pipe(TEXTS[::-1]))[::-1], expected)
    assert_same(nlp.pipe(TEXTS, n_process=2, batch_size=3), expected)
    assert_same(pickle.loads(pickle.dumps(nlp)).pipe(TEXTS), expected)
    docs = list(nlp.pipe(TEXTS))
    assert [graph_keys(doc) for doc in docs] == [["sdp"]] * len(TEXTS)
    assert_same([Doc(nlp.vocab).from_bytes(doc.to_bytes()) for doc in docs], expected)
    data = DocBin(docs=docs, store_user_data=True).to_bytes()
    assert_same(DocBin().from_bytes(data).get_docs(nlp.vocab), expected)
    warm = pickle.loads(pickle.dumps(nlp))
    warm.get_pipe("spigot_sdp").temperature = 5
    warm.to_disk(tmp_path)
    restored = spacy.load(tmp_path)
    assert restored.get_pipe("spigot_sdp").temperature == 5
    for doc, other in zip(docs, restored.pipe(TEXTS)):
        assert get_graph(doc) == get_graph(other) and other._.sdp_entropy >= doc._.sdp_entropy - 1e-6
    without = spacy.load(tmp_path, config={"components.spigot_sdp.confidence": []})
    assert without.get_pipe("spigot_sdp")(docs[0])._.sdp_arc_probs is None and docs[0]._.sdp_entropy is None


def test_another_key_and_another_graph():
    nlp = pipeline("psd")
    doc = nlp("the small cat saw a dog .")
    assert doc._.psd_entropy >= 0 and doc._.sdp_entropy is None
    assert len(doc._.psd_arc_probs["arcs"]) == len(get_graph(doc, "psd").arcs)
    arcs = get_graph(nlp("the small cat saw a dog ."), "psd").arcs
    set_graph(doc, [*arcs, (6, 0, "new")], key="psd")
    with pytest.raises(ValueError, match=r"doc\._\.psd_arc_probs is of another graph"):
        arc_probs(doc, "psd")


def test_pictures_are_shaded():
    nlp = pipeline()
    nlp.get_pipe("spigot_sdp").model.attrs["segmenter"] = lazy_segments(max_length=96)
    doc = nlp("the small cat saw a dog .")
    svg = render_svg(doc)
    arcs = [p for (head, _, _), p in arc_probs(doc).items() if head >= 0]
    assert svg.count("opacity=") == len(arcs) and all(f"<title>{p:.3f}</title>" in svg for p in arcs)


def test_verdicts_and_surprise_are_those_of_the_documents():
    nlp = pipeline()
    parser = nlp.get_pipe("spigot_sdp")
    parser.model.attrs["segmenter"] = lazy_segments(max_length=96)
    gold = parsed_docs(nlp.vocab)[:4]
    gold.insert(1, Doc(nlp.vocab, words=["not", "annotated"]))
    examples = [example(doc) for doc in gold]
    scores = parser.model.predict([eg.predicted for eg in examples])
    probs, right = parser.verdicts(examples, scores)
    expected = [
        (p, (arc in get_graph(doc).arcs) if arc[0] >= 0 else arc[1] in get_graph(doc).top)
        for doc in gold
        if get_graph(doc)
        for arc, p in arc_probs(nlp(bare(doc))).items()
    ]
    expected.sort()
    assert np.sort(probs) == pytest.approx([p for p, _ in expected], abs=1e-5)
    assert right.sum() == sum(same for _, same in expected) > 0
    surprise = parser.surprise(examples, scores)
    for temperature in (1.0, 2.5):
        assert surprise(temperature) == pytest.approx(surprise_of_parts(parser, gold, temperature), rel=1e-5)


def surprise_of_parts(parser, gold, temperature):
    """Of graphs whose predicates are the words with arguments."""
    total = 0.0
    for doc in filter(get_graph, gold):
        (part,) = parser.model.predict([bare(doc)]).scores
        parts = GraphParts(*(x.detach().double() / temperature for x in part.parts))
        labels = torch.full((1, len(doc) + 1, len(doc) + 1), -1)
        for head, dep, label in arcs_of(parser, get_graph(doc)):
            labels[0, dep + 1, head + 1] = label
        graph = SemanticGraph(labels, (labels >= 0).any(1))
        total += float(graph_negative_log_likelihood(parts.arcs, parts.labels, parts.predicates, graph))
    return total
