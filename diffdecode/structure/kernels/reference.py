"""Decisions and marginals in plain torch: the readable definitions that every kernel is tested against.

All functions take ``scores [B, N+1, N+1]`` (dependent, head; float32 or float64), ``lengths [B]`` and
``multi_root``, and return a ``status [B]`` (:mod:`diffdecode.structure.kernels.status`) beside their
result, so that one bad sentence is named instead of spoiling the batch. They run on any device.

Ties. Every float addition below has a fixed order, and a choice between equal values goes to the smallest
index: the leftmost split point of a span and the leftmost root word (Eisner); the smallest head of a word,
inside a cycle the word reached last, and the first of the root words that lose least (Chu-Liu/Edmonds). A
kernel that makes the same additions makes the same choices, so the decisions of all kernels are equal, not
merely equally good.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from diffdecode.structure.kernels.active_set import project_onto_hull
from diffdecode.structure.kernels.base import Backend, TreeAlgorithms
from diffdecode.structure.kernels.randomness import (
    ARC_SPAN,
    LEFT_SPAN,
    RIGHT_SPAN,
    ROOT_SPAN,
    TREE,
    number,
    uniform,
)
from diffdecode.structure.kernels.status import NO_TREE, OK, PADDING, possible_arcs, status_of_scores

# --------------------------------------------------------------------------- projective trees


def eisner(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Best projective tree (Eisner 2000, Section 4).

    Returns:
        heads ``[B, N]`` (``PADDING`` beyond the length), status ``[B]``.
    """
    status = status_of_scores(scores, lengths)
    masked = _forbid_impossible(scores.detach(), lengths)
    charts = inside_charts(masked, lengths, multi_root, _best)
    status = _status_of_total(status, charts["total"])
    arrays = {name: values.cpu().numpy() for name, values in charts.items()}
    heads = torch.full((len(scores), scores.shape[1] - 1), PADDING, dtype=torch.int64)
    for b, n in enumerate(lengths.tolist()):
        if status[b] == 0:
            chart = {name: values[b] for name, values in arrays.items()}
            _walk_down(chart, n, multi_root, lambda values, *place: int(np.argmax(values)), heads[b])
    return heads.to(scores.device), status


def inside_charts(
    scores: Tensor, lengths: Tensor, multi_root: bool, plus: Callable[[list[Tensor]], Tensor]
) -> dict[str, Tensor]:
    """The inside recursion over spans ``i <= j``, width by width, in the semiring with sum ``plus``.

    Four kinds of item, each a chart ``[B, N+1, N+1]`` read at ``[b, i, j]`` (``right``: the head is ``i``,
    ``left``: the head is ``j``)::

        arc(i, j)            = plus_r  right(i, r) + left(r+1, j)          i <= r < j
        arc_right(i, j)      = arc(i, j) + scores[j, i]
        arc_left(i, j)       = arc(i, j) + scores[i, j]
        right(i, j)          = plus_r  arc_right(i, r) + right(r, j)       i <  r <= j
        left(i, j)           = plus_r  left(i, r) + arc_left(r, j)         i <= r <  j

    With one root word, spans hold words only, and ``total = plus_r left(1, r) + scores[r, 0] + right(r, n)``;
    otherwise the root is the left end of every tree and ``total = right(0, n)``.
    """
    first = 0 if multi_root else 1
    words = scores[:, first:, first:]
    size = words.shape[1]
    zero = words.new_zeros(len(words), size)
    no_arc = torch.full_like(zero, -torch.inf)
    right, left, arc_right, arc_left = [zero], [zero], [no_arc], [no_arc]  # one diagonal per width
    for width in range(1, size):
        spans = size - width
        arc = plus(
            [right[r][:, :spans] + left[width - 1 - r][:, r + 1 : r + 1 + spans] for r in range(width)]
        )
        arc_right.append(arc + words.diagonal(-width, 1, 2))
        arc_left.append(arc + words.diagonal(width, 1, 2))
        right.append(
            plus([arc_right[r][:, :spans] + right[width - r][:, r : r + spans] for r in range(1, width + 1)])
        )
        left.append(plus([left[r][:, :spans] + arc_left[width - r][:, r : r + spans] for r in range(width)]))
    names = {"right": right, "left": left, "arc_right": arc_right, "arc_left": arc_left}
    charts = {
        name: pad(_from_diagonals(diagonals), (first, 0, first, 0), value=-torch.inf)
        for name, diagonals in names.items()
    }
    row = torch.arange(len(scores), device=scores.device)
    if multi_root:
        charts["total"] = charts["right"][row, 0, lengths]
    else:
        charts["by_root"] = charts["left"][:, 1] + scores[:, :, 0] + charts["right"][row, :, lengths]
        charts["total"] = plus(list(charts["by_root"].unbind(1)))
    return charts


def _from_diagonals(diagonals: list[Tensor]) -> Tensor:
    """``[B, size, size]`` whose ``w``-th upper diagonal is ``diagonals[w]``; -inf below."""
    size = len(diagonals)
    rows = [pad(diagonal, (0, width), value=-torch.inf) for width, diagonal in enumerate(diagonals)]
    by_width = torch.stack(rows, 2)  # [B, i, width]
    position = torch.arange(size, device=by_width.device)
    width = position[None, :] - position[:, None]
    chart = by_width.gather(2, width.clamp(min=0).expand(len(by_width), -1, -1))
    return chart.masked_fill(width < 0, -torch.inf)


def _best(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).amax(0)


def _log_sum(terms: list[Tensor]) -> Tensor:
    return log_sum(torch.stack(terms), 0)


def log_sum(values: Tensor, dim: int) -> Tensor:
    """``logsumexp`` that gives -inf and gradient 0 where all values are -inf; NaN for NaN or +inf."""
    peak = values.detach().amax(dim, keepdim=True).clamp(min=torch.finfo(values.dtype).min)
    total = (values - peak).exp().sum(dim)
    empty = total == 0
    return torch.where(empty, -torch.inf, total.masked_fill(empty, 1.0).log() + peak.squeeze(dim))


def _walk_down(
    chart: dict[str, np.ndarray], n: int, multi_root: bool, choose: Callable[..., int], heads: Tensor
) -> None:
    """Split the whole sentence into ever smaller spans.

    ``choose(values, kind, i, j)`` picks among the values of the splits of a span.
    """
    right, left = chart["right"], chart["left"]
    arc_right, arc_left = chart["arc_right"], chart["arc_left"]
    if multi_root:
        agenda = [("right", 0, n)]
    else:
        root = 1 + choose(chart["by_root"][1 : n + 1], ROOT_SPAN, 0, n)
        heads[root - 1] = 0
        agenda = [("left", 1, root), ("right", root, n)]
    while agenda:
        kind, i, j = agenda.pop()
        if i == j:
            continue
        if kind == "right":
            r = i + 1 + choose(arc_right[i, i + 1 : j + 1] + right[i + 1 : j + 1, j], RIGHT_SPAN, i, j)
            agenda += [("arc_right", i, r), ("right", r, j)]
        elif kind == "left":
            r = i + choose(left[i, i:j] + arc_left[i:j, j], LEFT_SPAN, i, j)
            agenda += [("left", i, r), ("arc_left", r, j)]
        else:
            dependent, head = (j, i) if kind == "arc_right" else (i, j)
            heads[dependent - 1] = head
            r = i + choose(right[i, i:j] + left[i + 1 : j + 1, j], ARC_SPAN, i, j)
            agenda += [("right", i, r), ("left", r + 1, j)]


def sample_projective(
    scores: Tensor, lengths: Tensor, multi_root: bool, seeds: Tensor
) -> tuple[Tensor, Tensor]:
    """Exact samples of projective trees: each span is split in proportion to what its splits sum up to.

    Args:
        seeds: ``[S, B]`` int64; a sample depends on its seed and its sentence alone, by :mod:`.randomness`.

    Returns:
        heads ``[S, B, N]`` (``PADDING`` beyond the length), status ``[B]``.
    """
    masked = _forbid_impossible(scores.detach().double(), lengths)
    charts = inside_charts(masked, lengths, multi_root, _log_sum)
    status = _status_of_total(status_of_scores(scores, lengths), charts["total"])
    arrays = {name: values.cpu().numpy() for name, values in charts.items()}
    heads = torch.full((*seeds.shape, scores.shape[1] - 1), PADDING, dtype=torch.int64)
    for (s, b), seed in np.ndenumerate(seeds.cpu().numpy()):
        if status[b] == 0:
            chart = {name: values[b] for name, values in arrays.items()}
            _walk_down(chart, int(lengths[b]), multi_root, _Draw(seed), heads[s, b])
    return heads.to(scores.device), status


class _Draw:
    """Draws an index in proportion to ``exp(values)``, by the number that a seed gives to a place."""

    def __init__(self, seed: int):
        self.seed = int(seed)

    def __call__(self, values: np.ndarray, kind: int, i: int, j: int) -> int:
        cumulative = np.cumsum(np.exp(values - values.max()))
        target = uniform(self.seed, number(kind, i, j)) * cumulative[-1]
        return int(np.searchsorted(cumulative, target, side="right"))


def inside_outside(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Arc marginals and log-partition of projective trees.

    The outside pass is the gradient of the inside pass (Eisner 2016).

    Returns:
        marginals ``[B, N+1, N+1]`` (dependent, head), log-partition ``[B]`` in float64, status ``[B]``.
    """
    return _marginals(inside_log_partition, scores, lengths, multi_root)


def inside_log_partition(scores: Tensor, lengths: Tensor, multi_root: bool) -> Tensor:
    """``[B]`` float64: log of the summed exponentiated scores of all projective trees."""
    scores = _forbid_impossible(scores.double(), lengths)
    return inside_charts(scores, lengths, multi_root, _log_sum)["total"]


# --------------------------------------------------------------------------- all trees


def arborescence(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor]:
    """Best tree, projective or not (Chu and Liu 1965; Edmonds 1967).

    Returns:
        heads ``[B, N]`` (``PADDING`` beyond the length), status ``[B]``.
    """
    status = status_of_scores(scores, lengths)
    heads = torch.full((len(scores), scores.shape[1] - 1), PADDING, dtype=torch.int64)
    for b, n in enumerate(lengths.tolist()):
        if status[b] == 0:
            best = _edmonds(scores[b, : n + 1, : n + 1].tolist(), multi_root)
            if best is None:
                status[b] = NO_TREE
            else:
                heads[b, :n] = torch.tensor(best)
    return heads.to(scores.device), status


@dataclass
class _Node:
    """A word, or a cycle contracted into one: the arcs that may enter it, and the one that does."""

    weights: list[float]  # of the best arc from each position
    enters: list[int]  # the word that this arc enters
    words: list[int]
    cycle: int | None = None  # that it is part of
    head: int = 0

    def choose(self) -> bool:
        """The best arc enters, of equal ones that from the smallest head; whether there is one."""
        self.head = self.weights.index(max(self.weights))
        return self.weights[self.head] > -math.inf

    def best_word(self) -> int:
        """The best head beside the root."""
        return self.weights.index(max(self.weights[1:]), 1)

    def loss(self) -> float:
        """What the tree loses if a word's arc enters instead of the root's."""
        return self.weights[0] - self.weights[self.best_word()]


def _edmonds(scores: list[list[float]], multi_root: bool) -> list[int] | None:
    """Heads of the words of one sentence, or ``None`` if it has no tree.

    A path grows backwards from each word along best entering arcs. Where it meets itself the cycle becomes
    one new node; where it meets a finished part (or the root), all of it is finished. Then each node's
    entering arc fixes the head of the word it enters, from the last contraction to the first.
    """
    size = len(scores)
    nodes = {
        v: _Node([scores[v][u] if u != v else -math.inf for u in range(size)], [v] * size, [v])
        for v in range(1, size)
    }
    node_of, finished = list(range(size)), {0}
    if not all(node.choose() for node in nodes.values()):
        return None
    for start in range(1, size):
        path: list[int] = []
        node = node_of[start]
        while node not in finished:
            if node in path:
                node = _contract(path, node, nodes, node_of)
                if not nodes[node].choose():
                    return None
            path.append(node)
            node = node_of[nodes[node].head]
        finished.update(path)
    if not multi_root and not _leave_one_root(nodes, node_of):
        return None
    return _expand(nodes, size)


def _leave_one_root(nodes: dict[int, _Node], node_of: list[int]) -> bool:
    """Take arcs from the root, always the one that is missed least, until one is left; whether that can be.

    This follows the best tree while a penalty on root arcs grows, without ever adding it to a score: a node
    leaves the root as soon as the penalty makes up for its loss, and the cycle that this may close is
    contracted. Contracted cycles stay best, since they hold no root arc. A best tree under a penalty is a
    best one among those with its number of root words (Gabow and Tarjan 1984).
    """
    rooted = [node for node in dict.fromkeys(node_of[1:]) if nodes[node].head == 0]
    while len(rooted) > 1:
        losses = [nodes[node].loss() for node in rooted]
        place = losses.index(min(losses))
        if losses[place] == math.inf:
            return False
        node = rooted[place]
        nodes[node].head = nodes[node].best_word()
        path, above = [node], node_of[nodes[node].head]
        while above not in (0, node):
            path.append(above)
            above = node_of[nodes[above].head]
        if above == 0:
            rooted[place] = rooted[-1]
            rooted.pop()
        else:
            rooted[place] = _contract(path, node, nodes, node_of)
            if not nodes[rooted[place]].choose():
                return False
            nodes[rooted[place]].head = 0
    return True


def _contract(path: list[int], node: int, nodes: dict[int, _Node], node_of: list[int]) -> int:
    """Merge the cycle at the end of ``path``; an arc into the new node replaces one arc of the cycle."""
    size, merged = len(node_of), max(nodes) + 1
    whole = nodes[merged] = _Node([-math.inf] * size, [0] * size, [])
    part = None
    while part != node:
        part = path.pop()
        inside = nodes[part].weights[nodes[part].head]
        nodes[part].cycle = merged
        whole.words += nodes[part].words
        for u in range(size):
            gain = nodes[part].weights[u] - inside
            if gain > whole.weights[u]:
                whole.weights[u], whole.enters[u] = gain, nodes[part].enters[u]
    for word in whole.words:
        node_of[word] = merged
        whole.weights[word] = -math.inf
    return merged


def _expand(nodes: dict[int, _Node], size: int) -> list[int]:
    """Heads of the words: a node's entering arc breaks every cycle that it enters."""
    heads, broken = [0] * size, set()
    for node in sorted(nodes, reverse=True):
        if node not in broken:
            word = nodes[node].enters[nodes[node].head]
            heads[word] = nodes[node].head
            while word != node:
                broken.add(word)
                cycle = nodes[word].cycle
                assert cycle is not None, "a word under a contracted node is part of its cycle"
                word = cycle
    return heads[1:]


def matrix_tree(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Arc marginals and log-partition of all trees; see :func:`matrix_tree_log_partition`.

    Returns:
        marginals ``[B, N+1, N+1]`` (dependent, head), log-partition ``[B]`` in float64, status ``[B]``.
    """
    return _marginals(matrix_tree_log_partition, scores, lengths, multi_root)


def matrix_tree_log_partition(scores: Tensor, lengths: Tensor, multi_root: bool) -> Tensor:
    """``[B]`` float64: the log-determinant of the matrix-tree theorem (Koo et al. 2007), without subtraction.

    Eliminating a word ``k`` reroutes every arc ``i -> k -> h``: with ``total_k = sum_h w[k, h]``, ``w[i, h]
    += w[i, k] w[k, h] / total_k``. The determinant is the product of the totals, and since nothing is
    subtracted (Grassmann, Taksar and Heyman 1985) no digit is lost however peaked the scores are. With one
    root word, the totals leave the root out except for the last word's: all trees but those with one root
    word drop out (Koo et al. 2007, Section 3.2).
    """
    weights, _, shift = matrix_tree_weights(scores, lengths, multi_root)
    return shift + eliminate(weights, lengths, multi_root, _log_sum)


def eliminate(
    weights: Tensor, lengths: Tensor, multi_root: bool, plus: Callable[[list[Tensor]], Tensor]
) -> Tensor:
    """Product ``[B]`` of the totals of :func:`matrix_tree_log_partition`, in the semiring with sum ``plus``.

    Args:
        weights: ``[B, N+1, N+1]`` in the order of :func:`matrix_tree_weights`. A product of weights is their
            sum here, and a quotient their difference.
    """
    size = weights.shape[1]
    padding = torch.arange(size, device=weights.device) > lengths[:, None]
    hanging = torch.arange(size, device=weights.device) == (0 if multi_root else 1)
    # A padding word hangs on the root, or on the word that is eliminated last, with weight 1.
    weights = torch.where(padding[:, :, None] & hanging, 0.0, weights)
    off_diagonal = ~torch.eye(size, dtype=torch.bool, device=weights.device)
    product = weights.new_zeros(len(weights))
    for k in range(size - 1, 0, -1):
        first = 0 if multi_root or k == 1 else 1
        total = plus(list(weights[:, k, first:k].unbind(1)))
        product = product + total
        usable = total.clamp(min=torch.finfo(total.dtype).min)
        rerouted = weights[:, :k, k, None] + weights[:, k, None, :k] - usable[:, None, None]
        weights = plus([weights[:, :k, :k], rerouted.where(off_diagonal[:k, :k], -torch.inf)])
    return product


def matrix_tree_weights(scores: Tensor, lengths: Tensor, multi_root: bool) -> tuple[Tensor, Tensor, Tensor]:
    """What is eliminated: logarithms of the arcs' weights, each word's best one being 0.

    Returns:
        weights ``[B, N+1, N+1]`` (dependent, head) in the order of elimination, last word first; that order
        ``[B, N+1]``, which is its own inverse; what the weights lack of the log-partition, ``[B]``.
    """
    weights = _forbid_impossible(scores.double(), lengths)
    best = weights.detach().amax(2, keepdim=True)
    best = best.masked_fill(best == -torch.inf, 0)
    weights = weights - best
    order = torch.arange(weights.shape[1], device=weights.device).expand(len(weights), -1)
    if not multi_root:
        order = _last_word_first(weights.detach(), lengths, order)
    return in_order(weights, order), order, best.sum((1, 2))


def sample_arborescence(
    scores: Tensor, lengths: Tensor, multi_root: bool, seeds: Tensor
) -> tuple[Tensor, Tensor]:
    """Exact samples of trees, which grow a word at a time: the elimination backwards.

    After words ``n .. k + 1`` are gone, the weights among the others are those of :func:`_eliminated`, and
    trees over these others have a distribution, too. A sample of that for ``k - 1`` words becomes one for
    ``k`` words. Each of its arcs ``i -> h`` may have come by way of ``k``, in proportion to what was added to
    its weight when ``k`` was eliminated. Then ``i`` hangs on ``k``, and ``k`` on a head that is no word below
    it. Summed over the heads that such words ``i_1 .. i_c`` had, if each had drawn its own in proportion to
    the weights of ``k``, all trees have the weight of that one head (Cayley's formula with weights). So ``k``
    takes over the head of that one of them which is nearest to the root. If there is none, ``k`` draws
    its head. With one root word the same holds, though root arcs are left out of the sums: a root arc that
    came by way of ``k`` makes ``k`` the root word.

    Arguments and results as in :func:`sample_projective`.
    """
    _, _, status = matrix_tree(scores, lengths, multi_root)
    weights, order, _ = matrix_tree_weights(scores.detach(), lengths, multi_root)
    heads = torch.full((*seeds.shape, scores.shape[1] - 1), PADDING, dtype=torch.int64)
    for b, n in enumerate(lengths.tolist()):
        if status[b] == 0:
            words = order[b, : n + 1].cpu()
            given = weights[b, : n + 1, : n + 1].cpu().numpy()
            eliminated, totals = _eliminated(given, multi_root)
            for s, seed in enumerate(seeds[:, b].tolist()):
                found = torch.from_numpy(_grow_tree(given, eliminated, totals, multi_root, _Draw(seed)))
                heads[s, b, :n] = words[found[words]][1:]
    return heads.to(scores.device), status


def _eliminated(weights: np.ndarray, multi_root: bool) -> tuple[np.ndarray, np.ndarray]:
    """The weights ``[n+1, n+1]`` that words had when they were eliminated, and their sums ``[n+1]``."""
    weights, totals = weights.copy(), np.zeros(len(weights))
    for k in range(len(weights) - 1, 0, -1):
        first = 0 if multi_root or k == 1 else 1
        totals[k] = np.logaddexp.reduce(weights[k, first:k])
        rerouted = weights[1:k, k, None] + (weights[k, :k] - totals[k])
        weights[1:k, :k] = np.logaddexp(weights[1:k, :k], rerouted)
        np.fill_diagonal(weights, -np.inf)
    return weights, totals


def _grow_tree(
    given: np.ndarray, eliminated: np.ndarray, totals: np.ndarray, multi_root: bool, draw: _Draw
) -> np.ndarray:
    """Heads ``[n+1]`` of one sampled tree, in the order of elimination (that of the root is itself)."""
    heads, ways = np.zeros(len(given), np.int64), np.zeros(len(given), np.int64)
    for k in range(1, len(given)):
        through = np.flatnonzero(ways == k).tolist()
        if through:
            last = word = through[0]
            while word != 0:
                word = heads[word]
                last = word if ways[word] == k else last
            heads[k], heads[through] = heads[last], k
        else:
            first = 0 if multi_root or k == 1 else 1
            heads[k] = first + draw(eliminated[k, first:k], TREE, 0, k)
        for word in (*through, k):  # its arc, as one of k words, comes by way of a later word, or (k) of none
            head = heads[word]
            rerouted = eliminated[word, k + 1 :] + eliminated[k + 1 :, head] - totals[k + 1 :]
            ways[word] = k + draw(np.append(given[word, head], rerouted), TREE, word, k)
    return heads


def _last_word_first(weights: Tensor, lengths: Tensor, position: Tensor) -> Tensor:
    """An order that swaps word 1, the last to be eliminated, with one that all others reach through words.

    Then no total is 0 as long as some tree has a single root word (that word is such a one).
    """
    size = weights.shape[1]
    chain = ((weights > -torch.inf) | torch.eye(size, dtype=torch.bool, device=weights.device)).double()
    for _ in range(size.bit_length()):
        chain = (chain @ chain > 0).double()
    beyond = (position == 0) | (position > lengths[:, None])
    reached_by_all = ((chain > 0) | beyond[:, :, None]).all(1)
    last = reached_by_all[:, 1:].int().argmax(1, keepdim=True) + 1
    return torch.where(position == 1, last, torch.where(position == last, 1, position))


def in_order(arcs: Tensor, order: Tensor) -> Tensor:
    """Rows and columns of ``arcs [B, N+1, N+1]`` in an ``order [B, N+1]``."""
    arcs = arcs.gather(1, order[:, :, None].expand(-1, -1, arcs.shape[2]))
    return arcs.gather(2, order[:, None, :].expand(-1, arcs.shape[1], -1))


def _forbid_impossible(scores: Tensor, lengths: Tensor) -> Tensor:
    return scores.masked_fill(~possible_arcs(lengths, scores.shape[1]), -torch.inf)


def _status_of_total(status: Tensor, total: Tensor) -> Tensor:
    """``NO_TREE`` where the best, or the sum, over all trees is -inf."""
    return torch.where((status == 0) & ~(total > -torch.inf), NO_TREE, status).to(torch.int8)


LogPartition = Callable[[Tensor, Tensor, bool], Tensor]


def _marginals(
    log_partition_of: LogPartition, scores: Tensor, lengths: Tensor, multi_root: bool
) -> tuple[Tensor, Tensor, Tensor]:
    status = status_of_scores(scores, lengths)
    with torch.enable_grad():
        leaf = scores.detach().requires_grad_()
        log_partition = log_partition_of(leaf, lengths, multi_root)
        (marginals,) = torch.autograd.grad(log_partition.sum(), leaf)
    log_partition = log_partition.detach()
    status = _status_of_total(status, log_partition)
    return marginals, log_partition, status


def inside_outside_covariance_product(
    scores: Tensor, lengths: Tensor, multi_root: bool, vector: Tensor
) -> Tensor:
    """Covariance of a projective tree's arcs times ``vector``, both ``[B, N+1, N+1]``."""
    return _covariance_product(inside_log_partition, scores, lengths, multi_root, vector)


def matrix_tree_covariance_product(
    scores: Tensor, lengths: Tensor, multi_root: bool, vector: Tensor
) -> Tensor:
    """Covariance of a tree's arcs times ``vector``, both ``[B, N+1, N+1]``."""
    return _covariance_product(matrix_tree_log_partition, scores, lengths, multi_root, vector)


def _covariance_product(
    log_partition_of: LogPartition, scores: Tensor, lengths: Tensor, multi_root: bool, vector: Tensor
) -> Tensor:
    vector = of_possible_arcs(vector, scores, lengths)
    with torch.enable_grad():
        leaf = scores.detach().requires_grad_()
        total = log_partition_of(leaf, lengths, multi_root).sum()
        return covariance_product(total, leaf, vector, create_graph=False)


def of_possible_arcs(vector: Tensor, scores: Tensor, lengths: Tensor) -> Tensor:
    """``vector [B, N+1, N+1]`` with 0 where no arc can be: there, it may hold anything."""
    return vector.masked_fill(~possible(scores, lengths), 0)


def possible(scores: Tensor, lengths: Tensor) -> Tensor:
    """Bool ``[B, N+1, N+1]``: arcs that exist in sentences of ``lengths [B]`` words, and are not at -inf."""
    return possible_arcs(lengths, scores.shape[1]) & (scores > -torch.inf)


def covariance_product(log_partition: Tensor, scores: Tensor, vector: Tensor, create_graph: bool) -> Tensor:
    """Hessian of a log-partition in ``scores`` times ``vector``, by differentiating twice."""
    (marginals,) = torch.autograd.grad(log_partition, scores, create_graph=True)
    if not marginals.requires_grad:  # a single possible tree: nothing varies
        return torch.zeros_like(scores)
    (product,) = torch.autograd.grad(marginals, scores, vector, create_graph=create_graph)
    return product


# --------------------------------------------------------------------------- projections


def simplex(rows: Tensor) -> Tensor:
    """Every row of ``rows [R, M]`` on the simplex, by sorting (Held, Wolfe and Crowder 1974).

    The support is a prefix of the order. NaN where a row has NaN, +inf or nothing but -inf.
    """
    distance = rows - rows.amax(-1, keepdim=True)
    ordered = distance.sort(-1, descending=True).values
    total = ordered.cumsum(-1) - 1
    size = torch.arange(1, rows.shape[-1] + 1, dtype=rows.dtype, device=rows.device)
    support = (ordered * size > total).sum(-1, keepdim=True).clamp(min=1)
    threshold = total.gather(-1, support - 1) / support
    return (distance - threshold).clamp(min=0)


def p_dep(point: Tensor, lengths: Tensor) -> Tensor:
    """``point [B, N+1, N+1]`` onto P_DEP, Algorithm 2: one row of candidate heads a word on the simplex."""
    exists = possible_arcs(lengths, point.shape[-1])
    word = exists.any(-1, keepdim=True)
    heads = torch.where(exists, point, -torch.inf)
    projected = simplex(torch.where(word, heads, 0))
    return torch.where(exists, projected, 0)


def project_projective(
    points: Tensor, lengths: Tensor, multi_root: bool, start: Tensor, gap: float, max_steps: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``points`` (float64) onto the hull of the projective trees, by active sets.

    Args:
        start: ``[B, N]`` heads of the first active trees. gap: the duality gap at which to stop.

    Returns:
        projections ``[B, N+1, N+1]``, gaps ``[B]``, steps ``[B]`` and status ``[B]``.
    """
    return _project(eisner, points, lengths, multi_root, start, gap, max_steps)


def project_nonprojective(
    points: Tensor, lengths: Tensor, multi_root: bool, start: Tensor, gap: float, max_steps: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same for all trees."""
    return _project(arborescence, points, lengths, multi_root, start, gap, max_steps)


def _project(
    best: Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor]],
    points: Tensor,
    lengths: Tensor,
    multi_root: bool,
    start: Tensor,
    gap: float,
    max_steps: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    projections = torch.zeros_like(points)
    gaps, steps = points.new_zeros(len(points)), lengths.new_zeros(len(points))
    for b, n in enumerate(lengths.tolist()):

        def argmax(scores: np.ndarray, n: int = n) -> np.ndarray:
            square = torch.from_numpy(scores).view(1, n + 1, n + 1)
            heads, _ = best(square, torch.tensor([n]), multi_root)
            return _indicator(heads[0])

        point = points[b, : n + 1, : n + 1].masked_fill(
            ~possible_arcs(lengths[b : b + 1], n + 1)[0], -torch.inf
        )
        first = _indicator(start[b, :n])
        found, gaps[b], steps[b] = project_onto_hull(
            point.flatten().numpy(), argmax, first, gap**0.5, max_steps
        )
        projections[b, : n + 1, : n + 1] = torch.from_numpy(found).view(n + 1, n + 1)
    return projections, gaps, steps, torch.full((len(points),), OK, dtype=torch.int8)


def _indicator(heads: Tensor) -> np.ndarray:
    """``[(n+1)^2]`` of 0 and 1: the arcs of a tree with ``heads [n]``."""
    arcs = torch.zeros(len(heads) + 1, len(heads) + 1, dtype=torch.float64)
    arcs[torch.arange(1, len(heads) + 1), heads] = 1
    return arcs.flatten().numpy()


BACKEND = Backend(
    name="reference",
    projective=TreeAlgorithms(
        best=eisner,
        marginals=inside_outside,
        log_partition=inside_log_partition,
        covariance_product=inside_outside_covariance_product,
        sample=sample_projective,
        project=project_projective,
    ),
    nonprojective=TreeAlgorithms(
        best=arborescence,
        marginals=matrix_tree,
        log_partition=matrix_tree_log_partition,
        covariance_product=matrix_tree_covariance_product,
        sample=sample_arborescence,
        project=project_nonprojective,
    ),
    simplex=simplex,
    p_dep=p_dep,
    possible=possible,
)
