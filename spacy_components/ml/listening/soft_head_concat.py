"""A tok2vec-shaped layer that adds to each word's vector that of its head in expectation.

It is structured attention (Kim, Denton, Hoang and Rush, 2017), to which the SPIGOT paper compares (Peng,
Thomson and Smith, 2018, Table 1): ``HeadConcat`` with the probabilities of all arcs, not the best tree.
"""

from collections.abc import Sequence

from spacy import registry
from spacy.tokens import Doc
from thinc.api import Model, Ops
from thinc.types import Floats1d, Floats2d, Ints1d

from spacy_components.ml.listening.concat import initialize_concat
from spacy_components.ml.listening.flat_words import FlatWords
from spacy_components.ml.listening.gradients import ArcGradient
from spacy_components.ml.trees.soft_trees import SoftTree


@registry.architectures("diffdecode.SoftHeadConcat.v1")
def build_soft_head_concat(
    tok2vec: Model[list[Doc], list[Floats2d]], parse: Model[list[Doc], list[SoftTree]]
) -> Model[list[Doc], list[Floats2d]]:
    """A word's vector, then the mean of all words' by the probability that they are its head.

    ``[h_j ; sum_i mu_ji h_i]``, where ``mu_ji`` is the marginal probability of the arc from ``i`` to ``j``.

    Args:
        tok2vec: the vectors h; see ``diffdecode.HeadConcat.v1``.
        parse: the probabilities: ``diffdecode.SoftParseListener.v1``.

    Returns:
        The layer, twice as wide as ``tok2vec``.
    """
    width = tok2vec.maybe_get_dim("nO")
    return Model(
        "soft_head_concat",
        _forward,
        init=initialize_concat,
        layers=[tok2vec, parse],
        dims={"nO": 2 * width if width else None},
        refs={"tok2vec": tok2vec, "parse": parse},
    )


def _forward(model: Model, docs: Sequence[Doc], is_train: bool):
    tok2vec, parse = model.layers
    vectors, backprop_tok2vec = tok2vec(docs, is_train)
    trees, backprop_parse = parse(docs, is_train)
    ops, xp, words = model.ops, model.ops.xp, FlatWords(model, vectors)
    h = words.flat
    head, dependent = (words.positions([tree[part] for tree in trees]) for part in (0, 1))
    probs = xp.concatenate([tree.probs for tree in trees]) if trees else ops.alloc1f(0)
    of_head = _moved(ops, h, head, dependent, probs)

    def backprop(gradients: Sequence[Floats2d]):
        own, of_heads = words.columns(gradients, [h.shape[1]] * 2)
        own += _moved(ops, of_heads, dependent, head, probs)
        # The parse goes first: see head_concat.
        backprop_parse([ArcGradient(d, rows) for d, rows in zip(words.by_doc(of_heads), words.by_doc(h))])
        return backprop_tok2vec(words.by_doc(own, like=vectors))

    return words.by_doc(xp.concatenate([h, of_head], axis=1)), backprop


def _moved(ops: Ops, rows: Floats2d, of: Ints1d, to: Ints1d, weights: Floats1d) -> Floats2d:
    """To each word the sum of the rows that go there, weighted."""
    total = ops.alloc2f(*rows.shape)
    ops.scatter_add(total, to, rows[of] * weights[:, None])
    return total
