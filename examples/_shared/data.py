"""Where the real data is, and how its files are read."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

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


def read_lines(folder: Path, name: str) -> list[str]:
    """Lines of the text file ``name`` or ``name.gz``, without their ends.

    Raises:
        FileNotFoundError: neither exists.
        ValueError: it is empty, is no UTF-8, or its compression is damaged; the message names it.
    """
    for path, opened in ((folder / name, open), (folder / f"{name}.gz", gzip.open)):
        if path.is_file():
            try:
                with opened(path, "rt", encoding="utf-8") as file:
                    text = file.read()
            except (EOFError, gzip.BadGzipFile, UnicodeDecodeError) as error:
                raise ValueError(f"{path} cannot be read: {error}") from None
            if not text:
                raise ValueError(f"{path} is empty")
            # Not splitlines(): other tools do not end a line at a form feed or a Unicode separator.
            return text.removesuffix("\n").split("\n")
    raise FileNotFoundError(f"{folder / name} (or {name}.gz) does not exist: give the folder with --data")
