"""What the recipes share: data, runs, errors in one line; and that they share nothing else."""

import ast
import errno
import gzip
import importlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from thinc.api import NumpyOps, get_current_ops

from diffdecode.files.atomic import NotWritten
from examples._shared import data, runs, spacy_training
from examples._shared.commands import device, one_line_errors
from examples._shared.tables import markdown_table, save_table

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
RECIPES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir() and not path.name.startswith("_"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_recipe_imports_another(recipe):
    others = {f"examples.{name}" for name in RECIPES if name != recipe}
    for path in (EXAMPLES / recipe).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            assert not any(".".join(name.split(".")[:2]) in others for name in names), path


def test_lines_are_cut_where_other_tools_cut_them(tmp_path):
    with gzip.open(tmp_path / "a.gz", "wt", encoding="utf-8") as file:
        file.write("x\u2028y\x0cz\n\nb\x85\n")
    assert data.read_lines(tmp_path, "a") == ["x\u2028y\x0cz", "", "b\x85"]


@pytest.mark.parametrize("damage", ["missing", "empty", "not UTF-8", "no gzip", "half a gzip"])
def test_files_that_cannot_be_read_are_named(tmp_path, damage, capsys):
    if damage == "empty":
        (tmp_path / "a").touch()
    elif damage == "not UTF-8":
        (tmp_path / "a").write_bytes(b"ab\xff\n")
    elif damage == "no gzip":
        (tmp_path / "a.gz").write_bytes(b"text")
    elif damage == "half a gzip":
        (tmp_path / "a.gz").write_bytes(gzip.compress(os.urandom(500), mtime=0)[:200])
    with pytest.raises(SystemExit) as caught, one_line_errors("recipe"):
        data.read_lines(tmp_path, "a")
    line = str(caught.value)
    assert line.startswith(f"recipe: {tmp_path}/a") and "\n" not in line


def test_missing_data_says_how_to_name_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFDECODE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="set DIFFDECODE_DATA to the folder that has it"):
        data.data_file("a/b")
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no file a/b in .*nowhere"):
        data.data_file("a/b")


COMMANDS = {
    "examples.tagging.demo": "demo",
    "examples.papers.supertagging": "supertagging",
    "examples.papers.translation": "translation",
    "examples.papers.listops": "listops",
    "examples.spacy.freda": "freda",
    "examples.spacy.parse_dm": "parse_dm",
    "examples.spacy.parse_ud": "parse_ud",
    "examples.papers.sentiment": "sentiment",
    "examples.papers.syntax_semantics": "syntax_semantics",
    "examples.papers.tree_sentiment": "tree_sentiment",
    "examples.papers.teach_parser.__main__": "teach_parser",
}


@pytest.mark.parametrize("module", sorted(COMMANDS))
def test_a_recipe_without_its_data_is_one_line(tmp_path, monkeypatch, module):
    """Also one whose output folder cannot be made."""

    main = importlib.import_module(module).main
    monkeypatch.setenv("DIFFDECODE_DATA", str(tmp_path / "nowhere"))
    options = ["--data", str(tmp_path / "nowhere")] if "spacy" not in module else []
    with pytest.raises(SystemExit) as caught:
        main([*options, "--out", str(tmp_path / "out")])
    line = str(caught.value)
    assert line.startswith(f"{COMMANDS[module]}: ") and "nowhere" in line and "\n" not in line
    if "spacy" not in module:
        (tmp_path / "file").touch()
        message = rf"^{COMMANDS[module]}: cannot write .*file/out: Not a directory"
        with pytest.raises(SystemExit, match=message):
            main(["--out", str(tmp_path / "file" / "out")])


def test_matrices_are_multiplied_by_numpy_inside_only():
    before = get_current_ops()
    with spacy_training.numpy_products("cpu"):
        inside = get_current_ops()
        assert isinstance(inside, NumpyOps) and not inside.use_blis
    assert get_current_ops() is before


def test_an_error_of_ours_keeps_its_traceback():
    with pytest.raises(KeyError), one_line_errors("recipe"):
        raise KeyError("a fault in the code")


def test_work_is_done_once_for_its_settings(tmp_path):
    done = []

    def work():
        done.append(len(done))
        return {"number": done[-1], "pair": (1, 2)}

    for settings, number in (({"a": 1}, 0), ({"a": 1}, 0), ({"a": 2}, 1), ({"a": 1}, 2)):
        assert runs.done_once(tmp_path / "r.json", settings, work) == {"number": number, "pair": [1, 2]}
    (tmp_path / "r.json").write_text('{"sett')
    with pytest.raises(ValueError, match=r"r\.json is damaged"):
        runs.done_once(tmp_path / "r.json", {"a": 1}, work)


def test_damaged_cells_name_their_file(tmp_path):
    cell = {"method": "st", "seed": 0}
    path = tmp_path / f"{runs.file_name(cell)}.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"\.json is damaged"):
        runs.run_grid(tmp_path, [cell], lambda *_: {})
    path.unlink()
    path.with_suffix(".pt").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"\.pt is damaged \(.*\): remove it"):
        runs.run_grid(tmp_path, [cell], lambda cell, checkpoint: {"h": checkpoint.epochs(1, float)})


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    """Of a cell: the checkpoint of the epoch before can be read, and the error is one line."""
    layer = torch.nn.Linear(100, 100)
    checkpoint = runs.Checkpoint(tmp_path / "cell.pt")
    checkpoint._save({"layer": layer}, [1.0])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(NotWritten, match=r"cannot write .*cell\.pt: File too large \(what was there is"):
            checkpoint._save({"layer": layer}, [1.0, 2.0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert runs.Checkpoint(tmp_path / "cell.pt")._restore({"layer": layer}) == [1.0]
    assert [path.name for path in tmp_path.iterdir()] == ["cell.pt"]


def test_a_pipeline_whose_training_was_killed_is_none(tmp_path):
    with pytest.raises(ValueError, match="no pipeline in"):
        spacy_training.whole_pipeline(tmp_path / "model-best")
    (tmp_path / "model-best").mkdir()
    (tmp_path / "model-best" / "config.cfg").touch()
    assert spacy_training.whole_pipeline(tmp_path / "model-best") == tmp_path / "model-best"
    (tmp_path / spacy_training.UNFINISHED).touch()
    with pytest.raises(ValueError, match=r"training of .*model-best was interrupted: run its command again"):
        spacy_training.whole_pipeline(tmp_path / "model-best")


def test_a_full_disk_in_a_training_names_the_folder(tmp_path, monkeypatch):
    def full(nlp, folder, **streams):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spacy_training, "train", full)
    with pytest.raises(OSError, match=rf"cannot write to {tmp_path}: No space left on device\. Its training"):
        spacy_training._train(None, tmp_path)
    (tmp_path / "model-best").mkdir()
    (tmp_path / "model-best" / "config.cfg").touch()
    with pytest.raises(ValueError, match="was interrupted: run its command again"):
        spacy_training.whole_pipeline(tmp_path / "model-best")


def test_tables_can_be_read_in_their_source(tmp_path, capsys):
    assert markdown_table(["a", "bb"], [["ccc", "d"]]) == "| a   | bb |\n| --- | -- |\n| ccc | d  |"
    save_table(tmp_path / "t.md", "Caption.", ["a"], [["b"]])
    assert (tmp_path / "t.md").read_text() == "Caption.\n\n| a |\n| - |\n| b |\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_devices():
    assert device("auto") == device("cpu") == "cpu"
    with pytest.raises(ValueError, match="--device cuda: PyTorch finds no GPU here"):
        device("cuda")


def test_benchmarks_run_and_are_described():
    """``make bench`` runs every benchmark, and every one is in the page about them."""
    names = {path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py")}
    shown = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert all(name in shown for name in names)
    assert "-m benchmarks $(BENCH)\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    assert not [name for name in names if f"benchmarks.{name}" not in pages]


@pytest.mark.parametrize(
    "module",
    [
        *sorted(COMMANDS),
        "examples.spacy.demo",
        "examples.spacy.transformer",
        "examples.finetune_stanza.__main__",
    ]
    + [f"examples.papers.{name}" for name in ("polynomial", "vae", "bias_variance")],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_every_recipe_takes_a_device(module, tmp_path, capsys):
    pytest.importorskip("stanza" if "stanza" in module else "torch")
    main = importlib.import_module(module).main
    with pytest.raises(SystemExit, match=r"^\w+: --device cuda: PyTorch finds no GPU here$"):
        main(["--device", "cuda", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
