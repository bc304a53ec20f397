"""A tagger over an encoder that fairseq has trained and saved: it reads what that encoder would read."""

import shutil
from argparse import Namespace

import pytest
import torch
import toy_corpus
from fairseq import checkpoint_utils
from fairseq.data.encoders.characters import Characters

from fairseq_plugins.models.fixed_attention_pretrained import (
    FixedAttentionPretrainedConfig,
    FixedAttentionPretrainedModel,
    build_split,
)
from fairseq_plugins.words import WordDictionary

SIZES = (
    "--encoder-layers 1 --encoder-embed-dim 8 --encoder-ffn-embed-dim 8 --encoder-attention-heads 2".split()
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny RoBERTa over letters, saved by fairseq-train after one update, with its dictionary beside it."""
    folder = tmp_path_factory.mktemp("roberta")
    text = "".join(Characters.encode(f"w{i} w{i + 7} ww") + "\n" for i in range(10))
    for split in ("train", "valid"):
        (folder / split).write_text(text, encoding="utf-8")
    prefixes = [f"--{split}pref={folder / split}" for split in ("train", "valid")]
    toy_corpus.run("preprocess", "--only-source", *prefixes, "--destdir", folder / "bin")
    model = ["--task", "masked_lm", "--arch", "roberta", *SIZES, "--tokens-per-sample", "32"]
    training = ["--criterion", "masked_lm", "--max-update", "1", "--disable-validation"]
    toy_corpus.train(folder / "bin", folder / "model", *model, *training)
    shutil.copy(folder / "bin" / "dict.txt", folder / "model")
    return folder / "model" / "checkpoint_last.pt"


def tagger_for(checkpoint, **options):
    words, labels = WordDictionary(), WordDictionary()
    for word in ("w1", "w22", "ww", "w3x"):
        words.add_symbol(word)
        labels.add_symbol(word.upper())
    words.tell_unknown_apart()
    torch.manual_seed(0)
    config = FixedAttentionPretrainedConfig(
        encoder_checkpoint=str(checkpoint), encoder_bpe="characters", decoder_hidden_size=8, **options
    )
    task = Namespace(source_dictionary=words, target_dictionary=labels)
    return FixedAttentionPretrainedModel.build_model(config, task).eval()


def batch_of(model, sentences):
    """``[B, T]`` words, padded on the left, and their numbers."""
    words = model.encoder.dictionary
    ids = [[words.index(word) for word in sentence.split()] for sentence in sentences]
    longest = max(map(len, ids))
    padded = [[words.pad()] * (longest - len(row)) + row for row in ids]
    return torch.tensor(padded), torch.tensor([len(row) for row in ids])


def test_a_sentence_is_read_as_the_encoder_would_read_it(checkpoint):
    """Known, unknown and empty ones, each beside the others."""
    model = tagger_for(checkpoint)
    (trained,), _, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(checkpoint)], {"data": str(checkpoint.parent)}
    )
    sentences = ["w22 ww w1 neverseen w1", "ww", "w3x 9w", ""]
    with torch.no_grad():
        states = model.encoder(*batch_of(model, sentences))["states"]
        assert states.shape[:2] == (5, 4)
        for row, sentence in enumerate(sentences[:3]):
            pieces = Characters.encode(sentence)
            ids = task.source_dictionary.encode_line(f"<s> {pieces}", add_if_not_exist=False).long()
            features, _ = trained.eval().encoder.extract_features(ids[None])
            first = [1, *(i for i, piece in enumerate(pieces.split(), 1) if piece == "\u2581")]
            torch.testing.assert_close(states[: len(first), row], features[0, first], atol=1e-5, rtol=1e-5)
            assert not states[len(first) :, row].any()
    assert not states[:, 3].any()


def test_trains_and_is_loaded_again(checkpoint, tmp_path):
    data = toy_corpus.write_corpus(tmp_path, 6, "--dataset-impl", "raw")
    options = [
        "--task",
        "sequence_tagging",
        "--arch",
        "fixed_attention_pretrained",
        "--criterion",
        "soft_beam",
    ]
    options += ["--encoder-checkpoint", checkpoint, "--encoder-bpe", "characters", "--encoder-freeze"]
    toy_corpus.train(data, tmp_path, *options, "--dataset-impl", "raw", "--max-epoch", "1")
    hub = FixedAttentionPretrainedModel.from_pretrained(
        str(tmp_path), "checkpoint_last.pt", data_name_or_path=str(data)
    )
    assert [len(labels.split()) for labels in hub.translate(["w1 new w3", "w2"], beam=2)] == [3, 1]
    start = torch.load(checkpoint, weights_only=True)["model"]
    for name, weight in hub.models[0].encoder.layers.named_parameters():
        assert torch.equal(weight, start[f"encoder.sentence_encoder.{name}"])


def test_all_of_it_is_trained_unless_frozen(checkpoint):
    for freeze in (False, True):
        model = tagger_for(checkpoint, encoder_freeze=freeze, dropout=0.0)
        sources, lengths = batch_of(model, ["w22 w1", "ww w1"])
        model(sources, lengths, torch.tensor([[2, 4], [2, 5]]))[0].logsumexp(2).sum().backward()
        learns = {name: p.grad is not None for name, p in model.encoder.layers.named_parameters()}
        assert learns and all(learns.values()) != freeze and any(learns.values()) != freeze


def test_what_cannot_be_read_is_refused(checkpoint, tmp_path):
    model = tagger_for(checkpoint)
    with pytest.raises(ValueError, match=r"a sentence of 34 pieces: .* reads at most 32"):
        model.encoder(*batch_of(model, [" ".join(["ww"] * 11)]))
    with pytest.raises(ValueError, match="needs --encoder-checkpoint"):
        FixedAttentionPretrainedModel.build_model(FixedAttentionPretrainedConfig(), None)
    with pytest.raises(
        FileNotFoundError, match=r"--encoder-checkpoint .*: .*checkpoint_last\.pt is not there"
    ):
        tagger_for(tmp_path / "checkpoint_last.pt")
    shutil.copy(checkpoint, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"dict\.txt is not there"):
        tagger_for(tmp_path / "checkpoint_last.pt")
    with pytest.raises(ValueError, match=r"--encoder-bpe nope must be none or one of .*characters"):
        build_split("nope", "{}")
    with pytest.raises(ValueError, match=r"--encoder-bpe sentencepiece --encoder-bpe-args \{: "):
        build_split("sentencepiece", "{")
