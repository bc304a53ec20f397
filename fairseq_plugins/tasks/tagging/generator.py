"""Decoding of exactly one label per word, behind fairseq's interface of a generator."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffdecode.sequence import Hypotheses, SearchSpace, hard_beam
from fairseq_plugins.decoders import step_decoder
from fairseq_plugins.search import check_beam_size, only_model


def decode(
    model: nn.Module,
    net_input: dict[str, Tensor],
    space: SearchSpace,
    beam_size: int,
    search: Callable[..., Hypotheses] = hard_beam,
) -> Hypotheses:
    """The best label sequences of a batch by beam search (greedy with ``beam_size=1``).

    Args:
        model: an encoder-decoder that :func:`fairseq_plugins.decoders.step_decoder` knows.
        net_input: ``src_tokens [B, T]`` and ``src_lengths [B]``, in words.
        space: labels that may be predicted, and which may follow which.
        beam_size: number of hypotheses kept for each sentence.
        search: ``search(decoder, state, lengths, beam_size, space)``, hard or soft.

    Returns:
        :class:`diffdecode.sequence.Hypotheses`, as long as the longest sentence.
    """
    decoder = step_decoder(model)
    state = decoder.init_state(model.encoder.forward_torchscript(net_input))
    lengths = net_input["src_lengths"]  # 0 for an empty line typed in
    return search(decoder, state, lengths, beam_size, space.to(lengths.device))


class TaggingGenerator:
    """Beam search for ``fairseq-generate`` and ``fairseq-interactive``.

    Scores are sums of local scores: all hypotheses of a sentence are equally long.
    """

    symbols_to_strip_from_output = frozenset()  # there is no end-of-sentence label

    def __init__(self, space: SearchSpace, beam_size: int, search: Callable[..., Hypotheses] = hard_beam):
        self.space = space
        self.beam_size = check_beam_size(beam_size)
        self.search = search

    @torch.no_grad()
    def generate(
        self,
        models: list[nn.Module],
        sample: dict,
        prefix_tokens: Tensor | None = None,
        constraints: Tensor | None = None,
    ) -> list[list[dict]]:
        """Up to ``beam_size`` hypotheses for each of the B sentences, best first, as lists of dictionaries.

        Raises:
            ValueError: more than one model, prefixes or constraints.
        """
        model = only_model("tagging", models, prefix_tokens, constraints)
        model.eval()
        lengths = sample["net_input"]["src_lengths"].tolist()
        if max(lengths) == 0:
            return [[_hypothesis(torch.empty(0, dtype=torch.long), torch.empty(0))] for _ in lengths]
        best = decode(model, sample["net_input"], self.space, self.beam_size, self.search)
        return [n_best(*rows) for rows in zip(lengths, best.symbols, best.scores, best.step_scores)]


def n_best(length: int, symbols: Tensor, scores: Tensor, step_scores: Tensor) -> list[dict]:
    """fairseq's n-best list of a sentence of ``length`` words, from its rows of a beam.

    Args:
        length: number of words, T or less.
        symbols: ``[K, T]`` labels.
        scores: ``[K]``; ``-inf`` is no hypothesis.
        step_scores: ``[K, T]`` local scores.
    """
    if length == 0:  # there is one way to label nothing
        return [_hypothesis(symbols[0, :0], step_scores[0, :0])]
    return [
        _hypothesis(symbols[k, :length], step_scores[k, :length])
        for k, score in enumerate(scores.tolist())
        if score > -torch.inf
    ]


def _hypothesis(symbols, step_scores):
    """One entry of fairseq's n-best list: ``symbols`` and ``step_scores`` are ``[T]``."""
    return {
        "tokens": symbols,
        "score": float(step_scores.sum()),
        "positional_scores": step_scores,
        "attention": None,
        "alignment": [(i, i) for i in range(len(symbols))],
    }
