"""A tagger that reads letters, through fairseq's commands: all words are unknown, only their letters tell."""

import re
from argparse import Namespace

import pytest
import test_tagging_commands as commands
import torch
import toy_corpus
from toy_corpus import LABELS, TAGGER

from fairseq_plugins.models.fixed_attention_lstm import FixedAttentionLSTMModel


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Text data whose dictionary holds no word, and a tagger trained on it."""
    folder = tmp_path_factory.mktemp("letters")
    data = toy_corpus.write_corpus(folder, 60, "--dataset-impl", "raw", "--thresholdsrc", "1000")
    options = (
        "--criterion cross_entropy --max-epoch 30 --no-epoch-checkpoints --char-features affixes".split()
    )
    toy_corpus.train(data, folder / "model", *TAGGER, *options, "--disable-validation", "--lr", "2e-2")
    path = folder / "model" / "checkpoint_last.pt"
    return Namespace(folder=folder, data=data, options=options, path=path)


def test_unknown_words_are_told_apart_by_their_letters(trained):
    sentences = commands.generated(commands.output_of("generate", trained, "--scoring", "conll_f1"))
    lines = (trained.folder / "test.words").read_text().splitlines()
    assert [sentences[i]["S"] for i in range(60)] == [line.split() for line in lines]  # not <unk> <unk>
    labels_of = {}
    for sentence in sentences.values():
        for word, label in zip(sentence["S"], sentence["H"]):
            labels_of.setdefault(word, set()).add(label)
    assert set().union(*labels_of.values()) == set(LABELS)
    right = [a == b for sentence in sentences.values() for a, b in zip(sentence["T"], sentence["H"])]
    assert sum(right) / len(right) > 0.75  # .5 without letters: labels' own regularities


def test_alone_and_in_company_typed_in_and_called(trained, tmp_path):
    text = tmp_path / "input"
    lines = ["w1 w2 new", "w25 w2", "", "new w1 w9 w13 w25"]
    text.write_text("".join(f"{line}\n" for line in lines))
    found = []
    for size in ("1", "4"):
        options = ["--beam", "2", "--buffer-size", size, "--batch-size", size, "--input", text]
        found.append(commands.output_of("interactive", trained, *options))
    scored = [re.findall(r"^H-(\d+)\t(\S+)\t(.*)$", printed, re.MULTILINE) for printed in found]
    for alone, together in zip(*(sorted(lines) for lines in scored)):
        assert alone[::2] == together[::2]
        assert float(alone[1]) == pytest.approx(float(together[1]), abs=1e-5)
    hub = FixedAttentionLSTMModel.from_pretrained(
        str(trained.path.parent), trained.path.name, data_name_or_path=str(trained.data)
    )
    typed = {int(number): labels for number, _, labels in scored[0]}
    assert hub.translate(lines[:2] + lines[3:], beam=2) == [typed[0], typed[1], typed[3]]


def test_binarised_data_lack_the_letters_of_unknown_words(trained, tmp_path, caplog):
    data = toy_corpus.write_corpus(tmp_path, 5, "--thresholdsrc", "1000")
    with caplog.at_level("WARNING"):
        toy_corpus.train(data, tmp_path / "model", *TAGGER, *trained.options, "--max-epoch", "1")
    assert re.search(r"words: \d+ words are not in the dictionary, .*--dataset-impl raw", caplog.text)


def test_a_checkpoint_older_than_the_options(trained, tmp_path):
    """It has none of them in its configuration, whatever their defaults are now."""
    options = (
        "--task sequence_tagging --arch fixed_attention_lstm --char-features none --word-dropout 0".split()
    )
    toy_corpus.train(trained.data, tmp_path, *options, "--criterion", "cross_entropy", "--max-epoch", "1")
    path = tmp_path / "checkpoint_last.pt"
    state = torch.load(path, weights_only=False)
    for name in ("char_features", "char_embed_dim", "word_dropout", "encoder_embed_path", "no_label_history"):
        del state["cfg"]["model"][name]
    torch.save(state, path)
    printed = commands.output_of("generate", Namespace(data=trained.data, path=path))
    assert len(commands.generated(printed)) == 60
