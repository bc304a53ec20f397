"""An output folder belongs to one set of settings: only the same command goes on where it stopped."""

import json
from pathlib import Path


def claim(folder: Path, settings: dict) -> None:
    """Make ``folder`` for these settings, or take it up again.

    Raises:
        ValueError: the folder was made with others; the message names those that differ.
    """
    record = folder / "settings.json"
    settings = {name: str(value) for name, value in settings.items()}
    if record.exists():
        before = json.loads(record.read_text(encoding="utf-8"))
        changed = sorted(name for name in {*before, *settings} if before.get(name) != settings.get(name))
        if changed:
            raise ValueError(
                f"{folder} was made with another {', '.join(changed)}: remove it or name another folder"
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(record, json.dumps(settings, indent=1) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is either whole or not there, whenever the process is killed."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
