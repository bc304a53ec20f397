"""The notebooks of the documentation run, in their quick setting."""

import os
from pathlib import Path

import pytest
from patience import HANGS_AFTER

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, monkeypatch):
    monkeypatch.setenv("DIFFDECODE_QUICK", "1")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.delenv("MPLBACKEND", raising=False)  # pictures go into the notebook
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(notebook, timeout=HANGS_AFTER, resources=resources).execute(env=dict(os.environ))
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert pictures


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} == {"joint_training", "tree_layer"}
