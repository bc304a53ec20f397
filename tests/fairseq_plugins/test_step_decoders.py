"""Step decoders against fairseq's teacher forcing and fairseq's own beam search."""

from argparse import Namespace
from itertools import pairwise

import pytest
import torch
import toy_models
from fairseq.sequence_generator import SequenceGenerator
from torch.nn import functional as F

from diffdecode.sequence import SearchSpace, hard_beam, mix, reorder
from fairseq_plugins.decoders import soft_inputs, step_decoder

MODELS = {
    "lstm": lambda: toy_models.lstm(),
    "lstm two layers, bidirectional": lambda: toy_models.lstm(
        encoder_layers=2, decoder_layers=2, encoder_bidirectional=True
    ),
    "lstm without attention": lambda: toy_models.lstm(decoder_attention="0"),
    "lstm shared embeddings": lambda: toy_models.lstm(share_all_embeddings=True),
    "lstm sizes differ": lambda: toy_models.lstm(decoder_hidden_size=12, decoder_embed_dim=8),
    "transformer": lambda: toy_models.transformer(),
    "transformer learned positions": lambda: toy_models.transformer(
        decoder_learned_pos=True, encoder_learned_pos=True
    ),
    "transformer shared, layernorm_embedding": lambda: toy_models.transformer(
        share_all_embeddings=True, layernorm_embedding=True
    ),
    "transformer pre-norm": lambda: toy_models.transformer(
        decoder_normalize_before=True, encoder_normalize_before=True
    ),
    "transformer no positions": lambda: toy_models.transformer(no_token_positional_embeddings=True),
    "transformer cross+self attention": lambda: toy_models.transformer(cross_self_attention=True),
    "transformer output size differs": lambda: toy_models.transformer(
        decoder_output_dim=8, decoder_input_dim=12
    ),
    "transformer post-norm, pre-norm encoder": lambda: toy_models.transformer(encoder_normalize_before=True),
    "transformer alignment heads": lambda: toy_models.transformer_align(),
    "bart (a transformer)": lambda: toy_models.bart(),
    "tagger": lambda: toy_models.tagger(),
    "transformer tagger": lambda: toy_models.transformer_tagger(),
    "tagger two layers": lambda: toy_models.tagger(decoder_layers=2),
}


@pytest.fixture(params=MODELS, ids=list(MODELS))
def model(request):
    # Larger weights than fairseq's initial ones for LSTMs, whose scores would hardly differ otherwise.
    return toy_models.spread(MODELS[request.param](), 1.0 if "transformer" in request.param else 2.0)


def step_by_step(model, encoder_out, previous):
    steps = step_decoder(model)
    state, found = steps.init_state(encoder_out), []
    for t in range(previous.size(1)):
        log_probs, state = steps.step(state, F.embedding(previous[:, t], steps.embedding))
        found.append(log_probs)
    return torch.stack(found, 1)


def gradients(model, loss):
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, retain_graph=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(found, model.parameters())]
    )


def test_step_by_step_is_teacher_forcing(model):
    sources, lengths, targets, previous = toy_models.batch(model)
    forced = model.get_normalized_probs(
        model(sources, src_lengths=lengths, prev_output_tokens=previous), log_probs=True
    )
    stepped = step_by_step(model, model.encoder(sources, src_lengths=lengths), previous)
    torch.testing.assert_close(stepped, forced, atol=1e-5, rtol=0)
    expected, found = (
        gradients(model, scores.gather(2, targets[..., None]).sum()) for scores in (forced, stepped)
    )
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_step_leaves_its_state_alone(model):
    sources, lengths, _, previous = toy_models.batch(model)
    steps = step_decoder(model)
    state = steps.init_state(model.encoder(sources, src_lengths=lengths))
    _, state = steps.step(state, F.embedding(previous[:, 0], steps.embedding))
    vectors = F.embedding(previous[:, 1], steps.embedding)
    first, _ = steps.step(state, vectors)
    again, _ = steps.step(state, vectors)
    assert torch.equal(first, again)


def test_rows_of_a_sentence_mix_and_reorder(model):
    """One-hot mixing is reordering, and both give what a step of the chosen rows gives."""
    sources, lengths, targets, _ = toy_models.batch(model)
    steps, rows, k = step_decoder(model), sources.size(0), 3
    vocabulary = len(model.decoder.dictionary)
    state = steps.init_state(model.encoder(sources, src_lengths=lengths))
    _, state = steps.step(state, steps.embedding[steps.start].expand(rows, -1))
    state = reorder(steps, state, torch.arange(rows).repeat_interleave(k))
    tokens = torch.arange(rows * k) % (vocabulary - 4) + 4
    _, state = steps.step(state, F.embedding(tokens, steps.embedding))
    parents = torch.tensor([[2, 0]]).expand(rows, -1)
    index = (parents + k * torch.arange(rows)[:, None]).flatten()
    last = F.embedding(targets[:, :2].flatten(), steps.embedding)
    by_index, _ = steps.step(reorder(steps, state, index), last)
    by_weight, _ = steps.step(mix(steps, state, F.one_hot(parents, k).float()), last)
    torch.testing.assert_close(by_weight, by_index, atol=1e-6, rtol=0)
    previous = torch.stack([torch.full((2 * rows,), steps.start), tokens[index], targets[:, :2].flatten()], 1)
    wide = sources.repeat_interleave(2, 0), lengths.repeat_interleave(2)
    forced = model.get_normalized_probs(model(*wide, prev_output_tokens=previous), log_probs=True)
    torch.testing.assert_close(by_index, forced[:, -1], atol=1e-5, rtol=0)


def features_with_mixed_caches(model, encoder_out, vectors, mixtures):
    """The features of all steps from fairseq's own incremental decoding, its caches mixed between steps."""
    decoder, memory, found = model.decoder, {}, []
    keys = [layer.self_attn._get_full_incremental_state_key("attn_state") for layer in decoder.layers]
    for t, (vector, weights) in enumerate(zip(vectors, mixtures)):
        symbols = torch.full((len(vector), t + 1), decoder.dictionary.eos())
        with soft_inputs(decoder, vector[:, None]):
            features, _ = decoder.extract_features(symbols, encoder_out, memory)
        found.append(features[:, -1])
        for cached in map(memory.get, keys):
            for name in ("prev_key", "prev_value"):
                rows = cached[name].reshape(*weights.shape[::2], -1)
                cached[name] = (weights @ rows).view(-1, *cached[name].shape[1:])
    return found


def test_mixed_lineages_are_mixed_caches():
    """A beam of 1, 3 and 2 elements: fairseq's own attention over mixed keys and values is the reference."""
    model = toy_models.spread(toy_models.transformer(), 1.0)
    sources, lengths, _, _ = toy_models.batch(model)
    generator, sizes = torch.Generator().manual_seed(0), (1, 3, 2, 2)
    mixtures = [
        torch.randn(len(sources), out, k, generator=generator).softmax(2).requires_grad_()
        for k, out in pairwise(sizes)
    ]
    width = model.decoder.embed_tokens.embedding_dim
    vectors = [torch.randn(len(sources) * k, width, generator=generator) for k in sizes[:3]]
    steps, encoder_out = step_decoder(model), model.encoder(sources, src_lengths=lengths)
    state, found = steps.init_state(encoder_out), []
    for vector, weights in zip(vectors, mixtures):
        features, state = steps.features(state, vector)
        found.append(features)
        state = mix(steps, state, weights)
    expected = features_with_mixed_caches(model, encoder_out, vectors, mixtures)
    slopes = [
        torch.autograd.grad(sum(x[:, ::2].sum() for x in outcome), mixtures[:2], retain_graph=True)
        for outcome in (found, expected)
    ]
    for one, other in zip([*found, *slopes[0]], [*expected, *slopes[1]]):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
        assert other.abs().max() > 1e-3


def test_soft_inputs_for_a_whole_sequence(model):
    sources, lengths, _, previous = toy_models.batch(model)
    encoder_out = model.encoder(sources, src_lengths=lengths)
    expected = model.decoder(previous, encoder_out=encoder_out)[0]
    with soft_inputs(model.decoder, F.embedding(previous, model.decoder.embed_tokens.weight)):
        found = model.decoder(torch.full_like(previous, 5), encoder_out=encoder_out)[0]
    assert torch.equal(found, expected)
    assert torch.equal(model.decoder(previous, encoder_out=encoder_out)[0], expected)


def test_hard_beam_is_fairseq_beam_search(model):
    sources, lengths, _, _ = toy_models.batch(model, padded=False)
    words, taken = model.decoder.dictionary, sources.size(1) - 1
    generator = SequenceGenerator(
        [model], words, beam_size=3, max_len_a=0, max_len_b=taken, min_len=taken, normalize_scores=False
    )
    theirs = generator.generate([model], {"net_input": {"src_tokens": sources, "src_lengths": lengths}})
    # fairseq appends EOS after the last symbol; our lengths are fixed, so only the symbols before it compare.
    by_score = [[hypothesis["positional_scores"][:taken].sum() for hypothesis in beam] for beam in theirs]
    expected = torch.tensor(by_score).sort(descending=True).values
    symbols = torch.tensor([i for i in range(len(words)) if i not in (words.pad(), words.eos())])
    steps = step_decoder(model)
    with torch.no_grad():
        state = steps.init_state(model.encoder(sources, src_lengths=lengths))
    ours = hard_beam(steps, state, torch.full_like(lengths, taken), 3, SearchSpace(symbols))
    torch.testing.assert_close(ours.scores, expected, atol=1e-5, rtol=0)


UNSUPPORTED = {
    "adaptive softmax": (lambda: toy_models.transformer(adaptive_softmax_cutoff="8,16"), "adaptive softmax"),
    "adaptive softmax, lstm": (
        lambda: toy_models.lstm(criterion="adaptive_loss", adaptive_softmax_cutoff="8,16"),
        "adaptive softmax",
    ),
    "layerdrop": (lambda: toy_models.transformer(decoder_layerdrop=0.5), "decoder-layerdrop"),
    "checkpoint": (lambda: toy_models.transformer(checkpoint_activations=True), "checkpoint-activations"),
    "quant noise": (lambda: toy_models.transformer(quant_noise_pq=0.1), "quant-noise-pq"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_options_that_cannot_be_stepped_are_refused_by_name(name):
    build, message = UNSUPPORTED[name]
    with pytest.raises(ValueError, match=message):
        step_decoder(build())


def test_unknown_decoders_are_refused():
    with pytest.raises(TypeError, match=r"no step decoder for Linear: .*LSTMDecoder.*TransformerDecoderBase"):
        step_decoder(Namespace(decoder=torch.nn.Linear(1, 1)))
