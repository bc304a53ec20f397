"""The experiments of examples/papers: analytic checks, a tiny run of each, resuming, data reading."""

import gzip
import importlib
import json
import struct

import pytest
import torch

from diffdecode.categorical import sample
from examples._shared import runs as runner

EXPRESSIONS = [
    "7\t( ( ( ( [MAX 2 ) 7 ) ( ( ( [MIN 5 ) 3 ) ] ) ) ] )",
    "3\t( ( ( [MED 3 ) 3 ) ] )",
    "5\t5",
    "4\t( ( ( ( [SM 9 ) 2 ) 3 ) ] )",
]


@pytest.fixture
def scripts():
    """Import by name."""
    return lambda name: importlib.import_module(f"examples.papers.{name}")


@pytest.fixture
def listops_folder(tmp_path):
    folder = tmp_path / "listops"
    folder.mkdir()
    for name in ("train", "dev"):
        with gzip.open(folder / f"{name}.tsv.gz", "wt", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in EXPRESSIONS)
    return folder


def polynomial_gradient(script, exponent, theta, method):
    """Expected estimate for one binary variable, by enumeration, and the exact gradient."""
    mean = 0
    for outcome, prob in enumerate(theta.softmax(-1)):
        x = theta.clone().requires_grad_()
        one_hot = sample(x, method, index=torch.tensor(outcome)).one_hot
        script.polynomial(one_hot.view(1, 1, 1, 2), exponent).sum().backward()
        mean = mean + prob * x.grad
    x = theta.clone().requires_grad_()
    script.expected_loss(x.softmax(-1)[0], exponent).backward()
    return mean, x.grad


@pytest.mark.parametrize(("exponent", "loss"), [(1.5, 0.35222), (2.0, 0.24750), (3.0, 0.12130)])
def test_straight_through_stalls_at_its_fixed_point(scripts, exponent, loss):
    script = scripts("polynomial")
    assert script.st_fixed_point(exponent) == pytest.approx(loss, abs=5e-6)
    log_odds = (exponent - 1) * torch.tensor(0.45 / 0.55, dtype=torch.float64).log()
    stalled = torch.stack([log_odds, torch.zeros_like(log_odds)])
    mean, exact = polynomial_gradient(script, exponent, stalled, "st")
    assert mean.abs().max() < 1e-15
    assert exact.abs().max() > 0.01  # not an optimum
    assert script.expected_loss(stalled.softmax(-1)[0], exponent) == pytest.approx(
        script.st_fixed_point(exponent)
    )


@pytest.mark.parametrize(("exponent", "scale"), [(1.5, 0.50), (2.0, 1.0), (3.0, 1.99)])
def test_reinmax_has_the_exact_direction_on_the_polynomial(scripts, exponent, scale):
    torch.manual_seed(0)
    for theta in torch.randn(5, 2, dtype=torch.float64):
        mean, exact = polynomial_gradient(scripts("polynomial"), exponent, theta, "reinmax")
        assert mean[0] / exact[0] == pytest.approx(scale, abs=0.01)


@pytest.mark.parametrize("name", ["quadratic-2x3", "network-2x3-scale-1"])
def test_exact_gradients_of_bias_variance(scripts, name):
    """Against every outcome, weighted by hand."""
    problem = scripts("bias_variance").make_problem(name)
    theta = problem.scores.clone().requires_grad_()
    p = theta.softmax(-1)
    outcomes = torch.eye(3, dtype=torch.float64)
    total = sum(
        p[0, i] * p[1, j] * problem.loss(torch.stack([outcomes[i], outcomes[j]]))
        for i in range(3)
        for j in range(3)
    )
    total.backward()
    torch.testing.assert_close(problem.exact_gradient(), theta.grad, rtol=1e-12, atol=1e-14)


def test_bias_is_measured_within_its_error(scripts):
    script = scripts("bias_variance")
    problem = script.make_problem("quadratic-2x3")
    torch.manual_seed(0)
    for spelling in ("reinmax", "reinmax_loo", "unbiased_reinmax", "rloo,samples=2", "reinforce"):
        found = script.measure(problem, script.Method.parse(spelling), 4000)
        assert found["bias"] < 3 * found["bias_error"], spelling
    biased = script.measure(problem, script.Method.parse("st"), 4000)
    assert biased["bias"] > 3 * biased["bias_error"]


TINY = {
    "polynomial": ["--epochs", "1", "--variables", "2", "--exponents", "2"],
    "vae": ["--epochs", "1", "--latents", "3x2"],
    "bias_variance": ["--samples", "20", "--problems", "quadratic-2x3", "polynomial-2"],
    "listops": ["--epochs", "1", "--hidden", "4"],
}


@pytest.mark.parametrize("name", sorted(TINY))
def test_tiny_run_writes_table_and_plot_and_is_not_repeated(
    scripts, name, tmp_path, listops_folder, monkeypatch
):
    script = scripts(name)
    monkeypatch.setattr(scripts("polynomial"), "STEPS", 3)
    out = tmp_path / "out"
    argv = [*TINY[name], "--out", str(out), "--seeds", "2" if name == "polynomial" else "1"]
    argv += ["--data", str(listops_folder)] if name == "listops" else []
    script.main(argv)
    table = (out / "table.md").read_text("utf-8")
    for method in script.METHODS:
        assert f"| {method} " in table
    assert all(path.stat().st_size > 5000 for path in out.glob("*.png")) and list(out.glob("*.png"))
    assert not list(out.glob("*.pt")) and not list(out.glob("*.unfinished"))

    def never(*_):
        raise AssertionError("a finished cell was computed again")

    monkeypatch.setattr(script, "run_cell", never)
    script.main(argv)
    assert (out / "table.md").read_text("utf-8") == table


@pytest.mark.parametrize("name", ["polynomial", "vae", "listops"])
def test_interrupted_cell_goes_on_where_it_stopped(scripts, name, tmp_path, listops_folder, monkeypatch):
    """Same history as an uninterrupted run, to the last bit; only unfinished epochs are repeated."""
    script = scripts(name)
    monkeypatch.setattr(scripts("polynomial"), "STEPS", 3)
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", -1)
    argv = [*TINY[name], "--epochs", "4", "--seeds", "1", "--methods", "reinmax"]
    argv += ["--data", str(listops_folder)] if name == "listops" else []
    script.main([*argv, "--out", str(tmp_path / "whole")])

    epochs = runner.Checkpoint.epochs
    started = []

    def interrupted(checkpoint, count, run_epoch, **parts):
        def run(epoch):
            if epoch == 2 and len(started) == 2:
                started.append("killed")
                raise KeyboardInterrupt
            started.append(epoch)
            return run_epoch(epoch)

        return epochs(checkpoint, count, run, **parts)

    monkeypatch.setattr(runner.Checkpoint, "epochs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        script.main([*argv, "--out", str(tmp_path / "parts")])
    script.main([*argv, "--out", str(tmp_path / "parts")])
    assert started == [0, 1, "killed", 2, 3]

    def histories(folder):
        return [
            json.loads(path.read_text("utf-8"))["history"]
            for path in sorted((tmp_path / folder).glob("*=*.json"))
        ]

    assert histories("parts") == histories("whole") != []


@pytest.mark.parametrize("name", ["polynomial", "vae", "listops"])
def test_quick_needs_no_data(scripts, name, tmp_path, monkeypatch):
    monkeypatch.setattr(scripts("polynomial"), "STEPS", 3)
    scripts(name).main(["--quick", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "record.json").read_text("utf-8"))
    assert record["command"] == f"python -m examples.papers.{name} --quick"
    assert list(record["systems"]) == scripts("_estimators").QUICK


def test_generated_expressions_have_the_value_that_they_say(scripts):
    listops = scripts("listops")
    names = list(listops.TOKENS)

    def value(tokens):
        """Of the expression at the front, which is taken off."""
        first = tokens.pop(0)
        if first.isdigit():
            return int(first)
        values = []
        while tokens[0] != "]":
            values.append(value(tokens))
        tokens.pop(0)
        ordered = sorted(values)
        middle = (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) // 2
        return {"[MIN": ordered[0], "[MAX": ordered[-1], "[MED": middle, "[SM": sum(values) % 10}[first]

    found = listops.generated(40, 15, 0)
    assert found == listops.generated(40, 15, 0) and max(len(e.tokens) for e in found) <= 15
    assert all(value([names[token] for token in e.tokens]) == e.value for e in found)


def test_unknown_method_is_refused(scripts):
    with pytest.raises(ValueError, match="unknown method 'reinmix'"):
        scripts("_estimators").Method.parse("reinmix,tau=2")


def test_idx_images(scripts, tmp_path):
    vae = scripts("vae")
    pixels = bytes(range(12))
    path = tmp_path / "train-images-idx3-ubyte.gz"
    with gzip.open(path, "wb") as stream:
        stream.write(struct.pack(">4i", 2051, 2, 2, 3) + pixels)
    assert torch.equal(vae.mnist(tmp_path), torch.arange(12).view(2, 6) / 255)
    with gzip.open(path, "wb") as stream:
        stream.write(struct.pack(">4i", 2051, 2, 2, 3) + pixels[:-1])
    with pytest.raises(ValueError, match="not a complete IDX file"):
        vae.mnist(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="neither train-images"):
        vae.mnist(tmp_path)


def test_gold_merges_rebuild_the_bracketing(scripts):
    listops = scripts("listops")
    names = list(listops.TOKENS)
    for line in EXPRESSIONS:
        expression = listops.parse(line)
        nodes = [names[token] for token in expression.tokens]
        for left in expression.merges:
            nodes[left : left + 2] = [f"( {nodes[left]} {nodes[left + 1]} )"]
        assert nodes == [line.split("\t")[1]]
    with pytest.raises(ValueError, match="not a binary bracketing"):
        listops.parse("1\t( 1 2 3 )")


def test_real_listops_are_binary_bracketings(scripts, real_data):
    listops = scripts("listops")
    path = real_data / "listops" / "dev.tsv.gz"
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    assert len(listops.read(path, 10_000, 0)) == 1000
    assert len(listops.read(path, 12, 5)) == 5


def test_padding_and_finished_expressions_change_nothing(scripts):
    """Logits of a batch = logits of each expression alone."""
    listops = scripts("listops")
    torch.manual_seed(0)
    model = listops.TreeLSTM(6)
    expressions = [listops.parse(line) for line in EXPRESSIONS]
    choosers = [
        listops.fixed_chooser("gold"),
        listops.fixed_chooser("left"),
        lambda scores, _: sample(scores, "argmax_st").one_hot,
    ]
    for choose in choosers:
        (batch,) = listops.batches(expressions, 8)
        together = model(batch, choose)
        ordered = sorted(expressions, key=lambda e: len(e.tokens))
        for row, expression in zip(together, ordered, strict=True):
            (alone,) = listops.batches([expression], 1)
            torch.testing.assert_close(row, model(alone, choose)[0])


def test_score_function_counts_only_decisions_with_an_effect(scripts, monkeypatch):
    """log p of a tree: the sum over the merges of its own expression, none of the padding."""
    listops = scripts("listops")
    torch.manual_seed(0)
    model = listops.TreeLSTM(6)
    torch.nn.init.zeros_(model.score.weight)  # every merge of M nodes has probability 1 / (M - 1)
    (batch,) = listops.batches([listops.parse(line) for line in EXPRESSIONS], 8)
    seen = []
    monkeypatch.setattr(listops, "reinforce", lambda losses, log_probs: seen.append(log_probs) or losses)
    model.losses(batch, "reinforce")
    expected = [-sum(torch.arange(1, n).float().log()) for n in batch.lengths.tolist()]
    torch.testing.assert_close(seen[0][0], torch.tensor([float(e) for e in expected]))
