"""``python child.py MODULE ARGUMENTS``: ``python -m MODULE ARGUMENTS`` that ends when its parent does.

On Linux the kernel kills it with its parent. Everywhere, its standard input is a pipe that nobody writes to:
when that closes, the parent is gone. Nothing but the standard library is imported before either is in force.
"""

import atexit
import ctypes
import os
import runpy
import signal
import sys
import threading

PARENT = "DIFFDECODE_PARENT"
"""Environment variable with the number of the process that a child belongs to."""
CPU_TIME, BEGUN = "| child | CPU seconds:", "begun"
PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """From now on, killed when the parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_wait_for_end_of_input, daemon=True).start()
    if os.getppid() != int(os.environ[PARENT]):  # it was gone before this
        _die()


def _wait_for_end_of_input() -> None:
    os.read(0, 1)
    _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def tell_cpu_time() -> None:
    """Print that the command begins and, at its end, its CPU seconds."""
    print(CPU_TIME, BEGUN, flush=True)
    atexit.register(lambda: print(f"{CPU_TIME} {sum(os.times()[:4]):.1f}", flush=True))


if __name__ == "__main__":
    end_with_parent()
    tell_cpu_time()
    del sys.argv[0]
    sys.path[0] = os.getcwd()  # as for python -m
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
