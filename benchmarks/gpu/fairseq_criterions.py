"""fairseq's criterions on the card: an LSTM and the base Transformer, float32 and mixed precision."""

from collections.abc import Iterator

import torch
from fairseq import utils

from benchmarks.fairseq_step import CRITERIONS, Problem
from benchmarks.gpu.card import Card, Step

PRECISIONS = {"float32": None, "amp, bfloat16": torch.bfloat16}


def measure(card: Card) -> Iterator[tuple[str, list[dict]]]:
    """Tables by model, size and precision."""
    batch, words, vocabulary = (128, 30, 32_000) if card.is_real else (2, 3, 70)
    for precision, dtype in PRECISIONS.items():
        for model in ("lstm", "transformer"):
            problem = Problem(model, vocabulary, batch, words)
            problem.model.to(card.device)
            problem.sample = utils.move_to_cuda(problem.sample) if card.is_real else problem.sample
            steps = {name: _step(card, problem, name, dtype) for name in CRITERIONS}
            what = f"{model}, {batch} sentences of {words} words, {precision}"
            yield what, card.compared(steps, "cross entropy", repeats=4)


def _step(card: Card, problem: Problem, name: str, dtype: torch.dtype | None) -> Step:
    criterion = CRITERIONS[name](problem.task).train().to(card.device)

    def step():
        # oneDNN has LSTMs in bfloat16 for some CPUs only, for a rehearsal.
        without_onednn = torch.backends.mkldnn.flags(enabled=card.is_real)
        with torch.autocast(card.device.type, dtype, enabled=dtype is not None), without_onednn:
            loss = criterion(problem.model, problem.sample)[0]
        loss.backward()
        problem.model.zero_grad(set_to_none=True)

    return step
