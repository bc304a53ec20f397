"""How kernels are compiled: decorators for those that Python calls and for the parts they are made of.

A kernel is translated to machine code once a machine, and kept in numba's cache. Its parts are linked into
it as LLVM's intermediate code, and optimised and translated there: numba would do that for each part too,
for code that nobody calls. Reading a kernel from the cache needs none of what numba loads to compile one.
"""

import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import njit
from numba.core import event, typed_passes, untyped_passes
from numba.core.caching import FunctionCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager
from numba.core.runtime import rtsys

_compiled = partial(njit, nogil=True, error_model="numpy")


def kernel(**options):
    """For functions that Python calls: they let go of the interpreter lock, and are compiled once."""

    def compiled(function):
        dispatcher = _compiled(pipeline_class=_KernelCompiler, **options)(function)
        dispatcher._cache = _Cache(function)  # what enable_caching() does, with numba's own cache
        return dispatcher

    return compiled


class _Cache(FunctionCache):
    def load_overload(self, sig, target_context):
        """As numba's, which first loads the types and functions of its compiler: a third of a second."""
        rtsys.initialize(target_context)  # what allocates and frees
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)


class _IntermediateCode(JITCodeLibrary):
    """What is only linked into others: neither optimised by itself nor translated."""

    codegen = property(lambda self: SimpleNamespace(set_env=lambda name, environment: None))

    def _optimize_functions(self, ll_module):
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self):
        pass

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name):
        self._ensure_finalized()
        return 0


class _KernelCompiler(CompilerBase):
    """numba's compiler, without the passes that look for what no kernel has.

    That is closures, ``with`` blocks, ``raise`` with arguments, literal types and array expressions.
    """

    NEEDLESS = (
        untyped_passes.WithLifting,
        untyped_passes.InlineClosureLikes,
        untyped_passes.RewriteSemanticConstants,
        untyped_passes.DeadBranchPrune,
        untyped_passes.RewriteDynamicRaises,
        untyped_passes.MakeFunctionToJitFunction,
        untyped_passes.FindLiterallyCalls,
        untyped_passes.LiteralUnroll,
        untyped_passes.LiteralPropagationSubPipelinePass,
        typed_passes.InlineOverloads,
        typed_passes.NopythonRewrites,
    )

    def define_pipelines(self):
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        needed = PassManager("nopython")
        needed.passes = [(each, name) for each, name in passes.passes if each not in self.NEEDLESS]
        needed.finalize()
        return [needed]


class _PartCompiler(_KernelCompiler):
    def define_pipelines(self):
        name = self.state.func_id.func_qualname
        self.state.library = _IntermediateCode(self.state.targetctx.codegen(), name)
        return super().define_pipelines()


part = partial(_compiled, pipeline_class=_PartCompiler, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""For functions that only compiled code calls."""

inlined = partial(part, inline="always")
"""For small parts, compiled with their callers alone."""

ZERO, ONE = np.int64(0), np.int64(1)
"""To pass to parts, which would be compiled anew for each combination of literal integers."""


class _Announcement(event.Listener):
    """Says once that kernels are being compiled: the first call takes seconds, and nobody knows why."""

    made = False

    def on_start(self, event: Any) -> None:
        module = event.data["dispatcher"].py_func.__module__
        if not self.made and module.startswith("diffdecode."):
            self.made = True
            print(
                "diffdecode: compiling kernels, once (python -m diffdecode.compile does all)", file=sys.stderr
            )

    def on_end(self, event: Any) -> None:
        pass


announcement = _Announcement()
event.register("numba:compile", announcement)
