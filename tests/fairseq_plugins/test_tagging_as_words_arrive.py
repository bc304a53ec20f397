"""Labels that are written as words arrive: in the end those of the whole sentence; what is final is kept."""

import contextlib
import gc
import io
import re
from argparse import Namespace

import pytest
import test_tagging_commands as commands
import torch
import toy_corpus
import toy_models
from hypothesis import given, settings
from hypothesis import strategies as st

from diffdecode.sequence import SearchSpace
from fairseq_plugins.models.fixed_attention_lstm import FixedAttentionLSTMModel
from fairseq_plugins.search import search_function
from fairseq_plugins.tasks.tagging.generator import decode
from fairseq_plugins.tasks.tagging.incremental import IncrementalTagger


def task_for(model, score_normalizer=1.0, search="beam", transitions=None):
    labels = model.decoder.dictionary
    return Namespace(
        cfg=Namespace(search=search, score_normalizer=score_normalizer),
        search_space=SearchSpace(torch.arange(4, len(labels)), transitions=transitions),
        source_dictionary=model.encoder.dictionary,
        target_dictionary=labels,
    )


def tagger_of(seed, **options):
    """A model with random weights, which are large: scores differ clearly."""
    model = toy_models.tagger(**options).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = 1.5 * torch.randn(parameter.shape, generator=generator)
    return model


def decoded(model, task, words, beam_size):
    """Labels of the whole sentence, and the scores of the final beam."""
    net_input = {"src_tokens": words[None], "src_lengths": torch.tensor([len(words)])}
    with torch.no_grad():
        found = decode(model, net_input, task.search_space, beam_size, search_function(task.cfg))
    return [task.target_dictionary[label] for label in found.symbols[0, 0].tolist()], found.scores[0]


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    direction=st.sampled_from(["forward", "word"]),
    lookahead=st.integers(0, 2),
    layers=st.integers(1, 2),
    beam_size=st.integers(1, 4),
    normalizer=st.sampled_from([0.0, 0.5, 1.0]),
    chunks=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    restricted=st.booleans(),
)
def test_equals_decoding_of_the_whole_sentence(
    seed, direction, lookahead, layers, beam_size, normalizer, chunks, restricted
):
    sizes = {"encoder_layers": layers, "decoder_layers": layers}
    model = tagger_of(seed, encoder_direction=direction, encoder_lookahead=lookahead, **sizes)
    generator = torch.Generator().manual_seed(seed)
    transitions = torch.rand(7, 6, generator=generator) < 0.7 if restricted else None
    if restricted:
        transitions[:, 0] = True
    task = task_for(model, normalizer, transitions=transitions)
    words = torch.randint(4, 34, (sum(chunks),), generator=generator)
    tagger = IncrementalTagger(model, task, beam_size)
    tagger.read(words.flip(0), last=True)  # the sentence before it changes nothing
    read, final = 0, []
    for part in words.split(chunks):
        tagger.read(part)
        read += len(part)
        now = tagger.labels
        assert len(now.labels) == max(0, read - lookahead)
        assert now.labels[: len(final)] == final
        final = now.labels[: now.final]
    found = tagger.finish()
    labels, scores = decoded(model, task, words, beam_size)
    assert found == (labels, len(words))
    assert labels[: len(final)] == final
    torch.testing.assert_close(tagger.beam.hypotheses.scores[0], scores, atol=1e-4, rtol=1e-5)


def test_later_words_revise_labels_that_are_not_final():
    words = [f"w{i}" for i in (3, 14, 15, 9, 2, 6)]
    revised = greedily_revised = waiting = 0
    for seed in range(8):
        model = tagger_of(seed, encoder_direction="word")
        for beam_size in (1, 4):
            tagger, before = IncrementalTagger(model, task_for(model, 0.0), beam_size), []
            for word in words:
                now = tagger.add(word)
                changed = now.labels[: len(before)] != before
                waiting += now.final < len(now.labels) and beam_size > 1
                if beam_size == 1:
                    greedily_revised += changed
                    assert now.final == len(now.labels)
                else:
                    revised += changed
                before = now.labels
    assert revised and waiting and not greedily_revised


def test_each_word_is_one_and_unknown_ones_are_labelled():
    model = tagger_of(0, encoder_direction="forward", encoder_lookahead=1)
    tagger = IncrementalTagger(model, task_for(model))
    assert tagger.finish() == ([], 0)
    assert tagger.add("w1") == ([], 0)
    assert len(tagger.add("neverseen").labels) == 1
    assert tagger.finish().final == 2
    for text in ("", "two words", " w1"):
        with pytest.raises(ValueError, match="is not one word: add words one by one"):
            tagger.add(text)


def test_what_needs_whole_sentences_is_refused():
    both, forward = toy_models.tagger(), toy_models.tagger(encoder_direction="forward")
    with pytest.raises(ValueError, match=r"--encoder-direction both.*train with --encoder-direction forward"):
        IncrementalTagger(both, task_for(both))
    transformer = toy_models.transformer_tagger()
    with pytest.raises(ValueError, match=r"reads whole sentences: .* --arch fixed_attention_lstm"):
        IncrementalTagger(transformer, task_for(transformer))
    with pytest.raises(ValueError, match="--search soft-beam needs whole sentences: use --search beam"):
        IncrementalTagger(forward, task_for(forward, search="soft-beam"))
    with pytest.raises(ValueError, match="--beam 0 must be at least 1"):
        IncrementalTagger(forward, task_for(forward), 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A toy corpus and a tagger of it that reads from left to right."""
    folder = tmp_path_factory.mktemp("incremental")
    data = toy_corpus.write_corpus(folder, 20)
    options = ["--encoder-direction", "word", "--encoder-lookahead", "1", "--criterion", "cross_entropy"]
    toy_corpus.train(data, folder, *toy_corpus.TAGGER, *options, "--max-epoch", "2")
    return Namespace(data=data, path=folder / "checkpoint_last.pt")


def lines_of(kind, printed):
    found = re.findall(rf"^{kind}-(\d+)\t(.*)$", printed, re.MULTILINE)
    assert [int(number) for number, _ in found] == list(range(len(found)))
    return [line for _, line in found]


def test_typed_in_word_by_word(trained, tmp_path):
    """The last lines of the sentences are those of fairseq-interactive without the option."""
    text = tmp_path / "input"
    sentences = ["w1 w2 new w25", "w3", "w7 w9 w13"]
    options = ["--beam", "3", "--score-normalizer", "0", "--input", text]
    text.write_text("".join(f"{line}\n" for line in sentences))
    whole = lines_of("H", commands.output_of("interactive", trained, *options))
    text.write_text("w1\nw2\nnew\nw25\n\nw3\n\n\nw7 w9\nw13\n\n")
    printed = commands.output_of("interactive", trained, *options, "--incremental")
    hypotheses, final = lines_of("H", printed), lines_of("F", printed)
    assert len(hypotheses) == len(final) == 11
    counts = [len(line.split("\t")[1].split()) for line in hypotheses]
    assert counts == [0, 1, 2, 3, 4, 0, 1, 0, 1, 2, 3]
    for last, expected in zip((4, 6, 10), whole):
        score, labels = hypotheses[last].split("\t")
        assert labels == expected.split("\t")[1]
        assert float(score) == pytest.approx(float(expected.split("\t")[0]), abs=1e-4)
    for first, last in ((0, 4), (5, 6), (8, 10)):
        assert " ".join(" ".join(final[first : last + 1]).split()) == hypotheses[last].split("\t")[1]
    # The end of the input ends a sentence, too: at the latest when the process ends.
    text.write_text("w3\n\nw1\nw2\nnew\nw25\n")
    with contextlib.redirect_stdout(io.StringIO()) as written:
        printed = commands.output_of("interactive", trained, *options, "--incremental")
        gc.collect()
    final = lines_of("F", printed + written.getvalue())
    assert len(lines_of("H", printed)) == 6 and len(final) == 7
    assert " ".join(" ".join(final[2:]).split()) == whole[0].split("\t")[1]
    hub = FixedAttentionLSTMModel.from_pretrained(
        str(trained.path.parent), trained.path.name, data_name_or_path=str(trained.data), score_normalizer=0.0
    )
    tagger = IncrementalTagger(hub.models[0], hub.task, beam_size=3)
    for word in sentences[0].split():
        tagger.add(word)
    assert " ".join(tagger.finish().labels) == whole[0].split("\t")[1]


def test_line_by_line_and_nothing_else(trained, tmp_path):
    text = tmp_path / "input"
    text.write_text("w1\nw2\n")
    with pytest.raises(ValueError, match="one line at a time: remove --buffer-size and --batch-size"):
        commands.output_of("interactive", trained, "--incremental", "--buffer-size", "2", "--input", text)
    with pytest.raises(ValueError, match=r"--incremental reads what is typed in \(fairseq-interactive\)"):
        commands.output_of("generate", trained, "--incremental")
