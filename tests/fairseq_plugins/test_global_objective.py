"""The objective global and the own history of soft_beam: against enumeration and other criterions."""

import itertools
from functools import partial

import pytest
import torch
import toy_corpus
import toy_models
from test_soft_beam_criterion import MODELS, ToyTask, criterion_for, sample_for

from diffdecode.sequence import contrast, global_loss, score_stepwise
from fairseq_plugins.criterions.scheduled_sampling import ScheduledSamplingConfig, ScheduledSamplingCriterion
from fairseq_plugins.decoders import step_decoder
from fairseq_plugins.models.fixed_attention_lstm import FixedAttentionLSTMModel

EOS, PAD, FIRST = 2, 1, 4


@pytest.fixture(params=MODELS)
def model(request):
    return toy_models.spread(MODELS[request.param](), 1.0 if request.param == "transformer" else 2.0)


def short_sample(model):
    """Two references that can be enumerated: of 3 labels, or of a word and EOS."""
    sample = sample_for(model)
    if is_tagger(model):
        target, lengths = sample["target"][:2, :3].clone(), torch.tensor([3, 2])
        target[1, 2] = PAD
        sources = sample["net_input"]["src_tokens"][:2, :3]
    else:
        target, lengths = torch.tensor([[5, EOS], [7, EOS]]), torch.tensor([4, 4])
        sources = torch.tensor([[4, 5, 6, 7], [8, 9, 4, 5]])
    previous = torch.cat([torch.full_like(target[:, :1], EOS), target[:, :-1]], 1)
    inputs = {"src_tokens": sources, "src_lengths": lengths, "prev_output_tokens": previous}
    return {"net_input": inputs, "target": target, "ntokens": int((target != PAD).sum())}


def is_tagger(model):
    return isinstance(model, FixedAttentionLSTMModel)


def every_sequence(space, steps):
    """All of ``steps`` symbols: labels, or at least one word, EOS and then PAD."""
    words = [s for s in space.symbols.tolist() if s not in (space.eos, space.pad)]
    if space.eos is None:
        return list(itertools.product(words, repeat=steps))
    ended = [
        (*prefix, EOS, *[PAD] * (steps - length - 1))
        for length in range(1, steps)
        for prefix in itertools.product(words, repeat=length)
    ]
    return ended + list(itertools.product(words, repeat=steps))


def enumerated(model, inputs, row, length, reference, space):
    """The exact loss of one sentence: all sequences scored by the model's ordinary forward pass."""
    every = torch.tensor(every_sequence(space, length))
    previous = torch.cat([torch.full_like(every[:, :1], EOS), every[:, :-1]], 1)
    words = int(inputs["src_lengths"][row])
    sources = inputs["src_tokens"][row : row + 1].expand(len(every), -1)
    logits = model(sources, torch.full((len(every),), words), previous)[0]
    local = logits.gather(2, every[..., None])[..., 0] - space.score_normalizer * logits.logsumexp(2)
    if space.eos is not None:
        local = local.masked_fill(every == PAD, 0.0)
    number = (every == reference).all(1).nonzero().item()
    return -local.sum(1).log_softmax(0)[number]


@pytest.mark.parametrize("normalizer", [0.0, 0.5])
def test_a_beam_of_everything_gives_the_loss_of_the_globally_normalised_model(model, normalizer):
    sample = short_sample(model)
    beam = {"objective": "global", "soft_beam_size": 1000, "score_normalizer": normalizer}
    criterion = criterion_for(model, **beam).train()
    loss, size, logs = criterion(model, sample, reduce=False)
    assert size == sample["ntokens"] and logs["gold_kept"] == len(loss) and "alpha" not in logs
    for row, (reference, found) in enumerate(zip(sample["target"], loss)):
        length = int((reference != PAD).sum())
        inputs = sample["net_input"]
        expected = enumerated(model, inputs, row, length, reference[:length], criterion.space)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(criterion.eval()(model, sample, reduce=False)[0], loss, atol=1e-5, rtol=1e-5)


def test_one_pass_scores_what_a_search_step_by_step_would(model):
    sample = sample_for(model)
    steps = step_decoder(model)
    encoder_out = model.encoder.forward_torchscript(sample["net_input"])
    symbols = torch.randint(FIRST, 10, (len(sample["target"]), 3, sample["target"].size(1)))
    expected = score_stepwise(steps, steps.init_state(encoder_out), symbols)
    found = steps.score(encoder_out, symbols)
    for mine, theirs in zip(found, expected):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    cut = symbols.clone()
    cut[:, 1, 2:] = -1
    for mine, theirs in zip(steps.score(encoder_out, cut), expected):
        torch.testing.assert_close(mine, theirs.masked_fill(cut < 0, 0.0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_is_the_librarys_loss_with_early_update_in_training_only(model, training):
    sample = sample_for(model)
    options = {"objective": "global", "soft_beam_size": 2, "score_normalizer": 0.3}
    criterion = criterion_for(model, **options).train(training)
    loss, _, logs = criterion(model, sample, reduce=False)
    steps, target = step_decoder(model), sample["target"]
    state = steps.init_state(model.encoder.forward_torchscript(sample["net_input"]))
    lengths = target.ne(PAD).sum(1)
    found = contrast(steps, state, target, lengths, 2, criterion.space, early=training)
    expected = global_loss(found, partial(score_stepwise, steps, state), criterion.space)
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-5)
    assert logs["gold_kept"] == found.kept.sum()
    assert not found.kept.all(), "no reference falls off the beam: the test would not see early update"


def test_gradient_reaches_every_parameter_and_is_finite(model):
    # All words at the first step: a reference that falls off there attends to nothing but itself.
    options = {"objective": "global", "score_normalizer": 0.0, "soft_beam_size": 30}
    criterion = criterion_for(model, **options).train()
    loss, _, _ = criterion(model, sample_for(model))
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert sum((p.grad != 0).any().item() for p in model.parameters()) >= len(list(model.parameters())) - 1


def test_the_search_has_no_dropout_and_the_scores_have():
    model = toy_models.spread(toy_models.tagger(), 2.0)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.4
    sample, kept, losses = sample_for(model), set(), set()
    criterion = criterion_for(model, objective="global", score_normalizer=0.0).train()
    model.train()
    for seed in range(5):
        torch.manual_seed(seed)
        loss, _, logs = criterion(model, sample)
        kept.add(float(logs["gold_kept"]))
        losses.add(loss.item())
    assert len(kept) == 1 and len(losses) == 5
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("objective", ["direct", "global"])
def test_own_history_is_scheduled_sampling_that_never_sees_gold(model, objective):
    sample = sample_for(model)
    options = {"objective": objective, "ce_weight": 1.0, "ce_history": "own"}
    loss, _, _ = criterion_for(model, **options).train()(model, sample)
    task = ToyTask(model, tagging=criterion_for(model).space.eos is None)
    config = ScheduledSamplingConfig(sentence_avg=False, gold_schedule="never", alpha=1.0, alpha_growth=1.0)
    expected, _, _ = ScheduledSamplingCriterion(config, task).train()(model, sample)
    torch.testing.assert_close(loss, expected)
    gradients = []
    for one in (loss, expected):
        found = torch.autograd.grad(one, list(model.parameters()), allow_unused=True)
        gradients.append(torch.cat([part.flatten() for part in found if part is not None]))
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)
    validation = [
        criterion_for(model, **{**options, "ce_history": history}).eval()(model, sample)[0]
        for history in ("own", "gold")
    ]
    assert torch.equal(*validation)


@pytest.mark.parametrize("history", ["gold", "own"])
def test_batch_mates_change_nothing(history):
    model = toy_models.spread(toy_models.tagger(), 2.0)
    options = {"objective": "global", "score_normalizer": 0.0, "ce_weight": 0.5, "ce_history": history}
    criterion, sample = criterion_for(model, **options).train(), sample_for(model)
    together, _, _ = criterion(model, sample, reduce=False)
    for row, length in enumerate(sample["net_input"]["src_lengths"].tolist()):
        inputs = {name: part[row : row + 1] for name, part in sample["net_input"].items()}
        inputs["src_tokens"] = inputs["src_tokens"][:, -length:]  # the toy batch is padded on the left
        inputs["prev_output_tokens"] = inputs["prev_output_tokens"][:, :length]
        target = sample["target"][row : row + 1, :length]
        alone, _, _ = criterion(model, {"net_input": inputs, "target": target, "ntokens": length})
        torch.testing.assert_close(alone, together[row], atol=1e-4, rtol=0)


REFUSED = {
    "own history of no cross entropy": ({"ce_history": "own"}, "--ce-history own needs cross entropy"),
    **{
        name: ({"objective": "global", name: value}, f"--{name.replace('_', '-')} has no meaning")
        for name, value in {
            "hard_forward": True,
            "margin": 2.0,
            "wrong_label_costs": "w1=2",
            "soft_beam_candidates": 8,
            "length_penalty": 1.0,
        }.items()
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_without_an_effect_are_refused(name):
    options, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        criterion_for(toy_models.tagger(), **options)


def test_trains_by_the_command_line(tmp_path, caplog):
    """A start by cross entropy, continued: the global loss of validation falls, and is logged."""
    caplog.set_level("INFO")
    data = toy_corpus.write_corpus(tmp_path)
    ce = [*toy_corpus.TAGGER, "--encoder-direction", "word", "--criterion", "cross_entropy"]
    toy_corpus.train(data, tmp_path / "ce", *ce, "--max-epoch", "1")
    caplog.clear()
    toy_corpus.train(
        data, tmp_path / "global", *toy_corpus.TAGGER, "--encoder-direction", "word",
        "--criterion", "soft_beam", "--objective", "global", "--score-normalizer", "0",
        "--ce-weight", "0.5", "--ce-history", "own", "--max-epoch", "4", "--eval-beam", "3",
        "--finetune-from-model", tmp_path / "ce/checkpoint_best.pt",
    )  # fmt: skip
    losses = [float(log["valid_loss"]) for log in toy_corpus.logged(caplog, "valid")]
    assert len(losses) == 4 and losses[-1] < losses[0]
    assert all(0 <= float(log["train_gold_kept"]) <= 1 for log in toy_corpus.logged(caplog, "train"))
