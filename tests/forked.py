"""Commands that run in forks of a process which has imported fairseq: a start costs next to nothing.

That process is one of its own (multiprocessing's fork server), in which no test has run. What concerns the
start itself, such as the import hook or a killed parent, is tested with real processes.
"""

import io
import multiprocessing
import os
import runpy
import sys
from pathlib import Path

from fairseq_plugins.comparison.child import BEGUN, CPU_TIME

_context = multiprocessing.get_context("forkserver")
# The last is what PyTorch imports with the first optimizer: it takes longer than a toy model's training.
_context.set_forkserver_preload(
    ["fairseq_cli.train", "fairseq_cli.generate", "fairseq_plugins", "torch._dynamo"]
)


class Forked:
    """``python -m module arguments``, or ``python file.py arguments``, with what is used of Popen.

    Args:
        module: of the command; or the path of a file.
        arguments: its command line.
        log: where its output is appended.
        folder: where it runs.
        stdin: what it can read.
    """

    def __init__(self, module: str, arguments: list[str], log: Path, folder: Path | None = None, stdin=""):
        self.stdin = io.BytesIO()
        given = (module, list(arguments), str(Path(log).absolute()), str(folder or Path.cwd()), stdin)
        self._process = _context.Process(target=_run, args=given)
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int:
        self._process.join()
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()


def _run(module, arguments, log, folder, stdin):
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", 1, closefd=False) for stream in (1, 2))
    sys.stdin = io.StringIO(stdin)
    os.chdir(folder)
    sys.argv = [module, *arguments]
    print(CPU_TIME, BEGUN)
    try:
        if module.endswith(".py"):
            runpy.run_path(module, run_name="__main__")
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        print(f"{CPU_TIME} {sum(os.times()[:4]):.1f}")
