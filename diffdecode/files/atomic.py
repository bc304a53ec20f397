"""How every output is written: beside its place, forced to the disk, then renamed into it.

Whenever the process is killed or the disk is full, an output is either whole or as it was before. What a
killed writer leaves is named ``.NAME.<random>.unfinished``, so that nothing takes it for a result, and the
next writer of the same output removes it: a living writer holds a lock on its own.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class NotWritten(OSError):
    """An output could not be written; its text is one line, with the output's own name."""

    def __init__(self, path: Path, error: OSError):
        super().__init__(error.errno, error.strerror, str(path))

    def __str__(self) -> str:
        state = "what was there is unchanged" if os.path.lexists(self.filename) else "nothing was written"
        return f"cannot write {self.filename}: {self.strerror} ({state})"


def write_text(path: str | Path, text: str, *, newline: str | None = None) -> None:
    """Write a text in UTF-8. Raises NotWritten."""
    with atomic_write(path, newline=newline) as file:
        file.write(text)


def write_bytes(path: str | Path, content: bytes | memoryview) -> None:
    """Write bytes. Raises NotWritten."""
    with atomic_write(path, "wb") as file:
        file.write(content)


def write_json(path: str | Path, content: Any, *, indent: int | None = 1) -> None:
    """Write JSON and a newline. Raises NotWritten, and TypeError for what JSON cannot express."""
    write_text(path, json.dumps(content, indent=indent) + "\n")


def read_json(path: str | Path) -> Any:
    """What :func:`write_json` wrote. Raises ValueError with the file's name if it is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): remove it") from None


@contextlib.contextmanager
def atomic_write(
    path: str | Path, mode: str = "w", *, encoding: str | None = None, newline: str | None = None
) -> Iterator[IO[Any]]:
    """A file to write to, which becomes ``path`` when the block ends without an error.

    Args:
        path: the output. Its folder must exist; a link is followed; its permissions are kept. A device or a
            pipe, such as ``/dev/stdout``, is written to directly.
        mode: "w" or "wb".
        encoding: of text; UTF-8 by default.
        newline: as for :func:`open`.

    Raises:
        NotWritten: it cannot be written, or the disk is full; ``path`` is as before.
    """
    text: dict[str, Any] = {} if "b" in mode else {"encoding": encoding or "utf-8", "newline": newline}
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        with open(path, mode, **text) as file:
            yield file
        return
    with atomic_path(path) as part, open(part, mode, **text) as file:
        yield file


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """As :func:`atomic_write`, for writers that open a file by its name; that name has another ending."""
    final = Path(os.path.realpath(path))
    if final.is_dir():
        raise NotWritten(final, _os_error(errno.EISDIR))
    if final.exists() and not os.access(final, os.W_OK):  # a rename would not ask
        raise NotWritten(final, _os_error(errno.EACCES))
    with _unfinished(final, _create_file) as part:
        yield part
        with _reported(final):
            _to_disk(part)
            if final.exists():
                shutil.copymode(final, part)
            os.replace(part, final)
            _to_disk(final.parent)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes ``path``, in place of what is there, when the block ends.

    Raises:
        NotWritten: it cannot be written, or the disk is full; ``path`` is as before.
    """
    final = Path(os.path.realpath(path))
    _put_back(final)
    if final.exists() and not final.is_dir():
        raise NotWritten(final, _os_error(errno.ENOTDIR))
    with _unfinished(final, os.mkdir) as part:
        yield part
        with _reported(final):
            for folder, _, names in os.walk(part):
                for name in names:
                    _to_disk(Path(folder, name))
                _to_disk(Path(folder))
            _exchange(part, final)
            _to_disk(final.parent)


def remove_unfinished(path: str | Path) -> None:
    """Remove what killed writers of ``path`` left beside it; what a living one writes to is let alone."""
    final = Path(os.path.realpath(path))
    for part in _siblings(final, "unfinished"):
        with contextlib.suppress(OSError):  # another process was quicker, or the file system has no locks
            lock = os.open(part, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(part)
            finally:
                os.close(lock)


@contextlib.contextmanager
def _unfinished(final: Path, create: Callable[[Path], object]) -> Iterator[Path]:
    """A new name beside ``final``, locked while the block runs and gone after it."""
    with _reported(final):
        remove_unfinished(final)
        part, lock = _created_and_locked(final, create)
    try:
        yield part
    except OSError as error:
        if error.errno in FULL and not isinstance(error, NotWritten):
            raise NotWritten(final, error) from None
        raise
    finally:
        _remove(part)
        os.close(lock)


def _created_and_locked(final: Path, create: Callable[[Path], object]) -> tuple[Path, int]:
    while True:
        part = final.with_name(f".{final.name}.{secrets.token_hex(4)}.unfinished")
        create(part)
        try:
            lock = os.open(part, os.O_RDONLY)
        except FileNotFoundError:  # another writer took it for a dead one's before it was locked
            continue
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if part.exists():
            return part, lock
        os.close(lock)


def _create_file(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))


@contextlib.contextmanager
def _reported(final: Path) -> Iterator[None]:
    """Errors of the block are about the output, not about the name that it has meanwhile."""
    try:
        yield
    except NotWritten:
        raise
    except OSError as error:
        raise NotWritten(final, error) from None


def _siblings(final: Path, ending: str) -> list[Path]:
    try:
        names = os.listdir(final.parent)
    except OSError:
        return []
    start, end = f".{final.name}.", f".{ending}"
    # The random part has no dot: unfinished files of "a.b" are none of "a".
    return [
        final.parent / name
        for name in names
        if name.startswith(start) and name.endswith(end) and "." not in name[len(start) : -len(end)]
    ]


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot, for folders
            raise
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _exchange(part: Path, final: Path) -> None:
    """Give ``part`` the name ``final``; what had that name is removed."""
    if not final.exists():
        os.rename(part, final)
    elif not _swap(part, final):
        # Without a swap there is a moment with neither; the next writer puts the previous one back.
        previous = part.with_suffix(".previous")
        os.rename(final, previous)
        os.rename(part, final)
        _remove(previous)


def _put_back(final: Path) -> None:
    for previous in _siblings(final, "previous"):
        if final.exists():
            _remove(previous)
        else:
            os.rename(previous, final)


def _swap(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    a, b = os.fsencode(one), os.fsencode(other)
    here, swap = -100, 2  # AT_FDCWD; RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
    if sys.platform == "linux" and hasattr(libc, "renameat2"):
        return libc.renameat2(here, a, here, b, ctypes.c_uint(swap)) == 0
    if sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        return libc.renamex_np(a, b, ctypes.c_uint(swap)) == 0
    return False
