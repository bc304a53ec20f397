"""The direct-loss beam trainer: one command, resumable, on a toy corpus."""

import json
import re
from unittest import mock

import pytest
import toy_corpus

from fairseq_plugins import train_beam
from fairseq_plugins.comparison import TrainingRun, claim
from fairseq_plugins.comparison.child import BEGUN, CPU_TIME
from fairseq_plugins.comparison.runs import continued

OPTIONS = "--arch fixed_attention_lstm_ner --cpu --dropout 0 --max-tokens 200 --num-workers 0 --seed 1"
OPTIONS += " --epochs 2 --more-epochs 1 --lr 0.005 --alpha 0.5 --wrong-label-costs O=2 --normalizers 1 0"


@pytest.mark.usefixtures("forked_commands")
def test_the_whole_procedure_and_its_resumption(tmp_path):
    data, out = toy_corpus.write_corpus(tmp_path), tmp_path / "out"
    command = [str(data), "--out", str(out), *OPTIONS.split()]
    train_beam.main(command)
    results = json.loads((out / "results.json").read_text())
    assert [row["name"] for row in results["rows"]] == [
        "cross entropy",
        "cross entropy, continued",
        "direct loss",
    ]
    headings = ["greedy", "hard beam 3", "hard beam 3, tuned lambda", "soft beam 3"]
    assert all(
        list(row["scores"]) == headings and 0 <= score[0] <= 100 and row["cpu_seconds"][0] > 0
        for row in results["rows"]
        for score in row["scores"].values()
    )
    assert all(len(chosen) == 1 and chosen[0] in (0, 1) for chosen in results["lambda"].values())
    assert len(results["lambda"]) == 3
    direct = results["rows"][2]["commands"][0]
    for flag, value in (("--wrong-label-costs", "O=2"), ("--alpha", "0.5"), ("--soft-beam-size", "3")):
        assert direct[direct.index(flag) + 1] == value
    assert (out / "curves.png").stat().st_size > 10_000
    assert "direct loss" in (out / "table.txt").read_text()

    # As if killed while the last checkpoint of the last run was being copied.
    (out / "direct" / "finished").unlink()
    (out / "direct" / "checkpoint_last.pt").write_bytes(b"half of a checkpoint")
    before = (out / "ce" / "checkpoint_last.pt").stat().st_mtime
    train_beam.main(command)
    assert json.loads((out / "results.json").read_text())["rows"][0] == results["rows"][0]
    assert (out / "ce" / "checkpoint_last.pt").stat().st_mtime == before
    assert (out / "direct" / "finished").exists()

    with pytest.raises(SystemExit, match="was made with another alpha: remove it or name another folder"):
        train_beam.main([*command, "--alpha", "0.7"])


def test_warm_start_needs_a_file(tmp_path):
    with pytest.raises(SystemExit, match=r"--warm-start .*nothing.pt is no file"):
        train_beam.main(["data", "--out", str(tmp_path), "--warm-start", str(tmp_path / "nothing.pt")])


@pytest.mark.usefixtures("forked_commands")
def test_a_failed_run_says_why(tmp_path):
    (tmp_path / "dict.words.txt").touch()
    command = [str(tmp_path), "--out", str(tmp_path / "out"), "--arch", "fixed_attention_lstm_ner"]
    with pytest.raises(SystemExit) as caught:
        train_beam.main(command)
    message = str(caught.value)
    assert "fairseq-train failed (cross entropy), see " in message and "\n" not in message
    assert re.search(r"train\.log: \w+Error: ", message)


def test_data_that_nobody_has_preprocessed_is_one_line(tmp_path):
    (tmp_path / "train.words").touch()
    for data, message in ((tmp_path / "no-data", "no folder"), (tmp_path, r"holds no dict\.\*\.txt")):
        with pytest.raises(SystemExit, match=rf"^train_beam: .*{message}.*fairseq-preprocess"):
            train_beam.main([str(data), "--out", str(tmp_path / "out"), "--arch", "x"])
    assert not (tmp_path / "out").exists()


def test_translation_decodes_for_bleu_and_options_pass_through(tmp_path):
    command = [
        "data",
        "--out",
        str(tmp_path),
        "--task",
        "direct_loss_translation",
        "--arch",
        "lstm",
        "--no-control",
    ]
    args, passed = train_beam.parser().parse_known_args([*command, "--objective", "hinge", "--hard-forward"])
    args.metric, args.more_lr = "bleu", [0.0001]
    ce, hinge = (way.runs[0] for way in train_beam.ways_for(args, passed, None))
    assert "--eval-bleu" in ce.arguments and "--hard-forward" not in ce.arguments
    assert ce.arguments[ce.arguments.index("--arch") + 1] == "lstm"
    assert hinge.name == "hinge" and "--hard-forward" in hinge.arguments
    assert hinge.arguments[hinge.arguments.index("--finetune-from-model") + 1] == str(
        tmp_path / "ce" / "checkpoint_best.pt"
    )


def ways(tmp_path, *options):
    command = ["data", "--out", str(tmp_path), *options]
    args, passed = train_beam.parser().parse_known_args(command)
    args.metric = "accuracy"
    args.more_lr = args.more_lr or [args.lr / 10]
    return args, {way.name: way for way in train_beam.ways_for(args, passed, (args.seeds or [None])[0])}


def value(run, flag):
    """The last one: fairseq takes that."""
    return run.arguments[len(run.arguments) - run.arguments[::-1].index(flag)]


def test_every_way_is_given_the_same_grid_and_rates_fall_to_0(tmp_path):
    grid = ["--more-lr", "0.002", "0.001", "--more-dropout", "0.1", "0.3", "--more-epochs", "2"]
    objectives = ["--objective", "direct", "hinge", "global", "sampling"]
    _, found = ways(tmp_path, *grid, *objectives, "--seeds", "7", "8", "--dropout", "0.2")
    continuations = [way for way in found.values() if way.start is not None]
    assert len(continuations) == 5
    given = [[(value(run, "--lr"), value(run, "--dropout")) for run in way.runs] for way in continuations]
    assert given[0] == [(lr, p) for lr in ("0.0015,0.0005", "0.00075,0.00025") for p in ("0.1", "0.3")]
    assert all(points == given[0] for points in given)
    runs = [run for way in found.values() for run in way.runs]
    assert len({run.folder for run in runs}) == len({run.name for run in runs}) == len(runs) == 21
    assert all(run.folder.parent.name == "seed7" and value(run, "--seed") == "7" for run in runs)
    assert value(found["hinge"].runs[0], "--score-normalizer") == "1"
    assert value(found["global"].runs[0], "--score-normalizer") == "0"
    assert value(found["scheduled sampling"].runs[0], "--gold-schedule") == "never"


def test_criterions_have_their_own_options_and_defaults(tmp_path):
    objectives = ["--objective", "risk", "soft_global", "minimum_risk", "--cost", "spans"]
    _, found = ways(tmp_path, *objectives, "--num-candidates", "6")
    risk, soft, minimum = (
        found[name].runs[0] for name in ("risk of the beam", "global, soft beam", "minimum risk")
    )
    assert value(risk, "--objective") == "risk" and value(risk, "--cost") == "spans"
    assert value(soft, "--score-normalizer") == "0" and "--cost" not in soft.arguments
    assert value(minimum, "--criterion") == "minimum_risk" and value(minimum, "--risk") == "hamming"
    assert value(minimum, "--num-candidates") == "6"
    assert not {"--ce-weight", "--alpha", "--cost"} & set(minimum.arguments)
    assert "--ce-weight" not in risk.arguments and "--num-candidates" not in risk.arguments
    _, found = ways(tmp_path, "--objective", "minimum_risk", "--ce-weight", "0", "--risk", "span")
    minimum = found["minimum risk"].runs[0]
    assert value(minimum, "--ce-weight") == "0" and value(minimum, "--risk") == "span"


def test_one_seed_is_fairseqs_own_option(tmp_path):
    args, found = ways(tmp_path, "--seed", "3")
    assert args.seeds is None and found["direct loss"].runs[0].folder == tmp_path / "direct"
    assert value(found["direct loss"].runs[0], "--seed") == "3"


def test_the_best_of_the_grid_is_kept(tmp_path):
    _, found = ways(tmp_path, "--more-lr", "0.002", "0.001")
    way = found["direct loss"]
    for run, accuracies in zip(way.runs, ((50, 40), (45, 51))):
        run.folder.mkdir(parents=True)
        lines = [VALID % (epoch, accuracy, epoch) for epoch, accuracy in enumerate(accuracies, 1)]
        run.log.write_text("".join(lines))
    assert way.best is way.runs[1]


VALID = (
    'a | INFO | valid | {"epoch": %d, "valid_loss": "2", "valid_accuracy": "%g", "valid_num_updates": "%d"}\n'
)


def test_equal_time_is_that_of_the_longest_and_is_decided_once(tmp_path):
    args, found = ways(tmp_path, "--objective", "direct", "global", "--more-epochs", "4")
    for name, seconds in (("cross entropy, continued", 10), ("direct loss", 25), ("global", 40)):
        run = found[name].runs[0]
        run.folder.mkdir(parents=True)
        run.log.write_text(f"{CPU_TIME} {BEGUN}\n{VALID % (1, 50, 7)}{CPU_TIME} {seconds}.0\n")
    for _ in range(2):
        way = train_beam.as_long(args, [], None, list(found.values()))
        (run,) = way.runs
        assert run.epochs == 16 and value(run, "--max-epoch") == "16" and run.folder.name == "ce_equal_time"
        assert value(run, "--lr").count(",") == 15 and value(run, "--criterion") == "cross_entropy"
        run = found["global"].runs[0]
        run.log.write_text(f"{CPU_TIME} {BEGUN}\n" + run.log.read_text())
    (tmp_path / "equal_time.json").unlink()
    with pytest.raises(ValueError, match="global was interrupted, so that its CPU time is not known"):
        train_beam.as_long(args, [], None, list(found.values()))


def test_equal_time_needs_the_control(tmp_path):
    command = ["data", "--out", str(tmp_path), "--equal-time", "--no-control"]
    with pytest.raises(SystemExit, match="--equal-time continues the control longer"):
        train_beam.main(command)


def test_curves_of_continuations_start_at_the_best_point():
    first = [
        {"epoch": 1, "updates": 10, "metric": 5.0},
        {"epoch": 2, "updates": 20, "metric": 7.0},
        {"epoch": 3, "updates": 30, "metric": 6.0},
    ]
    curve = [{"epoch": 1, "updates": 10, "metric": 8.0}]
    assert [point["updates"] for point in continued(first, curve)] == [20, 30]


def test_log_is_read_also_while_it_is_written(tmp_path):
    run = TrainingRun("x", tmp_path, [], 3, "accuracy")
    assert run.progress() == (0.0, None) and run.curve() == []
    records = [
        'a | INFO | train_inner | {"epoch": 1, "update": 0.5}',
        'a | INFO | valid | {"epoch": 1, "valid_loss": "2", "valid_accuracy": "50", '
        '"valid_num_updates": "7"}',
        'a | INFO | train | {"epoch": 1, "train_wall": "3"}',
        'a | INFO | train_inner | {"epoch": 2, "upd',
    ]
    run.log.write_text("\n".join(records))
    assert run.progress() == (1.0, 50.0)
    assert run.curve() == [{"epoch": 1, "updates": 7, "metric": 50.0, "nll": pytest.approx(1.386294)}]
    with open(run.log, "a") as log:
        log.write('ate": 1.5}\n')
    assert run.progress() == (1.5, 50.0)
    with mock.patch("json.loads", side_effect=AssertionError("what was read is not read again")):
        assert run.progress() == (1.5, 50.0)


def test_a_folder_belongs_to_its_settings(tmp_path):
    claim(tmp_path / "out", {"a": 1, "b": 2})
    claim(tmp_path / "out", {"a": 1, "b": 2})
    with pytest.raises(ValueError, match="was made with another b"):
        claim(tmp_path / "out", {"a": 1, "b": 3})


def test_help_tells_each_default_once():
    shown = train_beam.parser().format_help()
    for text in re.split(r"\n  (?=-)", shown):
        assert text.count("default:") <= 1 and "default: None" not in text and "default: False" not in text
    assert "what is trained (default: sequence_tagging)" in " ".join(shown.split())
