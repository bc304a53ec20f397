"""An output folder belongs to one process at a time, and to one set of settings."""

import contextlib
import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path

from diffdecode.files.atomic import NotWritten, read_json, write_json

LOCK, SETTINGS = ".lock", "settings.json"
WAIT_FOR_CHILDREN = 60
"""Seconds in which the children of a killed owner, which hold its lock too, may come to their end."""

_held: dict[Path, int] = {}


def claim(folder: Path, settings: Mapping[str, object]) -> None:
    """Make ``folder`` for these settings, or take it up again; it is this process's until it ends.

    Args:
        folder: an output folder, made if it is not there.
        settings: what the outputs depend on; values are compared as text.

    Raises:
        ValueError: another process works in the folder, or it was made with other settings: the message names
            those that differ.
        NotWritten: it cannot be written to.
    """
    lock(folder)
    record = folder / SETTINGS
    wanted = {name: str(value) for name, value in settings.items()}
    if not record.exists():
        write_json(record, wanted)
    before = read_json(record)
    changed = sorted(name for name in {*before, *wanted} if before.get(name) != wanted.get(name))
    if changed:
        raise ValueError(
            f"{folder} was made with another {', '.join(changed)}: remove it or name another folder"
        )


def lock(folder: Path) -> None:
    """Make ``folder`` if it is not there, and keep other processes out of it until this one ends.

    Raises:
        ValueError: another process works in it.
        NotWritten: it cannot be written to.
    """
    key = Path(os.path.realpath(folder))
    if key in _held:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise NotWritten(folder, error) from None
    if not _locked(handle):
        owner = os.read(handle, 20).decode(errors="replace")
        os.close(handle)
        raise ValueError(f"another process ({owner or 'unknown'}) works in {folder}: wait until it has ended")
    with contextlib.suppress(OSError):  # a full disk: the lock holds without the number, too
        os.truncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
    _held[key] = handle


def locks() -> tuple[int, ...]:
    """Handles of the locks held; a child that is given them keeps the folders locked while it runs."""
    return tuple(_held.values())


def _locked(handle: int) -> bool:
    """Whether the lock could be had; waits while its owner is dead, but not yet its children."""
    end = time.monotonic() + WAIT_FOR_CHILDREN
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end or _lives(os.pread(handle, 20, 0)):
                return False
            time.sleep(0.1)
        except OSError:  # a file system without locks
            return True


def _lives(number: bytes) -> bool:
    try:
        os.kill(int(number), 0)
    except ValueError:  # not written yet: its owner has only just begun
        return True
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
