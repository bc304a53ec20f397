"""The suite itself: nothing in it depends on how busy the machine is, or on what else uses its ports."""

import ast
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
FILES = sorted(set(TESTS.rglob("*.py")) - {Path(__file__)})


def numbers_given_to(tree: ast.AST, keyword: str) -> list[int]:
    """Lines of calls with a literal number for a keyword argument."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [
        call.lineno
        for call in calls
        for argument in call.keywords
        if argument.arg == keyword
        and isinstance(argument.value, ast.Constant)
        and argument.value.value is not None
    ]


def literal_ports(tree: ast.AST) -> list[int]:
    """Lines of strings that choose a port for torchrun."""
    strings = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return [node.lineno for node in strings if node.value in ("--master_port", "--master-port")]


def compressed_with_the_time(tree: ast.AST) -> list[int]:
    """Lines that compress with the present time in the result."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [
        call.lineno
        for call in calls
        if ast.unparse(call.func) == "gzip.compress"
        and "mtime" not in {argument.arg for argument in call.keywords}
    ]


def test_finds_what_it_looks_for():
    tree = ast.parse('run(x, timeout=3)\nrun(x, timeout=None, deadline=9)\na = ["--master_port", "29500"]')
    assert numbers_given_to(tree, "timeout") == [1] and numbers_given_to(tree, "deadline") == [2]
    assert literal_ports(tree) == [3]
    assert compressed_with_the_time(ast.parse("gzip.compress(x)\ngzip.compress(x, mtime=0)")) == [1]


@pytest.mark.parametrize(
    "path", [path for path in FILES if path != Path(__file__)], ids=lambda path: path.stem
)
def test_waits_for_busy_machines(path):
    """Time limits are those of ``patience``, examples of properties have none, ports are free ones."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not numbers_given_to(tree, "timeout"), "use patience.HANGS_AFTER"
    assert not numbers_given_to(tree, "deadline"), "examples have no deadline (conftest.py)"
    assert not literal_ports(tree), "use torch.distributed.run --standalone, which takes a free port"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_knows_no_time(path):
    """What is compressed anew gives the same bytes in every worker."""
    assert not compressed_with_the_time(ast.parse(path.read_text(encoding="utf-8"))), "say mtime=0"


def test_properties_are_quiet_and_repeatable():
    assert settings.default.deadline is None
    assert settings.default.derandomize or settings.get_current_profile_name() == "explore"


def test_modules_of_tests_have_names_of_their_own():
    """pytest imports them by their last names: of two equal ones only one is run."""
    names = [path.name for path in FILES if path.name != "__init__.py"]
    assert sorted(set(names)) == sorted(names)
