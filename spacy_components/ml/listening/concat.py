"""tok2vec-shaped layers that add to each word's vector what its heads in a tree or graph say.

They are equation 7 of the SPIGOT paper (Peng, Thomson and Smith, 2018) and its variant for graphs (section
4.2.1). Any component with a ``tok2vec`` can use them, and trains the parser upstream by doing so.
"""

from collections.abc import Sequence

from spacy import registry
from spacy.tokens import Doc
from thinc.api import Model, glorot_uniform_init
from thinc.types import Floats2d, Ints1d, Ints2d

from spacy_components.ml.listening.gradients import ArcGradient, GraphGradient
from spacy_components.ml.thinc_glue.tok2vec_width import initialize_tok2vec


@registry.architectures("diffdecode.HeadConcat.v1")
def build_head_concat(
    tok2vec: Model[list[Doc], list[Floats2d]], parse: Model[list[Doc], list[Ints1d]]
) -> Model[list[Doc], list[Floats2d]]:
    """A word's vector followed by that of its head: ``[h_j ; h_head(j)]``, zeros for the root (equation 7).

    tok2vec (Model[List[Doc], List[Floats2d]]): The vectors h. They belong to the end task, as in the paper;
        put a listener here to share them with other components.
    parse (Model[List[Doc], List[Ints1d]]): The heads: ``diffdecode.ParseListener.v1``.
    RETURNS (Model[List[Doc], List[Floats2d]]): The layer, twice as wide as ``tok2vec``.
    """
    width = tok2vec.maybe_get_dim("nO")
    model: Model = Model(
        "head_concat",
        _head_forward,
        init=_head_init,
        layers=[tok2vec, parse],
        dims={"nO": 2 * width if width else None},
    )
    model.set_ref("tok2vec", tok2vec)
    model.set_ref("parse", parse)
    return model


def _head_init(model: Model, X=None, Y=None) -> None:
    model.layers[1].initialize(X=X)
    width = initialize_tok2vec(model.layers[0], X, model.name)
    if model.has_dim("nO") is None:
        model.set_dim("nO", 2 * width)


def _head_forward(model: Model, docs: Sequence[Doc], is_train: bool):
    tok2vec, parse = model.layers
    vectors, backprop_tok2vec = tok2vec(docs, is_train)
    heads, backprop_parse = parse(docs, is_train)
    xp, words = model.ops.xp, _Words(model, vectors)
    head = words.positions(heads)
    has_head = (head >= 0)[:, None].astype("f")
    of_head = words.flat[head] * has_head

    def backprop(gradients: Sequence[Floats2d]):
        own, of_heads = words.split_columns(gradients)
        model.ops.scatter_add(own, xp.maximum(head, 0), of_heads * has_head)
        # The parse goes first: a shared tok2vec starts its own backward pass at the last listener's gradient,
        # and the parser's, which comes through here, has to be there by then.
        backprop_parse([ArcGradient(d, h) for d, h in zip(words.by_doc(of_heads), words.by_doc(words.flat))])
        return backprop_tok2vec(words.by_doc(own, like=vectors))

    return words.by_doc(xp.concatenate([words.flat, of_head], axis=1)), backprop


@registry.architectures("diffdecode.GraphConcat.v1")
def build_graph_concat(
    tok2vec: Model[list[Doc], list[Floats2d]], graph: Model[list[Doc], list[Ints2d]], role_width: int = 32
) -> Model[list[Doc], list[Floats2d]]:
    """A word's vector followed by the mean over its heads of their vectors and its roles (section 4.2.1).

    ``[h_j ; mean over arcs (i, j, l) of [h_i ; r_l]]`` with a vector ``r_l`` for each label; zeros for words
    without heads.

    tok2vec (Model[List[Doc], List[Floats2d]]): The vectors h; see ``diffdecode.HeadConcat.v1``.
    graph (Model[List[Doc], List[Ints2d]]): The arcs: ``diffdecode.GraphListener.v1``.
    role_width (int): Size of the labels' vectors.
    RETURNS (Model[List[Doc], List[Floats2d]]): The layer, ``2 * nO + role_width`` wide.
    """
    width = tok2vec.maybe_get_dim("nO")
    model: Model = Model(
        "graph_concat",
        _graph_forward,
        init=_graph_init,
        layers=[tok2vec, graph],
        params={"roles": None},
        dims={"nO": 2 * width + role_width if width else None, "nL": None, "nR": role_width},
    )
    model.set_ref("tok2vec", tok2vec)
    model.set_ref("graph", graph)
    return model


def _graph_init(model: Model, X=None, Y=None) -> None:
    graph = model.layers[1]
    graph.initialize(X=X)
    width = initialize_tok2vec(model.layers[0], X, model.name)
    labels = _labels(graph)
    if not labels:
        raise ValueError(
            "diffdecode.GraphConcat.v1: the labels of the graph are not known. Put the component upstream "
            "(spigot_sdp) earlier into the pipeline and initialize it, or give diffdecode.GraphListener.v1 "
            "the labels."
        )
    if model.has_dim("nO") is None:
        model.set_dim("nO", 2 * width + model.get_dim("nR"))
    if not model.has_param("roles"):
        model.set_dim("nL", len(labels))
        shape = (len(labels), model.get_dim("nR"))
        model.set_param("roles", glorot_uniform_init(model.ops, shape))


def _labels(graph: Model) -> list[str]:
    """The labels that a listener, or a private copy of a parser, delivers."""
    return next((node.attrs["labels"] for node in graph.walk() if node.attrs.get("labels")), [])


def _graph_forward(model: Model, docs: Sequence[Doc], is_train: bool):
    tok2vec, graph = model.layers
    vectors, backprop_tok2vec = tok2vec(docs, is_train)
    arcs, backprop_graph = graph(docs, is_train)
    xp, words, roles = model.ops.xp, _Words(model, vectors), model.get_param("roles")
    width = words.flat.shape[1]
    head, dependent = words.positions([a[:, 0] for a in arcs]), words.positions([a[:, 1] for a in arcs])
    label = xp.concatenate([a[:, 2] for a in arcs])
    has_role = (label >= 0)[:, None].astype("f")
    of_arcs = xp.concatenate([words.flat[head], roles[label] * has_role], axis=1)
    count = xp.maximum(xp.bincount(dependent, minlength=len(words.flat)), 1).astype("f")[:, None]
    mean = model.ops.alloc2f(len(words.flat), width + model.get_dim("nR"))
    model.ops.scatter_add(mean, dependent, of_arcs)
    mean /= count

    def backprop(gradients: Sequence[Floats2d]):
        own, of_mean = words.split_columns(gradients)
        per_arc = of_mean / count
        model.ops.scatter_add(own, head, xp.ascontiguousarray(per_arc[dependent, :width]))
        d_roles = model.ops.alloc2f(*roles.shape)
        model.ops.scatter_add(d_roles, xp.maximum(label, 0), per_arc[dependent, width:] * has_role)
        model.inc_grad("roles", d_roles)
        factors = (per_arc[:, :width], words.flat, per_arc[:, width:] @ roles.T, (per_arc * mean).sum(axis=1))
        # The graph goes first, as the parse does in _head_forward.
        backprop_graph([GraphGradient(*parts) for parts in zip(*map(words.by_doc, factors))])
        return backprop_tok2vec(words.by_doc(own, like=vectors))

    return words.by_doc(xp.concatenate([words.flat, mean], axis=1)), backprop


class _Words:
    """The words of all documents in one array, so that a layer costs a few kernels and not some per document.

    Documents without words count as ``[0, width]``, whatever their tok2vec makes of them.
    """

    def __init__(self, model: Model, vectors: Sequence[Floats2d]):
        self._ops = model.ops
        self._lengths = [rows.shape[0] for rows in vectors]
        filled = [rows for rows in vectors if rows.shape[0]]
        if filled:
            self.flat = model.ops.xp.concatenate(filled)
        else:
            self.flat = model.ops.alloc2f(0, model.layers[0].maybe_get_dim("nO") or 0)

    def positions(self, indices: Sequence[Ints1d]) -> Ints1d:
        """Positions within each document to positions in ``flat``; negative ones stay -1."""
        xp = self._ops.xp
        start, shifted = 0, []
        for index, length in zip(indices, self._lengths):
            shifted.append(xp.where(index >= 0, index + start, -1))
            start += length
        return xp.concatenate(shifted) if shifted else xp.zeros(0, dtype="i8")

    def split_columns(self, gradients: Sequence[Floats2d]) -> tuple[Floats2d, Floats2d]:
        """The gradient on the layer's output as new arrays: on the words' own vectors, and on the rest."""
        xp, width = self._ops.xp, self.flat.shape[1]
        filled = [rows for rows in gradients if rows.shape[0]]
        both = xp.concatenate(filled) if filled else self._ops.alloc2f(0, 2 * width)
        return xp.array(both[:, :width]), xp.ascontiguousarray(both[:, width:])

    def by_doc(self, flat, like: Sequence[Floats2d] | None = None) -> list:
        """One part per document; documents without words get the shape they have in ``like``."""
        parts, start = [], 0
        for i, length in enumerate(self._lengths):
            empty = like is not None and not length
            parts.append(self._ops.alloc2f(*like[i].shape) if empty else flat[start : start + length])
            start += length
        return parts
