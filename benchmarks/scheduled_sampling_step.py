"""Cost of a training step of scheduled sampling beside a cross-entropy step.

    python -m benchmarks.scheduled_sampling_step [--batch 64] [--steps 10] [--vocabulary 32000] [--repeats 7]

Forward and backward of an LSTM decoder with attention (256 units), always fed its own words, on one CPU
thread; the competitors take turns in one process, and the table shows medians of CPU time relative to cross
entropy. alpha is the smallest power of sqrt(2) at which 32 candidates discard less than a thousandth of any
choice.
"""

import argparse

import torch
from torch import Tensor

from benchmarks._decoder import AttentionDecoder, cross_entropy
from benchmarks._measure import cpu_medians, save
from diffdecode.sequence import OwnWord, fused_scheduled_sampling, relaxed_decode

TOLERANCE = 1e-3


def plain_loss(decoder: AttentionDecoder, gold: Tensor, own_word: OwnWord) -> Tensor:
    """The loss with all logits in memory."""
    log_probs = relaxed_decode(decoder, decoder.init_state(gold.size(0)), gold, own_word)
    return -log_probs.gather(2, gold[..., None]).sum()


def fused(decoder: AttentionDecoder, gold: Tensor, own_word: OwnWord, m: int, tolerance: float = TOLERANCE):
    """The fused loss."""
    lengths = torch.full((gold.size(0),), gold.size(1))
    state = decoder.init_state(gold.size(0))
    return fused_scheduled_sampling(decoder, state, gold, lengths, own_word, m=m, tolerance=tolerance)


def smallest_alpha(decoder: AttentionDecoder, gold: Tensor, m: int) -> tuple[float, float]:
    """The smallest tried alpha with an accepted discarded mass, and that mass."""
    for exponent in range(30):
        alpha = 2 ** (exponent / 2)
        with torch.no_grad():
            discarded = float(
                fused(decoder, gold, OwnWord("soft", 1 / alpha), m, tolerance=1.0).discarded.max()
            )
        if discarded < TOLERANCE:
            return alpha, discarded
    raise RuntimeError("no alpha below 20,000 discards little enough")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    decoder = AttentionDecoder(arguments.vocabulary)
    gold = torch.randint(1, arguments.vocabulary, (arguments.batch, arguments.steps))
    alpha, discarded = smallest_alpha(decoder, gold, 32)
    soft, hard = OwnWord("soft", 1 / alpha), OwnWord("argmax")

    def training_step(loss):
        def step():
            decoder.zero_grad(set_to_none=True)
            loss().backward()

        return step

    medians = cpu_medians(
        {
            "cross entropy": training_step(lambda: cross_entropy(decoder, gold)),
            "hard argmax, plain autograd": training_step(lambda: plain_loss(decoder, gold, hard)),
            "hard argmax, fused": training_step(lambda: -fused(decoder, gold, hard, 1).gold_log_probs.sum()),
            "soft argmax, plain autograd": training_step(lambda: plain_loss(decoder, gold, soft)),
            "soft argmax, fused, m = 8 (no fallback)": training_step(
                lambda: -fused(decoder, gold, soft, 8, 1.0).gold_log_probs.sum()
            ),
            "soft argmax, fused, m = 32": training_step(
                lambda: -fused(decoder, gold, soft, 32).gold_log_probs.sum()
            ),
        },
        arguments.repeats,
    )
    base = medians["cross entropy"]
    print(
        f"batch {arguments.batch}, {arguments.steps} steps, V = {arguments.vocabulary}, alpha = {alpha:.3g}, "
        f"discarded mass of 32 candidates at most {discarded:.1e}; cross entropy {base * 1e3:.0f} ms CPU"
    )
    for name, seconds in medians.items():
        print(f"  {name:42s} {seconds / base:5.2f}")
    settings = {**vars(arguments), "alpha": alpha, "discarded": discarded}
    saved = save("scheduled_sampling_step", {"settings": settings, "cpu_seconds": medians})
    print(f"saved {saved}")


if __name__ == "__main__":
    main()
