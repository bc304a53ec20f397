"""The directions in which the packages may know each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FRAMEWORKS = {"fairseq", "fairseq_cli", "spacy", "thinc", "stanza"}
MAY_NOT_IMPORT = {
    "diffdecode": FRAMEWORKS | {"fairseq_plugins", "spacy_components", "fairseq_compat"},
    "fairseq_compat": {"spacy", "thinc", "stanza", "diffdecode", "fairseq_plugins", "spacy_components"},
    "fairseq_plugins": {"spacy", "thinc", "stanza", "spacy_components"},
    "spacy_components": {"fairseq", "fairseq_cli", "fairseq_plugins", "fairseq_compat"},
}


def imported_packages(path: Path) -> set[str]:
    """Top-level names of every absolute import in a file, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_reads_every_form_of_import(tmp_path):
    source = tmp_path / "module.py"
    source.write_text(
        "import os.path\ndef f():\n    from fairseq.data import Dictionary\n    from . import x\n"
    )
    assert imported_packages(source) == {"os", "fairseq"}


@pytest.mark.parametrize("package", sorted(MAY_NOT_IMPORT))
def test_dependencies_run_one_way(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {
        str(path.relative_to(ROOT)): found
        for path in files
        if (found := imported_packages(path) & MAY_NOT_IMPORT[package])
    }
    assert not wrong
