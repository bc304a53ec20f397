"""The worked examples of docs/extending.md work."""

import re
from pathlib import Path

import pytest
import torch

from diffdecode.categorical import ESTIMATORS, TOP_K_OPERATORS
from diffdecode.structure import SURROGATES

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE))


@pytest.fixture
def example(request, monkeypatch):
    """The names that a section's code defines; what it registers is forgotten afterwards."""
    for registry in (ESTIMATORS, TOP_K_OPERATORS, SURROGATES):
        if hasattr(registry, "_members"):
            monkeypatch.setattr(registry, "_members", dict(registry._members))
    torch.manual_seed(0)
    names = {"__name__": "example"}
    for code in re.findall(r"```python\n(.*?)```", SECTIONS[request.param], flags=re.DOTALL):
        exec(compile(code, f"docs/extending.md, {request.param}", "exec"), names)  # our own file
    return names


@pytest.mark.parametrize("example", ["A surrogate"], indirect=True)
def test_a_surrogate(example):
    scores, z = example["scores"], example["z"]
    weights = torch.randn_like(z)
    (z * weights).sum().backward()
    possible = (scores.grad != 0).float()
    torch.testing.assert_close(scores.grad, 0.1 * weights * possible)
    assert possible.sum() == 5 * 5 + 3 * 3


@pytest.mark.parametrize("example", ["An estimator"], indirect=True)
def test_an_estimator(example):
    weights = torch.randn(4, 10)
    (example["one_hot"] * weights).sum().backward()
    torch.testing.assert_close(example["logits"].grad, weights)


@pytest.mark.parametrize("example", ["A top-k operator"], indirect=True)
def test_a_top_k_operator(example):
    rows = example["rows"]
    torch.testing.assert_close(rows.sum(2), torch.ones(2, 3))
    masked = torch.tensor([[1.0, -torch.inf, 0.5, 0.0]], requires_grad=True)
    weights = example["scaled_peaked"](masked, 2, 3.0)
    weights[0, 1, 0].backward()
    assert not weights[0, :, 1].any()
    assert masked.grad.isfinite().all()
    assert masked.grad[0, 1] == 0


@pytest.mark.parametrize("example", ["A decoder"], indirect=True)
def test_a_decoder(example):
    assert (example["decoder"].output.weight.grad != 0).any()
    assert example["beam"].costs.shape == (2, 3)


@pytest.mark.parametrize("example", ["A parser for spaCy"], indirect=True)
def test_a_parser_for_spacy(example):
    from spacy.training import Example

    nlp = example["nlp"]
    tree = {"heads": [1, 1, 1], "deps": ["nsubj", "ROOT", "obj"]}
    gold = [Example.from_dict(nlp.make_doc("She praises books"), tree)]
    nlp.initialize(lambda: gold)
    for _ in range(60):
        nlp.update(gold)
    assert [word.head.i for word in nlp("She praises books")] == tree["heads"]
