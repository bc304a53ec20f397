"""Half precision: weights and states are half, the search is float32."""

import pytest
import test_minimum_risk_criterion as risk
import test_scheduled_sampling_criterion as sampling
import test_soft_beam_criterion as toy
import torch
import toy_corpus

from fairseq_plugins.decoders import step_decoder


@pytest.mark.parametrize("name", toy.MODELS)
def test_bfloat16_weights_search_in_float32(name):
    model = toy.toy_models.spread(toy.MODELS[name](), 1.0)
    criterion, sample = toy.criterion_for(model, alpha=1.0).train(), toy.sample_for(model)
    expected = criterion(model, sample, reduce=False)[0]
    model.bfloat16()
    loss = criterion(model, sample, reduce=False)[0]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, atol=0.1, rtol=0.05)
    loss.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert all(p.grad.dtype == torch.bfloat16 for p in model.parameters() if p.grad is not None)
    steps, net_input = step_decoder(model), sample["net_input"]
    state = steps.init_state(model.encoder.forward_torchscript(net_input))
    log_probs, _ = steps.step(state, steps.embedding[steps.start].expand(len(loss), -1))
    assert log_probs.dtype == torch.float32


LARGE_VOCABULARY = 1200
SOFT_BEAMS = {
    "direct": {},
    "hinge": {"objective": "hinge"},
    "truncated": {"soft_beam_candidates": 16, "soft_beam_tolerance": 1.0},
    "global": {"objective": "global"},
    "soft global": {"objective": "soft_global"},
}
SAMPLING = {
    "fused": {},
    "smoothed": {"label_smoothing": 0.1},
    "two passes": {"rollout": "two_pass"},
}


def under_autocast(criterion, model, sample):
    """Losses and gradients in float32, and with the model in bfloat16 autocast."""
    found = []
    for enabled in (False, True):
        model.zero_grad()
        # oneDNN has LSTMs in bfloat16 for some CPUs only.
        without_onednn = torch.backends.mkldnn.flags(enabled=False)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled), without_onednn:
            loss = criterion(model, sample, reduce=False)[0]
        loss.sum().backward()
        found.append((loss.sum().detach(), [p.grad for p in model.parameters() if p.grad is not None]))
    return found


@pytest.mark.parametrize("options", [*SOFT_BEAMS, *SAMPLING, "minimum risk"])
@pytest.mark.parametrize("name", toy.MODELS)
def test_mixed_precision_has_the_loss_of_full_precision(name, options, monkeypatch):
    monkeypatch.setattr(toy.toy_models.dictionary, "__defaults__", (LARGE_VOCABULARY,))
    model = toy.toy_models.spread(toy.MODELS[name](), 1.0)
    if options in SOFT_BEAMS:
        criterion, sample = toy.criterion_for(model, alpha=3.0, **SOFT_BEAMS[options]), toy.sample_for(model)
    elif options == "minimum risk":
        criterion, sample = risk.criterion_for(model, num_candidates=4), toy.sample_for(model)
        sample["id"] = torch.arange(len(sample["target"]))
    else:
        criterion = sampling.criterion_for(model, alpha=3.0, **SAMPLING[options])
        sample = sampling.sample_for(model)
    (expected, _), (loss, gradients) = under_autocast(criterion.train(), model, sample)
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0)
    assert all(gradient.isfinite().all() and gradient.dtype == torch.float32 for gradient in gradients)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["--fp16", "--amp"])
@pytest.mark.parametrize(
    "criterion", ["soft_beam", "differentiable_scheduled_sampling", "minimum_risk --risk span"]
)
def test_half_precision_trains_on_a_gpu(tmp_path, criterion, precision):
    data = toy_corpus.write_corpus(tmp_path)
    fixed = "--optimizer adam --lr 5e-3 --max-tokens 200 --seed 1 --num-workers 0 --max-epoch 2"
    toy_corpus.run(
        "train", data, "--user-dir", toy_corpus.USER_DIR, "--save-dir", tmp_path / "run",
        *toy_corpus.TAGGER, "--criterion", *criterion.split(), precision, *fixed.split(),
    )  # fmt: skip
    model = torch.load(tmp_path / "run" / "checkpoint_last.pt", weights_only=True)["model"]
    assert all(torch.isfinite(value).all() for value in model.values())
