"""A tiny LSTM with fixed attention as a step decoder, in any dtype, for exact tests of the searches."""

import torch
from torch import Tensor, nn


class ToyDecoder(nn.Module):
    """Row ``r`` attends to ``context[r // K, t]``; the state is ``(h, c, t)``."""

    def __init__(self, vocabulary: int = 6, width: int = 5, scale: float = 2.0, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embed = nn.Embedding(vocabulary, 4)
        self.cell = nn.LSTMCell(4 + 3, width)
        self.out = nn.Linear(width, vocabulary)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * scale / 2
        self.start = 0

    @property
    def embedding(self) -> Tensor:
        return self.embed.weight

    def init_state(self, context: Tensor):
        """``context [B, T, 3]``."""
        zeros = context.new_zeros(context.size(0), self.cell.hidden_size)
        return {"h": zeros, "c": zeros, "t": 0, "context": context}

    @property
    def output_weight(self) -> Tensor:
        return self.out.weight

    @property
    def output_bias(self) -> Tensor:
        return self.out.bias

    def features(self, state, vectors):
        context = state["context"]
        now = context[:, min(state["t"], context.size(1) - 1)]
        now = now.repeat_interleave(vectors.size(0) // max(context.size(0), 1), 0)
        h, c = self.cell(torch.cat([vectors, now], 1), (state["h"], state["c"]))
        return h, {**state, "h": h, "c": c, "t": state["t"] + 1}

    def step(self, state, vectors):
        h, state = self.features(state, vectors)
        return torch.log_softmax(self.out(h), -1), state

    def map_state(self, state, change):
        return {**state, "h": change(state["h"]), "c": change(state["c"])}

    def sequence_scores(self, context: Tensor, symbols: Tensor) -> Tensor:
        """Log-probabilities ``[B, T]`` of ``symbols [B, T]``, teacher forced."""
        state, vectors, scores = self.init_state(context), self.embed.weight[self.start], []
        vectors = vectors.expand(context.size(0), -1)
        for t in range(symbols.size(1)):
            log_probs, state = self.step(state, vectors)
            scores.append(log_probs.gather(1, symbols[:, t : t + 1]))
            vectors = self.embed(symbols[:, t])
        return torch.cat(scores, 1)
