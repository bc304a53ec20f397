"""What the README and the pages show is there: links, snippets, commands and their options."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/*/README.md")
    for path in ROOT.glob(pattern)
    if "_build" not in path.parts
)


def anchors_of(page: Path) -> set[str]:
    """The anchors that a page's headings have, on the web and in the documentation."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("http"):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file) if file else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            wrong.append(link)
    assert not wrong


def test_readme_is_short():
    assert len(README.splitlines()) <= 200


def snippet(mark: str) -> str:
    """The README's Python example that contains ``mark``."""
    (example,) = [
        code for code in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if mark in code
    ]
    return example


def test_the_librarys_example_runs():
    names = {}
    exec(compile(snippet("tree_argmax"), "README.md", "exec"), names)  # our own file
    assert names["tree"].sum(2)[:, 1:].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert (names["scores"].grad != 0).any()


def test_spacys_example_runs():
    pytest.importorskip("spacy")
    names = {}
    exec(compile(snippet("spigot_parser"), "README.md", "exec"), names)  # our own file
    assert names["losses"]["spigot_parser"] > 0
    assert names["losses"]["masked_textcat"] > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_snippets_import_what_there_is(page):
    for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []
