"""The criterion minimum_risk: over all sequences, by finite differences, in any company, in commands."""

import dataclasses
import itertools
import logging

import pytest
import test_batch_mates
import test_soft_beam_criterion as toy
import torch
import toy_corpus
import toy_models
from fairseq.logging import metrics

from fairseq_plugins.criterions import risks
from fairseq_plugins.criterions.minimum_risk import MinimumRiskConfig, MinimumRiskCriterion, sentence_noise
from fairseq_plugins.decoders import without_dropout


def criterion_for(model, tagging=None, **options):
    tagging = test_batch_mates.is_tagger(model) if tagging is None else tagging
    options = {"risk": "edit", "seed": 3, "sentence_avg": False, **options}
    return MinimumRiskCriterion(MinimumRiskConfig(**options), toy.ToyTask(model, tagging)).train()


def sample_of(model, rows, ids=None):
    sample = test_batch_mates.sample_of(model, rows)
    return {**sample, "id": torch.arange(len(rows)) if ids is None else torch.tensor(ids)}


def log_p(model, sample, symbols):
    """log p ``[N]`` of tags ``symbols [N, T]`` of the only sentence of a sample."""
    encoder_out = model.encoder.forward_torchscript(sample["net_input"])
    previous = torch.cat([torch.full_like(symbols[:, :1], test_batch_mates.EOS), symbols[:, :-1]], 1)
    wide = model.encoder.reorder_encoder_out(encoder_out, torch.zeros(len(symbols), dtype=torch.long))
    net_output = model.decoder(previous, encoder_out=wide)
    return model.get_normalized_probs(net_output, log_probs=True).gather(2, symbols[..., None]).sum((1, 2))


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("sharpness", [1.0, 0.25])
def test_over_all_sequences_it_is_the_expected_risk(sharpness, reference):
    """A beam of all 216 taggings of three words: loss and gradient are those of the definition."""
    model = toy_models.spread(toy_models.tagger(), 2.0)
    sample = sample_of(model, [[5, 9, 14]])
    every = torch.tensor(list(itertools.product(range(4, 10), repeat=3)))
    wrong = every.ne(sample["target"]).float().mean(1)
    expected = (torch.softmax(sharpness * log_p(model, sample, every), 0) * wrong).sum() / sharpness
    criterion = criterion_for(
        model,
        candidates="beam",
        num_candidates=len(every),
        risk="hamming",
        sharpness=sharpness,
        ce_weight=0.0,
        include_reference=reference,
    )
    loss, _, logs = criterion(model, sample)
    assert logs["distinct"] == len(every) - reference
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)
    parameters = list(model.parameters())
    pairs = zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters))
    largest = max(
        parameter.abs().max() for parameter in torch.autograd.grad(criterion(model, sample)[0], parameters)
    )
    for found, wanted in pairs:
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * largest.item())


@pytest.mark.parametrize("arch", toy.MODELS)
def test_gradient_equals_finite_differences(arch):
    """Along the gradient itself, so that float32 is precise enough; candidates are held fixed."""
    model = toy_models.spread(toy.MODELS[arch](), 1.0 if arch == "transformer" else 2.0)
    criterion, sample = criterion_for(model, include_reference=True, sharpness=0.5), None
    sample = sample_of(model, [[5, 9, 14, 7], [8, 21, 6], [11, 4]])
    held = criterion._candidates(model, sample, sample["target"])
    criterion._candidates = lambda *unused: held
    parameters = list(model.parameters())
    gradient = torch.autograd.grad(criterion(model, sample)[0], parameters, allow_unused=True)
    gradient = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradient)]
    norm = sum((g**2).sum() for g in gradient).sqrt()
    values, size = [], 2e-3
    for shift in (size, -2 * size):
        for parameter, direction in zip(parameters, gradient):
            parameter.data.add_(direction / norm, alpha=shift)
        with torch.no_grad():
            values.append(criterion(model, sample)[0].item())
    assert (values[0] - values[1]) / (2 * size) == pytest.approx(norm.item(), rel=0.02)


OPTIONS = {
    "samples": {},
    "samples and reference": {"include_reference": True, "num_candidates": 1},
    "beam": {"candidates": "beam", "num_candidates": 3, "include_reference": True},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("arch", toy.MODELS)
def test_loss_of_each_sentence_alone_and_in_company(arch, name):
    model = toy_models.spread(toy.MODELS[arch](), 1.0 if arch == "transformer" else 2.0)
    if arch == "lstm":
        model.decoder.fc_out.bias.data[test_batch_mates.EOS] += 2.0  # so that hypotheses end
    criterion = criterion_for(model, **OPTIONS[name])
    rows, ids = [[5, 9, 14, 7, 8, 12], [8, 21, 6], [11, 4], [17]], [7, 3, 9, 0]
    for mode in (True, False):
        criterion.train(mode)
        together, size, logs = criterion(model, sample_of(model, rows, ids), reduce=False)
        alone = [criterion(model, sample_of(model, [row], [i]), reduce=False) for row, i in zip(rows, ids)]
        torch.testing.assert_close(together, torch.cat([loss for loss, _, _ in alone]), atol=1e-4, rtol=1e-4)
        assert size == sum(other for _, other, _ in alone)
        for key in logs:
            assert float(logs[key]) == pytest.approx(sum(float(log[key]) for *_, log in alone), rel=1e-4)


def test_noise_is_a_function_of_seed_epoch_and_sentence():
    lengths = torch.tensor([3, 7])
    noise = sentence_noise(1, 2, torch.tensor([5, 8]), lengths, 4)
    assert noise.shape == (2, 4, 7) and (noise[0, :, 3:] == 0).all() and (noise[1] > 0).all()
    longer = sentence_noise(1, 2, torch.tensor([5]), torch.tensor([9]), 4)
    assert torch.equal(longer[0, :, :3], noise[0, :, :3])
    others = [(2, 2, 5), (1, 3, 5), (1, 2, 6)]
    for seed, epoch, sentence in others:
        other = sentence_noise(seed, epoch, torch.tensor([sentence]), lengths[:1], 4)
        assert not torch.equal(other[0], noise[0, :, :3])


def test_candidates_are_found_without_dropout_and_modes_come_back():
    model = toy_models.transformer(dropout=0.5).train()
    model.encoder.layers[0].eval()
    modes = [module.training for module in model.modules()]
    criterion, sample = criterion_for(model), sample_of(model, [[5, 9, 14, 7], [8, 21]])
    found = [criterion._candidates(model, sample, sample["target"]).symbols for _ in range(2)]
    assert torch.equal(*found)
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(KeyError), without_dropout(model):
        raise KeyError
    assert [module.training for module in model.modules()] == modes
    losses = [criterion(model, sample)[0].item() for _ in range(2)]
    assert losses[0] != losses[1]  # with dropout


def test_equal_candidates_and_the_reference_count_once():
    model = toy_models.spread(toy_models.tagger(), 2.0)
    model.decoder.output_projection.weight.data.mul_(1e3)  # so sure that all samples are the same
    sample = sample_of(model, [[5, 9, 14], [8, 21, 6]])
    criterion = criterion_for(model, num_candidates=9)
    greedy = criterion._candidates(model, sample, sample["target"])
    assert greedy.there.sum(1).tolist() == [1, 1]
    sample["target"] = greedy.symbols[:, 0]
    criterion = criterion_for(model, num_candidates=9, include_reference=True, ce_weight=0.0)
    loss, _, logs = criterion(model, sample)
    assert logs["distinct"] == 0 and loss == 0 and logs["risk"] == 0
    assert logs["candidate_words"] == logs["reference_words"] == 6


def test_weights_of_risk_and_cross_entropy():
    model = toy_models.spread(toy_models.lstm(), 2.0)
    sample = sample_of(model, [[5, 9, 14, 7], [8, 21, 6]])
    losses = {w: criterion_for(model, ce_weight=w, sharpness=0.2)(model, sample) for w in (0.0, 0.25, 1.0)}
    torch.testing.assert_close(losses[0.25][0], 0.75 * losses[0.0][0] + 0.25 * losses[1.0][0])
    torch.testing.assert_close(losses[1.0][0], losses[1.0][2]["nll_loss"])
    torch.testing.assert_close(losses[0.0][0], losses[0.0][2]["risk"] / 0.2)


def test_validation_is_the_risk_of_the_best_of_the_beam():
    model = toy_models.spread(toy_models.tagger(), 2.0)
    sample = sample_of(model, [[5, 9, 14]])
    every = torch.tensor(list(itertools.product(range(4, 10), repeat=3)))
    best = every[log_p(model, sample, every).argmax()]
    criterion = criterion_for(model, num_candidates=216, risk="hamming").eval()
    _, _, logs = criterion(model, sample)
    assert logs["risk"] == pytest.approx(best.ne(sample["target"][0]).float().mean().item())
    assert logs["distinct"] == 1


@pytest.mark.parametrize("enabled", [False, True])
def test_half_precision(enabled):
    """Weights in bfloat16, and mixed precision: the search, scores and risks are float32."""
    model = toy_models.spread(toy_models.lstm(), 1.0)
    criterion, sample = criterion_for(model, include_reference=True), sample_of(model, [[5, 9, 14], [8, 21]])
    held = criterion._candidates(model, sample, sample["target"])
    expected = criterion(model, sample)[0]
    if not enabled:
        model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        found = criterion._candidates(model, sample, sample["target"])
        assert found.symbols.shape[:2] == held.symbols.shape[:2]
        criterion._candidates = lambda *unused: held
        loss = criterion(model, sample)[0]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0.05, atol=0)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


REFUSED = {
    "text": (True, {"risk": "bleu"}, "--risk bleu is for translation: use one of edit, hamming, span"),
    "tags": (False, {"risk": "span"}, "--risk span is for tagging: use one of gleu, bleu, chrf, edit"),
    "none": (True, {"num_candidates": 0}, "--num-candidates 0 must be at least 1"),
    "one": (True, {"num_candidates": 1}, "--num-candidates 1 leaves nothing to choose between"),
    "sharpness": (True, {"sharpness": 0.0}, "--sharpness 0.0 must be positive"),
    "mixing": (True, {"ce_weight": 1.5}, "--ce-weight 1.5 must be between 0 and 1"),
    "length": (False, {"candidate_length": 0.5}, "--candidate-length 0.5 must be at least 1"),
    "units": (True, {"risk_remove_bpe": "@@ "}, "have no meaning for tags"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_cannot_work_are_refused(name):
    tagging, options, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        criterion_for(toy_models.tagger(), tagging=tagging, **options)


def test_samples_need_the_epoch():
    task = toy.StockTask(toy_models.dictionary())
    with pytest.raises(ValueError, match=r"schedule of the samples cannot be followed.*--candidates beam"):
        MinimumRiskCriterion(MinimumRiskConfig(sentence_avg=False), task)
    MinimumRiskCriterion(MinimumRiskConfig(sentence_avg=False, candidates="beam"), task)


RISKS = [
    (risks.gleu, "a b c d", "a b c d", 0.0),
    (risks.gleu, "a b", "a b c", 1 - 3 / 6),  # 2 words and 1 bigram of 3 + 2 + 1
    (risks.gleu, "a a a", "a", 1 - 1 / 6),
    (risks.gleu, "a, b", "a , b", 0.0),  # by sacrebleu's tokens
    (risks.gleu, "", "a", 1.0),
    (risks.bleu, "the cat sat down", "the cat sat down", 0.0),
    (risks.bleu, "", "a", 1.0),
    (risks.chrf, "the cat", "the cat", 0.0),
    (risks.edit, "a b c", "a c d e", 3 / 4),
    (risks.edit, "", "", 0.0),
    (risks.edit, "b a", "", 1.0),
    (risks.hamming, "O B-PER", "O O", 1 / 2),
    (risks.span, "B-PER I-PER O B-LOC", "B-PER O O B-LOC", 1 / 2),
    (risks.span, "O O", "O O", 0.0),
    (risks.span, "O O", "O B-LOC", 1.0),
]


@pytest.mark.parametrize("risk, hypothesis, reference, expected", RISKS)
def test_risks(risk, hypothesis, reference, expected):
    assert risk(hypothesis, reference) == pytest.approx(expected, abs=1e-9)


def test_the_text_of_the_risk():
    """Units become words; an unknown word is never right, not even beside an unknown word."""
    model = toy_models.lstm()
    for symbol in ("▁the", "▁c", "at"):
        model.decoder.dictionary.add_symbol(symbol)
    criterion = criterion_for(model, risk="bleu", risk_remove_bpe="sentencepiece")
    ids = [model.decoder.dictionary.index(symbol) for symbol in ("▁the", "▁c", "at")]
    assert criterion._text([*ids, 2, 1, 1]) == "the cat"
    assert criterion._text([3]) != criterion._text([3], is_reference=True)


def test_stopped_and_resumed_is_uninterrupted(tmp_path, caplog):
    """Samples included; and what is logged."""
    caplog.set_level(logging.INFO)
    data = toy_corpus.write_corpus(tmp_path, sentences=20)
    options = [*toy_corpus.TAGGER, "--criterion", "minimum_risk", "--risk", "span", "--include-reference"]
    toy_corpus.train(data, tmp_path / "whole", *options, "--max-epoch", "3")
    whole = toy_corpus.logged(caplog, "train")
    caplog.clear()
    toy_corpus.train(data, tmp_path / "parts", *options, "--max-epoch", "1")
    toy_corpus.train(data, tmp_path / "parts", *options, "--max-epoch", "3")
    parts = toy_corpus.logged(caplog, "train")
    for name in ("loss", "nll_loss", "risk", "distinct", "length_ratio"):
        assert [log[f"train_{name}"] for log in parts] == [log[f"train_{name}"] for log in whole]
    assert whole[0]["train_length_ratio"] == "1" and 0 < float(whole[0]["train_risk"]) < 1


@pytest.mark.parametrize("arch", ["lstm", "transformer"])
def test_translation_on_the_command_line(tmp_path, caplog, arch):
    caplog.set_level(logging.INFO)
    data = toy_corpus.write_corpus(tmp_path, sentences=20)
    small = [*toy_corpus.SMALL_LSTM[4:]] if arch == "lstm" else []
    if arch == "transformer":
        small = "--encoder-embed-dim 16 --decoder-embed-dim 16 --encoder-layers 1 --decoder-layers 1".split()
    options = ["--task", "direct_loss_translation", "--arch", arch, *small, "--criterion", "minimum_risk"]
    options += ["--risk", "chrf", "--candidates", "beam", "--max-epoch", "1"]
    options += ["--best-checkpoint-metric", "risk"]
    toy_corpus.train(data, tmp_path / "run", *options)
    (valid,) = toy_corpus.logged(caplog, "valid")
    assert 0 < float(valid["valid_risk"]) <= 1 and float(valid["valid_length_ratio"]) > 0
    assert (tmp_path / "run" / "checkpoint_best.pt").exists()


def test_what_is_logged_is_the_mean_over_all_batches():
    model = toy_models.spread(toy_models.lstm(), 2.0)
    criterion = criterion_for(model)
    logs = [criterion(model, sample_of(model, rows))[2] for rows in ([[5, 9, 14], [8, 21], [11]], [[17]])]
    with metrics.aggregate(new_root=True) as whole:
        for log in logs:
            criterion.reduce_metrics([log])
    found = whole.get_smoothed_values()
    total = {name: sum(float(log[name]) for log in logs) for name in logs[0]}
    assert found["risk"] == pytest.approx(total["risk"] / 4, abs=1e-4)
    assert found["distinct"] == pytest.approx(total["distinct"] / 4, abs=1e-4)
    ratio = total["candidate_words"] / total["reference_words"]
    assert found["length_ratio"] == pytest.approx(ratio, abs=1e-4)


def test_the_configuration_names_every_risk():
    meaning = dataclasses.fields(MinimumRiskConfig)
    text = next(one.metadata["meaning"] for one in meaning if one.name == "risk")
    assert all(f"`{name}`" in text for name in risks.RISKS)
