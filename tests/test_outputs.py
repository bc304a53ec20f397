"""Every output goes through ``diffdecode.files.atomic``; what else is written has a reason."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (
    "diffdecode",
    "fairseq_compat",
    "fairseq_plugins",
    "spacy_components",
    "examples",
    "benchmarks",
    "tools",
)
WRITERS = {"write_text", "write_bytes", "savefig", "to_disk", "dump", "copyfile", "save", "savez"}
MODES = {kind + more for kind in "wax" for more in ("", "b", "t", "+", "b+", "+b")}
ALLOWED = {
    ("fairseq_plugins/comparison/processes.py", "open"): "a log grows while it is written",
    ("spacy_components/ml/stanza/checkpoint.py", "write_bytes"): "a temporary folder",
    ("spacy_components/ml/stanza/checkpoint.py", "save"): "into memory, and into a temporary folder",
    ("spacy_components/cli/calibrate_parser.py", "to_disk"): "into an atomic folder",
    ("spacy_components/cli/calibrate_parser.py", "savefig"): "into an atomic file",
    ("spacy_components/cli/package_parser.py", "to_disk"): "into an atomic folder",
    ("spacy_components/cli/replace_parser.py", "to_disk"): "into an atomic folder",
    ("spacy_components/pipeline/listened_pipe.py", "to_disk"): "spaCy writes components",
    ("spacy_components/stanza/import_parser.py", "to_disk"): "into an atomic folder",
    ("fairseq_plugins/comparison/report.py", "savefig"): "into an atomic file",
    ("examples/_shared/pictures.py", "savefig"): "into an atomic file",
    ("examples/spacy/glove.py", "to_disk"): "into an atomic folder",
    ("examples/_shared/runs.py", "save"): "into memory",
    ("benchmarks/structure.py", "savefig"): "into an atomic file",
    ("benchmarks/gpu/report.py", "savefig"): "into an atomic file",
    ("benchmarks/top_k.py", "savefig"): "into an atomic file",
    ("benchmarks/_measure.py", "write_text"): "to the kernel",
}


def writers(tree: ast.AST) -> set[str]:
    """Names of the functions with which a module writes to files by itself."""
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = getattr(getattr(node.func, "value", None), "id", "")
        if name in WRITERS and isinstance(node.func, ast.Attribute) and owner != "atomic":
            found.add(name)
        words = [*node.args[:2], *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
        modes = {word.value for word in words if isinstance(word, ast.Constant)} & MODES
        if name == "open" and modes:
            found.add(name)
    return found


def test_finds_what_it_looks_for():
    own = "a.write_text(x)\nopen(p, 'w')\ntorch.save(x, p)"
    fine = "open(p)\ngzip.open(p, 'rt')\natomic.write_text(p, x)\nwrite_text(p, x)"
    assert writers(ast.parse(own)) == {"write_text", "open", "save"}
    assert writers(ast.parse("p.open('ab')")) == writers(ast.parse("open(p, mode='x')")) == {"open"}
    assert not writers(ast.parse(fine))


@pytest.mark.parametrize("folder", FOLDERS)
def test_outputs_go_through_the_one_writer(folder):
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in writers(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert not found - set(ALLOWED), "use diffdecode.files.atomic"
