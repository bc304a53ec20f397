"""Memory of one call of a kernel: whatever it asks for is given back when the call ends.

The blocks are a linked list: the first word of each one is the address of the next, and ``memory`` is that
of a word on the stack which holds the address of the first.
"""

from contextlib import contextmanager

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array
from numba.np.numpy_support import as_dtype

from diffdecode.structure.kernels.numba.native import ALLOCATE, RELEASE

WORD = ir.IntType(64)
ALLOCATE_TYPE = ir.FunctionType(WORD, [WORD])
RELEASE_TYPE = ir.FunctionType(ir.VoidType(), [WORD])
LINE = 64
"""Bytes of a cache line, which a vector that begins anywhere else would share with the next one."""


@intrinsic
def empty(typing_context, memory, shape, dtype):
    """An uninitialised array of this shape (a number or a tuple), which begins on a cache line."""
    if not isinstance(dtype, (types.NumberClass, types.DType)):
        raise TypingError("empty() needs a type of numbers")
    ndim = len(shape) if isinstance(shape, types.BaseTuple) else 1
    return types.Array(dtype.dtype, ndim, "C")(memory, shape, dtype), _emit_empty


def _emit_empty(context, builder, signature, arguments):
    memory, shape, _ = arguments
    _, shape_type, _ = signature.args
    if isinstance(shape_type, types.BaseTuple):
        sizes = list(zip(cgutils.unpack_tuple(builder, shape), shape_type))
    else:
        sizes = [(shape, shape_type)]
    sizes = [context.cast(builder, size, kind, types.int64) for size, kind in sizes]
    count = WORD(as_dtype(signature.return_type.dtype).itemsize)
    for size in sizes:
        count = builder.mul(count, size)
    allocate = cgutils.get_or_insert_function(builder.module, ALLOCATE_TYPE, ALLOCATE)
    block = builder.call(allocate, [builder.add(count, WORD(2 * LINE))])
    with builder.if_then(builder.icmp_unsigned("==", block, WORD(0)), likely=False):
        context.call_conv.return_user_exc(builder, MemoryError, ())
    first = builder.inttoptr(memory, WORD.as_pointer())
    builder.store(builder.load(first), builder.inttoptr(block, WORD.as_pointer()))
    builder.store(block, first)
    start = builder.and_(builder.add(block, WORD(2 * LINE - 1)), WORD(-LINE))
    data = builder.inttoptr(start, context.get_data_type(signature.return_type.dtype).as_pointer())
    return contiguous_array(context, builder, signature.return_type, data, sizes)


@contextmanager
def memory_of_a_call(builder):
    """The address for :func:`empty` within the block, after which all memory is given back."""
    first = cgutils.alloca_once_value(builder, WORD(0))
    yield builder.ptrtoint(first, WORD)
    release = ir.Function(builder.module, RELEASE_TYPE, RELEASE)
    before = builder.load(first)
    more, body, done = (builder.append_basic_block(name) for name in ("more", "body", "done"))
    start = builder.block
    builder.branch(more)
    builder.position_at_end(more)
    block = builder.phi(WORD)
    block.add_incoming(before, start)
    builder.cbranch(builder.icmp_unsigned("==", block, WORD(0)), done, body)
    builder.position_at_end(body)
    following = builder.load(builder.inttoptr(block, WORD.as_pointer()))
    builder.call(release, [block])
    block.add_incoming(following, body)
    builder.branch(more)
    builder.position_at_end(done)


def contiguous_array(context, builder, array_type, data, shape):
    """numba's value of an array at this address."""
    itemsize = WORD(as_dtype(array_type.dtype).itemsize)
    strides = [itemsize]
    for size in reversed(shape[1:]):
        strides.insert(0, builder.mul(strides[0], size))
    array = context.make_array(array_type)(context, builder)
    populate_array(array, data, shape, strides, itemsize, None)
    return array._getvalue()
