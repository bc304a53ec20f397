"""benchmarks/estimators.py runs, and compares what it says it compares."""

import torch

from benchmarks import estimators as benchmark


def test_prints_a_ratio_for_every_pair(capsys):
    benchmark.main(["--shape", "4", "3", "--repeats", "2"])
    lines = capsys.readouterr().out.splitlines()
    for method, *_ in benchmark.pairs():
        (row,) = (line for line in lines if line.startswith(f"{method:18}"))
        ours, public, ratio = map(float, row[18:].split()[:3])
        assert ours > 0 and public > 0 and ratio > 0


def test_both_of_a_pair_estimate_the_same():
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
