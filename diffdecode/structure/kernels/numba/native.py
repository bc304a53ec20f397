"""Kernels as machine code: compiled once a machine, kept in files, and called without numba.

A file is a line of JSON about the object file that follows it. Its name is a digest of what it was compiled
from, by what, and for which processor, so that no other is ever run. Importing numba and compiling take
seconds, reading a file and linking it a few milliseconds.
"""

import ctypes
import functools
import hashlib
import importlib
import importlib.metadata
import json
import os
import struct
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np

ENTRY, ALLOCATE, RELEASE = "diffdecode_entry", "diffdecode_allocate", "diffdecode_release"
CALLED = {ALLOCATE: ctypes.pythonapi.PyMem_RawMalloc, RELEASE: ctypes.pythonapi.PyMem_RawFree}
"""What kernels call, beside the C library: for memory, and free of the interpreter lock."""

NO_MEMORY, WRONG_ARGUMENT = 1, 2
"""What ``ENTRY`` returns beside 0; ``WRONG_ARGUMENT + k`` for argument ``k``."""

HERE = Path(__file__).parent
KERNELS: dict[str, "Kernel"] = {}
"""All of them, in the order in which they were declared."""


class Kernel:
    """The kernel of a module and function, for scores of this type where there are several."""

    def __init__(self, path: str, scalar: str = ""):
        self.module, self.function = path.split(".")
        self.scalar = scalar
        self.name = f"{path}-{scalar}" if scalar else path
        self._entry: Any = None
        KERNELS[self.name] = self

    def __call__(self, *arguments: Any) -> None:
        """Run it, without the interpreter lock.

        Raises:
            TypeError: an array is not of the type, or the number of axes, that the kernel declares.
            MemoryError: there is none for the kernel.
        """
        if self._entry is None:
            self.load()
        code = self._entry(self._pack(*[id(x) if type(x) is np.ndarray else x for x in arguments]))
        if code == NO_MEMORY:
            raise MemoryError(f"no memory for the kernel {self.name}")
        if code >= WRONG_ARGUMENT:
            wrong = arguments[code - WRONG_ARGUMENT]
            raise TypeError(
                f"kernel {self.name}, argument {code - WRONG_ARGUMENT}: {wrong.dtype} array of shape "
                f"{wrong.shape} and strides {wrong.strides}"
            )

    def load(self) -> None:
        """Make it ready: from its file, or else compiled now."""
        with _lock:
            if self._entry is None:
                letters, code = read(self.name) or self.compile()
                self._pack = struct.Struct(letters).pack
                self._entry = linked(self.name, code)

    def compile(self) -> tuple[str, bytes]:
        """``struct``'s letters of its arguments, and its object file, which is kept."""
        _announce()
        module = importlib.import_module(f"{__package__}.{self.module}")
        letters, code = getattr(module, self.function).object_code(self.scalar)
        write(self.name, letters, code)
        return letters, code


_lock = threading.RLock()


def _forget_lock() -> None:
    global _lock
    _lock = threading.RLock()  # another thread may have held it when this child was forked


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forget_lock)


@functools.cache
def _announce() -> None:
    """The first call takes seconds, and nobody knows why."""
    print("diffdecode: compiling kernels, once (python -m diffdecode.compile does all)", file=sys.stderr)


# --------------------------------------------------------------------------- files


SETTINGS = "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_ENABLE_AVX", "NUMBA_OPT"
"""What a user can ask numba for that changes its code."""


def sources() -> list[Path]:
    """The files that kernels are compiled from, and by."""
    own = [path for path in sorted(HERE.glob("*.py")) if path.name != "backend.py"]
    return [*own, HERE.parent / "randomness.py", HERE.parent / "status.py"]


@functools.cache
def origin() -> str:
    """A digest of all that machine code depends on."""
    about = {
        "sources": [hashlib.sha256(source.read_bytes()).hexdigest() for source in sources()],
        "compilers": [importlib.metadata.version(name) for name in ("numba", "llvmlite")],
        "settings": [os.environ.get(name) for name in SETTINGS],
        "system": [llvm.get_process_triple(), object.__basicsize__],
        "processor": [llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()],
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def folders() -> list[Path]:
    """Where files may be, the first one that can be written before the others."""
    if "NUMBA_CACHE_DIR" in os.environ:
        return [Path(os.environ["NUMBA_CACHE_DIR"])]
    return [
        HERE / "__pycache__",
        Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "diffdecode",
    ]


def file_name(kernel: str) -> str:
    return f"{kernel}-{origin()[:32]}.native"


def read(kernel: str) -> tuple[str, bytes] | None:
    """The letters and the object file of this kernel; None if there is no file of it, or a damaged one."""
    for folder in folders():
        with suppress(OSError, ValueError):
            about, _, code = (folder / file_name(kernel)).read_bytes().partition(b"\n")
            letters = json.loads(about)["arguments"]
            if json.loads(about) == _about(kernel, letters, code):
                return letters, code
    return None


def write(kernel: str, letters: str, code: bytes) -> None:
    """Keep it in the first folder that can be written, or not at all."""
    try:
        from diffdecode.files.atomic import write_bytes
    except ImportError:  # a system without locks on files, which is Windows
        return
    about = json.dumps(_about(kernel, letters, code)).encode()
    for folder in folders():
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / file_name(kernel), about + b"\n" + code)
            return


def _about(kernel: str, letters: str, code: bytes) -> dict[str, str]:
    about = {"kernel": kernel, "origin": origin(), "arguments": letters}
    return {**about, "digest": hashlib.sha256(repr(about).encode() + code).hexdigest()}


# --------------------------------------------------------------------------- linking

_libraries: list[llvm.ResourceTracker] = []
"""Their code lives as long as they do."""


@functools.cache
def _linker() -> llvm.LLJIT:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.create_lljit_compiler(llvm.Target.from_default_triple().create_target_machine(jit=True))


def linked(kernel: str, code: bytes) -> Any:
    """``ENTRY`` of an object file, to be called with ``bytes``; ctypes lets go of the interpreter lock."""
    library = llvm.JITLibraryBuilder().add_object_img(code).add_current_process().export_symbol(ENTRY)
    for name, function in CALLED.items():
        library.import_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
    _libraries.append(library.link(_linker(), f"{kernel} {len(_libraries)}"))
    return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p)(_libraries[-1][ENTRY])
