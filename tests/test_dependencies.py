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


def modules_of(package: str) -> dict[str, Path]:
    """All modules below a folder, by their dotted names."""
    names = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def statements_run_at_import(node: ast.AST):
    """The imports of a module that are not inside a function, nor for a type checker alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        elif not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from statements_run_at_import(child)


def imported_modules(path: Path, modules: dict[str, Path]) -> set[str]:
    """Modules among ``modules`` that importing a file names."""
    found = set()
    for statement in statements_run_at_import(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        else:
            for alias in statement.names:
                below = f"{statement.module}.{alias.name}"
                found.add(below if below in modules else statement.module)
    return found & set(modules)


def first_cycle(edges: dict[str, set[str]]) -> list[str]:
    """Modules that import each other, in order; empty if there are none."""
    finished: set[str] = set()

    def search(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in finished:
            return []
        for other in sorted(edges[module]):
            if cycle := search(other, [*path, module]):
                return cycle
        finished.add(module)
        return []

    return next((cycle for module in sorted(edges) if (cycle := search(module, []))), [])


def private_imports(name: str, path: Path) -> set[str]:
    """What a module imports of another folder that has an underscore before its name."""
    room = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for imported in names:
            hidden = any(part.startswith("_") and not part.startswith("__") for part in imported.split("."))
            if hidden and imported.split(".")[0] in MAY_NOT_IMPORT and not imported.startswith(f"{room}."):
                found.add(imported)
    return found


def test_finds_cycles_and_private_imports(tmp_path):
    assert first_cycle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert first_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    source = tmp_path / "one.py"
    source.write_text(
        "from diffdecode.x import _hidden\nfrom diffdecode.y._z import shown\nimport diffdecode.x\n"
    )
    assert private_imports("diffdecode.x.one", source) == {"diffdecode.y._z.shown"}


@pytest.mark.parametrize("package", sorted(MAY_NOT_IMPORT))
def test_no_import_cycles(package):
    modules = modules_of(package)
    edges = {name: imported_modules(path, modules) - {name} for name, path in modules.items()}
    assert first_cycle(edges) == []


@pytest.mark.parametrize("package", sorted(MAY_NOT_IMPORT))
def test_no_room_reaches_into_another(package):
    found = {
        name: private
        for name, path in modules_of(package).items()
        if (private := private_imports(name, path))
    }
    assert not found


def test_plugins_reach_structures_by_what_is_public():
    """Not into the modules of a room, but what its package offers."""
    rooms = {"trees", "graphs", "surrogates", "kernels"}
    for plugin in ("spacy_components", "fairseq_plugins"):
        for name, path in modules_of(plugin).items():
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                    "diffdecode.structure."
                ):
                    assert node.module.split(".", 2)[2] in rooms, (name, node.module)
