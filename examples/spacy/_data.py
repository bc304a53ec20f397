"""Where the real data is, and its conversion to spaCy's format (done once per output folder)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from spacy_components.cli.convert_sdp import convert, summary

ROOT = Path(__file__).resolve().parents[2]


def data_folder() -> Path:
    """``$DIFFDECODE_DATA``, or ``../shared/data`` beside the checkout. Raises FileNotFoundError."""
    folder = Path(os.environ.get("DIFFDECODE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        raise FileNotFoundError(f"no data at {folder}: set DIFFDECODE_DATA to the folder that has it")
    return folder


def converted(source: str, target: Path, **options: Any) -> str:
    """The path of ``source`` (below the data folder) as a .spacy file, made if it is not there."""
    if not target.exists():
        print(f"{target}: {summary(convert(data_folder() / source, target, **options))}")
    return str(target)
