"""fairseq's criterions on a GPU: the CPU's losses and gradients, in a constant number of waits."""

import pytest
import test_minimum_risk_criterion as risk
import test_scheduled_sampling_criterion as sampling
import test_soft_beam_criterion as toy
import torch
from accelerators import accelerator_named

from fairseq_plugins.decoders import step_decoder

OPTIONS = {
    "direct": {},
    "hinge": {"objective": "hinge"},
    "normaliser": {"score_normalizer": 0.5},
    "truncated": {"soft_beam_candidates": 8, "soft_beam_tolerance": 1.0},
    "soft": {"alpha": 3.0},
    "smoothed": {"label_smoothing": 0.1},
    "two passes": {"rollout": "two_pass"},
    "samples": {"num_candidates": 4},
    "beam": {"num_candidates": 4, "candidates": "beam"},
    "global": {"objective": "global"},
    "soft global": {"objective": "soft_global"},
}
SOFT_BEAMS = ("direct", "hinge", "normaliser", "truncated", "global", "soft global")
RISKS = ("samples", "beam")
SEARCH_TO_THEIR_END = ("global", *RISKS)


def problem(name, options):
    model = toy.toy_models.spread(toy.MODELS[name](), 1.0)
    if options in SOFT_BEAMS:
        criterion, sample = toy.criterion_for(model, **OPTIONS[options]), toy.sample_for(model)
    elif options in RISKS:
        criterion, sample = risk.criterion_for(model, **OPTIONS[options]), toy.sample_for(model)
        sample["id"] = torch.arange(len(sample["target"]))
    else:
        criterion, sample = sampling.criterion_for(model, **OPTIONS[options]), sampling.sample_for(model)
    return model.train(), criterion.train(), sample  # cuDNN's LSTMs have a backward pass in training only


def loss_and_gradients(model, criterion, sample):
    model.zero_grad()
    loss = criterion(model, sample, reduce=False)[0]
    loss.sum().backward()
    return loss.detach(), [p.grad for p in model.parameters() if p.grad is not None]


REHEARSED = [
    ("tagger", "truncated"),
    ("lstm", "direct"),
    ("lstm", "two passes"),
    ("transformer", "soft"),
    ("tagger", "samples"),
    ("tagger", "global"),
]


@pytest.mark.parametrize("name, options", REHEARSED)
def test_losses_and_gradients_are_those_of_the_cpu(name, options):
    with accelerator_named("standin") as standin:
        compare(standin, name, options)


@pytest.mark.parametrize("build", [*toy.MODELS.values(), toy.toy_models.bart], ids=[*toy.MODELS, "bart"])
def test_a_step_of_a_decoder_waits_for_nothing(accelerator, build):
    model = build().to(accelerator.device).eval()
    sample = accelerator.moved(toy.sample_for(model))
    steps = step_decoder(model)
    state = steps.init_state(model.encoder.forward_torchscript(sample["net_input"]))
    words = steps.embedding[sample["target"][:, 0]]
    _, state = steps.step(state, words)
    assert accelerator.waits(steps.step, state, words) == []


@pytest.mark.gpu
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", toy.MODELS)
def test_losses_and_gradients_on_a_card_are_those_of_the_cpu(name, options):
    with accelerator_named("cuda") as card:
        compare(card, name, options)


def compare(accelerator, name, options):
    model, criterion, sample = problem(name, options)
    expected, gradients = loss_and_gradients(model, criterion, sample)
    there = tuple(module.to(accelerator.device) for module in problem(name, options)[:2])
    sample = accelerator.moved(sample)
    found, same_gradients = loss_and_gradients(*there, sample)
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=1e-4)
    for mine, theirs in zip(same_gradients, gradients, strict=True):
        torch.testing.assert_close(mine.cpu(), theirs, atol=1e-3, rtol=1e-3)
    if options not in SEARCH_TO_THEIR_END:  # six, and those of fairseq's own encoders
        assert len(accelerator.waits(loss_and_gradients, *there, sample)) <= 6 + 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", toy.MODELS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_mixed_precision_on_a_gpu_has_the_loss_of_full_precision(name, options, dtype):
    model, criterion, sample = problem(name, options)
    expected, _ = loss_and_gradients(model, criterion, sample)
    move = torch.utils._pytree.tree_map
    sample = move(lambda leaf: leaf.cuda() if isinstance(leaf, torch.Tensor) else leaf, sample)
    with torch.autocast("cuda", dtype):
        found, gradients = loss_and_gradients(model.cuda(), criterion.cuda(), sample)
    torch.testing.assert_close(found.sum().cpu(), expected.sum(), rtol=0.02, atol=0)
    assert all(gradient.isfinite().all() for gradient in gradients)
