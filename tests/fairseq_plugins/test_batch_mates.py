"""A sentence gets the same result alone and in any company: mates, order, padding side, batches, threads."""

import contextlib
import io
import re
from argparse import Namespace

import pytest
import test_soft_beam_criterion
import test_step_decoders
import torch
import toy_corpus
import toy_models
from fairseq import checkpoint_utils
from fairseq.data import data_utils
from fairseq.hub_utils import GeneratorHubInterface
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from diffdecode.sequence import SearchSpace, SoftBeamOptions, hard_beam, soft_beam_decode
from fairseq_plugins.criterions.minimum_risk import MinimumRiskConfig, MinimumRiskCriterion
from fairseq_plugins.criterions.scheduled_sampling import ScheduledSamplingConfig, ScheduledSamplingCriterion
from fairseq_plugins.criterions.soft_beam import SoftBeamConfig, SoftBeamCriterion
from fairseq_plugins.decoders import step_decoder
from fairseq_plugins.soft_beam_generator import SoftBeamGenerator
from fairseq_plugins.tasks.tagging.generator import TaggingGenerator

# The same examples in every run: a search may decide a near tie either way.
bounded = settings(deadline=None, max_examples=15, derandomize=True)
PAD, EOS, FIRST_WORD = 1, 2, 4
CLOSE = {"atol": 2e-5, "rtol": 1e-4}

words = st.integers(FIRST_WORD, 23)
sentences = st.lists(st.lists(words, max_size=6), min_size=2, max_size=5).filter(any)


def padded(rows, left: bool) -> torch.Tensor:
    return data_utils.collate_tokens(
        [torch.tensor(row, dtype=torch.long) for row in rows], PAD, left_pad=left
    )


def lengths_of(rows) -> torch.Tensor:
    return torch.tensor([len(row) for row in rows])


@bounded
@given(sentences, st.booleans(), st.integers(1, 2))
def test_tagger_encoder(rows, left, layers):
    encoder = toy_models.spread(toy_models.tagger(encoder_layers=layers)).encoder
    together = encoder(padded(rows, left), lengths_of(rows))["states"]
    for i, row in enumerate(rows):
        if row:
            alone = encoder(padded([row], left), lengths_of([row]))["states"]
            torch.testing.assert_close(together[: len(row), i], alone[:, 0], **CLOSE)
            assert not together[len(row) :, i].any()


def source_batch(model, rows, left=True):
    """``net_input`` of the sentences ``rows``; those of translation end with EOS."""
    if not is_tagger(model):
        rows = [[*row, EOS] for row in rows]
    return {"src_tokens": padded(rows, left and not is_tagger(model)), "src_lengths": lengths_of(rows)}


def is_tagger(model) -> bool:
    return type(model).__name__.startswith("FixedAttention")


def longest_first(rows):
    return sorted(rows, key=len, reverse=True)


def five_steps(model, net_input, symbols=(5, 6, 4, 7)):
    """Log-probabilities ``[B, 5, V]`` of a decoder that is fed fixed symbols."""
    steps = step_decoder(model)
    state, found = steps.init_state(model.encoder.forward_torchscript(net_input)), []
    taken = min(5, net_input["src_tokens"].size(1)) if is_tagger(model) else 5
    for symbol in (steps.start, *symbols)[:taken]:
        fed = torch.full((len(net_input["src_tokens"]),), symbol)
        log_probs, state = steps.step(state, F.embedding(fed, steps.embedding))
        found.append(log_probs)
    return torch.stack(found, 1)


@pytest.mark.parametrize("name", test_step_decoders.MODELS)
def test_decoding_step_by_step(name):
    model = toy_models.spread(test_step_decoders.MODELS[name](), 1.0 if "transformer" in name else 2.0)
    sides = (True, False) if "transformer" in name else (True,)

    @settings(bounded, max_examples=5)
    @given(sentences, st.sampled_from(sides))
    def holds(rows, left):
        rows = longest_first(rows)
        with torch.no_grad():
            together = five_steps(model, source_batch(model, rows, left))
            for i, row in enumerate(rows):
                if row or not is_tagger(model):
                    alone = five_steps(model, source_batch(model, [row]))[0]
                    torch.testing.assert_close(together[i, : len(alone)], alone, **CLOSE)

    holds()


SEARCHES = {
    "hard": hard_beam,
    "soft": lambda decoder, state, lengths, k, space: soft_beam_decode(
        decoder, state, lengths, space, SoftBeamOptions(k, 1.0)
    ),
}


@pytest.mark.parametrize("search", SEARCHES)
def test_tagging_generator(search):
    """Empty sentences among the others, unsorted, in batches of any size."""
    model = toy_models.spread(toy_models.tagger())
    generator = TaggingGenerator(SearchSpace(torch.arange(FIRST_WORD, 10)), 3, SEARCHES[search])

    @bounded
    @given(sentences, st.integers(1, 5), st.randoms(use_true_random=False))
    def holds(rows, size, random):
        random.shuffle(rows)
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        found = [beam for batch in batches for beam in generated(generator, model, batch)]
        for row, beam in zip(rows, found, strict=True):
            (alone,) = generated(generator, model, [row])
            assert_same_beam(beam, alone)

    holds()


@pytest.mark.parametrize(
    "scale, end, operator, alpha", [(5, 2, "softsort", 30), (5, 6, "softsort", 3), (2, 4, "peaked", 1)]
)
def test_soft_beam_generator(scale, end, operator, alpha):
    """A translation that has ended is left as it is until the longest of its batch ends."""
    model = toy_models.spread(toy_models.lstm(), scale)
    model.decoder.fc_out.bias.data[EOS] += end
    task = test_soft_beam_criterion.ToyTask(model, tagging=False)

    def search(decoder, state, lengths, k, space):
        return soft_beam_decode(decoder, state, lengths, space, SoftBeamOptions(k, alpha, operator))

    generator = SoftBeamGenerator(task, Namespace(beam=3, max_len_b=12, unnormalized=True), search)

    @settings(bounded, max_examples=8)
    @given(sentences)
    def holds(rows):
        rows = longest_first(rows)
        for row, beam in zip(rows, generated(generator, model, rows), strict=True):
            (alone,) = generated(generator, model, [row])
            # Which of two equal elements is followed is a matter of rounding; their scores are not.
            expected = pytest.approx([hypothesis["score"] for hypothesis in alone], abs=2e-4)
            assert [hypothesis["score"] for hypothesis in beam] == expected

    holds()


def generated(generator, model, rows):
    return generator.generate([model], {"net_input": source_batch(model, rows)})


def assert_same_beam(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert one["score"] == pytest.approx(other["score"], abs=1e-3)
        torch.testing.assert_close(one["positional_scores"], other["positional_scores"], atol=1e-3, rtol=0)
        assert one["tokens"].tolist() == other["tokens"].tolist()


CRITERIONS = {
    "soft beam": lambda task: SoftBeamCriterion(SoftBeamConfig(sentence_avg=False, ce_weight=0.1), task),
    "soft beam, truncated": lambda task: SoftBeamCriterion(
        SoftBeamConfig(sentence_avg=False, soft_beam_candidates=30, soft_beam_tolerance=1.0), task
    ),
    "hinge": lambda task: SoftBeamCriterion(SoftBeamConfig(sentence_avg=False, objective="hinge"), task),
    "stepwise": lambda task: ScheduledSamplingCriterion(
        ScheduledSamplingConfig(sentence_avg=False, gold_schedule="never"), task
    ),
    "minimum risk": lambda task: MinimumRiskCriterion(
        MinimumRiskConfig(sentence_avg=False, seed=1, risk="edit", include_reference=True), task
    ),
    "two passes": lambda task: ScheduledSamplingCriterion(
        ScheduledSamplingConfig(sentence_avg=False, gold_schedule="never", rollout="two_pass"), task
    ),
}


def sample_of(model, rows):
    """A training batch: the symbols of a sentence are labelled with themselves, modulo the labels."""
    labels = [[FIRST_WORD + word % 6 for word in row] + [EOS] * (not is_tagger(model)) for row in rows]
    target = padded(labels, left=False)
    previous = torch.cat([torch.full_like(target[:, :1], EOS), target[:, :-1]], 1)
    previous[target.eq(PAD)] = PAD
    net_input = {**source_batch(model, rows), "prev_output_tokens": previous}
    ids = torch.tensor([row[0] if row else 0 for row in rows])
    return {"net_input": net_input, "target": target, "ntokens": int(target.ne(PAD).sum()), "id": ids}


def loss_and_gradient(criterion, model, rows):
    model.zero_grad()
    loss, size, _ = criterion(model, sample_of(model, rows))
    loss.backward()
    gradient = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return loss.item(), size, torch.cat(gradient)


@pytest.mark.parametrize("name", CRITERIONS)
@pytest.mark.parametrize("arch", test_soft_beam_criterion.MODELS)
def test_criterions(arch, name):
    """Two batches of n are one of 2n (``--update-freq``); order and the number of threads do not matter."""
    build = test_soft_beam_criterion.MODELS[arch]
    model = toy_models.spread(build(), 1.0 if arch == "transformer" else 2.0)
    criterion = CRITERIONS[name](test_soft_beam_criterion.ToyTask(model, tagging=arch == "tagger")).train()
    rows = [[5, 9, 14, 7], [8, 21, 6], [11, 4], [17]]
    loss, size, gradient = loss_and_gradient(criterion, model, rows)
    assert gradient.abs().max() > 0.05  # of one that is all rounding nothing can be said

    def same(other_loss, other_size, other_gradient):
        assert other_size == size
        assert other_loss == pytest.approx(loss, rel=1e-4)
        assert (other_gradient - gradient).abs().max() <= 1e-3 * gradient.abs().max()

    halves = zip(*(loss_and_gradient(criterion, model, half) for half in (rows[:2], rows[2:])))
    same(*(sum(values) for values in halves))
    if arch != "lstm":  # fairseq's LSTM asks for the longest sentence first
        same(*loss_and_gradient(criterion, model, [rows[i] for i in (2, 0, 3, 1)]))
    torch.set_num_threads(2)
    try:
        same(*loss_and_gradient(criterion, model, rows))
    finally:
        torch.set_num_threads(1)


LOSSES = {
    "soft beam": {},
    "soft beam, further steps": {"extra_steps": 3},
    "soft beam, softsort": {"operator": "softsort", "extra_steps": 2},
    "soft beam, lapsum": {"operator": "lapsum", "extra_steps": 2},
    "soft beam, successive": {"operator": "successive", "extra_steps": 2},
    "soft beam, hard forward": {"hard_forward": True, "extra_steps": 2},
    "soft beam, truncated": {"soft_beam_candidates": 6, "soft_beam_tolerance": 1.0, "extra_steps": 2},
    "soft beam, by length": {"length_penalty": 1.0, "extra_steps": 2},
    "hinge": {"objective": "hinge", "extra_steps": 2},
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("arch", ["tagger", "lstm"])
def test_loss_of_each_sentence(arch, name):
    """In training and in validation, with references that end long before the longest one."""
    model = toy_models.spread(test_soft_beam_criterion.MODELS[arch](), 2.0)
    if arch == "lstm":
        model.decoder.fc_out.bias.data[EOS] += 2.0  # so that hypotheses end
    criterion = test_soft_beam_criterion.criterion_for(model, alpha=1.0, **LOSSES[name])
    rows = [[5, 9, 14, 7, 8, 12], [8, 21, 6], [11, 4], [17]]
    for mode in (True, False):
        criterion.train(mode)
        together, _, _ = criterion(model, sample_of(model, rows), reduce=False)
        for row, loss in zip(rows, together, strict=True):
            (alone,), _, _ = criterion(model, sample_of(model, [row]), reduce=False)
            torch.testing.assert_close(loss, alone, atol=1e-4, rtol=1e-4)


COMMANDS = {
    "tagging": ("sequence_tagging", toy_corpus.TAGGER),
    "translation": ("direct_loss_translation", toy_corpus.SMALL_LSTM),
}
TEXT = ["w1 w2 w3", "", "w5", "w7 w11 w2 w2 w9 w1", "", "unseen w3", "w3 w1", "w20 w21 w22"]


@pytest.fixture(scope="module", params=COMMANDS)
def trained(request, tmp_path_factory):
    """Data, checkpoint and task of a model trained for a few epochs."""
    folder, (task, options) = tmp_path_factory.mktemp(request.param), COMMANDS[request.param]
    data = toy_corpus.write_corpus(folder)
    toy_corpus.train(data, folder / "run", *options, "--criterion", "cross_entropy", "--max-epoch", "4")
    return data, folder / "run" / "checkpoint_best.pt", task


@pytest.mark.parametrize("search", ["beam", "soft-beam"])
def test_fairseq_interactive(trained, search, tmp_path):
    """Line by line, all in one buffer, in batches, and in another order."""
    expected = interactive(trained, search, tmp_path, TEXT, 1, 1)
    assert len(expected) == len(TEXT)
    assert_same_lines(interactive(trained, search, tmp_path, TEXT, 20, 8), expected)
    backwards = interactive(trained, search, tmp_path, TEXT[::-1], 3, 2)
    assert_same_lines(backwards[::-1], expected)


def test_translate_of_the_hub_interface(trained):
    """A trained model in Python: sentences in one call and one by one."""
    data, checkpoint, _ = trained
    found = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)], {"data": str(data)})
    models, cfg, task = found
    hub = GeneratorHubInterface(cfg, task, models)
    together = hub.translate(TEXT, beam=3)
    assert together == [hub.translate(line, beam=3) for line in TEXT]
    assert len(together) == len(TEXT)


def interactive(trained, search, folder, lines, buffer_size, batch_size):
    """``(score, words)`` of what is printed first for each of the lines."""
    data, checkpoint, task = trained
    (folder / "text").write_text("".join(f"{line}\n" for line in lines))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        toy_corpus.run(
            "interactive", data, "--user-dir", toy_corpus.USER_DIR, "--task", task, "--path", checkpoint,
            "--cpu", "--beam", "3", "--search", search, "--input", folder / "text",
            "--buffer-size", buffer_size, "--batch-size", batch_size,
            *(["--max-len-b", 12] if "translation" in task else []),
        )  # fmt: skip
    lines = re.findall(r"^H-(\d+)\t(\S+)\t(.*)$", printed.getvalue(), flags=re.MULTILINE)
    return [(float(score), words) for _, score, words in sorted(lines, key=lambda line: int(line[0]))]


def assert_same_lines(found, expected):
    assert [words for _, words in found] == [words for _, words in expected]
    assert [score for score, _ in found] == pytest.approx([score for score, _ in expected], abs=1e-4)
