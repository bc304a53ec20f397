"""Training steps of the searches beside cross entropy: an LSTM decoder with attention, large vocabularies."""

from collections.abc import Iterator

import torch

from benchmarks._decoder import AttentionDecoder, cross_entropy
from benchmarks.gpu.card import Card, Step
from diffdecode.sequence import (
    HammingCost,
    OwnWord,
    SearchSpace,
    SoftBeamOptions,
    fused_scheduled_sampling,
    relaxed_decode,
    soft_beam,
    truncated_soft_beam,
)

OPTIONS = SoftBeamOptions(3, 8.0, "softsort", recompute=1.0)
FAST = SoftBeamOptions(3, 8.0, "softsort", recompute=0.0)
OWN_WORD = OwnWord("soft", 0.25)


def measure(card: Card) -> Iterator[tuple[str, list[dict]]]:
    """Tables by size."""
    for batch, steps, vocabulary in (
        [(16, 20, 32_000), (64, 20, 32_000), (64, 20, 1_000)] if card.is_real else [(2, 3, 70)]
    ):
        problem = Problem(card, batch, steps, vocabulary)
        competitors = {name: problem.step(loss) for name, loss in LOSSES.items()}
        what = f"{batch} sentences of {steps} words, V = {vocabulary}"
        yield what, card.compared(competitors, "cross entropy", repeats=7)


class Problem:
    """A decoder and a batch on the card."""

    def __init__(self, card: Card, batch: int, steps: int, vocabulary: int):
        torch.manual_seed(0)
        self.decoder = AttentionDecoder(vocabulary).to(card.device)
        self.gold = torch.randint(3, vocabulary, (batch, steps)).to(card.device)
        self.lengths = torch.full((batch,), steps, device=card.device)
        self.space = SearchSpace(torch.arange(1, vocabulary, device=card.device))
        self.cost = HammingCost(self.gold, 0)

    def step(self, loss) -> Step:
        """Forward and backward."""

        def run():
            loss(self, self.decoder.init_state(len(self.gold))).backward()
            self.decoder.zero_grad(set_to_none=True)

        return run


def _fused(p: Problem, state: dict) -> torch.Tensor:
    found = fused_scheduled_sampling(p.decoder, state, p.gold, p.lengths, OWN_WORD, tolerance=1.0)
    return -found.gold_log_probs.sum()


def _plain(p: Problem, state: dict) -> torch.Tensor:
    return -relaxed_decode(p.decoder, state, p.gold, OWN_WORD).gather(2, p.gold[..., None]).sum()


def _truncated(p: Problem, state: dict) -> torch.Tensor:
    found = truncated_soft_beam(p.decoder, state, p.lengths, p.space, FAST, p.cost, tolerance=1.0)
    return found.direct_loss().sum()


def _dense(p: Problem, state: dict) -> torch.Tensor:
    return soft_beam(p.decoder, state, p.lengths, p.space, OPTIONS, p.cost).direct_loss().sum()


LOSSES = {
    "cross entropy": lambda p, state: cross_entropy(p.decoder, p.gold),
    "scheduled sampling, fused": _fused,
    "scheduled sampling, plain": _plain,
    "soft beam, 64 candidates": _truncated,
    "soft beam, all candidates": _dense,
}
