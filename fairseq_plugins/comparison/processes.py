"""Commands in processes of their own, which end when this one does, however it ends (see ``child.py``)."""

import os
import subprocess
import sys
from pathlib import Path

from diffdecode.files.claim import locks
from fairseq_plugins.comparison.child import PARENT

CHILD = Path(__file__).with_name("child.py")


def start(module: str, arguments: list[str], log: Path) -> subprocess.Popen:
    """Start ``python -m module *arguments``.

    Args:
        module: what to run.
        arguments: its command line.
        log: where its output is appended, from the start of a line.

    Returns:
        The process. It holds this one's folders locked, and is killed when this one ends.
    """
    command = [sys.executable, str(CHILD), module, *arguments]
    with open(log, "a+b") as output:
        if output.tell() and os.pread(output.fileno(), 1, output.tell() - 1) != b"\n":
            output.write(b"\n")  # an earlier process was killed within a line
            output.flush()
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closes when this process ends
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(),
            pass_fds=locks(),
        )


def stop(process: subprocess.Popen) -> None:
    """End a process, if it has not ended yet."""
    process.terminate()
    process.wait()
    process.stdin.close()


def end_of(log: Path, lines: int = 12) -> str:
    """The last lines of a log; where an option or the data was refused, the reason alone."""
    last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    reasons = [i for i, line in enumerate(last) if line.startswith(("ValueError: ", "FileNotFoundError: "))]
    return "\n".join(last[reasons[-1] :] if reasons else last)


def _environment() -> dict[str, str]:
    """That of a command which shares the machine with others."""
    return {"OMP_NUM_THREADS": "1", **os.environ, PARENT: str(os.getpid())}
