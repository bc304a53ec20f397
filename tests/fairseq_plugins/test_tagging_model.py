"""The fixed-attention tagger: what the i-th label sees, padding, incremental steps, sizes of the papers."""

from argparse import Namespace
from functools import partial

import pytest
import torch
import toy_models
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from fairseq.sequence_generator import SequenceGenerator
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_plugins.models.fixed_attention_lstm import FixedAttentionLSTMModel


@pytest.fixture(params=[toy_models.tagger, toy_models.transformer_tagger], ids=["lstm", "transformer"])
def model(request):
    return toy_models.spread(request.param())


ENCODERS = {
    "lstm": toy_models.tagger,
    "forward": partial(toy_models.tagger, encoder_direction="forward", encoder_lookahead=1),
    "word": partial(toy_models.tagger, encoder_direction="word", encoder_lookahead=2),
    "letters": partial(toy_models.tagger, char_features="cnn", encoder_layers=2),
    "transformer": toy_models.transformer_tagger,
}


@pytest.fixture(params=ENCODERS)
def any_encoder(request):
    return toy_models.spread(ENCODERS[request.param]())


def logits(model, sources, lengths, previous):
    return model(sources, lengths, previous)[0]


def test_label_i_sees_encoder_state_i_and_no_other(model):
    states = torch.randn(5, 1, 16, requires_grad=True)
    previous = torch.tensor([[2, 4, 5, 6, 7]])
    out = model.decoder(previous, encoder_out={"states": states})[0]
    for i in range(5):
        (gradient,) = torch.autograd.grad(out[0, i].sum(), states, retain_graph=True)
        seen = gradient.abs().sum((1, 2)) > 0
        # States before i reach label i through the recurrence, states after it do not.
        assert seen.tolist() == [position <= i for position in range(5)]
    other = states.detach().clone()
    other[3] += 1.0
    changed = model.decoder(previous, encoder_out={"states": other})[0] != out
    assert changed.any(2)[0].tolist() == [False, False, False, True, True]


@pytest.mark.parametrize("layers", [1, 2])
def test_step_by_step_is_teacher_forcing(layers):
    model = toy_models.spread(toy_models.tagger(encoder_layers=layers, decoder_layers=layers))
    sources, lengths, _, previous = toy_models.batch(model)
    expected = logits(model, sources, lengths, previous)
    encoder_out = model.encoder(sources, lengths)
    memory = {}
    for step in range(previous.size(1)):
        # fairseq's generator passes all labels so far, other callers only the last one.
        given = previous[:, : step + 1] if step % 2 else previous[:, step : step + 1]
        got = model.decoder(given, encoder_out=encoder_out, incremental_state=memory)[0]
        torch.testing.assert_close(got[:, 0], expected[:, step])


def test_sentences_may_leave_between_steps(model):
    sources, lengths, _, previous = toy_models.batch(model)
    encoder_out, memory = model.encoder(sources, lengths), {}
    expected = logits(model, sources, lengths, previous)
    model.decoder(previous[:, :1], encoder_out=encoder_out, incremental_state=memory)
    staying = torch.tensor([2, 0])
    encoder_out = model.encoder.reorder_encoder_out(encoder_out, staying)
    model.decoder.reorder_incremental_state(memory, staying)
    got = model.decoder(previous[staying, 1:2], encoder_out=encoder_out, incremental_state=memory)[0]
    torch.testing.assert_close(got[:, 0], expected[staying, 1])


def test_rows_of_a_beam_share_their_sentence(model):
    sources, lengths, _, previous = toy_models.batch(model)
    encoder_out = model.encoder(sources, lengths)
    narrow, wide = {}, {}
    for step in range(3):
        given = previous[:, step : step + 1]
        expected = model.decoder(given, encoder_out=encoder_out, incremental_state=narrow)[0]
        got = model.decoder(given.repeat_interleave(3, 0), encoder_out=encoder_out, incremental_state=wide)[0]
        torch.testing.assert_close(got, expected.repeat_interleave(3, 0))


def test_padding_and_its_side_change_nothing(any_encoder):
    sources = torch.tensor([[4, 5, 6, 7], [8, 9, 1, 1]])
    left = torch.tensor([[4, 5, 6, 7], [1, 1, 8, 9]])
    lengths = torch.tensor([4, 2])
    previous = torch.tensor([[2, 4, 5, 6], [2, 7, 1, 1]])
    expected = logits(any_encoder, sources, lengths, previous)
    torch.testing.assert_close(logits(any_encoder, left, lengths, previous), expected)
    alone = logits(any_encoder, sources[1:, :2], lengths[1:], previous[1:, :2])
    torch.testing.assert_close(alone[0], expected[1, :2])


def test_an_empty_sentence_changes_nothing(any_encoder):
    sources = torch.tensor([[4, 5, 6, 7], [1, 1, 1, 1]])
    previous = torch.tensor([[2, 4, 5, 6], [1, 1, 1, 1]])
    out = logits(any_encoder, sources, torch.tensor([4, 0]), previous)
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out[:1], logits(any_encoder, sources[:1], torch.tensor([4]), previous[:1]))


def test_sentences_need_not_be_sorted_by_length(any_encoder):
    sources = torch.tensor([[8, 9, 1, 1], [4, 5, 6, 7]])
    previous = torch.tensor([[2, 7, 1, 1], [2, 4, 5, 6]])
    out = logits(any_encoder, sources, torch.tensor([2, 4]), previous)
    flipped = logits(any_encoder, sources.flip(0), torch.tensor([4, 2]), previous.flip(0))
    torch.testing.assert_close(out, flipped.flip(0))


def test_more_labels_than_words_is_refused(model):
    with pytest.raises(ValueError, match="3 labels for 2 words"):
        logits(model, torch.tensor([[4, 5]]), torch.tensor([2]), torch.tensor([[2, 4, 5]]))


def test_fairseqs_own_generator_can_search_it(model):
    """Reordering of the incremental state and of the encoder output, against a search without any state."""
    sources, lengths, _, _ = toy_models.batch(model, padded=False)
    labels = model.decoder.dictionary
    generator = SequenceGenerator(
        [model], labels, beam_size=3, min_len=6, max_len_b=6, normalize_scores=False
    )
    # fairseq ends a hypothesis with EOS, for which it needs one more encoder state than there are labels.
    sources = torch.cat([sources, torch.full((4, 1), labels.eos())], 1)
    sample = {"net_input": {"src_tokens": sources, "src_lengths": lengths + 1}}
    for row, hypotheses in enumerate(generator.generate([model], sample)):
        for hypothesis in hypotheses:
            written = hypothesis["tokens"]
            previous = torch.cat([torch.tensor([labels.eos()]), written[:-1]])[None]
            scores = logits(model, sources[row : row + 1], lengths[:1] + 1, previous).log_softmax(-1)[0]
            expected = scores.gather(1, written[:, None]).sum()
            torch.testing.assert_close(torch.as_tensor(hypothesis["score"]), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("arch", "hidden", "label"), [("ner", 64, 8), ("ccg", 512, 512)])
def test_sizes_of_the_papers(arch, hidden, label):
    name = f"fixed_attention_lstm_{arch}"
    assert ARCH_MODEL_REGISTRY[name] is FixedAttentionLSTMModel
    args = Namespace()
    ARCH_CONFIG_REGISTRY[name](args)
    assert vars(args) == {
        "char_features": "none",
        "word_dropout": 0.0,
        "encoder_embed_dim": hidden,
        "encoder_hidden_size": hidden,
        "decoder_embed_dim": label,
        "decoder_hidden_size": hidden,
    }
    chosen = Namespace(encoder_hidden_size=10)
    ARCH_CONFIG_REGISTRY[name](chosen)
    assert chosen.encoder_hidden_size == 10


INCREMENTAL = st.tuples(st.sampled_from(["forward", "word"]), st.integers(0, 3), st.integers(1, 2))


@settings(deadline=None, max_examples=25)
@given(INCREMENTAL, st.lists(st.integers(4, 33), min_size=1, max_size=6), st.data())
def test_scores_do_not_change_with_words_beyond_the_lookahead(kind, words, data):
    """Label t is written once word t + n is there: what comes later, if anything does, is not seen."""
    direction, lookahead, layers = kind
    model = toy_models.spread(
        toy_models.tagger(
            encoder_direction=direction,
            encoder_lookahead=lookahead,
            encoder_layers=layers,
            encoder_embed_dim=4,
        )
    )
    after = data.draw(st.lists(st.integers(4, 33), min_size=1, max_size=4))
    sources = torch.tensor([words + [1] * len(after), words + after])
    lengths = torch.tensor([len(words), len(words) + len(after)])
    previous = torch.full_like(sources, 5)
    out = logits(model, sources, lengths, previous)
    settled = max(0, len(words) - lookahead)
    assert torch.equal(out[0, :settled], out[1, :settled])
    alone = logits(model, sources[:1, : len(words)], lengths[:1], previous[:1, : len(words)])
    torch.testing.assert_close(alone[0], out[0, : len(words)])
    # The last word of the lookahead is seen.
    other = sources.clone()
    other[1, len(words)] = 4 + (other[1, len(words)] - 3) % 30
    changed = (logits(model, other, lengths, previous) != out).any(2)[1]
    assert changed.nonzero()[0].item() == settled


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder_direction": "backward"}, "must be one of both, forward, word"),
        ({"encoder_direction": "word", "encoder_lookahead": -1}, "must not be negative"),
        ({"encoder_lookahead": 1}, "no meaning for --encoder-direction both"),
    ],
)
def test_contexts_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        toy_models.tagger(**options)


def test_dropout_reaches_training_only():
    model = toy_models.tagger()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    sources, lengths, _, previous = toy_models.batch(model)
    model.train()
    assert not torch.equal(*(logits(model, sources, lengths, previous) for _ in range(2)))
    model.eval()
    assert torch.equal(*(logits(model, sources, lengths, previous) for _ in range(2)))


def test_a_transformer_reads_the_order_and_all_words():
    model = toy_models.transformer_tagger().eval()
    sources, lengths = torch.tensor([[4, 5, 6, 5]]), torch.tensor([4])
    states = model.encoder(sources, lengths)["states"]
    assert not torch.allclose(states[1], states[3])  # the same word in another place
    other = model.encoder(torch.tensor([[4, 5, 6, 8]]), lengths)["states"]
    assert (states - other).abs().amax(2).squeeze(1).gt(1e-6).all()
    with pytest.raises(ValueError, match="--encoder-attention-heads 3 must divide --encoder-hidden-size 16"):
        toy_models.transformer_tagger(encoder_attention_heads=3)


def test_without_label_history_a_label_depends_on_words_alone(model):
    control = toy_models.spread(toy_models.tagger(no_label_history=True))
    sources, lengths, targets, previous = toy_models.batch(control)
    for tagger, same in ((control, True), (model, False)):
        out = [logits(tagger, sources, lengths, given) for given in (previous, targets)]
        assert torch.equal(*out) is same
    control.train()(sources, lengths, previous)[0].sum().backward()
    with_gradient = {name for name, one in control.named_parameters() if one.grad is not None}
    assert with_gradient == {name for name, one in control.named_parameters() if one.requires_grad}
    assert "decoder.embed_tokens.weight" not in with_gradient
