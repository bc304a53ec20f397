"""An LSTM decoder with attention and input feeding, of the papers' size, as a step decoder to be timed."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffdecode.sequence import first_input


class AttentionDecoder(nn.Module):
    """One LSTM layer over the embedding and the last attention vector; the source is random numbers.

    The output bias follows Zipf's law, so that the distributions are about as peaked as those of a language
    model early in training: the most frequent of 32,000 words has probability .2.
    """

    def __init__(self, vocabulary: int, width: int = 256, source_length: int = 20, exponent: float = 1.2):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.cell = nn.LSTMCell(2 * width, width)
        self.query = nn.Linear(width, width, bias=False)
        self.combine = nn.Linear(2 * width, width)
        self.out = nn.Linear(width, vocabulary)
        nn.init.normal_(self.out.weight, std=width**-0.5)
        ranks = torch.arange(1, vocabulary + 1, dtype=torch.float32)
        self.out.bias.data = -exponent * ranks.log()[torch.randperm(vocabulary)]
        self.source_length = source_length
        self.start = 0

    @property
    def embedding(self) -> Tensor:
        return self.embed.weight

    @property
    def output_weight(self) -> Tensor:
        return self.out.weight

    @property
    def output_bias(self) -> Tensor:
        return self.out.bias

    def init_state(self, batch_size: int) -> dict:
        generator = torch.Generator().manual_seed(0)
        width = self.cell.hidden_size
        source = torch.randn(batch_size, self.source_length, width, generator=generator)
        source = source.to(self.embed.weight.device)
        zeros = source.new_zeros(batch_size, width)
        return {"source": source, "memory": (zeros, zeros, zeros)}

    def features(self, state: dict, vectors: Tensor) -> tuple[Tensor, dict]:
        h, c, feed = state["memory"]
        source = state["source"]
        h, c = self.cell(torch.cat([vectors, feed], 1), (h, c))
        query = self.query(h).view(source.size(0), -1, h.size(1))  # [B, K, d]
        weights = torch.softmax(query @ source.transpose(1, 2), -1)
        context = (weights @ source).flatten(0, 1)
        feed = torch.tanh(self.combine(torch.cat([h, context], 1)))
        return feed, {**state, "memory": (h, c, feed)}

    def step(self, state: dict, vectors: Tensor) -> tuple[Tensor, dict]:
        hidden, state = self.features(state, vectors)
        return torch.log_softmax(self.out(hidden), -1), state

    def map_state(self, state: dict, change) -> dict:
        return {**state, "memory": tuple(change(memory) for memory in state["memory"])}


def cross_entropy(decoder: AttentionDecoder, gold: Tensor) -> Tensor:
    """Teacher forcing as toolkits do it: the recurrence step by step, then one output layer for all steps."""
    state, outputs = decoder.init_state(gold.size(0)), []
    inputs = torch.cat([first_input(decoder, gold.size(0))[:, None], decoder.embed(gold[:, :-1])], 1)
    for t in range(gold.size(1)):
        hidden, state = decoder.features(state, inputs[:, t])
        outputs.append(hidden)
    logits = decoder.out(torch.stack(outputs, 1).flatten(0, 1))
    return F.cross_entropy(logits, gold.flatten(), reduction="sum")
