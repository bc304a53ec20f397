"""Commands in processes of their own, which end when this one does, however it ends (see ``child.py``)."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from shutil import disk_usage

from diffdecode.files.claim import locks
from fairseq_plugins.comparison.child import CPU_TIME, PARENT

REFUSAL = re.compile(r"(Value|Assertion|OS|FileNotFound|Permission)Error: |\S+: error: |.*No module named")
"""What begins the reason where an option or the data was refused; a fault of ours keeps its traceback."""
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


def failure(what: str, log: Path) -> RuntimeError:
    """What to raise for a process that failed: why, if it refused something, else the end of its log.

    Args:
        what: has failed, as in "fairseq-train failed".
        log: what the process printed.
    """
    printed = log.read_text(encoding="utf-8", errors="replace").splitlines()
    lines = [line for line in printed if not line.startswith(CPU_TIME)]  # is no reason, and comes last
    # The line that says so may have found no room itself.
    if any(os.strerror(errno.ENOSPC) in line for line in lines[-100:]) or not disk_usage(log.parent).free:
        return RuntimeError(
            f"{what}: no space left for {log.parent}; make room, and the same command goes on from what it "
            "has saved"
        )
    last = lines[-12:]
    reasons = [i for i, line in enumerate(last) if REFUSAL.match(line)]
    if reasons:
        return RuntimeError("\n".join([f"{what}, see {log}: {last[reasons[-1]]}", *last[reasons[-1] + 1 :]]))
    return RuntimeError("\n".join([f"{what}, see {log}:", *last]))


def _environment() -> dict[str, str]:
    """That of a command which shares the machine with others."""
    return {"OMP_NUM_THREADS": "1", **os.environ, PARENT: str(os.getpid())}
