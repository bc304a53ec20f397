"""Two graphs decided together: the best of all pairs of graphs, by enumeration."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffdecode.structure import (
    NO_ARC,
    GraphParts,
    JointParts,
    SemanticGraph,
    given_the_other,
    graph_negative_log_likelihood,
    joint_negative_log_likelihood,
    joint_scores,
    joint_semantic_graphs,
    semantic_graph,
)


def all_graphs(words, labels):
    """Every graph: predicates, and for each of them any arguments."""
    size, found = words + 1, []
    for predicates in itertools.product([False, True], repeat=size):
        arcs = [(a, p) for p in range(size) if predicates[p] for a in range(1, size) if a != p]
        for chosen in itertools.product(range(-1, labels), repeat=len(arcs)):
            matrix = torch.full((size, size), NO_ARC)
            for (argument, predicate), label in zip(arcs, chosen):
                matrix[argument, predicate] = label
            found.append((matrix, torch.tensor(predicates)))
    return SemanticGraph(torch.stack([one[0] for one in found]), torch.stack([one[1] for one in found]))


GRAPHS = {(words, labels): all_graphs(words, labels) for words in (1, 2) for labels in (1, 2)}


def draw(generator, *shape, ties=False, forbidden=0.0):
    values = torch.randn(*shape, generator=generator, dtype=torch.float64)
    if ties:
        values = values.round()
    return values.masked_fill(torch.rand(*shape, generator=generator) < forbidden, -torch.inf)


def random_parts(seed, words, labels, share, batch=1, **options):
    generator, size = torch.Generator().manual_seed(seed), words + 1
    graphs = [
        GraphParts(
            draw(generator, batch, size, **options),
            draw(generator, batch, size, size, **options),
            draw(generator, batch, size, size, count, **options),
        )
        for count in labels
    ]
    places = (torch.rand(batch, size, size, generator=generator) < share).nonzero()
    options["forbidden"] = 0.0
    return JointParts(*graphs, places, 2 * draw(generator, len(places), *labels, **options))


def repeated(parts, times):
    """The same sentence many times."""
    graphs = [GraphParts(*(p.expand(times, *p.shape[1:]) for p in one)) for one in parts[:2]]
    places = parts.places.repeat(times, 1)
    places[:, 0] = torch.arange(times).repeat_interleave(len(parts.places))
    return JointParts(*graphs, places, parts.pairs.repeat(times, 1, 1))


def scores_of_all(parts, graphs):
    """All pairs of graphs of one sentence, and their scores."""
    first, second = graphs
    pairs = (
        SemanticGraph(*(part.repeat_interleave(len(second.labels), 0) for part in first)),
        SemanticGraph(*(part.repeat(len(first.labels), *[1] * (part.dim() - 1)) for part in second)),
    )
    return pairs, joint_scores(repeated(parts, len(pairs[0].labels)), pairs)


@given(
    seed=st.integers(0, 10**6),
    words=st.integers(1, 2),
    labels=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    ties=st.booleans(),
    forbidden=st.sampled_from([0.0, 0.3]),
)
def test_no_pair_of_graphs_is_better(seed, words, labels, share, ties, forbidden):
    parts = random_parts(seed, words, labels, share, ties=ties, forbidden=forbidden)
    found = joint_semantic_graphs(parts)
    best = scores_of_all(parts, [GRAPHS[words, count] for count in labels])[1].max()
    torch.testing.assert_close(joint_scores(parts, found)[0], best)
    for graph in found:
        assert graph.predicates[(graph.labels >= 0).any(1)].all()


@given(
    seed=st.integers(0, 10**6),
    words=st.integers(1, 5),
    share=st.sampled_from([0.3, 1.0]),
    forbidden=st.sampled_from([0.0, 0.3]),
)
def test_each_graph_is_the_best_given_the_other(seed, words, share, forbidden):
    parts = random_parts(seed, words, (2, 3), share, batch=3, forbidden=forbidden)
    lengths = torch.tensor([words, 1, max(1, words - 1)])
    found = joint_semantic_graphs(parts, lengths)
    for i in range(2):
        own = given_the_other(parts, i, found[1 - i])
        expected = semantic_graph(own.arcs, own.labels, own.predicates, lengths)
        assert torch.equal(found[i].labels, expected.labels)
        assert torch.equal(found[i].predicates, expected.predicates)


@given(seed=st.integers(0, 10**6), words=st.integers(1, 4))
def test_without_pairs_each_graph_is_decided_by_itself(seed, words):
    parts = random_parts(seed, words, (2, 3), 0.0, batch=2)
    for found, own in zip(joint_semantic_graphs(parts), parts[:2]):
        expected = semantic_graph(own.arcs, own.labels, own.predicates)
        assert torch.equal(found.labels, expected.labels) and torch.equal(
            found.predicates, expected.predicates
        )


@given(seed=st.integers(0, 10**6), words=st.integers(1, 4), more=st.integers(0, 2))
def test_a_sentence_is_the_same_alone_and_in_company(seed, words, more):
    """With batch mates, and with padding, whose places count for nothing."""
    parts = random_parts(seed, words + more, (2, 2), 0.7, batch=3)
    lengths = torch.tensor([words, words + more, 1])
    together = joint_semantic_graphs(parts, lengths)
    size = words + 1
    is_mine = (parts.places[:, 0] == 0) & (parts.places[:, 1:] < size).all(1)
    alone = JointParts(
        *(
            GraphParts(o.predicates[:1, :size], o.arcs[:1, :size, :size], o.labels[:1, :size, :size])
            for o in parts[:2]
        ),
        parts.places[is_mine],
        parts.pairs[is_mine],
    )
    torch.testing.assert_close(
        joint_negative_log_likelihood(alone, joint_semantic_graphs(alone)),
        joint_negative_log_likelihood(parts, together, None, lengths)[:1],
    )
    for one, other in zip(joint_semantic_graphs(alone), together):
        assert torch.equal(one.labels[0], other.labels[0, :size, :size])
        assert not other.predicates[0, size:].any() and (other.labels[0, size:] == NO_ARC).all()


@given(
    seed=st.integers(0, 10**6),
    words=st.integers(1, 2),
    labels=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    forbidden=st.sampled_from([0.0, 0.2]),
    annotated=st.tuples(*[st.sampled_from(["all", "some", "none"])] * 2),
)
def test_likelihood_by_enumeration(seed, words, labels, share, forbidden, annotated):
    """Of all pairs of graphs that agree with what is known."""
    parts = random_parts(seed, words, labels, share, forbidden=forbidden)
    generator = torch.Generator().manual_seed(seed)
    graphs = [GRAPHS[words, count] for count in labels]
    pairs, scores = scores_of_all(parts, graphs)
    drawn = int(torch.multinomial(scores.softmax(0), 1, generator=generator))
    gold = [SemanticGraph(*(part[drawn : drawn + 1] for part in graph)) for graph in pairs]
    agree, known = torch.ones(len(scores), dtype=torch.bool), []
    for how, graph, wanted in zip(annotated, pairs, gold):
        share_known = {"all": 1.1, "some": 0.5, "none": 0.0}[how]
        known.append(torch.rand(1, words + 1, words + 1, generator=generator) < share_known)
        known[-1][:, 0] = False
        known[-1].diagonal(dim1=1, dim2=2).fill_(False)
        agree &= ((graph.labels == wanted.labels) | ~known[-1]).flatten(1).all(1)
        if known[-1].any():
            agree &= (graph.predicates == wanted.predicates).all(1)
    found = joint_negative_log_likelihood(parts, tuple(gold), tuple(known))
    expected = scores.logsumexp(0) - scores[agree].logsumexp(0)
    torch.testing.assert_close(found[0], expected, atol=1e-7, rtol=1e-7)
    if annotated == ("all", "all"):
        torch.testing.assert_close(joint_negative_log_likelihood(parts, tuple(gold)), found)


def test_likelihood_of_two_graphs_without_pairs_is_that_of_each():
    parts, lengths = random_parts(3, 4, (2, 3), 0.0, batch=3), torch.tensor([4, 1, 3])
    gold = joint_semantic_graphs(parts, lengths)
    expected = sum(
        graph_negative_log_likelihood(own.arcs, own.labels, own.predicates, graph, lengths)
        for own, graph in zip(parts[:2], gold)
    )
    torch.testing.assert_close(joint_negative_log_likelihood(parts, gold, None, lengths), expected)


def test_gradients_of_the_likelihood():
    parts, lengths = random_parts(1, 3, (2, 2), 0.6, batch=2), torch.tensor([3, 2])
    gold = joint_semantic_graphs(parts, lengths)
    known = torch.rand(2, 4, 4) < 0.5, torch.ones(2, 4, 4, dtype=torch.bool)
    leaves = [part.requires_grad_() for part in (*parts.first, *parts.second, parts.pairs)]

    def loss(*leaves):
        graphs = GraphParts(*leaves[:3]), GraphParts(*leaves[3:6])
        return joint_negative_log_likelihood(
            JointParts(*graphs, parts.places, leaves[6]), gold, known, lengths
        )

    assert torch.autograd.gradcheck(loss, leaves)


def test_a_forbidden_gold_graph_names_its_row():
    parts = random_parts(0, 2, (2, 2), 0.5, batch=2)
    gold = joint_semantic_graphs(parts)
    parts.second.predicates[1, 1] = -torch.inf
    gold[1].predicates[1, 1] = True
    with pytest.raises(ValueError, match="batch row 1"):
        joint_negative_log_likelihood(parts, gold)


def test_gradients_of_the_score():
    parts = random_parts(0, 3, (2, 3), 0.6, batch=2)
    found = joint_semantic_graphs(parts)
    leaves = [part.requires_grad_() for part in (*parts.first, *parts.second, parts.pairs)]

    def score(*leaves):
        return joint_scores(
            JointParts(GraphParts(*leaves[:3]), GraphParts(*leaves[3:6]), parts.places, leaves[6]), found
        )

    assert torch.autograd.gradcheck(score, leaves)


@pytest.mark.parametrize("part", ["arcs", "labels", "pairs"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_no_score_names_its_row(part, value):
    parts = random_parts(0, 2, (2, 2), 1.0, batch=2)
    if part == "pairs":
        parts.pairs[int((parts.places == torch.tensor([1, 1, 2])).all(1).nonzero()[0]), 0, 1] = value
    else:
        getattr(parts.second, part)[1, 1, 2] = value
    with pytest.raises(ValueError, match="batch row 1"):
        joint_semantic_graphs(parts)


def test_shapes():
    parts = random_parts(0, 2, (2, 2), 1.0)
    with pytest.raises(ValueError, match="expected places"):
        joint_semantic_graphs(parts._replace(pairs=parts.pairs[:, :1]))
    with pytest.raises(ValueError, match="other words"):
        joint_semantic_graphs(parts._replace(second=random_parts(0, 3, (2, 2), 0.0).first))
