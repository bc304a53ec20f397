"""The objective soft_global of soft_beam: its limit, that of validation; gradient, batch mates, errors."""

import pytest
import torch
import toy_models
from test_soft_beam_criterion import MODELS, criterion_for, sample_for


@pytest.fixture(params=MODELS)
def model(request):
    return toy_models.spread(MODELS[request.param](), 1.0 if request.param == "transformer" else 2.0)


@pytest.mark.parametrize("normalizer", [0.0, 1.0])
def test_becomes_the_global_loss_of_validation(model, normalizer):
    options = {"score_normalizer": normalizer, "extra_steps": 1}
    peaked = {"alpha": 1e9, "alpha_max": 1e9, "alpha_growth": 1.0, "operator": "peaked"}
    criterion, sample = criterion_for(model, objective="soft_global", **peaked, **options), sample_for(model)
    soft, _, logs = criterion.train()(model, sample, reduce=False)
    hard, _, hard_logs = criterion.eval()(model, sample, reduce=False)
    expected, _, _ = criterion_for(model, objective="global", **options).eval()(model, sample, reduce=False)
    torch.testing.assert_close(soft, hard, atol=2e-3, rtol=1e-4)
    assert torch.equal(hard, expected) and hard.min() > 0
    assert set(logs) ^ set(hard_logs) == {"alpha", "beam_overlap", "gold_kept"}


def test_gradient_reaches_every_parameter_and_is_finite(model):
    criterion = criterion_for(model, objective="soft_global", score_normalizer=0.0).train()
    loss, _, _ = criterion(model, sample_for(model))
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert sum((p.grad != 0).any().item() for p in model.parameters()) >= len(list(model.parameters())) - 1


@pytest.mark.parametrize("candidates", [0, 4])
def test_batch_mates_change_nothing(candidates):
    model = toy_models.spread(toy_models.tagger(), 2.0)
    options = {"objective": "soft_global", "score_normalizer": 0.0, "soft_beam_candidates": candidates}
    criterion, sample = criterion_for(model, **options).train(), sample_for(model)
    together, _, _ = criterion(model, sample, reduce=False)
    for row, length in enumerate(sample["net_input"]["src_lengths"].tolist()):
        inputs = {name: part[row : row + 1] for name, part in sample["net_input"].items()}
        inputs["src_tokens"] = inputs["src_tokens"][:, -length:]  # the toy batch is padded on the left
        inputs["prev_output_tokens"] = inputs["prev_output_tokens"][:, :length]
        target = sample["target"][row : row + 1, :length]
        alone, _, _ = criterion(model, {"net_input": inputs, "target": target, "ntokens": length})
        torch.testing.assert_close(alone, together[row], atol=1e-3, rtol=1e-4)


UNUSED = {"margin": 2.0, "cost": "spans", "wrong_label_costs": "w1=2", "length_penalty": 1.0}


@pytest.mark.parametrize(("name", "value"), UNUSED.items())
def test_options_without_an_effect_are_refused(name, value):
    message = f"--{name.replace('_', '-')} has no meaning for --objective soft_global; remove it"
    with pytest.raises(ValueError, match=message):
        criterion_for(toy_models.tagger(), objective="soft_global", **{name: value})
