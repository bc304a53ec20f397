"""A tok2vec-shaped layer that adds to each word's vector those of all its neighbours in a tree.

``HeadConcat`` lets a word see its head, as equation 7 of the SPIGOT paper has it (Peng et al., 2018).
Here it also sees its children, those on its left and those on its right apart, and its grandparent. All are
functions of the arcs ``z`` (``z_ji`` is 1 for an arc from ``i`` to ``j``; the root has no vector) that make
sense between 0 and 1 as well, so there is an exact gradient on each arc, of those not in the tree, too.
"""

from collections.abc import Sequence
from typing import Literal

from spacy import registry
from spacy.tokens import Doc
from thinc.api import Model, Ops
from thinc.types import Floats2d, Ints1d

from spacy_components.ml.listening.flat_words import FlatWords
from spacy_components.ml.listening.gradients import ArcGradient
from spacy_components.ml.thinc_glue.tok2vec_width import initialize_tok2vec


@registry.architectures("diffdecode.TreeConcat.v1")
def build_tree_concat(
    tok2vec: Model[list[Doc], list[Floats2d]],
    parse: Model[list[Doc], list[Ints1d]],
    children: Literal["sum", "mean"] = "sum",
    grandparent: bool = False,
) -> Model[list[Doc], list[Floats2d]]:
    """A word's vector, then its head's, its left and its right children's, and its grandparent's.

    With arcs ``z [n, n]``: ``[h_j ; sum_i z_ji h_i ; sum_{c<j} z_cj h_c ; sum_{c>j} z_cj h_c]`` and, with
    ``grandparent``, ``sum_i z_ji sum_k z_ik h_k``; zeros where there is no such word.

    Args:
        tok2vec: the vectors ``h``, ``[n, w]`` a document; see ``diffdecode.HeadConcat.v1``.
        parse: the heads: ``diffdecode.ParseListener.v1``.
        children: ``sum``, or ``mean`` over as many children as there are on that side.
        grandparent: whether the head's head is seen, too.

    Returns:
        The layer, four or five times as wide as ``tok2vec``.

    Raises:
        ValueError: another word for ``children``.
    """
    if children not in ("sum", "mean"):
        raise ValueError(f"diffdecode.TreeConcat.v1: children is 'sum' or 'mean', not {children!r}")
    width, parts = tok2vec.maybe_get_dim("nO"), 5 if grandparent else 4
    return Model(
        "tree_concat",
        _forward,
        init=_init,
        layers=[tok2vec, parse],
        dims={"nO": parts * width if width else None},
        attrs={"mean": children == "mean", "parts": parts},
        refs={"tok2vec": tok2vec, "parse": parse},
    )


def _init(model: Model, X: Sequence[Doc] | None = None, Y=None) -> None:
    model.layers[1].initialize(X=X)
    width = initialize_tok2vec(model.layers[0], X, model.name)
    if model.has_dim("nO") is None:
        model.set_dim("nO", model.attrs["parts"] * width)


def _forward(model: Model, docs: Sequence[Doc], is_train: bool):
    tok2vec, parse = model.layers
    vectors, backprop_tok2vec = tok2vec(docs, is_train)
    heads, backprop_parse = parse(docs, is_train)
    ops, xp, words = model.ops, model.ops.xp, FlatWords(model, vectors)
    head, h, parts = words.positions(heads), words.flat, model.attrs["parts"]
    own = xp.arange(len(h))
    up = _Arcs(ops, head, head >= 0)
    sides = [_Arcs(ops, head, (head >= 0) & side) for side in (own < head, own > head)]
    counts = [
        xp.maximum(arcs.down(xp.ones_like(h[:, :1])), 1) if model.attrs["mean"] else 1 for arcs in sides
    ]
    of_head = up.up(h)
    of_children = [arcs.down(h) / count for arcs, count in zip(sides, counts)]
    out = [h, of_head, *of_children]
    if parts == 5:
        out.append(up.up(of_head))

    def backprop(gradients: Sequence[Floats2d]):
        d_own, d_head, *rest = words.columns(gradients, [h.shape[1]] * parts)
        d_children = [gradient / count for gradient, count in zip(rest, counts)]
        dependents, of_heads = [d_head], [h]
        if parts == 5:  # the gradient on the word's head, and on the head's head
            dependents = [d_head + up.down(rest[2]), rest[2]]
            of_heads = [h, of_head]
        d_h = d_own + up.down(dependents[0])
        for arcs, gradient in zip(sides, d_children):
            d_h += arcs.up(gradient)
        kids, by_side = h, d_children
        if model.attrs["mean"]:  # one more child also makes the others count less
            kids = xp.concatenate([h, xp.ones_like(h[:, :1])], axis=1)
            less = [(d * m).sum(axis=1, keepdims=True) for d, m in zip(d_children, of_children)]
            by_side = [xp.concatenate(pair, axis=1) for pair in zip(d_children, [-x for x in less])]
        factors = [xp.concatenate(dependents, axis=1), xp.concatenate(of_heads, axis=1), kids, *by_side]
        # The parse goes first: see head_concat.
        backprop_parse([ArcGradient(*rows) for rows in zip(*map(words.by_doc, factors))])
        return backprop_tok2vec(words.by_doc(d_h, like=vectors))

    return words.by_doc(xp.concatenate(out, axis=1)), backprop


class _Arcs:
    """Some of the arcs of trees, as a linear map between words and their heads."""

    def __init__(self, ops: Ops, head: Ints1d, chosen):
        self._ops = ops
        self._head = ops.xp.where(chosen, head, 0)
        self._weight = chosen[:, None].astype("f")

    def up(self, rows: Floats2d) -> Floats2d:
        """To each word what its head has: ``z rows``."""
        return rows[self._head] * self._weight

    def down(self, rows: Floats2d) -> Floats2d:
        """To each word the sum of what its dependents have: ``z^T rows``."""
        total = self._ops.alloc2f(*rows.shape)
        self._ops.scatter_add(total, self._head, rows * self._weight)
        return total
