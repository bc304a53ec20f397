"""What a tagger knows of a word: dictionaries that grow, spelling, word dropout, vectors from a file."""

import copy
import logging
import pickle
import threading

import pytest
import torch
import toy_models
from fairseq.data import Dictionary
from omegaconf import OmegaConf

from fairseq_plugins.words import (
    NONE,
    SPELLINGS,
    WordDictionary,
    WordEmbedding,
    WordEmbeddingConfig,
    reads_letters,
    trained_options,
    word_embedding,
)
from fairseq_plugins.words.spelling import Affixes, CharacterCNN, Suffix, shape

KINDS = pytest.mark.parametrize("kind", list(SPELLINGS.values()), ids=list(SPELLINGS))


def words(*texts, kind=WordDictionary):
    found = kind()
    for text in texts:
        found.add_symbol(text, n=4)
    return found


def test_unknown_words_are_told_apart_once_that_is_asked_for():
    dictionary = words("Haus", "Maus")
    line = "Haus Laus Maus Floh Laus <unk>"
    unk = dictionary.unk()
    as_fairseq_has_it = words("Haus", "Maus", kind=Dictionary).encode_line(line, add_if_not_exist=False)
    assert torch.equal(dictionary.encode_line(line, add_if_not_exist=False), as_fairseq_has_it)
    dictionary.tell_unknown_apart()
    ids = dictionary.encode_line(line, add_if_not_exist=False)
    assert ids.tolist() == [4, 6, 5, 7, 6, unk, dictionary.eos()]
    assert len(dictionary) == 6 and "Laus" not in dictionary
    assert dictionary.string(ids) == line
    assert dictionary[99] == "<unk>"
    assert copy.deepcopy(dictionary) is dictionary
    assert pickle.loads(pickle.dumps(dictionary)).string(ids) == line


def test_threads_give_a_word_one_id():
    dictionary = words()
    dictionary.tell_unknown_apart()
    texts = [f"w{n}" for n in range(300)]
    threads = [threading.Thread(target=lambda: [dictionary.index(text) for text in texts]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dictionary.unknown_words and sorted(dictionary.unknown_words) == sorted(texts)
    assert all(dictionary[dictionary.index(text)] == text for text in texts)


@KINDS
def test_a_vector_depends_on_the_text_alone(kind):
    """Known or unknown, alone or in company, before and after other words are met."""
    torch.manual_seed(0)
    spelling = kind(words("Haus", "Maus"), 8)
    other = kind(WordDictionary(), 8)
    other.load_state_dict(spelling.state_dict())
    other.dictionary.tell_unknown_apart()
    known = spelling(torch.tensor([[4, 5]]))
    for text, vector in (("Maus", known[0, 1]), ("", None), ("Floh", None), ("Haus", known[0, 0])):
        found = other(torch.tensor(other.dictionary.index(text)))
        assert found.shape == (8,) and found.abs().sum() > 0
        if vector is not None:
            torch.testing.assert_close(found, vector)
    batch = other(torch.tensor([[4, 5, 1], [6, 7, 1]]))
    torch.testing.assert_close(batch[1, 1], known[0, 0])
    assert not torch.allclose(batch[0, 0], batch[1, 0])
    assert batch[:, 2].abs().sum() == 0  # padding has no letters


@KINDS
def test_a_symbol_whose_letters_are_lost_is_zero_and_gets_no_gradient(kind):
    spelling = kind(words("a"), 8)
    out = spelling(torch.tensor([spelling.dictionary.unk(), spelling.dictionary.pad()]))
    assert torch.equal(out, torch.zeros(2, 8))
    spelling(torch.tensor([4, 1])).pow(2).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in spelling.parameters())


def test_affixes_are_the_same_in_every_process():
    assert Affixes.columns_of("Ab1") == [2756, 14890, 8057, 0, 864, 13834, 16305, 0, 15401, 5989]
    assert shape("Karl-May-2014er,") == "Xxx-Xxx-ddxx,"
    # Shared affixes are shared columns.
    house, mouse = Affixes.columns_of("Haus"), Affixes.columns_of("Maus")
    assert [a == b for a, b in zip(house, mouse)] == 4 * [False] + 3 * [True] + [False, False, True]


def test_a_suffix_and_a_capital_are_all_that_suffix_knows():
    column = Suffix.columns_of
    assert column("Haus") == column("Maus") == column("LAUS") != column("haus")
    assert len({*column("1aus"), *column("Aus"), *column("us"), *column("")}) == 4


def test_long_words_are_read_at_both_ends():
    long = "Donaudampfschifffahrtsgesellschaft"
    columns = CharacterCNN.columns_of(long)
    assert len(columns) == len(CharacterCNN.columns_of("ä"))
    assert bytes(column - 1 for column in columns[1:-1]).decode() == long[:12] + long[-12:]


def test_word_dropout_reads_rare_words_as_unknown_in_training_only():
    dictionary = Dictionary()
    for text, count in (("rare", 1), ("frequent", 9)):
        dictionary.add_symbol(text, n=count)
    torch.manual_seed(0)
    embedding = WordEmbedding(dictionary, 4, Affixes(dictionary, 3), word_dropout=1.0)
    tokens = torch.tensor([4, 5, 3, 1]).repeat(4000, 1)
    expected = embedding.eval()(tokens[0])
    out = embedding.train()(tokens)
    assert torch.equal(out[..., 4:], embedding.spelling(tokens))  # letters stay
    unknown = (out[..., :4] == embedding.weight[dictionary.unk()]).all(-1).float().mean(0)
    torch.testing.assert_close(unknown, torch.tensor([0.5, 0.1, 1.0, 0.0]), atol=0.03, rtol=0)
    kept = (out == expected).all(-1).float().mean(0)
    torch.testing.assert_close(kept, torch.tensor([0.5, 0.9, 1.0, 1.0]), atol=0.03, rtol=0)
    before = torch.get_rng_state()
    WordEmbedding(dictionary, 4, word_dropout=0.0)  # initialised by the generator ...
    embedding.word_dropout = 0.0
    torch.set_rng_state(before)
    embedding(tokens)
    assert torch.equal(torch.get_rng_state(), before)  # ... which a forward pass without dropout leaves alone


def vectors_file(folder, text):
    path = folder / "vectors.txt"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_vectors_from_a_file(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    dictionary = words("Haus", "Maus")
    dictionary.count[4] = 12
    path = vectors_file(tmp_path, "2 3\nHaus 1 2 3\nandere 4 5 6\n")
    config = WordEmbeddingConfig(encoder_embed_dim=3, encoder_embed_path=path, char_features=NONE)
    table = word_embedding(config, dictionary)
    assert table.weight[4].tolist() == [1, 2, 3] and table.weight.requires_grad
    assert table.weight[5].abs().max() <= 0.1
    assert "1 of 2 words of the dictionary (75.0 % of the running text)" in caplog.text


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"encoder_embed_path": "1 2\nHaus 1 2\n"}, "'Haus' has 2 numbers; .*--encoder-embed-dim 3"),
        ({"encoder_embed_path": "1 3\nFloh 1 2 3\n"}, "holds no word of the dictionary"),
        ({"encoder_embed_path": "1 3\nHaus 1 zwei 3\n"}, "cannot be read .*header line"),
        ({"encoder_embed_path": ""}, "cannot be read"),
        ({"char_features": "affixes", "char_embed_dim": 0}, "--char-embed-dim 0 must be at least 1"),
        ({"word_dropout": -1.0}, "--word-dropout -1.0 must not be negative"),
    ],
)
def test_options_that_cannot_work_are_named(tmp_path, options, error):
    if "encoder_embed_path" in options:
        options = {"encoder_embed_path": vectors_file(tmp_path, options["encoder_embed_path"])}
    config = WordEmbeddingConfig(**{"encoder_embed_dim": 3, "char_features": NONE, **options})
    with pytest.raises(ValueError, match=error):
        word_embedding(config, words("Haus"))
    with pytest.raises(FileNotFoundError, match=r"--encoder-embed-path .*nowhere: no such file"):
        word_embedding(WordEmbeddingConfig(encoder_embed_path=str(tmp_path / "nowhere")), words("Haus"))


def test_what_is_newer_than_a_checkpoint_is_off_in_it():
    old = OmegaConf.create({"_name": "fixed_attention_lstm", "encoder_embed_path": "gone"})
    OmegaConf.set_struct(old, True)
    now = trained_options(old)
    assert (now.char_features, now.word_dropout, now.encoder_embed_path) == (NONE, 0.0, None)
    assert old.encoder_embed_path == "gone"
    new = OmegaConf.create({"_name": "fixed_attention_lstm", "char_features": "cnn", "word_dropout": 0.5})
    assert (trained_options(new).char_features, trained_options(new).word_dropout) == ("cnn", 0.5)
    stock = OmegaConf.create({"_name": "transformer"})
    assert trained_options(stock) is stock


def test_letters_that_a_checkpoint_does_not_have_are_refused():
    with_letters, without = toy_models.tagger(), toy_models.tagger(char_features=NONE)
    assert reads_letters(with_letters) and not reads_letters(without)
    with pytest.raises(ValueError, match="trained with --char-features none: give it here"):
        with_letters.load_state_dict(without.state_dict())
    for other in (without, toy_models.tagger(char_features="cnn")):
        with pytest.raises(ValueError, match="trained with other --char-features"):
            other.load_state_dict(with_letters.state_dict())
    with_letters.load_state_dict(toy_models.tagger().state_dict())
