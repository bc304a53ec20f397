"""Translations by a search of ours, soft or hard, behind fairseq's interface of a generator."""

from collections.abc import Callable
from typing import Any

import torch
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from diffdecode.sequence import Hypotheses
from fairseq_plugins.decoders import step_decoder
from fairseq_plugins.search import check_beam_size, only_model


class SoftBeamGenerator:
    """The n best hypotheses of a search that ends with EOS.

    Hypotheses are ordered as fairseq orders its own: by score, divided by ``length ** lenpen`` unless
    ``--unnormalized``. Unlike fairseq's beam, this one keeps finished hypotheses among the K elements.
    """

    def __init__(self, task: FairseqTask, args: Any, search: Callable[..., Hypotheses]):
        self.space = task.search_space
        self.symbols_to_strip_from_output = {self.space.eos}
        self.search = search
        self.beam_size = check_beam_size(getattr(args, "beam", 5))
        self.max_len_a, self.max_len_b = getattr(args, "max_len_a", 0), getattr(args, "max_len_b", 200)
        self.length_penalty = 0.0 if getattr(args, "unnormalized", False) else getattr(args, "lenpen", 1.0)

    @torch.no_grad()
    def generate(
        self,
        models: list[nn.Module],
        sample: dict,
        prefix_tokens: Tensor | None = None,
        constraints: Tensor | None = None,
    ) -> list[list[dict]]:
        """``beam_size`` hypotheses for each of the B sentences, best first, as lists of dictionaries.

        Raises:
            ValueError: more than one model, prefixes or constraints.
        """
        model, net_input = (
            only_model("this search", models, prefix_tokens, constraints),
            sample["net_input"],
        )
        model.eval()
        decoder = step_decoder(model)
        state = decoder.init_state(model.encoder.forward_torchscript(net_input))
        lengths = net_input["src_lengths"]
        longest = int(model.max_decoder_positions()) - 1  # fairseq's LSTM has 1e5, a float
        steps = (self.max_len_a * lengths + self.max_len_b).long().clamp(1, longest)
        space = self.space.to(lengths.device)
        found = self.search(decoder, state, steps, self.beam_size, space)
        return [self._n_best(*rows) for rows in zip(found.symbols, found.step_scores)]

    def _n_best(self, symbols, step_scores):
        """fairseq's dictionaries for one sentence: ``symbols`` and ``step_scores`` are ``[K, T]``."""
        beam = []
        for tokens, scores in zip(symbols, step_scores):
            written = (tokens != self.space.pad) & (tokens >= 0)
            length = int(written.sum())
            beam.append(
                {
                    "tokens": tokens[written],
                    "score": float(scores.sum()) / max(length, 1) ** self.length_penalty,
                    "positional_scores": scores[written],
                    "attention": None,
                    "alignment": torch.empty(0),
                }
            )
        return sorted(beam, key=lambda hypothesis: -hypothesis["score"])
