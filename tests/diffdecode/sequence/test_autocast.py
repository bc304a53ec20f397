"""Mixed precision: the decoder's steps run in half precision, and the search around them does not."""

import pytest
import torch
from toy_decoder import ToyDecoder

from diffdecode.sequence import (
    HammingCost,
    OwnWord,
    SearchSpace,
    SoftBeamOptions,
    fused_scheduled_sampling,
    hard_beam,
    relaxed_decode,
    soft_beam,
    soft_beam_decode,
    truncated_soft_beam,
    two_pass_decode,
)

V, STEPS = 1200, 6
SPACE = SearchSpace(torch.arange(1, V), eos=1, pad=2)
OPTIONS = SoftBeamOptions(3, 3.0, "softsort", recompute=0.5)


class Recorder(ToyDecoder):
    """Notes in which precision the steps ran."""

    def features(self, state, vectors):
        hidden, state = super().features(state, vectors)
        self.dtypes.add(hidden.dtype)
        # As a layer after the cell would: matrix products are what autocast rounds.
        return hidden @ torch.eye(hidden.size(1)), state


def problem():
    generator = torch.Generator().manual_seed(0)
    decoder = Recorder(V, width=16, scale=1.0, seed=0)
    decoder.dtypes = set()
    contexts = torch.randn(4, STEPS, 3, generator=generator)
    gold = torch.randint(3, V, (4, STEPS), generator=generator)
    return decoder, decoder.init_state(contexts), gold, torch.tensor([6, 2, 4, 3])


def run_all_steps(decoder, state):
    def run(inputs):
        outputs, now = [], state
        for t in range(inputs.size(1)):
            log_probs, now = decoder.step(now, inputs[:, t])
            outputs.append(log_probs)
        return torch.stack(outputs, 1)

    return run


def gold_loss(log_probs, gold):
    return -log_probs.float().gather(2, gold[..., None]).sum((1, 2))


SEARCHES = {
    "soft beam": lambda d, s, gold, n: soft_beam(d, s, n, SPACE, OPTIONS, HammingCost(gold, 2)).direct_loss(),
    "hinge": lambda d, s, gold, n: soft_beam(d, s, n, SPACE, OPTIONS, HammingCost(gold, 2)).max_score(),
    "truncated": lambda d, s, gold, n: truncated_soft_beam(
        d, s, n, SPACE, OPTIONS, HammingCost(gold, 2), tolerance=1.0
    ).max_score(),
    "redone": lambda d, s, gold, n: truncated_soft_beam(
        d, s, n, SPACE, OPTIONS, HammingCost(gold, 2), size=3, tolerance=0.0
    ).max_score(),
    "relaxed": lambda d, s, gold, n: gold_loss(relaxed_decode(d, s, gold, OwnWord("soft", 0.3)), gold),
    "two passes": lambda d, s, gold, n: gold_loss(
        two_pass_decode(run_all_steps(d, s), d.embedding, d.start, gold, OwnWord("soft", 0.3)), gold
    ),
    "fused": lambda d, s, gold, n: (
        -fused_scheduled_sampling(d, s, gold, n, OwnWord("soft", 0.3), tolerance=1.0).gold_log_probs.sum(1)
    ),
    "fused, redone": lambda d, s, gold, n: (
        -fused_scheduled_sampling(d, s, gold, n, OwnWord("soft", 0.3), m=2, tolerance=0.0).gold_log_probs.sum(
            1
        )
    ),
}


def loss_and_gradients(search):
    decoder, state, gold, lengths = problem()
    loss = SEARCHES[search](decoder, state, gold, lengths)
    loss.sum().backward()
    return loss.detach(), [parameter.grad for parameter in decoder.parameters()], decoder.dtypes


@pytest.mark.parametrize("search", SEARCHES)
def test_losses_under_autocast_are_those_of_full_precision(search):
    expected, exact, _ = loss_and_gradients(search)
    with torch.autocast("cpu", torch.bfloat16):
        found, gradients, _ = loss_and_gradients(search)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    for mine, right in zip(gradients, exact):
        assert mine.dtype == torch.float32 and mine.isfinite().all()
        assert (mine - right).norm() <= 0.1 * right.norm() + 1e-4


class Steps:
    """A decoder of which each step is exactly known: autocast must not touch what a search makes of it."""

    start = 0

    def __init__(self):
        self.embedding = torch.randn(V, 4, generator=torch.Generator().manual_seed(0))
        self.seen = []

    def step(self, state, vectors):
        self.seen.append(torch.is_autocast_enabled("cpu"))
        scores = -60.0 - 0.001 * torch.arange(V, dtype=torch.float32)
        return scores.expand(vectors.size(0), -1), state

    def map_state(self, state, change):
        return change(state)


@pytest.mark.parametrize("search", [soft_beam, soft_beam_decode, hard_beam])
def test_scores_are_not_rounded_and_steps_run_in_autocast(search):
    space, results = SearchSpace(torch.arange(1, V)), []
    for enabled in (False, True):
        decoder = Steps()
        options = (3, space) if search is hard_beam else (space, OPTIONS)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found = search(decoder, torch.zeros(2, 4), torch.tensor([3, 2]), *options)
        assert decoder.seen == [enabled] * 3
        results.append(found.scores)
    assert torch.equal(*results)
    assert not torch.is_autocast_enabled("cpu")
