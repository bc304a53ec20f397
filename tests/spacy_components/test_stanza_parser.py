"""Stanza's parsers inside spaCy: the same parses, trained by what comes after them, and given back."""

import importlib.util
import logging
import os
import pickle
import resource
import shutil
from unittest import mock

import numpy as np
import pytest
import spacy
import srsly
import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.training.initialize import init_nlp
from thinc.api import Adam, Config
from toy_pipelines import (
    TOK2VEC,
    change,
    head_concat,
    textcat_config,
    torch_gradients,
    torch_weights,
    train_step,
)

pytest.importorskip("stanza", reason="the package stanza is not installed")

from stanza_models import (
    as_doc,
    as_document,
    parses,
    stanza_parses,
    stanza_trainer,
    train_checkpoint,
    treebank,
    without_tags,
    write_charlm,
    write_pretrain,
    write_transformer,
)

from diffdecode.structure import TreeKind, nonprojective_tree, tree_argmax
from spacy_components.finetuning.snapshot import Snapshot
from spacy_components.ml.listening.gradients import ArcGradient
from spacy_components.ml.stanza.checkpoint import CheckpointFiles
from spacy_components.ml.trees.decisions import TreeDecoder
from spacy_components.settings import hard_surrogate
from spacy_components.stanza import export_parser as export_command
from spacy_components.stanza import import_parser as import_command
from spacy_components.stanza.export_parser import export_parser
from spacy_components.stanza.import_parser import import_parser

UNTAGGED = {"plain", "chars", "vectors", "charlm", "bert", "tuned_bert"}
VARIANTS = {
    "full": ([], {}),
    "plain": (["--no_linearization", "--no_distance"], {"tag_emb_dim": 0, "max_steps": 25}),
    "chars": ([], {"tag_emb_dim": 0, "word_emb_dim": 0, "max_steps": 15}),
    "arcs": (["--use_arc_embedding", "--no_xpos"], {"deep_biaff_output_dim": 6, "max_steps": 15}),
    "parts": (["--no_char", "--no_upos"], {"shorthand": "cs_pdt", "max_steps": 15}),
    "vectors": (["--no_char"], {"tag_emb_dim": 0, "word_emb_dim": 0, "max_steps": 20}),
    "charlm": (["--charlm"], {"tag_emb_dim": 0, "max_steps": 10, "charlm_shorthand": "toy"}),
    "bert": (["--no_char"], {"tag_emb_dim": 0, "max_steps": 10}),
    "tuned_bert": (["--bert_finetune"], {"tag_emb_dim": 0, "max_steps": 10, "bert_start_finetuning": 0}),
}


def variants(*names):
    """Parameters of a test; transformers are skipped where the package is missing."""
    missing = importlib.util.find_spec("transformers") is None
    skip = pytest.mark.skipif(missing, reason="the package transformers is not installed")
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=skip) if "bert" in name else name for name in names]
    )


class Checkpoints:
    """Trains each parser when it is first asked for."""

    def __init__(self, folder):
        self.folder = folder
        self.made = {}
        logging.getLogger("stanza").setLevel(logging.ERROR)

    def __call__(self, name) -> CheckpointFiles:
        if name not in self.made:
            flags, settings = VARIANTS[name]
            self.made[name] = self._train(name, flags, dict(settings))
        return self.made[name]

    def _train(self, name, flags, settings):
        sentences, inputs = treebank(50), {}
        if name == "vectors":
            inputs["pretrain"] = settings["wordvec_pretrain_file"] = write_pretrain(self.folder / "words.pt")
        if "bert" in name:
            inputs["transformer"] = settings["bert_model"] = write_transformer(self.folder / name)
        if name == "charlm":
            for way in ("forward", "backward"):
                file = write_charlm(self.folder / f"{way}.pt", forward=way == "forward")
                inputs[f"charlm_{way}"] = settings[f"charlm_{way}_file"] = file
        sentences = without_tags(sentences) if name in UNTAGGED else sentences
        path = train_checkpoint(self.folder, name, sentences, *flags, **settings)
        return CheckpointFiles(str(path), **inputs)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return Checkpoints(tmp_path_factory.mktemp("stanza"))


@pytest.fixture(scope="session")
def sentences():
    """What is parsed in the tests: other sentences, a very long one, and words that no parser has seen."""
    found = treebank(30, seed=1)
    long = [w._replace(text=w.text.upper()) for s in found[:8] for w in s]
    odd = [found[-1][i]._replace(text=text) for i, text in enumerate(["Ωmega", "100 000", "!?!?", "x"])]
    return [*found, long, odd, odd[:1]]


def reference(files, sentences):
    return stanza_parses(files.checkpoint, sentences, **inputs_of(files))


def inputs_of(files):
    """The files that Stanza needs beside the checkpoint; it finds the transformer by itself."""
    beside = files._asdict().items()
    return {name: value for name, value in beside if value and name not in ("checkpoint", "transformer")}


def docs_of(nlp, sentences, tagged=True):
    return [as_doc(nlp.vocab, sentence, tagged) for sentence in sentences]


def gold(nlp, sentence):
    """An example with tags on both documents."""
    doc = as_doc(nlp.vocab, sentence)
    heads = [w.head - 1 if w.head else i for i, w in enumerate(sentence)]
    deps = ["ROOT" if w.head == 0 else w.deprel for w in sentence]
    return Example(doc, Doc(nlp.vocab, words=[w.text for w in sentence], heads=heads, deps=deps))


def review(nlp, sentence):
    """An example with a class and no tree."""
    example = Example(as_doc(nlp.vocab, sentence), as_doc(nlp.vocab, sentence))
    positive = float(any(w.text == "alone" for w in sentence))
    example.reference.cats = {"POS": positive, "NEG": 1 - positive}
    return example


# ---- the same parses


@variants(*VARIANTS)
def test_heads_and_labels_are_stanzas(checkpoint, sentences, name):
    files = checkpoint(name)
    given = without_tags(sentences) if name in UNTAGGED else sentences
    expected = reference(files, given)
    nlp = import_parser(files)
    assert parses(nlp.pipe(docs_of(nlp, given, name not in UNTAGGED))) == expected
    assert parses(nlp.pipe(docs_of(nlp, given, name not in UNTAGGED)[:20], batch_size=3)) == expected[:20]


def test_some_of_these_trees_are_hard(checkpoint, sentences):
    """Words' best heads are no tree, arcs cross: the comparison above is not about argmax alone."""
    nlp = import_parser(checkpoint("chars"))
    scores = nlp.get_pipe("spigot_parser").model.predict(docs_of(nlp, sentences))
    decisions = {
        (projective, roots): TreeDecoder(TreeKind(projective, roots), None).predict(scores)[0]
        for projective in (True, False)
        for roots in (True, False)
    }
    chosen = decisions[False, False]
    assert all((heads != chosen).any() for trees, heads in decisions.items() if trees != (False, False))


def test_scores_are_those_of_stanza(checkpoint, sentences):
    files = checkpoint("plain")
    net = stanza_trainer(files.checkpoint)[0].model.eval()
    nlp = import_parser(files)
    module = nlp.get_pipe("spigot_parser").model.shims[0].module
    for name, value in net.state_dict().items():
        assert torch.equal(value, module.net.state_dict()[name])
    assert module.labels == list(net.vocab["deprel"])[4:]
    assert nlp.get_pipe("spigot_parser").labels == tuple(module.labels)


def test_white_space_and_empty_documents(checkpoint):
    nlp = import_parser(checkpoint("plain"))
    plain, spaced, empty, blank = nlp.pipe(
        [
            Doc(nlp.vocab, words="the old dog sees a cat .".split()),
            Doc(nlp.vocab, words=["\n", "the", "old", "dog", "  ", "sees", "a", "cat", ".", "\n"]),
            Doc(nlp.vocab),
            Doc(nlp.vocab, words=["\n\n", " "]),
        ]
    )
    words = [t.i for t in spaced if not t.is_space]
    assert [words.index(spaced[i].head.i) for i in words] == [t.head.i for t in plain]
    assert [spaced[i].dep_ for i in words] == [t.dep_ for t in plain]
    assert [t.head.i for t in spaced if t.is_space] == [1, 3, 8]
    assert len(empty) == 0 and [t.head.i for t in blank] == [0, 0]


def test_sentences_are_parsed_one_by_one_if_there_are_any(checkpoint, sentences):
    nlp = import_parser(checkpoint("plain"))
    pair = without_tags(sentences[:2])
    words = [w.text for s in pair for w in s]
    starts = [i == 0 for s in pair for i in range(len(s))]
    split, whole = Doc(nlp.vocab, words=words, sent_starts=starts), Doc(nlp.vocab, words=words)
    alone = parses(nlp.pipe(docs_of(nlp, pair, False)))
    assert parses([nlp(split)]) == [alone[0] + alone[1]] and len(list(split.sents)) == 2
    assert len(list(nlp(whole).sents)) == 1
    assert parses([nlp(split)]) == [alone[0] + alone[1]]  # parsed again, from its own boundaries
    with_sentencizer = import_parser(checkpoint("plain"), sentencizer=True)
    assert len(list(with_sentencizer("the dog sees . a cat eats .").sents)) == 2


def test_several_processes(checkpoint, sentences):
    nlp = import_parser(checkpoint("plain"))
    given = without_tags(sentences)[:40]
    one = parses(nlp.pipe(docs_of(nlp, given, False)))
    assert parses(nlp.pipe(docs_of(nlp, given, False), n_process=2, batch_size=10)) == one


# ---- saved, loaded, sourced, given back


@variants("full", "parts", "vectors", "charlm", "bert", "tuned_bert")
def test_a_saved_pipeline_needs_no_other_file(checkpoint, sentences, name, tmp_path):
    moved = {}
    for field, path in checkpoint(name)._asdict().items():
        copy = shutil.copytree if field == "transformer" else shutil.copy
        moved[field] = path and copy(path, tmp_path / field)
    nlp = import_parser(CheckpointFiles(**moved))
    expected = parses(nlp.pipe(docs_of(nlp, sentences)))
    nlp.to_disk(tmp_path / "pipeline")
    for path in filter(None, moved.values()):
        path.rename(path.with_suffix(".gone"))
    loaded = spacy.load(tmp_path / "pipeline")
    assert parses(loaded.pipe(docs_of(loaded, sentences))) == expected
    again = spacy.blank("en").from_config(nlp.config).from_bytes(nlp.to_bytes())
    assert parses(again.pipe(docs_of(again, sentences))) == expected


def test_what_is_saved_is_data(checkpoint):
    """Arrays, text and numbers in msgpack: nothing that loading could execute."""
    shim = import_parser(checkpoint("vectors")).get_pipe("spigot_parser").model.shims[0]
    message = srsly.msgpack_loads(shim.to_bytes())
    assert all(isinstance(value, np.ndarray) for value in message["state"].values())
    assert srsly.json_loads(srsly.json_dumps(message["widths"])) == message["widths"]
    assert "net.pretrained_emb.weight" in message["state"]


@variants("full", "vectors", "charlm", "bert", "tuned_bert")
def test_stanza_parses_the_same_with_the_tuned_weights(checkpoint, sentences, name, tmp_path):
    files = checkpoint(name)
    given = without_tags(sentences) if name in UNTAGGED else sentences
    nlp = import_parser(files)
    before = parses(nlp.pipe(docs_of(nlp, given)))
    scrambled = [s[::-1] for s in treebank(30, seed=3) if len(s) > 1]
    optimizer = Adam(0.01)
    for _ in range(3):
        nlp.update([gold(nlp, [*s]) for s in map(_with_reversed_heads, scrambled)], sgd=optimizer)
    after = parses(nlp.pipe(docs_of(nlp, given)))
    assert after != before
    written = export_parser(nlp, tmp_path / "tuned.pt", inputs=tmp_path / "inputs")
    inputs = {path.stem: str(path) for path in written[1:]}
    assert set(inputs) == set(inputs_of(files))
    assert stanza_parses(tmp_path / "tuned.pt", given, **inputs) == after
    assert reference(files._replace(checkpoint=str(tmp_path / "tuned.pt")), given) == after


def test_stanzas_pipeline_takes_the_file(checkpoint, sentences, tmp_path):
    import stanza

    export_parser(import_parser(checkpoint("full")), tmp_path / "back.pt")
    (tmp_path / "resources.json").write_text("{}")
    pipeline = stanza.Pipeline(
        "en",
        dir=str(tmp_path),
        download_method=None,
        processors="tokenize,depparse",
        tokenize_pretokenized=True,
        depparse_pretagged=True,
        depparse_model_path=str(tmp_path / "back.pt"),
        depparse_resolve_head_constraints=False,
        allow_unknown_language=True,
        use_gpu=False,
        verbose=False,
    )
    parsed = pipeline.processors["depparse"].process(as_document(sentences))
    found = [[(w.head, w.deprel if w.head else "ROOT") for w in s.words] for s in parsed.sentences]
    assert found == reference(checkpoint("full"), sentences)


def _with_reversed_heads(sentence):
    size = len(sentence)
    return [w._replace(head=size + 1 - w.head if w.head else 0) for w in sentence]


def test_commands(checkpoint, sentences, tmp_path, capsys):
    import_command.main([checkpoint("full").checkpoint, str(tmp_path / "pipeline"), "--sentencizer"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "TAG (tagger)" in shown and "LEMMA (lemmatizer)" in shown
    nlp = spacy.load(tmp_path / "pipeline")
    assert nlp.lang == "en" and nlp.pipe_names == ["sentencizer", "spigot_parser"]
    export_command.main([str(tmp_path / "pipeline"), str(tmp_path / "back" / "parser.pt")])
    assert stanza_parses(tmp_path / "back" / "parser.pt", sentences) == reference(
        checkpoint("full"), sentences
    )
    with pytest.raises(SystemExit):
        import_command.main([str(tmp_path / "nothing.pt"), str(tmp_path / "x")])
    with pytest.raises(SystemExit):
        export_command.main(
            [str(tmp_path / "pipeline"), str(tmp_path / "x.pt"), "--component", "sentencizer"]
        )
    assert not (tmp_path / "x.pt").exists() and not (tmp_path / "x").exists()


def test_a_pipeline_takes_the_place_of_another_as_a_whole_and_of_nothing_else(checkpoint, tmp_path, capsys):
    output = tmp_path / "out"
    command = [checkpoint("plain").checkpoint, str(output)]
    output.mkdir()
    (output / "thesis.tex").touch()
    with pytest.raises(SystemExit):
        import_command.main(command)
    assert "holds thesis.tex, which is no part of a pipeline" in " ".join(capsys.readouterr().out.split())
    (output / "thesis.tex").unlink()
    import_command.main([*command, "--sentencizer"])
    assert list(output.glob("sentencizer*"))
    killed = mock.patch.object(Language, "to_disk", side_effect=KeyboardInterrupt)
    with killed, pytest.raises(KeyboardInterrupt):
        import_command.main(command)
    assert spacy.load(output).pipe_names == ["sentencizer", "spigot_parser"]
    import_command.main(command)
    assert spacy.load(output).pipe_names == ["spigot_parser"] and not list(output.glob("sentencizer*"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_leaves_the_exported_parser(checkpoint, tmp_path):
    nlp = import_parser(checkpoint("vectors"))
    written = export_parser(nlp, tmp_path / "parser.pt", inputs=tmp_path)
    before = {path: path.read_bytes() for path in written}
    assert len(before) == 2
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (100, len(before[tmp_path / "parser.pt"]) - 1):  # at the start, and at the last write
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            with pytest.raises(OSError, match=r"cannot write .*parser\.pt: File too large"):
                export_parser(nlp, tmp_path / "parser.pt", inputs=tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_pipeline_sources_the_parser(checkpoint, sentences, tmp_path):
    nlp = import_parser(checkpoint("plain"))
    nlp.to_disk(tmp_path)
    given = without_tags(sentences)
    expected = parses(nlp.pipe(docs_of(nlp, given, False)))
    config = Config().from_str(
        f"""
[nlp]
lang = "en"
pipeline = ["spigot_parser", "textcat"]
[components]
[components.spigot_parser]
source = "{tmp_path}"
[components.textcat]
factory = "masked_textcat"
[training]
seed = 0
gpu_allocator = null
[corpora]
[corpora.train]
@readers = "spacy.Corpus.v1"
path = "{tmp_path / "train.spacy"}"
[corpora.dev]
@readers = "spacy.Corpus.v1"
path = "{tmp_path / "train.spacy"}"
"""
    )
    config["components"]["textcat"] |= textcat_config(head_concat())
    spacy.tokens.DocBin(docs=[review(nlp, s).reference for s in given[:10]]).to_disk(tmp_path / "train.spacy")
    trained = init_nlp(config)
    assert parses(trained.pipe(docs_of(trained, given, False))) == expected
    trained.update([review(trained, s) for s in given[:10]], sgd=Adam(0.001))


def test_a_config_can_name_the_checkpoint(checkpoint, sentences):
    files = checkpoint("plain")
    nlp = spacy.blank("xx")
    model = {"@architectures": "diffdecode.StanzaParser.v1", "checkpoint": files.checkpoint}
    nlp.add_pipe("spigot_parser", config={"model": model, "projective": False, "multi_root": False})
    with pytest.raises(ValueError, match=r"has no parser yet.*import_parser"):
        nlp("a dog sees")
    odd = [w._replace(deprel="goeswith") if w.head else w for w in sentences[0]]
    with pytest.warns(UserWarning, match="goeswith"):
        nlp.initialize(lambda: [gold(nlp, odd)])
    given = without_tags(sentences)
    assert parses(nlp.pipe(docs_of(nlp, given, False))) == reference(files, given)


def test_a_private_copy(checkpoint, sentences, tmp_path):
    nlp, examples = classifier(checkpoint("plain"), sentences)
    before = [doc.cats for doc in nlp.pipe([eg.reference.copy() for eg in examples])]
    nlp.replace_listeners("spigot_parser", "textcat", ["model.tok2vec.parse"])
    kept = torch_weights(nlp)
    nlp.update(examples, sgd=Adam(0.01), exclude=["spigot_parser"])
    assert change(kept, torch_weights(nlp)) == 0
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    after = [doc.cats for doc in loaded.pipe([eg.reference.copy() for eg in examples])]
    assert after == [doc.cats for doc in nlp.pipe([eg.reference.copy() for eg in examples])] != before


# ---- training


def classifier(files, sentences, **settings):
    """The parser, and a text classifier that reads its trees; random weights so that gradients are not 0."""
    nlp = import_parser(files)
    nlp.get_pipe("spigot_parser").decoder = TreeDecoder(
        TreeKind(projective=False, multi_root=False),
        hard_surrogate(settings.get("surrogate", "spigot")),
    )
    nlp.add_pipe("masked_textcat", name="textcat", config=textcat_config(head_concat(TOK2VEC)))
    examples = [review(nlp, s) for s in sentences[:24]]
    nlp.get_pipe("textcat").initialize(lambda: examples, nlp=nlp)
    nlp._link_components()
    layer = nlp.get_pipe("textcat").model.get_ref("output_layer")
    layer.set_param("W", np.random.RandomState(0).randn(*layer.get_param("W").shape).astype("f"))
    return nlp, examples


@pytest.mark.parametrize("surrogate", ["ste", "spigot", "spigot_exact"])
def test_a_classifier_trains_the_parser(checkpoint, sentences, surrogate):
    nlp, examples = classifier(checkpoint("full"), sentences, surrogate=surrogate)
    nlp.update(examples, sgd=False)
    with_gradient = {name.split(".")[1] for name in torch_gradients(nlp) if torch_gradients(nlp)[name].any()}
    assert {"unlabeled", "parserlstm", "word_emb", "upos_emb", "charmodel"} <= with_gradient
    assert not {"deprel", "linearization", "distance"} & with_gradient
    before = torch_weights(nlp)
    for name in ("spigot_parser", "textcat"):
        nlp.get_pipe(name).finish_update(Adam(0.001))
    assert change(before, torch_weights(nlp)) > 0


@variants("bert", "tuned_bert")
def test_a_transformer_is_trained_if_stanza_trained_it(checkpoint, sentences, name):
    nlp, examples = classifier(checkpoint(name), sentences, surrogate="ste")
    nlp.update(examples, sgd=False)
    gradients = torch_gradients(nlp)
    reached = {key for key in gradients if ".bert_model." in key and gradients[key].any()}
    assert bool(reached) == (name == "tuned_bert")
    model, docs = nlp.get_pipe("spigot_parser").model, docs_of(nlp, sentences[:5])
    model.attrs["dropout_rate"] = 0.0
    in_training = model(docs, is_train=True)[0].scores[0].arcs
    torch.testing.assert_close(in_training, model.predict(docs).scores[0].arcs)


def test_a_pipeline_leaves_the_parser_alone(checkpoint, sentences):
    nlp, examples = classifier(checkpoint("full"), sentences, surrogate="pipeline")
    before = torch_weights(nlp)
    nlp.update(examples, sgd=Adam(0.1))
    assert change(before, torch_weights(nlp)) == 0


@pytest.mark.parametrize("kind", ["kl", "tree_kl", "l2"])
def test_it_can_be_held_back_frozen_and_rolled_back(checkpoint, sentences, kind):
    nlp, examples = classifier(checkpoint("full"), sentences)
    parser, optimizer = nlp.get_pipe("spigot_parser"), Adam(0.01)
    parser.configure(drift=kind, freeze=["net.word_emb"])
    before = torch_weights(nlp)
    assert train_step(nlp, examples, optimizer)["spigot_parser_drift"] == pytest.approx(0, abs=1e-3)
    assert change(before, torch_weights(nlp)) > 0
    assert torch.equal(before["net.word_emb.weight"], torch_weights(nlp)["net.word_emb.weight"])
    snapshot, before = Snapshot([parser.model], optimizer), torch_weights(nlp)
    losses = train_step(nlp, examples, optimizer)
    assert losses["spigot_parser"] == 0.0 < losses["spigot_parser_drift"] and change(
        before, torch_weights(nlp)
    )
    snapshot.restore(optimizer)
    assert change(before, torch_weights(nlp)) == 0
    with pytest.raises(ValueError, match=r"'tok2vec'.*net\.parserlstm"):
        parser.configure(freeze=["tok2vec"])
        parser.require_frozen_parts()


@pytest.mark.parametrize("name", ["plain", "full"])
@pytest.mark.parametrize("surrogate", ["ste", "spigot"])
def test_gradient_of_the_parameters_is_that_of_finite_differences(checkpoint, sentences, name, surrogate):
    """What arrives at Stanza's parameters is d/dtheta of <scores, surrogate gradient>."""
    nlp = import_parser(checkpoint(name))
    model, docs = nlp.get_pipe("spigot_parser").model, docs_of(nlp, sentences[:6])
    module = model.shims[0].module.double()
    rng = np.random.RandomState(0)
    gradients = [ArcGradient(rng.randn(len(doc), 3), rng.randn(len(doc), 3)) for doc in docs]
    chosen = hard_surrogate(surrogate, **({"eta": 0.5} if surrogate == "spigot" else {}))
    decoder = TreeDecoder(TreeKind(projective=False, multi_root=False), chosen)
    scores, backprop = model.begin_update(docs)
    decision = decoder.decide(scores)
    decision.add(gradients)
    backprop(decision.pairs())

    sent = [_surrogate_gradient(part, docs, gradients, chosen) for part in scores.scores]
    # the linearization and distance terms count in the scores, but Stanza lets no gradient through them
    moving = [
        (key, value)
        for key, value in module.named_parameters()
        if value.grad is not None and (name == "plain" or ".unlabeled." in key)
    ]
    direction = [torch.from_numpy(rng.randn(*value.shape)) for _, value in moving]
    analytic = sum(float((value.grad * d).sum()) for (_, value), d in zip(moving, direction))

    def objective(step):
        for (_, value), d in zip(moving, direction):
            value.data += step * d
        found = model.predict(docs)
        for (_, value), d in zip(moving, direction):
            value.data -= step * d
        return sum(float((part.arcs * g).sum()) for part, g in zip(found.scores, sent))

    numeric = (objective(1e-6) - objective(-1e-6)) / 2e-6
    assert abs(numeric) > 0.1 and analytic == pytest.approx(numeric, rel=1e-5)


def _surrogate_gradient(part, docs, gradients, surrogate):
    """Sentence by sentence, from the dense gradient in the tree."""
    starts = np.cumsum([0, *map(len, docs)])
    result = torch.zeros_like(part.arcs)
    for row, (tokens, length) in enumerate(zip(part.batch.tokens, part.batch.lengths)):
        gradient = gradients[int(np.searchsorted(starts, tokens[0], side="right")) - 1]
        dense = torch.zeros(1, length + 1, length + 1, dtype=torch.float64)
        dense[0, 1:, 1:] = torch.from_numpy(gradient.dependents @ gradient.heads.T)
        leaf = part.arcs[row : row + 1, : length + 1, : length + 1].detach().requires_grad_()
        tree = tree_argmax(
            leaf, torch.tensor([int(length)]), surrogate=surrogate, projective=False, multi_root=False
        )
        result[row, : length + 1, : length + 1] = torch.autograd.grad(tree, leaf, dense)[0][0]
    return result


def test_the_parser_learns_from_a_treebank(checkpoint):
    nlp = import_parser(checkpoint("arcs"))
    examples = [gold(nlp, s) for s in treebank(60, seed=5)]
    before = nlp.evaluate([gold(nlp, s) for s in treebank(60, seed=5)])
    optimizer = Adam(0.01)
    losses = [nlp.update(examples, sgd=optimizer, losses={})["spigot_parser"] for _ in range(30)]
    after = nlp.evaluate([gold(nlp, s) for s in treebank(60, seed=5)])
    assert losses[-1] < losses[0] / 2
    assert after["dep_las"] > before["dep_las"] + 0.1 and after["dep_uas"] > 0.9


def test_roots_are_labelled_as_in_stanza(checkpoint):
    """spaCy calls each root ROOT, but Stanza will look for its own label when it gets the parser back."""
    nlp = import_parser(checkpoint("plain"))
    parser, sentences = nlp.get_pipe("spigot_parser"), treebank(60, seed=5)
    with torch.no_grad():  # forget it
        labels = parser.model.shims[0].module.net.deprel.scorer.W_bilin
        labels.weight[..., parser.labels.index("root")] *= -1
    assert wrongly_labelled_roots(parser, docs_of(nlp, sentences))
    optimizer = Adam(0.01)
    for _ in range(20):
        nlp.update([gold(nlp, s) for s in sentences], sgd=optimizer)
    assert not wrongly_labelled_roots(parser, docs_of(nlp, sentences))


def wrongly_labelled_roots(parser, docs):
    """How many roots would not be ``root`` in Stanza."""
    scores = parser.model.predict(docs)
    wrong = 0
    for part in scores.scores:
        heads = nonprojective_tree(part.arcs, part.lengths)
        labels = part.label_scores(heads).argmax(2)
        wrong += int((labels[heads == 0] != parser.labels.index("root")).sum())
    return wrong


def test_dropout_is_spacys(checkpoint, sentences):
    """None at 0, whatever rates Stanza trained with; and none left behind when it predicts."""
    nlp = import_parser(checkpoint("full"))
    model, docs = nlp.get_pipe("spigot_parser").model, docs_of(nlp, sentences[:5])
    still = model.predict(docs).scores[0].arcs

    def trained(drop):
        model.attrs["dropout_rate"] = drop
        return model(docs, is_train=True)[0].scores[0].arcs.detach()

    torch.testing.assert_close(trained(0.0), still)
    assert (trained(0.4) - still).abs().max() > 0.01
    assert torch.equal(model.predict(docs).scores[0].arcs, still)
    rates = {getattr(layer, rate) for layer, rate in model.shims[0].module._dropouts}
    assert rates == {0.4} and len(model.shims[0].module._dropouts) > 5


# ---- what is refused


@pytest.mark.parametrize(
    "attribute, component, name",
    [("pos", "morphologizer", "upos"), ("tag", "tagger", "xpos"), ("lemma", "lemmatizer", "lemma")],
)
def test_a_missing_input_names_what_to_add(checkpoint, sentences, attribute, component, name):
    nlp = import_parser(checkpoint("full"))
    doc = as_doc(nlp.vocab, sentences[0])
    for token in doc:
        setattr(token, f"{attribute}_", "")
    with pytest.raises(ValueError, match=rf"trained with {name}.*{component}.*annotating_components"):
        nlp(doc)


def test_missing_features(checkpoint, sentences):
    nlp = import_parser(checkpoint("full"))
    doc = Doc(nlp.vocab, words=["a", "dog"], pos=["DET", "NOUN"], tags=["DT", "NN"], lemmas=["a", "dog"])
    with pytest.raises(ValueError, match=r"trained with feats.*MORPH.*morphologizer"):
        nlp(doc)
    assert len(nlp(Doc(nlp.vocab, words=[" "]))) == 1  # nothing to parse, so nothing is missing


def test_components_before_it_provide_the_inputs(checkpoint, sentences):
    files = checkpoint("full")
    nlp = import_parser(files)
    known = {w.text: w for s in sentences for w in s}

    @Language.component("toy_tags")
    def toy_tags(doc):
        for token in doc:
            w = known[token.text]
            token.pos_, token.tag_, token.lemma_ = w.upos, w.xpos, w.lemma
            token.set_morph("" if w.feats == "_" else w.feats)
        return doc

    nlp.add_pipe("toy_tags", first=True)
    given = [[known[w.text] for w in s] for s in sentences]
    docs = docs_of(nlp, given, tagged=False)
    assert [[label for _, label in s] for s in parses(nlp.pipe(docs))] == [
        [label for _, label in s] for s in reference(files, given)
    ]
    nlp.update([gold(nlp, given[0])], sgd=Adam(0.0), annotates=["toy_tags"])


def changed(files, tmp_path, **changes):
    """A checkpoint with other content."""
    content = torch.load(files.checkpoint, weights_only=True)
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    torch.save(content, tmp_path / "changed.pt")
    return CheckpointFiles(str(tmp_path / "changed.pt"))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"config": {"reversed": True}}, "--reversed"),
        ({"model_type": "ensemble_graph"}, "an ensemble"),
        ({"model_type": "ensemble_transition"}, "ensemble of transition-based"),
        ({"model_type": "something_new"}, "something_new"),
        ({"config": {"use_peft": True}}, "LoRA"),
        ({"config": {"hidden_dim": 99}}, "do not fit"),
    ],
)
def test_unsupported_checkpoints_are_refused(checkpoint, tmp_path, changes, message):
    files = changed(checkpoint("plain"), tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        import_parser(files)


def test_transition_parsers_are_refused(checkpoint, tmp_path):
    path = train_checkpoint(
        tmp_path, "transition", treebank(20), "--model_type=transition", max_steps=1, eval_interval=50
    )
    with pytest.raises(ValueError, match="transition-based parser, which has no scores of arcs"):
        import_parser(CheckpointFiles(str(path)))


def test_other_files_are_refused(checkpoint, tmp_path):
    text, tagger, other = tmp_path / "a.txt", tmp_path / "tagger.pt", tmp_path / "b.pt"
    text.write_text("no checkpoint")
    torch.save({"model": {}, "vocab": {"upos": {}}, "config": {}}, tagger)
    torch.save([1, 2], other)
    for path, message in (
        (text, "no file of Stanza's"),
        (tagger, "no dependency parser"),
        (other, "no checkpoint of a Stanza model"),
        (tmp_path / "missing.pt", "there is no file"),
    ):
        with pytest.raises(ValueError, match=message):
            import_parser(CheckpointFiles(str(path)))


class Harmful:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_nothing_in_a_file_is_executed(checkpoint, tmp_path):
    harmful = Harmful(str(tmp_path / "made"))
    torch.save({"model": {}, "vocab": {"deprel": 0}, "config": harmful}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="could execute"):
        import_parser(CheckpointFiles(str(tmp_path / "x.pt")))
    (tmp_path / "y.pt").write_bytes(pickle.dumps(harmful))
    with pytest.raises(ValueError, match="could execute"):
        import_parser(checkpoint("vectors")._replace(pretrain=str(tmp_path / "y.pt")))
    assert not (tmp_path / "made").exists()


def test_inputs_in_other_files_are_asked_for(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="--pretrain"):
        import_parser(checkpoint("vectors")._replace(pretrain=None))
    with pytest.raises(ValueError, match=r"have 3 numbers.*trained with 5"):
        import_parser(checkpoint("vectors")._replace(pretrain=write_pretrain(tmp_path / "w.pt", width=3)))
    with pytest.raises(ValueError, match="no word vectors"):
        import_parser(checkpoint("vectors")._replace(pretrain=checkpoint("plain").checkpoint))
    files = checkpoint("charlm")
    with pytest.raises(ValueError, match="--charlm-backward"):
        import_parser(files._replace(charlm_backward=None))
    with pytest.raises(ValueError, match="wrong direction for --charlm-backward"):
        import_parser(files._replace(charlm_backward=files.charlm_forward))
    with pytest.raises(ValueError, match="no character language model"):
        import_parser(files._replace(charlm_backward=checkpoint("plain").checkpoint))


def test_stanza_before_1_12_is_refused(checkpoint, monkeypatch):
    from stanza.models.depparse.model import GraphParser

    files = checkpoint("plain")  # trained, if no test was before this one
    monkeypatch.delattr(GraphParser, "forward_scores")
    with pytest.raises(ValueError, match=r"stanza .* does not give out the scores.*stanza>=1.12"):
        import_parser(files)


def test_only_stanzas_parsers_are_exported(tmp_path):
    nlp = spacy.blank("xx")
    nlp.add_pipe("spigot_parser")
    with pytest.raises(ValueError, match="no parser of Stanza's"):
        export_parser(nlp, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="no component 'parser'"):
        export_parser(nlp, tmp_path / "x.pt", "parser")
