"""benchmarks/estimators.py runs, and compares what it says it compares."""

import importlib.util
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "estimators.py"


@pytest.fixture
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_of_estimators", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_prints_a_ratio_for_every_pair(benchmark, capsys):
    benchmark.main(["--shape", "4", "3", "--repeats", "2", "--skip", "gumbel_rao K=100"])
    lines = capsys.readouterr().out.splitlines()
    for method in ("st", "gumbel_soft", "st_gumbel", "gapped_st", "gumbel_rao K=10"):
        (row,) = (line for line in lines if line.startswith(f"{method} ") and "tau" not in line)
        assert float(row[len("gumbel_rao K=100") :].split()[2]) > 0
    assert not any(line.startswith("gumbel_rao K=100") for line in lines)


def test_both_of_a_pair_estimate_the_same(benchmark):
    """Mean gradients of 40,000 rows agree within their error (another loss term would not)."""
    torch.manual_seed(0)
    scores, weight = torch.randn(2, 4)
    rows = scores.expand(40_000, 4)
    for name, _, ours, public in benchmark.pairs():
        if "K=100" in name:
            continue
        grads = []
        for method in (ours, public):
            x = rows.clone().requires_grad_()
            (method(x) * weight).sum(-1).square().sum().backward()
            grads.append(x.grad)
        difference = grads[0].mean(0) - grads[1].mean(0)
        error = (grads[0].var(0) + grads[1].var(0)).div(len(rows)).sqrt()
        assert (difference.abs() < 5 * error + 1e-6).all(), name
