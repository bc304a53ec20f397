"""Files that others made: damaged ones are refused in one line, harmful ones do no harm."""

import io
import logging
import os
import random

import numpy as np
import pytest
import spacy
import srsly
import torch
from exploring import cases
from thinc.api import PyTorchShim
from toy_pipelines import (
    joint_config,
    make_pipeline,
    parser_config,
    sdp_config,
    spancat_config,
    textcat_config,
)

from spacy_components.ml.stanza.checkpoint import CheckpointFiles, read_checkpoint, write_files
from spacy_components.ml.stanza.parser import build_stanza_parser, load_parser
from spacy_components.ml.thinc_glue.untrusted import MemoryBudget, UnusableFile, bare_name, blamed_on
from spacy_components.stanza.import_parser import import_parser

# ---- names


NO_NAMES = ["", ".", "..", "../x", "a/b", "/etc/x", "a\\b", "..\\x", "C:x", "c:\\x", "~/", "x:stream", "a*"]
NO_NAMES += [
    "x\0",
    "x\n",
    "x ",
    "x.",
    "a" * 201,
    "CON",
    "nul",
    "com1.txt",
    "LPT9",
    "Aux .json",
    None,
    3,
    b"x",
]


@pytest.mark.parametrize("name", NO_NAMES)
def test_only_bare_names_are_written(name, tmp_path):
    with pytest.raises(UnusableFile, match="no name of a file"):
        bare_name(name)
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(UnusableFile):
        write_files({"fine.txt": b"x", name: b"harm"}, inside)
    assert list(tmp_path.rglob("*")) == [inside]


@pytest.mark.parametrize(
    "name", ["vocab.txt", "tokenizer_config.json", "merges 1.txt", ".hidden", "console", "ü"]
)
def test_ordinary_names_are(name, tmp_path):
    write_files({name: b"x"}, tmp_path)
    assert (tmp_path / name).read_bytes() == b"x"


def test_a_saved_transformer_writes_into_its_own_folder(tmp_path, monkeypatch):
    """The files of a tokenizer, in what ``to_bytes`` of a parser holds."""
    pytest.importorskip("transformers")
    from spacy_components.ml.stanza.checkpoint import _build_transformer

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    harm = {"../" * 12 + str(tmp_path / "made").lstrip("/"): b"harm"}
    parts = {"model_type": "bert", "config": sizes, "tokenizer": harm, "longest": 9, "saved": False}
    with pytest.raises(UnusableFile, match="no name of a file"):
        _build_transformer(parts)
    assert not (tmp_path / "made").exists()


# ---- damage


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    pytest.importorskip("stanza", reason="needs diffdecode[stanza]")
    from stanza_models import train_checkpoint, treebank

    logging.getLogger("stanza").setLevel(logging.ERROR)
    return train_checkpoint(
        tmp_path_factory.mktemp("stanza"), "toy", treebank(40), max_steps=2, eval_interval=9
    )


WRONG = [None, "x", "", -1, 10**9, 2**70, [], {}, True, 0.5, float("nan"), b"x", [[1]], torch.zeros(2)]


def damaged_bytes(rng, good):
    """Flipped bits, a missing end, a missing or a foreign piece; half of them near the beginning."""
    data, near = bytearray(good), rng.random() < 0.5

    def place():
        return rng.randrange(min(6000, len(data)) if near else len(data))

    kind, start = rng.randrange(4), place()
    if kind == 0:
        for _ in range(rng.choice([1, 1, 3, 20])):
            data[place()] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[start:]
    elif kind == 2:
        del data[start : start + rng.randrange(1, 200)]
    else:
        data[start : start + 50] = rng.randbytes(50)
    return bytes(data)


def damaged_content(rng, good):
    """A key too few, or a value of another type."""
    path = rng.choice([path for path in paths_in(good) if len(path) < 4 and "bert_model" not in path])
    return changed(good, path, rng.choice(WRONG), rng.random() < 0.3)


def changed(table, path, value, delete):
    """A copy of nested tables with one value changed, or left out."""
    key, *rest = path
    if rest:
        return {**table, key: changed(table[key], rest, value, delete)}
    return {k: v for k, v in table.items() if k != key} if delete else {**table, key: value}


def paths_in(content, path=()):
    if isinstance(content, dict):
        for key, value in content.items():
            yield (*path, key)
            yield from paths_in(value, (*path, key))


def saved(content, rng):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=rng.random() < 0.5)
    return file.getvalue()


def used(path, docs):
    """Imports the parser, and parses with it if there is one."""
    files = CheckpointFiles(str(path))
    model = build_stanza_parser()
    load_parser(model, files, *read_checkpoint(files))
    return model.predict(docs)


@pytest.mark.filterwarnings("ignore")
def test_damaged_checkpoints_of_stanza_are_refused_in_one_line(checkpoint, tmp_path):
    """Each is refused by name, or is a parser all the same (other numbers, unused settings)."""
    from stanza_models import as_doc, treebank

    rng, path, vocab = random.Random(0), tmp_path / "damaged.pt", spacy.blank("xx").vocab
    docs = [as_doc(vocab, sentence) for sentence in treebank(2, seed=1)]
    good, content = checkpoint.read_bytes(), torch.load(checkpoint, weights_only=True)
    refused, tried = 0, cases(50, 500)
    for i in range(tried):
        path.write_bytes(damaged_bytes(rng, good) if i % 2 else saved(damaged_content(rng, content), rng))
        try:
            used(path, docs)
        except UnusableFile as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error), str(error)
    assert 0.5 * tried < refused < 0.9 * tried


@pytest.mark.parametrize(
    "change, message",
    [
        ({"config": {"hidden_dim": 10**6}}, "far larger than what it holds"),
        ({"config": {"num_layers": 10**9}}, "far larger than what it holds|damaged"),
        ({"config": {"hidden_dim": "many"}}, "damaged"),
        ({"config": {"charlm": True, "charlm_forward_file": "/etc/passwd"}}, "--charlm-forward"),
        (
            {"model": {"drop_replacement": torch.full((42,), torch.nan)}},
            "'drop_replacement' is no tensor of finite",
        ),
        ({"model": {"drop_replacement": 7}}, "'drop_replacement' is no tensor of finite"),
        ({"vocab": {"word": {"_unit2id": {"cat": 10**6}, "_id2unit": ["cat"]}}}, "units without a number"),
        ({"model": 3}, "no tables"),
    ],
)
def test_what_is_wrong_is_said(checkpoint, tmp_path, change, message):
    content = torch.load(checkpoint, weights_only=True)
    for part, values in change.items():
        content[part] = {**content[part], **values} if isinstance(values, dict) else values
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UnusableFile, match=message):
        import_parser(CheckpointFiles(str(tmp_path / "x.pt")))


@pytest.mark.parametrize(
    "config",
    [
        ("spigot_parser", parser_config()),
        ("spigot_sdp", sdp_config()),
        ("joint_sdp", joint_config()),
        "stanza",
    ],
)
def test_damaged_parameters_of_a_saved_pipeline_are_refused(config, request):
    if config == "stanza":
        nlp = import_parser(CheckpointFiles(str(request.getfixturevalue("checkpoint"))))
    else:
        nlp, _ = make_pipeline(config)
    shim = nlp.get_pipe(nlp.pipe_names[0]).model.shims[0]
    rng, good, refused = random.Random(1), shim.to_bytes(), 0
    content = srsly.msgpack_loads(good)
    for i in range(cases(24, 60)):
        data = damaged_bytes(rng, good)
        if i % 2:
            broken = damaged_content(rng, content)
            data = srsly.msgpack_dumps(without_tensors(broken))
        try:
            shim.from_bytes(data)
        except UnusableFile as error:
            refused += 1
            assert "a saved model" in str(error) and "\n" not in str(error)
            assert shim.module is None
    assert refused > 6
    shim.from_bytes(good)
    assert shim.to_bytes() == good


def without_tensors(content):
    if isinstance(content, dict):
        return {key: without_tensors(value) for key, value in content.items()}
    if isinstance(content, torch.Tensor) or (isinstance(content, int) and content == 2**70):  # not msgpack's
        return np.zeros(2)
    return content


def test_sizes_that_the_file_cannot_hold_are_refused_before_memory_is_taken():
    nlp, _ = make_pipeline(("spigot_parser", parser_config()))
    shim = nlp.get_pipe("spigot_parser").model.shims[0]
    message = srsly.msgpack_loads(shim.to_bytes())
    for widths in ({"width": 10**9}, {"labels": 10**8}, {"width": 2**40, "labels": 2**40}):
        data = srsly.msgpack_dumps(message | {"widths": message["widths"] | widths})
        with pytest.raises(UnusableFile, match=r"far larger|damaged"):
            shim.from_bytes(data)
    with pytest.raises(UnusableFile), MemoryBudget(0):
        torch.nn.Linear(10**4, 10**4)


def test_blame_is_laid_once():
    message = r"^x.pt is damaged, or of another version \(KeyError: 'a'\)$"
    with pytest.raises(UnusableFile, match=message), blamed_on("x.pt"), blamed_on("x.pt"):
        {}["a"]
    with pytest.raises(UnusableFile, match=r"^x.pt: no\.$"), blamed_on("x.pt"):
        raise UnusableFile("no.")
    with pytest.raises(ImportError), blamed_on("x.pt"):
        raise ImportError


# ---- pickles in thinc's own blobs


class Harmful:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def encoder():
    """A tok2vec with a torch module of thinc's."""
    lstm = {"@architectures": "spacy.TorchBiLSTMEncoder.v1", "width": 16, "depth": 1, "dropout": 0.0}
    embed = {
        "@architectures": "spacy.MultiHashEmbed.v2",
        "width": 16,
        "attrs": ["NORM"],
        "rows": [50],
        "include_static_vectors": False,
    }
    return {"@architectures": "spacy.Tok2Vec.v2", "embed": embed, "encode": lstm}


@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
@pytest.mark.parametrize(
    "factory, config",
    [
        ("spigot_parser", parser_config(encoder())),
        ("spigot_sdp", sdp_config(encoder())),
        ("joint_sdp", joint_config(encoder())),
        ("masked_textcat", textcat_config(encoder())),
        ("masked_spancat", spancat_config(encoder())),
    ],
)
def test_nothing_in_a_torch_module_of_thincs_is_executed(factory, config, tmp_path, monkeypatch):
    """Also where torch by itself would execute it, as before torch 2.6."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    nlp, _ = make_pipeline((factory, config))
    saved = nlp.to_bytes()
    assert nlp.from_bytes(saved).to_bytes() == saved
    (shim,) = [
        shim
        for node in nlp.get_pipe(factory).model.walk()
        for shim in node.shims
        if type(shim) is PyTorchShim
    ]
    file = io.BytesIO()
    torch.save({"weight": Harmful(str(tmp_path / "made"))}, file)
    harmful = srsly.msgpack_dumps({"config": {}, "state": file.getvalue()})
    with pytest.raises(UnusableFile, match=r"a saved .* is damaged"):
        shim.from_bytes(harmful)
    assert not (tmp_path / "made").exists()
