"""The tagging task through fairseq's commands: train, resume, validate, generate, interactive."""

import contextlib
import io
import re
import shutil
from argparse import Namespace

import pytest
import torch
import toy_corpus
from toy_corpus import LABELS, TAGGER, USER_DIR, run

TASK = ["--user-dir", USER_DIR, "--task", "sequence_tagging", "--cpu"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A toy corpus and a tagger trained on it for three epochs."""
    folder = tmp_path_factory.mktemp("commands")
    data = toy_corpus.write_corpus(folder)
    options = [
        "--criterion",
        "cross_entropy",
        "--max-epoch",
        "3",
        "--eval-beam",
        "2",
        "--no-epoch-checkpoints",
    ]
    best = ["--best-checkpoint-metric", "f1", "--maximize-best-checkpoint-metric"]
    toy_corpus.train(data, folder / "model", *TAGGER, *options, *best)
    return Namespace(folder=folder, data=data, options=options, path=folder / "model" / "checkpoint_last.pt")


def output_of(command, trained, *options):
    """What a command prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run(command, trained.data, *TASK, "--path", trained.path, *options)
    return printed.getvalue()


@pytest.fixture(scope="module")
def beam_output(trained):
    """Output of fairseq-generate with a beam of 3, two hypotheses a sentence."""
    return output_of("generate", trained, "--beam", "3", "--nbest", "2", "--scoring", "conll_f1")


def generated(text):
    """``{sentence number: {"S": words, "T": gold labels, "H": best labels}}`` of what fairseq printed."""
    sentences = {}
    for kind, number, line in re.findall(r"^([STH])-(\d+)\t(.*)$", text, re.MULTILINE):
        line = line.split("\t")[-1] if kind == "H" else line
        sentences.setdefault(int(number), {}).setdefault(kind, line.split())
    return sentences


def test_the_best_checkpoint_is_the_best_by_f1(trained):
    state = torch.load(trained.folder / "model" / "checkpoint_best.pt", weights_only=True)
    assert isinstance(state["extra_state"]["best"], float)


def test_a_misspelt_metric_is_refused_before_training(trained, tmp_path):
    metric = ["--best-checkpoint-metric", "acuracy", "--maximize-best-checkpoint-metric"]
    said = r"metric acuracy: .* no such metric; did you mean accuracy\? there are accuracy, .*f1.* loss"
    with pytest.raises(ValueError, match=said):
        toy_corpus.train(trained.data, tmp_path, *TAGGER, *trained.options, *metric)
    assert not list(tmp_path.glob("*.pt"))


def test_looking_which_metrics_there_are_changes_no_training(trained, tmp_path):
    weights = []
    for metric in ("loss", "accuracy"):
        options = [*TAGGER, "--dropout", "0.3", *trained.options, "--max-epoch", "1"]
        toy_corpus.train(trained.data, tmp_path / metric, *options, "--best-checkpoint-metric", metric)
        weights.append(torch.load(tmp_path / metric / "checkpoint_last.pt", weights_only=True)["model"])
    not_looked_at, looked_at = (list(values.values()) for values in weights)
    assert all(map(torch.equal, looked_at, not_looked_at))


def test_resuming_continues_the_epochs(trained, tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "checkpoint_last.pt").write_bytes(trained.path.read_bytes())
    toy_corpus.train(trained.data, tmp_path, *TAGGER, *trained.options, "--max-epoch", "4")
    (valid,) = toy_corpus.logged(caplog, "valid")
    assert valid["epoch"] == 4
    assert {"valid_accuracy", "valid_f1", "valid_macro_f1"} <= valid.keys()
    # Decoding belongs to validation.
    (train,) = toy_corpus.logged(caplog, "train")
    assert "train_accuracy" not in train


def test_generate_prints_one_label_per_word_and_scores_them(trained, beam_output):
    sentences = generated(beam_output)
    assert sorted(sentences) == list(range(60))
    lines = (trained.folder / "test.words").read_text().splitlines()
    gold = (trained.folder / "test.labels").read_text().splitlines()
    right = words = 0
    for number, sentence in sentences.items():
        assert len(sentence["H"]) == len(sentence["S"]) == len(lines[number].split())
        assert sentence["T"] == gold[number].split()
        assert set(sentence["H"]) <= set(LABELS)
        right += sum(a == b for a, b in zip(sentence["T"], sentence["H"]))
        words += len(sentence["T"])
    accuracy = re.search(r"Generate test with beam=3: accuracy ([\d.]+), ", beam_output).group(1)
    assert float(accuracy) == pytest.approx(100 * right / words, abs=0.005)
    assert len(re.findall(r"^H-", beam_output, re.MULTILINE)) == 2 * len(lines)


def test_validate_agrees_with_generate(trained, beam_output):
    printed = re.search(r"accuracy ([\d.]+), .*F1 ([\d.]+) \(.* macro F1 ([\d.]+)", beam_output)
    options = ["--valid-subset", "test", "--eval-beam", "3", "--max-tokens", "60"]
    logged = output_of("validate", trained, *options)
    for name, value in zip(("accuracy", "f1", "macro_f1"), printed.groups()):
        found = float(re.search(rf"valid on 'test' subset .* \| {name} ([\d.]+)", logged).group(1))
        assert found == pytest.approx(float(value), abs=0.006)


def test_interactive_labels_unknown_words_and_skips_empty_lines(trained, tmp_path):
    text = tmp_path / "input"
    text.write_text("w1 w2 w3\n\nw1 neverseen\n")
    options = ["--beam", "2", "--buffer-size", "5", "--batch-size", "5", "--input", text]
    sentences = generated(output_of("interactive", trained, *options))
    assert [len(sentences[i]["H"]) for i in range(3)] == [3, 0, 2]


def test_soft_beam_search_by_option(trained, beam_output):
    options = ["--beam", "3", "--search", "soft-beam", "--search-alpha", "1e6"]
    soft, hard = generated(output_of("generate", trained, *options)), generated(beam_output)
    same = sum(soft[i]["H"] == hard[i]["H"] for i in hard)
    assert same >= 0.9 * len(hard)  # near ties apart, a very peaked soft beam is the hard beam


def test_bad_data_stops_before_training(tmp_path):
    data = toy_corpus.write_corpus(tmp_path, sentences=5)
    lines = (tmp_path / "train.labels").read_text().splitlines()
    lines[3] += " O"
    (tmp_path / "train.labels").write_text("\n".join(lines) + "\n")
    run("preprocess", "-s", "words", "-t", "labels", f"--trainpref={tmp_path / 'train'}", "--destdir", data,
        "--srcdict", data / "dict.words.txt", "--tgtdict", data / "dict.labels.txt")  # fmt: skip
    with pytest.raises(ValueError, match=r"train\.words-labels\.labels, line 4: "):
        toy_corpus.train(
            data, tmp_path / "model", *TAGGER, "--criterion", "cross_entropy", "--max-epoch", "1"
        )
    assert not (tmp_path / "model" / "checkpoint_last.pt").exists()


def test_what_a_trained_tagger_cannot_do_is_refused(trained, tmp_path):
    with pytest.raises(ValueError, match=r"^--post-process sentencepiece .*: remove it$"):
        output_of("generate", trained, "--post-process", "sentencepiece")
    with pytest.raises(ValueError, match=r"^--lenpen has no meaning for --task sequence_tagging; remove it$"):
        output_of("generate", trained, "--lenpen", "2")
    other = Namespace(data=tmp_path / "bin", path=trained.path)
    shutil.copytree(trained.data, other.data)
    labels = (other.data / "dict.labels.txt").read_text().splitlines(keepends=True)
    (other.data / "dict.labels.txt").write_text("".join(reversed(labels)))
    with pytest.raises(ValueError, match=r"^dict\.labels\.txt: not what the checkpoint was trained with"):
        output_of("generate", other)
    options = [*TAGGER, "--criterion", "cross_entropy", "--max-epoch", "4"]
    with pytest.raises(Exception, match="Cannot load model parameters") as caught:
        toy_corpus.train(other.data, tmp_path / "run", *options, "--finetune-from-model", trained.path)
    assert "dict.labels.txt: not what the checkpoint" in str(caught.value.__context__)
