"""Sums of exponentials on the GPU, kept as logarithms, with their derivatives along a direction if wanted.

A running sum is a triple: ``exp(peak) * total``, and ``exp(peak) * slope`` its derivative. The derivatives of
all values in a tensor, if there are any (``ALONG``), lie ``shift`` elements behind them. Without, they are 0,
and the compiler leaves them out.
"""

import triton
import triton.language as tl


@triton.jit
def load(values, mask, default, shift, ALONG: tl.constexpr):
    """Values, ``default`` beyond the ``mask``, and their derivatives."""
    return tl.load(values, mask=mask, other=default), tl.load(values + shift, mask=mask & ALONG, other=0.0)


@triton.jit
def store(values, value, along, mask, shift, ALONG: tl.constexpr):
    """Store values, and their derivatives."""
    tl.store(values, value, mask=mask)
    if ALONG:
        tl.store(values + shift, along, mask=mask)


@triton.jit
def log_add(peak, total, slope, terms, along):
    """The running sum of each row, with the exponentials of the row's ``terms`` added."""
    higher = tl.maximum(peak, tl.max(terms, axis=1))
    shift = tl.where(higher == float("-inf"), 0.0, higher)
    before, parts = tl.exp(peak - shift), tl.exp(terms - shift[:, None])
    total = total * before + tl.sum(parts, axis=1)
    return higher, total, slope * before + tl.sum(parts * along, axis=1)


@triton.jit
def log_of(peak, total):
    """The logarithm that ``log_add`` has summed; -inf if there was no term."""
    return tl.where(total > 0, peak + tl.log(tl.where(total > 0, total, 1.0)), float("-inf"))


@triton.jit
def along_of(total, slope):
    """The derivative of ``log_of``; 0 if there was no term."""
    return slope / tl.where(total > 0, total, 1.0)


@triton.jit
def log_plus(a, a_along, b, b_along):
    """``log(exp(a) + exp(b))`` and its derivative."""
    higher = tl.maximum(a, b)
    shift = tl.where(higher == float("-inf"), 0.0, higher)
    of_a, of_b = tl.exp(a - shift), tl.exp(b - shift)
    total = of_a + of_b
    return log_of(higher, total), along_of(total, of_a * a_along + of_b * b_along)
