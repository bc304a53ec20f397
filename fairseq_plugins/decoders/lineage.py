"""Self-attention over what all elements of a beam have seen, weighed by who descends from whom.

After a soft back-pointer a row's past is a mixture of the pasts of its sentence's rows. Keys and values are
affine in what they are made of, and the weights sum to one: mixing them is mixing the past. Mixed at every
step, all of them are written anew each time. Here they stay as they were, shared by the rows of a sentence,
and a row has a *lineage*: the weight of each element of each step in its past. Mixing rows mixes lineages::

    q . sum_j w_j k_j = sum_j w_j (q . k_j)        sum_s a_s sum_j w_sj v_sj = sum_sj (a_s w_sj) v_sj
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


class Past(NamedTuple):
    """What the self-attention of L layers remembers.

    Attributes:
        pairs: for each layer its keys and values, a tensor ``[B, 2, heads, n * K, d]`` a step: K the elements
            that a sentence had at that step, and n the positions read, which is one, but at the first step of
            cross-self-attention the source, too.
        lineage: ``[R, P]`` weights of all P pairs, rows first: the only recurrent tensor.
        member: ``[P, S]`` 1 where a pair belongs to a position, else 0.
        padding: ``[B, S]`` boolean, positions that nobody looks at, or ``None``.
    """

    pairs: tuple[tuple[Tensor, ...], ...]
    lineage: Tensor | None = None
    member: Tensor | None = None
    padding: Tensor | None = None

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Past":
        """With ``change`` applied to the rows."""
        return self if self.lineage is None else self._replace(lineage=change(self.lineage))


@contextmanager
def attending_to(past: Past, layers: nn.ModuleList, rows: int, sentences: int) -> Iterator["Attending"]:
    """Within the block, the layers' self-attention makes one step for ``rows`` rows, with their past."""
    attending = Attending(past, len(layers), rows, sentences)
    attentions = [layer.self_attn for layer in layers]
    for number, attention in enumerate(attentions):
        attention.forward = attending.forward_of(number, attention)
    try:
        yield attending
    finally:
        for attention in attentions:
            del attention.forward


class Attending:
    """One step of all layers."""

    def __init__(self, past: Past, layers: int, rows: int, sentences: int):
        self.past, self.rows, self.sentences, self.width = past, rows, sentences, rows // sentences
        self.pairs: list[tuple[Tensor, ...]] = list(past.pairs) or [()] * layers
        self.now: Past | None = None

    def forward_of(self, number: int, attention: Any) -> Callable[..., tuple[Tensor, None]]:
        """What stands in for the ``forward`` of a layer's attention (fairseq's ``MultiheadAttention``)."""

        def forward(
            query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None, **_: Any
        ) -> tuple[Tensor, None]:
            is_first = self.past.lineage is None
            read = key if is_first else key[-1:]  # [n, R, H]: of later steps, only the newest position
            if self.now is None:
                self.now = self._reading(len(read), key_padding_mask, query)
            heads, size = attention.num_heads, attention.head_dim

            def by_sentence(tensor: Tensor) -> Tensor:
                """``[n, R, H]`` to ``[B, heads, n * K, d]``."""
                shape = (len(tensor), self.sentences, self.width, heads, size)
                return tensor.view(shape).permute(1, 3, 0, 2, 4).flatten(2, 3)

            new = torch.stack([by_sentence(attention.k_proj(read)), by_sentence(attention.v_proj(read))], 1)
            self.pairs[number] = (*self.pairs[number], new)
            keys, values = torch.cat(self.pairs[number], 3).unbind(1)  # [B, heads, P, d]
            queries = by_sentence(attention.q_proj(query) * attention.scaling)  # [B, heads, K, d]
            products = queries @ keys.transpose(2, 3)
            with torch.autocast(query.device.type, enabled=False):
                weights = self._spread(attention.dropout_module(self._weights(products)))
            found = weights.to(values.dtype) @ values  # [B, heads, K, d]
            return attention.out_proj(found.permute(0, 2, 1, 3).reshape(1, self.rows, heads * size)), None

        return forward

    def _reading(self, positions: int, padding: Tensor | None, like: Tensor) -> Past:
        """Lineages and members with the pairs of this step, which are everybody's own."""
        kind = {"dtype": torch.promote_types(like.dtype, torch.float32), "device": like.device}
        own = torch.eye(self.width, **kind).repeat(self.sentences, positions)  # [R, n * K]
        member = torch.eye(positions, **kind).repeat_interleave(self.width, 0)  # [n * K, n]
        before = self.past
        if before.lineage is None or before.member is None:
            return Past((), own, member, padding)
        if before.padding is not None:
            padding = pad(before.padding, (0, positions))
        member = torch.block_diag(before.member, member)
        return Past((), torch.cat([before.lineage, own], 1), member, padding)

    def _weights(self, products: Tensor) -> Tensor:
        """Attention ``[B, heads, K, S]``, from the ``products [B, heads, K, P]`` with all keys."""
        lineage, member = self._lineage()
        scores = products.to(lineage.dtype)
        if not self._is_alone:
            scores = (scores * lineage) @ member
        if self.now is not None and self.now.padding is not None:
            scores = scores.masked_fill(self.now.padding[:, None, None], -torch.inf)
        return scores.softmax(3)

    def _spread(self, weights: Tensor) -> Tensor:
        """Weights ``[B, heads, K, P]`` of all values, from those of their positions."""
        if self._is_alone:
            return weights
        lineage, member = self._lineage()
        return (weights @ member.t()) * lineage

    @property
    def _is_alone(self) -> bool:
        """Whether a sentence has had one element at each step, from which all descends: all weights are 1."""
        assert self.now is not None and self.now.member is not None
        return self.now.member.size(0) == self.now.member.size(1)

    def _lineage(self) -> tuple[Tensor, Tensor]:
        """The lineages ``[B, 1, K, P]`` and the members."""
        assert self.now is not None and self.now.lineage is not None and self.now.member is not None
        return self.now.lineage.view(self.sentences, 1, self.width, -1), self.now.member

    def after(self) -> Past:
        """The past of the next step."""
        assert self.now is not None
        return self.now._replace(pairs=tuple(self.pairs))
