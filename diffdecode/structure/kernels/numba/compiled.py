"""How kernels are compiled: decorators for those that Python calls and for the parts they are made of.

A kernel becomes one object file with one way in, which needs nothing of numba when it runs: no reference
counts, no exceptions, no wrappers for Python. Its parts are linked into it as LLVM's intermediate code, and
optimised and translated there alone.

The way in takes the address of 8-byte words: integers, flags, float64 numbers, and the addresses of numpy's
array objects, whose fields lie where numpy's binary interface has them for every extension module.
"""

import copy
import functools
import operator
from types import SimpleNamespace

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, typed_passes, untyped_passes
from numba.core.codegen import CodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager
from numba.core.sigutils import normalize_signature
from numba.np.numpy_support import as_dtype

from diffdecode.structure.kernels.numba.elements import ElementLowering
from diffdecode.structure.kernels.numba.memory import contiguous_array, memory_of_a_call
from diffdecode.structure.kernels.numba.native import ENTRY, NO_MEMORY, WRONG_ARGUMENT


class kernel:
    """For functions that Python calls, with arguments of these types.

    ``T`` in them is a type that :meth:`object_code` is given. The function gets ``memory`` before them.
    """

    def __init__(self, arguments: str):
        self.arguments = arguments

    def __call__(self, function):
        self.dispatcher = part()(function)
        return self

    def types(self, scalar: str) -> tuple:
        """numba's types of the arguments after ``memory``."""
        return normalize_signature(f"void({self.arguments.replace('T', scalar)})")[0]

    def object_code(self, scalar: str = "") -> tuple[str, bytes]:
        """Compiled: ``struct``'s letters of the arguments, and an object file that exports ``ENTRY``."""
        arguments = self.types(scalar)
        signature = types.uintp, *arguments
        self.dispatcher.compile(signature)
        compiled = self.dispatcher.overloads[signature]
        module = llvm.parse_assembly(str(_entry(compiled, arguments)))
        intermediate: _IntermediateCode = operator.attrgetter("library")(compiled)
        for each in intermediate.modules(set()):
            module.link_in(each)
        for value in (*module.functions, *module.global_variables):
            if not value.is_declaration and value.name != ENTRY:
                value.linkage = llvm.Linkage.internal
        machine = compiled.target_context.codegen()._tm
        # Level 2, unrolling and interleaving take LLVM longer, and kernels are as fast without.
        options = llvm.create_pipeline_tuning_options(speed_level=1)
        options.loop_vectorization = True
        options.loop_unrolling = options.loop_interleaving = False
        passes = llvm.create_pass_builder(machine, options)
        passes.getModulePassManager().run(module, passes)
        letters = (
            "Q" if isinstance(x, types.Array) else "d" if isinstance(x, types.Float) else "q"
            for x in arguments
        )
        return "".join(letters), machine.emit_object(module)


WORD, INT = ir.IntType(64), ir.IntType(32)


def _entry(compiled, arguments) -> ir.Module:
    """The way in: unpacks the arguments, calls the kernel and gives back the memory that it asked for."""
    context = compiled.target_context
    module = context.codegen()._create_empty_module("entry")
    entry = ir.Function(module, ir.FunctionType(INT, [WORD.as_pointer()]), ENTRY)
    builder = ir.IRBuilder(entry.append_basic_block())
    values = [_unpacked(context, builder, entry.args[0], k, each) for k, each in enumerate(arguments)]
    convention = context.call_conv
    native = ir.Function(
        module,
        convention.get_function_type(types.none, (types.uintp, *arguments)),
        compiled.fndesc.llvm_func_name,
    )
    with memory_of_a_call(builder) as memory:
        status, _ = convention.call_function(
            builder, native, types.none, (types.uintp, *arguments), [memory, *values]
        )
    code = builder.select(status.is_error, INT(NO_MEMORY), INT(0))
    builder.ret(code)
    return module


# Offsets in numpy's array object, in bytes after what every object begins with.
DATA, AXES, SIZES, DTYPE, FLAGS = 0, 8, 16, 40, 48
TYPE_NUMBER = 12  # in its dtype, likewise


def _unpacked(context, builder, words, k, declared):
    word = builder.load(builder.gep(words, [INT(k)]))
    if isinstance(declared, types.Boolean):
        return builder.icmp_unsigned("!=", word, WORD(0))
    if isinstance(declared, types.Integer):
        return word
    if isinstance(declared, types.Float):
        number = builder.bitcast(word, ir.DoubleType())
        return number if declared is types.float64 else builder.fptrunc(number, ir.FloatType())

    def field(base, offset, kind):
        address = builder.add(base, WORD(object.__basicsize__ + offset))
        return builder.load(builder.inttoptr(address, kind.as_pointer()))

    dtype = as_dtype(declared.dtype)
    right = builder.icmp_unsigned("==", field(word, AXES, INT), INT(declared.ndim))
    type_number = field(field(word, DTYPE, WORD), TYPE_NUMBER, INT)
    right = builder.and_(right, builder.icmp_unsigned("==", type_number, INT(dtype.num)))
    contiguous = builder.trunc(field(word, FLAGS, INT), ir.IntType(1))  # the lowest flag
    right = builder.and_(right, contiguous)
    with builder.if_then(builder.not_(right), likely=False):
        builder.ret(INT(WRONG_ARGUMENT + k))
    sizes = builder.inttoptr(field(word, SIZES, WORD), WORD.as_pointer())
    shape = [builder.load(builder.gep(sizes, [INT(axis)])) for axis in range(declared.ndim)]
    data = builder.inttoptr(field(word, DATA, WORD), context.get_data_type(declared.dtype).as_pointer())
    return contiguous_array(context, builder, declared, data, shape)


class _IntermediateCode(CodeLibrary):
    """What is only linked into kernels: kept as text, neither optimised by itself nor translated."""

    def __init__(self, codegen, name):
        super().__init__(codegen, name)
        self._texts, self._linking_libraries = [], []

    codegen = property(lambda self: SimpleNamespace(set_env=lambda name, environment: None))

    def add_ir_module(self, ir_module):
        self._texts.append(cgutils.normalize_ir_text(str(ir_module)))

    def add_linking_library(self, library):
        library._ensure_finalized()
        self._linking_libraries.append(library)

    def finalize(self):
        self._finalized = True

    def get_pointer_to_function(self, name):
        return 0

    def modules(self, seen):
        """All that it needs, once each."""
        seen.add(self)
        for text in self._texts:
            yield llvm.parse_assembly(text)
        for library in self._linking_libraries:
            if library in seen:
                continue
            if isinstance(library, _IntermediateCode):
                yield from library.modules(seen)
            else:
                seen.add(library)
                yield library._get_module_for_linking().clone()

    def get_function(self, name):
        raise NotImplementedError

    def get_llvm_str(self):
        raise NotImplementedError

    get_asm_str = get_llvm_str


class _KernelCompiler(CompilerBase):
    """numba's compiler, without the passes that look for what no kernel has.

    That is closures, ``with`` blocks, ``raise`` with arguments, literal types, array expressions and what
    must be given back after its last use.
    """

    NEEDLESS = (
        untyped_passes.WithLifting,
        untyped_passes.InlineClosureLikes,
        untyped_passes.RewriteSemanticConstants,
        untyped_passes.DeadBranchPrune,
        untyped_passes.RewriteDynamicRaises,
        untyped_passes.MakeFunctionToJitFunction,
        untyped_passes.FindLiterallyCalls,
        untyped_passes.GenericRewrites,
        untyped_passes.LiteralUnroll,
        untyped_passes.LiteralPropagationSubPipelinePass,
        typed_passes.InlineOverloads,
        typed_passes.IRLegalization,
        typed_passes.AnnotateTypes,
        typed_passes.NopythonRewrites,
    )

    def define_pipelines(self):
        context = self.state.targetctx  # of this function alone
        context._internal_codegen = _codegen(context.codegen())
        context.cached_internal_func = _helpers
        context.typing_context = self.state.typingctx = _remembering(self.state.typingctx)
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        needed = PassManager("nopython")
        needed.passes = [
            (ElementLowering if each is typed_passes.NativeLowering else each, name)
            for each, name in passes.passes
            if each not in self.NEEDLESS
        ]
        needed.finalize()
        return [needed]


@functools.cache
def _codegen(usual):
    """Makes intermediate code, also of what numba adds to parts, such as divisions of complex numbers."""
    changed = copy.copy(usual)
    changed._library_class = _IntermediateCode
    return changed


_helpers: dict = {}


@functools.cache
def _remembering(usual):
    """Looks up once what a function makes of arguments of these types; numba does each time."""
    context, known = copy.copy(usual), {}

    def resolve_function_type(function, arguments, keywords):
        if keywords or function == "static_getitem":  # of a slice, which is no key
            return usual.resolve_function_type(function, arguments, keywords)
        key = function, tuple(arguments)
        if key not in known:
            known[key] = usual.resolve_function_type(function, arguments, keywords)
        return known[key]

    @functools.cache
    def of_operator(operator):
        kind = usual.resolve_value_type(operator)
        same = object.__new__(type(kind))  # a copy of a type would be the type itself
        same.__dict__.update(kind.__dict__)
        same.get_call_type = lambda _, *arguments: resolve_function_type(kind, *arguments)
        return same

    def resolve_value_type(value):
        if callable(value) and value in OPERATORS:
            return of_operator(value)
        return usual.resolve_value_type(value)

    context.resolve_function_type, context.resolve_value_type = resolve_function_type, resolve_value_type
    return context


OPERATORS = frozenset(x for x in vars(operator).values() if callable(x))

part = functools.partial(
    njit,
    error_model="numpy",
    pipeline_class=_KernelCompiler,
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
    _nrt=False,
)
"""For functions that only compiled code calls."""

ZERO, ONE = np.int64(0), np.int64(1)
"""To pass to parts, which would be compiled anew for each combination of literal integers."""
