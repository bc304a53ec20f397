"""Sdist and wheel hold what they should; a wheel works alone and brings the import hook along."""

import re
import subprocess
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from installed import ROOT, build, install, sources

import diffdecode

HOOKED = "any(finder.__name__ == 'FairseqFinder' for finder in sys.meta_path if isinstance(finder, type))"
LIGHT = "not {'torch', 'numpy', 'fairseq', 'diffdecode', 'fairseq_plugins'} & set(sys.modules)"
PACKAGES = {"diffdecode", "fairseq_compat", "fairseq_plugins", "spacy_components"}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    archive = build("sdist", sources(folder), folder)
    with tarfile.open(archive) as file:
        file.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return unpacked


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> Path:
    """A wheel made from the source distribution."""
    return build("wheel", sdist, tmp_path_factory.mktemp("wheel"))


def files_below(folder: Path) -> set[str]:
    """Paths of all files that are part of the project."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not {"__pycache__", "_build"} & set(path.parts)
    }


def test_sdist_is_what_it_takes_to_test_document_and_measure(sdist):
    for name in ("tests", "docs", "examples", "benchmarks", "tools", *PACKAGES):
        assert files_below(sdist / name) == files_below(ROOT / name), name
    top = {path.name for path in sdist.iterdir() if path.is_file()}
    pages = {"CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "README.md"}
    assert pages | {"Makefile", "constraints.txt", "pyproject.toml", "setup.py"} <= top


def test_wheel_is_the_packages_alone(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"{package}/{file}" for package in PACKAGES for file in files_below(ROOT / package)}
    assert expected <= names, "a file that is no Python has to be named in [tool.setuptools.package-data]"
    others = {name.split("/")[0] for name in names - expected}
    assert others == {"diffdecode-fairseq.pth", f"diffdecode-{diffdecode.__version__}.dist-info"}


def test_metadata(wheel):
    with zipfile.ZipFile(wheel) as file:
        (name,) = [name for name in file.namelist() if name.endswith("METADATA")]
        metadata = Parser().parsestr(file.read(name).decode())
    assert metadata["Version"] == diffdecode.__version__
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert f'version: "{diffdecode.__version__}"' in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_hook_is_installed(kind, sdist, wheel, tmp_path):
    wheel = wheel if kind == "wheel" else build("editable", sdist, tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    record = next(name for name in names if name.endswith("RECORD"))
    assert "diffdecode-fairseq.pth," in zipfile.ZipFile(wheel).read(record).decode(), "not uninstalled"

    python, _ = install(wheel, tmp_path / "environment")
    for switch, hooked in (("", "True"), ("1", "False")):
        run = subprocess.run(
            [python, "-c", f"import sys; print({HOOKED}, {LIGHT})"],
            env={"DIFFDECODE_NO_FAIRSEQ_COMPAT": switch},
            cwd=tmp_path / "environment",
            capture_output=True,
            text=True,
        )
        assert run.stdout.split() == [hooked, "True"], run.stderr
        assert not run.stderr


def test_the_readmes_example_runs_from_a_wheel(wheel, tmp_path):
    python, site = install(wheel, tmp_path / "environment")
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (example,) = [code for code in examples if "tree_argmax" in code]
    code = f"{example}\nimport diffdecode; print(diffdecode.__file__, (scores.grad != 0).any())"
    run = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    path, gradient = run.stdout.split()
    assert Path(path).is_relative_to(site)
    assert gradient == "tensor(True)"
