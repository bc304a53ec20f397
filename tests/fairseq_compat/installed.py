"""diffdecode installed from a built distribution, in an environment of its own, without network."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
BUILD = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"


def build(kind: str, folder: Path) -> Path:
    """Build a ``wheel`` or ``editable`` wheel (PEP 517, 660) of a copy of the sources; return its path."""
    sources = folder / "sources"
    if not sources.exists():
        sources.mkdir()
        for name in ("setup.py", "pyproject.toml"):
            shutil.copy(ROOT / name, sources)
        for package in ("diffdecode", "fairseq_compat", "fairseq_plugins", "spacy_components"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / package, sources / package, ignore=ignored)
    wheels = folder / kind
    wheels.mkdir()
    command = [sys.executable, "-c", BUILD, f"build_{kind}", wheels]
    done = subprocess.run(command, cwd=sources, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{kind} could not be built:\n{done.stdout}\n{done.stderr}")
    return wheels / done.stdout.splitlines()[-1]


def install(wheel: Path, folder: Path) -> tuple[Path, Path]:
    """A new environment in ``folder`` with this wheel: its Python and its ``site-packages``.

    All other packages are taken from the running environment by a path in a ``.pth``: that does not start the
    ``.pth`` files over there, so the hook can come from nowhere but the wheel.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    (site / "others.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    return folder / "bin" / "python", site
