"""Single elements of arrays in LLVM's code: an address and a load or store.

numba's own code for them is longer: it takes the array apart in memory, and an index from the end, which no
kernel uses, costs a comparison. Most of what kernels do is to read and write elements, so that this is a
good part of what LLVM has to read and simplify.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import BaseNativeLowering

DATA, SHAPE, STRIDES = 4, 5, 6
"""Fields of numba's value of an array."""


class _Lower(Lower):
    def lower_getitem(self, resty, expr, value, index, signature):
        array_type = self.typeof(value.name)
        indices = self._indices(array_type, index)
        if indices is None:
            return super().lower_getitem(resty, expr, value, index, signature)
        address = self._address(array_type, self.loadvar(value.name), indices)
        element = self.context.unpack_value(self.builder, array_type.dtype, address)
        return self.context.cast(self.builder, element, array_type.dtype, resty)

    def lower_setitem(self, target_var, index_var, value_var, signature):
        array_type, value_type = self.typeof(target_var.name), self.typeof(value_var.name)
        indices = self._indices(array_type, index_var)
        if indices is None:
            return super().lower_setitem(target_var, index_var, value_var, signature)
        address = self._address(array_type, self.loadvar(target_var.name), indices)
        value = self.context.cast(self.builder, self.loadvar(value_var.name), value_type, array_type.dtype)
        return self.context.pack_value(self.builder, array_type.dtype, value, address)

    def _indices(self, array_type, variable):
        """One number for each axis, as LLVM's values; None for anything else."""
        kind = self.typeof(variable.name)
        kinds = tuple(kind) if isinstance(kind, types.BaseTuple) else (kind,)
        whole = all(isinstance(each, types.Integer) for each in kinds)
        if not (isinstance(array_type, types.Array) and whole and len(kinds) == array_type.ndim):
            return None
        value = self.loadvar(variable.name)
        values = cgutils.unpack_tuple(self.builder, value) if isinstance(kind, types.BaseTuple) else [value]
        return [self.context.cast(self.builder, *each, types.intp) for each in zip(values, kinds)]

    def _address(self, array_type, array, indices):
        builder = self.builder
        data = builder.extract_value(array, DATA)
        if array_type.layout == "C":
            place = indices[0]
            for axis, index in enumerate(indices[1:], 1):
                place = builder.add(builder.mul(place, builder.extract_value(array, [SHAPE, axis])), index)
            return builder.gep(data, [place])
        place = ir.Constant(indices[0].type, 0)
        for axis, index in enumerate(indices):
            place = builder.add(place, builder.mul(index, builder.extract_value(array, [STRIDES, axis])))
        return cgutils.pointer_add(builder, data, place)


@register_pass(mutates_CFG=True, analysis_only=False)
class ElementLowering(BaseNativeLowering):
    """numba's own pass with this way to elements."""

    _name = "element_lowering"  # type: ignore[assignment]
    lowering_class = property(lambda self: _Lower)
