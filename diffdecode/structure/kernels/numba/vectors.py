"""Arithmetic on sentences side by side as LLVM vectors, which numba's own loops do not turn into.

The vectors are LLVM's own, which it maps to whatever registers the machine has (one of AVX-512, two of
AVX2, four of SSE2 or NEON), so this is as portable as numba itself. Each function works on a flat array in
which the values of one cell for all lanes lie next to each other: 16 of float32, or 8 of float64. Positions
are unsigned offsets.

In a flat array of complex numbers a cell is 4 dual numbers: 4 real values, then their 4 derivatives.
"""

from contextlib import contextmanager
from functools import partial

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from diffdecode.structure.kernels.numba.lanes import DUAL_LANES, FLOAT32_LANES, FLOAT64_LANES
from diffdecode.structure.kernels.numba.memory import contiguous_array

LANES = {types.float32: FLOAT32_LANES, types.float64: FLOAT64_LANES, types.complex128: DUAL_LANES}


@intrinsic
def as_duals(typing_context, cells):
    """The same memory, as complex numbers."""
    return types.Array(types.complex128, 1, "C")(cells), _emit_as_duals


def _emit_as_duals(context, builder, signature, arguments):
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    data = builder.bitcast(array.data, context.get_data_type(types.complex128).as_pointer())
    count = builder.lshr(cgutils.unpack_tuple(builder, array.shape)[0], ir.Constant(ir.IntType(64), 1))
    return contiguous_array(context, builder, signature.return_type, data, [count])


class _Lanes:
    """Loads and stores of whole vectors at offsets into a flat array."""

    def __init__(self, context, builder, array_type, array):
        self.builder = builder
        self.data = context.make_array(array_type)(context, builder, array).data
        self.dual = array_type.dtype is types.complex128
        self.parts = (False, True) if self.dual else (False,)  # the value, and its derivative
        element = types.float64 if self.dual else array_type.dtype
        self.lanes = LANES[array_type.dtype]
        self.vector = ir.VectorType(context.get_value_type(element), self.lanes)

    def address(self, offset, derivative=False):
        if derivative:  # two derivatives are as long as one complex number
            offset = self.builder.add(offset, ir.Constant(offset.type, self.lanes // 2))
        pointer = self.builder.gep(self.data, [offset])
        return self.builder.bitcast(pointer, self.vector.as_pointer())

    def load(self, offset, derivative=False):
        return self.builder.load(self.address(offset, derivative), align=4)

    def store(self, value, offset, derivative=False):
        self.builder.store(value, self.address(offset, derivative), align=4)

    def all(self, value):
        """A vector of one number in every lane."""
        vector = ir.Constant(self.vector, ir.Undefined)
        for lane in range(self.lanes):
            vector = self.builder.insert_element(vector, value, ir.Constant(ir.IntType(32), lane))
        return vector

    def max(self, a, b):
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def fused(self, a, b, c):
        """``a * b + c``, in one instruction where the machine has it."""
        fast = ("contract",)
        return self.builder.fadd(self.builder.fmul(a, b, flags=fast), c, flags=fast)

    @contextmanager
    def steps(self, count, stride=1):
        """Loop over ``t < count``; yields a function from an offset to the one ``t`` strides of cells on."""
        builder = self.builder
        with cgutils.for_range(builder, count) as loop:
            ahead = builder.mul(loop.index, ir.Constant(count.type, stride * self.lanes))
            yield lambda offset: builder.add(offset, ahead)


@intrinsic
def max_plus(typing_context, charts, first, second, count, target):
    """``charts[target] = max_t charts[first + t] + charts[second + t]`` over cells ``0 <= t < count``."""
    return types.void(charts, *[types.uintp] * 4), _emit_max_plus


def _emit_max_plus(context, builder, signature, arguments):
    charts, first, second, count, target = arguments
    lanes = _Lanes(context, builder, signature.args[0], charts)
    best = cgutils.alloca_once(builder, lanes.vector)
    builder.store(builder.fadd(lanes.load(first), lanes.load(second)), best)
    with lanes.steps(count) as ahead:
        value = builder.fadd(lanes.load(ahead(first)), lanes.load(ahead(second)))
        builder.store(lanes.max(value, builder.load(best)), best)
    lanes.store(builder.load(best), target)
    return context.get_dummy_value()


@intrinsic
def sum_products(typing_context, charts, first, second, count, target):
    """``charts[target] = sum_t charts[first + t] * charts[second + t]`` over cells ``0 <= t < count``."""
    emit = partial(_emit_products, add=False)
    return types.void(charts, *[types.uintp] * 4), emit


@intrinsic
def add_products(typing_context, charts, first, second, count, target):
    """``charts[target] += sum_t charts[first + t] * charts[second + t]`` over cells ``0 <= t < count``."""
    emit = partial(_emit_products, add=True)
    return types.void(charts, *[types.uintp] * 4), emit


def _emit_products(context, builder, signature, arguments, add):
    charts, first, second, count, target = arguments
    lanes = _Lanes(context, builder, signature.args[0], charts)
    factors = [(False, False), (True, False), (False, True)] if lanes.dual else [(False, False)]
    zero = ir.Constant(lanes.vector, None)
    # Two sums of each kind: one alone would wait for its last addition.
    totals = [[cgutils.alloca_once_value(builder, zero) for _ in factors] for _ in range(2)]

    def add_term(first, second, totals):
        for (of_first, of_second), total in zip(factors, totals):
            a, b = lanes.load(first, of_first), lanes.load(second, of_second)
            builder.store(lanes.fused(a, b, builder.load(total)), total)

    one, cell = ir.Constant(count.type, 1), ir.Constant(count.type, lanes.lanes)
    with lanes.steps(builder.lshr(count, one), stride=2) as ahead:
        add_term(ahead(first), ahead(second), totals[0])
        add_term(builder.add(ahead(first), cell), builder.add(ahead(second), cell), totals[1])
    with builder.if_then(builder.trunc(count, ir.IntType(1))):
        last = builder.mul(builder.sub(count, one), cell)
        add_term(builder.add(first, last), builder.add(second, last), totals[0])
    for derivative in lanes.parts:
        total = lanes.load(target, derivative) if add else zero
        for sums in totals:
            for (of_first, of_second), total_of in zip(factors, sums):
                if (of_first or of_second) == derivative:
                    total = builder.fadd(total, builder.load(total_of))
        lanes.store(total, target, derivative)
    return context.get_dummy_value()


@intrinsic
def set_cell(typing_context, charts, number, target):
    """``charts[target] = number`` in all lanes, with derivative 0."""
    return types.void(charts, types.float64, types.uintp), _emit_set_cell


def _emit_set_cell(context, builder, signature, arguments):
    charts, number, target = arguments
    lanes = _Lanes(context, builder, signature.args[0], charts)
    lanes.store(lanes.all(number), target)
    if lanes.dual:
        lanes.store(ir.Constant(lanes.vector, None), target, derivative=True)
    return context.get_dummy_value()


@intrinsic
def copy_cell(typing_context, charts, source, target):
    """``charts[target] = charts[source]``."""
    return types.void(charts, types.uintp, types.uintp), _emit_copy_cell


def _emit_copy_cell(context, builder, signature, arguments):
    charts, source, target = arguments
    lanes = _Lanes(context, builder, signature.args[0], charts)
    for derivative in lanes.parts:
        lanes.store(lanes.load(source, derivative), target, derivative)
    return context.get_dummy_value()


@intrinsic
def sum_cells(typing_context, charts, first, count, target):
    """``charts[target] = sum_t charts[first + t]`` over cells ``0 <= t < count``."""
    return types.void(charts, *[types.uintp] * 3), _emit_sum_cells


def _emit_sum_cells(context, builder, signature, arguments):
    charts, first, count, target = arguments
    lanes = _Lanes(context, builder, signature.args[0], charts)
    total = cgutils.alloca_once_value(builder, ir.Constant(lanes.vector, None))
    with lanes.steps(count) as ahead:
        builder.store(builder.fadd(builder.load(total), lanes.load(ahead(first))), total)
    lanes.store(builder.load(total), target)
    return context.get_dummy_value()


@intrinsic
def add_scaled(typing_context, charts, factor, source, count, target):
    """``charts[target + t] += charts[factor] * charts[source + t]`` over cells ``0 <= t < count``."""
    return types.void(charts, *[types.uintp] * 4), _emit_add_scaled


def _emit_add_scaled(context, builder, signature, arguments):
    charts, factor, source, count, target = arguments
    lanes = _Lanes(context, builder, signature.args[0], charts)
    scale = lanes.load(factor)
    with lanes.steps(count) as ahead:
        changed = lanes.fused(scale, lanes.load(ahead(source)), lanes.load(ahead(target)))
        lanes.store(changed, ahead(target))
    return context.get_dummy_value()


@intrinsic
def keep_greater(typing_context, values, names, shift, source, target, count):
    """Where ``values[source + t] - shift > values[target + t]``, put it there, and its name with it.

    Over ``count`` times 8 positions t; ``values`` is a float64 and ``names`` an int32 array of one layout.
    Without branches, which no processor would foresee.
    """
    return types.void(values, names, types.float64, *[types.uintp] * 3), _emit_keep_greater


def _emit_keep_greater(context, builder, signature, arguments):
    values, names, shift, source, target, count = arguments
    lanes = _Lanes(context, builder, signature.args[0], values)
    labels = context.make_array(signature.args[1])(context, builder, names).data
    label_vector = ir.VectorType(ir.IntType(32), lanes.lanes).as_pointer()

    def label_address(offset):
        return builder.bitcast(builder.gep(labels, [offset]), label_vector)

    shifts = lanes.all(shift)
    with lanes.steps(count) as ahead:
        gain = builder.fsub(lanes.load(ahead(source)), shifts)
        so_far = lanes.load(ahead(target))
        greater = builder.fcmp_ordered(">", gain, so_far)
        lanes.store(builder.select(greater, gain, so_far), ahead(target))
        here, there = label_address(ahead(source)), label_address(ahead(target))
        label = builder.select(greater, builder.load(here, align=4), builder.load(there, align=4))
        builder.store(label, there, align=4)
    return context.get_dummy_value()


@intrinsic
def greatest(typing_context, values, first, count):
    """The greatest of ``count`` vectors of numbers, which follow each other from ``values[first]`` on."""
    return values.dtype(values, types.uintp, types.uintp), _emit_greatest


def _emit_greatest(context, builder, signature, arguments):
    values, first, count = arguments
    lanes = _Lanes(context, builder, signature.args[0], values)
    best = cgutils.alloca_once_value(builder, lanes.load(first))
    with lanes.steps(count) as ahead:
        builder.store(lanes.max(lanes.load(ahead(first)), builder.load(best)), best)
    vector, width = builder.load(best), lanes.lanes
    while width > 1:  # fold one half onto the other
        width //= 2
        index = ir.VectorType(ir.IntType(32), width)
        low, high = ir.Constant(index, list(range(width))), ir.Constant(index, list(range(width, 2 * width)))
        vector = lanes.max(*(builder.shuffle_vector(vector, vector, half) for half in (low, high)))
    return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


@intrinsic
def place_of(typing_context, values, value, first):
    """How far on from ``values[first]`` the first number equal to ``value`` is; there must be one."""
    return types.int64(values, values.dtype, types.uintp), _emit_place_of


def _emit_place_of(context, builder, signature, arguments):
    values, value, first = arguments
    lanes = _Lanes(context, builder, signature.args[0], values)
    wanted, mask = lanes.all(value), ir.IntType(lanes.lanes)
    before = builder.block
    search, found = builder.append_basic_block("search"), builder.append_basic_block("found")
    builder.branch(search)
    builder.position_at_end(search)
    distance = builder.phi(first.type)
    equal = builder.fcmp_ordered("==", lanes.load(builder.add(first, distance)), wanted)
    places = builder.bitcast(equal, mask)
    distance.add_incoming(ir.Constant(first.type, 0), before)
    distance.add_incoming(builder.add(distance, ir.Constant(first.type, lanes.lanes)), search)
    builder.cbranch(builder.icmp_unsigned("==", places, ir.Constant(mask, 0)), search, found)
    builder.position_at_end(found)
    within = builder.cttz(places, ir.Constant(ir.IntType(1), 1))
    return builder.add(distance, builder.zext(within, first.type))
