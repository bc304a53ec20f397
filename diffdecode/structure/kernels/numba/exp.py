"""An exponential that loops over contiguous arrays vectorise; calls of the C library's do not."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from diffdecode.structure.kernels.numba.compiled import part

LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
ROUNDING = 1.5 * 2.0**52  # adding it leaves the nearest integer in the low bits
SMALLEST = -708.0  # of less, the exponential is taken as 0


@intrinsic
def _bits(typing_context, value):
    def emit(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), emit


@intrinsic
def _from_bits(typing_context, bits):
    def emit(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), emit


@part(fastmath={"contract"})
def exp_to_one(x):
    """``exp(x)`` for ``x <= 0``, to the last bit or two.

    ``exp(x) = 2^k exp(r)`` with ``|r| <= log(2) / 2`` and 13 terms of the Taylor series for the latter.
    """
    shifted = x * LOG2_E + ROUNDING
    k = shifted - ROUNDING
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    p = 1.0 + r * (1.0 / 13)
    p = 1.0 + r * (1.0 / 12) * p
    p = 1.0 + r * (1.0 / 11) * p
    p = 1.0 + r * (1.0 / 10) * p
    p = 1.0 + r * (1.0 / 9) * p
    p = 1.0 + r * (1.0 / 8) * p
    p = 1.0 + r * (1.0 / 7) * p
    p = 1.0 + r * (1.0 / 6) * p
    p = 1.0 + r * (1.0 / 5) * p
    p = 1.0 + r * (1.0 / 4) * p
    p = 1.0 + r * (1.0 / 3) * p
    p = 1.0 + r * (1.0 / 2) * p
    p = 1.0 + r * p
    power = _from_bits((_bits(shifted) + 1023) << 52)
    return p * power if x > SMALLEST else 0.0
