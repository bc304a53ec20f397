"""Where the real data is, and how its files are read."""

from __future__ import annotations

import os
from pathlib import Path

from diffdecode.files.text import numbered_lines

ROOT = Path(__file__).resolve().parents[2]


def data_folder() -> Path:
    """``$DIFFDECODE_DATA``, or ``../shared/data`` beside the checkout. It need not be there."""
    return Path(os.environ.get("DIFFDECODE_DATA", ROOT.parent / "shared" / "data"))


def data_file(name: str) -> Path:
    """A file below the data folder. Raises FileNotFoundError saying how to name the folder."""
    path = data_folder() / name
    if not data_folder().is_dir():
        raise FileNotFoundError(f"no data at {data_folder()}: set DIFFDECODE_DATA to the folder that has it")
    if not path.is_file():
        raise FileNotFoundError(f"no file {name} in {data_folder()} (set DIFFDECODE_DATA to another folder)")
    return path


def file_in(folder: Path, name: str) -> Path:
    """A file below the folder of ``--data``. Raises FileNotFoundError saying so."""
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give the folder of the data with --data")
    return path


def read_lines(folder: Path, name: str) -> list[str]:
    """Lines of the text file ``name`` or ``name.gz``, without their ends.

    Raises:
        FileNotFoundError: neither exists.
        ValueError: it is empty, is no UTF-8, or its compression is damaged; the message names it.
    """
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            lines = [line for _, line in numbered_lines(path)]
            if not lines:
                raise ValueError(f"{path} is empty")
            return lines
    raise FileNotFoundError(f"{folder / name} (or {name}.gz) does not exist: give the folder with --data")


def column_files(folder: Path) -> dict[str, Path]:
    """The column files of a folder, ``{fairseq's name of the split: file}``. Raises FileNotFoundError."""
    found = {}
    for split, name in (("train", "train"), ("valid", "dev"), ("test", "test")):
        names = [f"{name}{suffix}{packed}" for suffix in (".tsv", ".conll", ".txt") for packed in ("", ".gz")]
        existing = [folder / name for name in names if (folder / name).is_file()]
        if existing:
            found[split] = existing[0]
        elif split != "test":
            raise FileNotFoundError(f"{folder} has no {name}.tsv (nor {', '.join(names[1:])})")
    return found
