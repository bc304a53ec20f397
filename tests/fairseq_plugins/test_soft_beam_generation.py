"""fairseq-generate and fairseq-interactive with the soft beam, for labels and for translation."""

import io
import logging
import re

import pytest
import toy_corpus
from fairseq.logging import progress_bar

TASKS = {
    "tagging": ("sequence_tagging", toy_corpus.TAGGER),
    "translation": ("direct_loss_translation", toy_corpus.SMALL_LSTM),
}


@pytest.fixture(scope="module", params=TASKS)
def trained(request, tmp_path_factory):
    """Data, checkpoint and task of a model trained for a few epochs."""
    folder, (task, options) = tmp_path_factory.mktemp(request.param), TASKS[request.param]
    data = toy_corpus.write_corpus(folder)
    toy_corpus.train(data, folder / "run", *options, "--criterion", "cross_entropy", "--max-epoch", "4")
    return data, folder / "run" / "checkpoint_best.pt", task


def command(trained, *options):
    data, checkpoint, task = trained
    fixed = ["--user-dir", toy_corpus.USER_DIR, "--cpu", "--beam", "3"]
    if task == "direct_loss_translation":  # labels are as many as words, and their scores are not normalised
        fixed += ["--max-len-b", "12", "--unnormalized"]
    return [data, "--task", task, "--path", checkpoint, *fixed, *options]


def hypotheses(text):
    """``{sentence: (score, words)}`` of the H- lines."""
    lines = re.findall(r"^H-(\d+)\t(\S+)\t(.*)$", text, flags=re.MULTILINE)
    return {int(number): (float(score), words) for number, score, words in lines}


def generate(trained, capsys, *options):
    logging.basicConfig(level=logging.WARNING)
    toy_corpus.run("generate", *command(trained, *options))
    return hypotheses(capsys.readouterr().out)


def test_sharp_soft_beam_writes_what_the_hard_beam_writes(trained, capsys):
    hard = generate(trained, capsys)
    soft = generate(trained, capsys, "--search", "soft-beam", "--search-alpha", "1e8")
    assert len(hard) == len(soft) == 60
    same = [n for n in hard if soft[n][1] == hard[n][1] and soft[n][0] == pytest.approx(hard[n][0], abs=1e-3)]
    # Sentences with two hypotheses of nearly the same score may differ.
    assert len(same) >= 55


def test_peaked_and_smooth_searches_differ(trained, capsys):
    options = ("--search", "soft-beam", "--search-operator", "lapsum", "--search-alpha")
    smooth, sharp = (generate(trained, capsys, *options, alpha) for alpha in ("0.1", "1e6"))
    assert any(smooth[n][0] != sharp[n][0] for n in smooth)


def typed(trained, capsys, monkeypatch, *options):
    """Hypotheses of fairseq-interactive for three sentences."""
    monkeypatch.setattr("sys.stdin", io.StringIO("w1 w2 w3\nw5\nw2 w4 w1 w3\n"))
    toy_corpus.run("interactive", *command(trained, *options))
    return hypotheses(capsys.readouterr().out)


def test_scores_that_are_not_normalised(trained, capsys, monkeypatch):
    sharp = ("--search", "soft-beam", "--search-operator", "softsort", "--search-alpha", "1e8")
    sharp += ("--score-normalizer",)
    soft = {value: typed(trained, capsys, monkeypatch, *sharp, value) for value in ("0", "0.5", "1")}
    for n in range(3):
        assert len({found[n][0] for found in soft.values()}) == 3
    hard = ("--search", "beam", "--score-normalizer", "0.5")
    found = typed(trained, capsys, monkeypatch, *hard)
    assert [found[n][1] for n in range(3)] == [soft["0.5"][n][1] for n in range(3)]
    for n in range(3):
        assert found[n][0] == pytest.approx(soft["0.5"][n][0], abs=1e-3)


def test_interactive(trained, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("w1 w2 w3\nw5\n"))
    toy_corpus.run("interactive", *command(trained, "--search", "soft-beam"))
    found = hypotheses(capsys.readouterr().out)
    assert set(found) == {0, 1}


def test_refusals(trained):
    _, checkpoint, task = trained
    refused = (
        (["--path", f"{checkpoint}:{checkpoint}"], "with one model, not with an ensemble of 2"),
        (["--sampling", "--nbest", "3"], "--sampling has no meaning for"),
        (["--search-alpha", "0"], "--search-alpha 0.0 must be positive"),
        (["--score-normalizer", "-1"], "--score-normalizer -1.0 must be a number of at least 0"),
        (
            ["--score-reference", "--score-normalizer", "0"],
            "--score-normalizer 0.0 has no meaning for --score-reference",
        ),
        (["--beam", "0"], "--beam 0 must be at least 1"),
    )
    for options, message in refused if task == "sequence_tagging" else refused[:1]:
        with pytest.raises(ValueError, match=message):
            toy_corpus.run("generate", *command(trained, "--search", "soft-beam", *options))
    with pytest.raises(ValueError, match="--beam 99 is more than the"):
        toy_corpus.run("generate", *command(trained, "--search", "soft-beam", "--beam", "99"))


def close_writers():
    """fairseq keeps its writers, and with them their folder, as long as the process lives."""
    for writer in (progress_bar._tensorboard_writers or {}).values():
        writer.close()
    if progress_bar._tensorboard_writers:
        progress_bar._tensorboard_writers.clear()


def test_schedules_are_seen_in_tensorboard(tmp_path):
    close_writers()
    data = toy_corpus.write_corpus(tmp_path, sentences=10)
    options = [*toy_corpus.TAGGER, "--criterion", "soft_beam", "--max-epoch", "1", "--clip-norm", "1"]
    options += ["--tensorboard-logdir", tmp_path / "board", "--ema-decay", "0.9", "--store-ema"]
    toy_corpus.train(data, tmp_path / "run", *options)
    close_writers()
    events = b"".join(path.read_bytes() for path in (tmp_path / "board").rglob("*tfevents*"))
    for name in (b"alpha", b"beam_overlap", b"gnorm"):
        assert name in events
