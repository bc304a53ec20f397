"""Scorers for corpora in which not every document has every annotation: what has no gold is not scored.

spaCy's own ``Scorer.score_deps`` and ``Scorer.score_cats`` go wrong there: the first keeps the token numbers
that lack a parse in one document and then skips them in all later ones, the second counts every prediction on
an unlabelled document as a false positive.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, MutableMapping, Sequence
from functools import partial
from typing import Any

from spacy import registry
from spacy.scorer import PRFScore, Scorer
from spacy.tokens import Doc, Token
from spacy.training import Example

from spacy_components.sdp_graph import DEFAULT_KEY, SdpGraph, get_graph, one_to_one
from spacy_components.training.graph_scores import GraphPRF, graph_edges

ScoreFunction = Callable[..., dict[str, Any]]
GRAPH_KEYS = ("up", "ur", "uf", "um", "lp", "lr", "lf", "lm")


# ---- trees ---------------------------------------------------------------------------------------


@registry.scorers("diffdecode.parse_scorer.v1")
def make_parse_scorer(ignore_labels: Sequence[str] = ("p", "punct")) -> ScoreFunction:
    """Scores what spaCy's parser does: ``dep_uas``, ``dep_las``, ``dep_las_per_type``, ``sents_p/r/f``.

    Only annotated tokens count, and for the sentences only documents with sentences.

    Args:
        ignore_labels: relations that are not scored (lower case), spaCy's own by default. Universal
            Dependencies results usually score every token: ``[]``.
    """
    return partial(_score_parses, frozenset(ignore_labels))


def _score_parses(ignored: frozenset[str], examples: Iterable[Example], **_: Any) -> dict[str, Any]:
    examples = list(examples)
    return parse_scores(examples, ignored) | sentence_scores(examples)


def parse_scores(examples: Iterable[Example], ignored: frozenset[str] = frozenset()) -> dict[str, Any]:
    """F1 of (dependent, head) and (dependent, head, label); None where no reference has a parse.

    A predicted token without a relation counts as one without an arc.
    """
    unlabelled, labelled = PRFScore(), PRFScore()
    per_label: dict[str, PRFScore] = {}
    for example in examples:
        if not example.reference.has_annotation("DEP"):
            continue
        gold = {(t.i, t.head.i, _dep(t)) for t in example.reference if t.dep and _dep(t) not in ignored}
        system, unalignable = _system_arcs(example, ignored)
        labelled.score_set(system, gold)
        unlabelled.score_set({arc[:2] for arc in system}, {arc[:2] for arc in gold})
        labelled.fp += unalignable
        unlabelled.fp += unalignable
        for label in {arc[2] for arc in gold | system}:
            of_label = per_label.setdefault(label, PRFScore())
            of_label.score_set({a for a in system if a[2] == label}, {a for a in gold if a[2] == label})
    if not len(unlabelled):
        return {"dep_uas": None, "dep_las": None, "dep_las_per_type": None}
    types = {label: of_label.to_dict() for label, of_label in per_label.items()}
    return {"dep_uas": unlabelled.fscore, "dep_las": labelled.fscore, "dep_las_per_type": types}


def sentence_scores(examples: Iterable[Example]) -> dict[str, Any]:
    """``sents_p``, ``sents_r`` and ``sents_f`` of whole sentences; None where no reference has sentences.

    References without sentences are skipped; a predicted document without any counts as one that finds none.
    """

    def has_sentences(doc: Doc) -> bool:
        return doc.has_annotation("SENT_START")

    scores = Scorer.score_spans(examples, "sents", has_annotation=has_sentences)
    return {key: scores[key] for key in ("sents_p", "sents_r", "sents_f")}


def _system_arcs(example: Example, ignored: frozenset[str]) -> tuple[set[tuple[int, int, str]], int]:
    """Predicted arcs in the reference's token numbers, and how many have no place there.

    Tokens whose reference has no relation are not scored; white space never is.
    """
    x2y, reference = example.alignment.x2y, example.reference
    place = [int(x2y[i][0]) if x2y.lengths[i] == 1 else None for i in range(len(example.predicted))]
    arcs, unalignable = set(), 0
    for token in example.predicted:
        dep, head = place[token.i], place[token.head.i]
        unannotated = dep is not None and not reference[dep].dep
        if token.is_space or unannotated or not token.dep or _dep(token) in ignored:
            continue
        if dep is None or head is None:
            unalignable += 1
        else:
            arcs.add((dep, head, _dep(token)))
    return arcs, unalignable


def _dep(token: Token) -> str:
    return token.dep_.lower()


# ---- semantic graphs -----------------------------------------------------------------------------


@registry.scorers("diffdecode.sdp_scorer.v1")
def make_sdp_scorer(tops: bool = True) -> ScoreFunction:
    """Scores ``sdp_up sdp_ur sdp_uf sdp_um sdp_lp sdp_lr sdp_lf sdp_lm`` and ``sdp_lf_per_type``.

    The component that is scored says with ``key=`` which graphs are; those of ``psd`` have the scores
    ``psd_up`` and so on.

    Args:
        tops: count tops as edges from a virtual root, as the official figures of SDP 2015 do.
    """
    return partial(_score_graphs, tops)


def _score_graphs(
    tops: bool, examples: Iterable[Example], *, key: str = DEFAULT_KEY, **_: Any
) -> dict[str, Any]:
    return sdp_scores(examples, tops, key)


def sdp_scores(examples: Iterable[Example], tops: bool = True, key: str = DEFAULT_KEY) -> dict[str, Any]:
    """Scores of the graphs with a key, whose names begin with it; None where no reference has a graph.

    A predicted document without a graph counts as one without edges. A predicted edge that touches a token
    which does not stand one to one for a reference token is wrong.
    """
    scores = GraphPRF()
    for example in examples:
        gold = get_graph(example.reference, key)
        if gold is not None:
            scores.add(graph_edges(gold, tops), graph_edges(_in_reference_tokens(example, key), tops))
    if not scores.labelled.graphs:
        return {f"{key}_{name}": None for name in (*GRAPH_KEYS, "lf_per_type")}
    types = {
        label: {"p": score.precision, "r": score.recall, "f": score.f1}
        for label, score in sorted(scores.per_label.items())
    }
    return {f"{key}_{name}": value for name, value in (scores.to_dict() | {"lf_per_type": types}).items()}


def weights_by_key(weights: MutableMapping[str, float | None], keys: Collection[str]) -> None:
    """Give the graphs of each key the weights of those of the usual key, where a config says nothing of them.

    spaCy takes the weights of a component's scores, and so the columns it shows in training, from its
    factory, which cannot know the key.

    Args:
        weights: by the names of scores; changed in place.
        keys: of all graphs that a pipeline makes; where the usual one is not among them, its scores are not
            shown.
    """
    usual = {name: f"{DEFAULT_KEY}_{name}" for name in (*GRAPH_KEYS, "lf_per_type")}
    for key in keys:
        for name, as_usual in usual.items():
            weights.setdefault(f"{key}_{name}", weights.get(as_usual))
    if DEFAULT_KEY not in keys:
        weights.update(dict.fromkeys(usual.values()))


def _in_reference_tokens(example: Example, key: str) -> SdpGraph:
    """The predicted graph with the reference's token numbers; tokens without one get numbers from -2 down."""
    graph = get_graph(example.predicted, key)
    if graph is None:
        return SdpGraph((), ())
    place = {token: -2 - token for token in range(len(example.predicted))}
    place.update({int(mine): gold for gold, mine in enumerate(one_to_one(example)) if mine >= 0})
    arcs = tuple(arc._replace(head=place[arc.head], dep=place[arc.dep]) for arc in graph.arcs)
    return SdpGraph(arcs, tuple(place[token] for token in graph.top))


# ---- categories ----------------------------------------------------------------------------------


@registry.scorers("diffdecode.cats_scorer.v1")
def make_cats_scorer(multi_label: bool = False) -> ScoreFunction:
    """Scores ``cats_*`` as spaCy does, on documents with categories only, and adds ``cats_acc``.

    Args:
        multi_label: whether a document may have several categories. ``cats_acc`` is the share of
            documents whose best category is the right one (exclusive categories only, None otherwise).
    """
    return partial(_score_cats, multi_label)


def _score_cats(by_config: bool, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
    return cats_scores(examples, **kwargs | {"multi_label": by_config})


def cats_scores(examples: Iterable[Example], multi_label: bool = False, **kwargs: Any) -> dict[str, Any]:
    """``Scorer.score_cats`` without the unlabelled documents; None where there is no labelled one.

    An exclusive document is labelled if one of its categories is more than 0.
    Raises ValueError for a labelled document for which no categories were predicted.
    """
    labelled = [eg for eg in examples if (eg.reference.cats if multi_label else _best(eg.reference.cats))]
    for example in labelled:
        if not example.predicted.cats:
            raise ValueError(
                f"no categories were predicted for {example.predicted.text!r:.60}: the pipeline has no text "
                "classifier, or it did not run"
            )
    scores = Scorer.score_cats(labelled, "cats", multi_label=multi_label, **kwargs) | {"cats_acc": None}
    if not labelled:
        return dict.fromkeys(scores)
    if not multi_label:
        right = sum(_best(example.predicted.cats) == _best(example.reference.cats) for example in labelled)
        scores["cats_acc"] = right / len(labelled)
    return scores


def _best(cats: dict[str, float]) -> str | None:
    """The category with the highest score; None where none has more than 0."""
    return max((name for name, score in cats.items() if score > 0), key=cats.__getitem__, default=None)
