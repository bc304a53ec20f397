"""Docstrings say what is needed: shapes of tensors, and the errors that are raised."""

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffdecode.categorical import ESTIMATORS, TOP_K_OPERATORS

PACKAGES = (
    "diffdecode.categorical",
    "diffdecode.categorical.estimators",
    "diffdecode.categorical.top_k",
    "diffdecode.sequence",
    "diffdecode.structure",
)
ROOT = Path(__file__).resolve().parents[1]
CHECKS = re.compile(r"_?(check|require|checked)(_\w+)?$")
SHAPE = re.compile(r"\[[^\]]*\]")


def exported() -> Iterator[tuple[str, object]]:
    """Functions and classes that the packages offer, and the public methods of the classes."""
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            member = getattr(module, name)
            if inspect.isclass(member):
                yield f"{package}.{name}", member
                for method, function in vars(member).items():
                    if inspect.isfunction(function) and not method.startswith("_"):
                        yield f"{package}.{name}.{method}", function
            elif inspect.isfunction(member):
                yield f"{package}.{name}", member


EXPORTED = dict(exported())
EXPORTED |= {f"estimator {name}": estimator.function for name, estimator in ESTIMATORS.items()}
EXPORTED |= {f"operator {name}": operator.rows for name, operator in TOP_K_OPERATORS.items()}
FUNCTIONS = {name: member for name, member in EXPORTED.items() if inspect.isfunction(member)}


def missing(function, docstring: str) -> list[str]:
    """What a docstring leaves out about a function."""
    wanting = []
    source = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raised = {
        node.exc.func.id
        for node in ast.walk(source)
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
    } - {"NotImplementedError"}
    called = {
        node.func.id
        for node in ast.walk(source)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and CHECKS.match(node.func.id)
    }
    if (raised or called) and "Raises:" not in docstring:
        wanting.append("Raises: " + ", ".join(sorted(raised | called)))
    for error in raised:
        if "Raises:" in docstring and error not in docstring:
            wanting.append(f"Raises: {error}")
    tensors = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if re.match(
            r"(torch\.)?Tensor\b", str(parameter.annotation).replace("<class 'torch.Tensor'>", "Tensor")
        )
    ]
    wanting += [f"what {name} is" for name in tensors if not re.search(rf"\b{name}\b", docstring)]
    if tensors and not SHAPE.search(docstring) and ":func:" not in docstring:
        wanting.append("shapes")
    return wanting


@pytest.mark.parametrize("name", EXPORTED)
def test_there_is_a_docstring(name):
    assert inspect.getdoc(EXPORTED[name]), name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_shapes_and_errors_are_documented(name):
    assert not missing(FUNCTIONS[name], inspect.getdoc(FUNCTIONS[name]))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_are_typed(name):
    signature = inspect.signature(FUNCTIONS[name])
    untyped = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.annotation is parameter.empty and parameter.name not in ("self", "cls")
    ]
    assert not untyped
    assert signature.return_annotation is not signature.empty


def test_a_poor_docstring_is_found():
    def poor(scores: "Tensor"):  # noqa: F821
        if scores is None:
            raise ValueError("no scores")

    assert missing(poor, "Does something.") == ["Raises: ValueError", "what scores is", "shapes"]


def test_docstrings_have_one_style():
    """Sections in Google style: no ``name (type): meaning`` and no ``RETURNS (type)``, as spaCy has them."""
    other = re.compile(
        r"^ *(\w+ \((str|int|float|bool|[A-Z]\w*(\[.*\])?)\): |.*\b(RETURNS|YIELDS) \()", flags=re.MULTILINE
    )
    packages = (
        "diffdecode",
        "fairseq_compat",
        "fairseq_plugins",
        "spacy_components",
        "examples",
        "benchmarks",
    )
    wrong = []
    for path in (file for package in packages for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and other.search(
                ast.get_docstring(node) or ""
            ):
                wrong.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert not wrong
