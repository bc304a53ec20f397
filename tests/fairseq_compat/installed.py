"""diffdecode installed from a built distribution, in an environment of its own, without network."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
BUILD = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"


def sources(folder: Path) -> Path:
    """A copy of the checkout without what was built or is ignored."""
    ignored = shutil.ignore_patterns(
        "__pycache__", ".*", "*.egg-info", "_build", "build", "dist", "runs", "outputs", "multirun"
    )
    return Path(shutil.copytree(ROOT, folder / "sources", ignore=ignored))


def build(kind: str, source: Path, folder: Path) -> Path:
    """Build an ``sdist``, a ``wheel`` or an ``editable`` wheel of ``source`` (PEP 517, 660); its path."""
    built = folder / kind
    built.mkdir()
    command = [sys.executable, "-c", BUILD, f"build_{kind}", built]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{kind} could not be built:\n{done.stdout}\n{done.stderr}")
    return built / done.stdout.splitlines()[-1]


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
