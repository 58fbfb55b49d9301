"""Vectors of numbers as values in Numba code: each operation becomes one LLVM vector instruction.

Numba leaves vectorisation of a loop over lanes to LLVM, which gives up without a word where it cannot prove that the
rows of a loop are apart, and takes 256-bit registers where the machine has 512. A vector of this file is a value of
its own type, so code on it is vector code on every machine: LLVM splits a vector into as many registers as it fills.

    a = read(array, index, width)       width consecutive elements from flat position `index` of a C-contiguous array
    write(array, index, a)              the reverse
    splat(x, width)                     x in every lane, of the type of x; for the width, a vector as wide will do
    a + b, a - b, a * b, a / b          lane by lane; integers wrap
    a & b, a | b, a ^ b, a << b, a >> b integers; >> repeats the sign of int32 and brings in zeros for uint32
    a <= b, a < b, a != b               masks, bool in each lane; & | ^ work on masks too
    select(mask, a, b)                  a where the mask is set, else b
    multiply_add(a, b, c)               a b + c, rounded once where the machine can
    as_type(a, np.float32)              the same bits
    to_type(a, np.float32)              the same numbers, for numbers that fit
    bits(mask)                          uint64, bit l is lane l of the mask
    lowest(number)                      number of the lowest set bit of a uint64, to go through the lanes of a mask
    total(a)                            sum of the lanes, first to last

Elements: float32, float64, int32, int64, uint32. Widths are powers of two up to 64 that the compiler knows: global or
enclosed constants. Vectors cannot leave compiled code.
"""

from __future__ import annotations

import operator

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.datamodel import models
from numba.core.extending import intrinsic, lower_builtin, register_model
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.np.arrayobj import make_array

_LLVM = {
    types.boolean: ir.IntType(1),
    types.int32: ir.IntType(32),
    types.uint32: ir.IntType(32),
    types.int64: ir.IntType(64),
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
}


def aligned(array: np.ndarray) -> np.ndarray:
    """A C-contiguous copy that begins at a multiple of 64 bytes: none of its vectors lies in two cache lines."""
    room = np.empty(array.nbytes + 63, np.uint8)
    begin = -room.ctypes.data % 64
    copy = room[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class Vector(types.Type):
    """Numba type of `width` numbers of the type `element`."""

    def __init__(self, element, width):
        self.element, self.width = element, width
        super().__init__(name=f"vector({element}, {width})")

    @property
    def key(self):
        return self.element, self.width

    @property
    def llvm(self):
        return ir.VectorType(_LLVM[self.element], self.width)

    def of(self, element):
        """As many lanes of another element."""
        return Vector(element, self.width)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, vector.llvm)


def _define(symbol, float_instruction, integer_instruction, compares=False):
    """Make an operator work on two vectors of one type; an instruction None is one that its elements do not have."""

    def instruction(element):
        return float_instruction if element in types.real_domain else integer_instruction

    @infer_global(symbol)
    class Typing(AbstractTemplate):
        def generic(self, args, kws):
            a = args[0]
            if not isinstance(a, Vector) or len(args) != 2 or args[1] != a or instruction(a.element) is None:
                return None
            return signature(a.of(types.boolean) if compares else a, a, a)

    @lower_builtin(symbol, Vector, Vector)
    def lower(context, builder, signature, args):
        element = signature.args[0].element
        name = instruction(element)
        if compares and element in types.real_domain:
            return (builder.fcmp_unordered if name == "!=" else builder.fcmp_ordered)(name, *args)
        if compares:
            return (builder.icmp_unsigned if element == types.uint32 else builder.icmp_signed)(name, *args)
        if name == "ashr" and element == types.uint32:
            name = "lshr"
        return getattr(builder, name)(*args)


_define(operator.add, "fadd", "add")
_define(operator.sub, "fsub", "sub")
_define(operator.mul, "fmul", "mul")
_define(operator.truediv, "fdiv", None)
_define(operator.and_, None, "and_")
_define(operator.or_, None, "or_")
_define(operator.xor, None, "xor")
_define(operator.lshift, None, "shl")
_define(operator.rshift, None, "ashr")
_define(operator.le, "<=", "<=", compares=True)
_define(operator.lt, "<", "<", compares=True)
_define(operator.ne, "!=", "!=", compares=True)


def _address(context, builder, array_type, array, index, vector):
    """Pointer to lane 0 of the vector at flat position `index`, and its guaranteed alignment in bytes."""
    data = make_array(array_type)(context, builder, array).data
    pointer = builder.bitcast(builder.gep(data, [index]), vector.llvm.as_pointer())
    return pointer, array_type.dtype.bitwidth // 8


def _contiguous(array):
    return isinstance(array, types.Array) and array.layout == "C" and array.dtype in _LLVM


@intrinsic
def read(typing_context, array, index, width):
    """width elements of a C-contiguous array from flat position `index`; nothing checks that they are inside."""
    if not (_contiguous(array) and isinstance(width, types.IntegerLiteral)):
        return None
    vector = Vector(array.dtype, width.literal_value)

    def build(context, builder, signature, args):
        pointer, align = _address(context, builder, signature.args[0], args[0], args[1], vector)
        return builder.load(pointer, align=align)

    return vector(array, types.int64, width), build


@intrinsic
def write(typing_context, array, index, vector):
    """Write a vector to a C-contiguous array from flat position `index` on."""
    if not (_contiguous(array) and isinstance(vector, Vector) and vector.element == array.dtype):
        return None

    def build(context, builder, signature, args):
        pointer, align = _address(context, builder, signature.args[0], args[0], args[1], vector)
        builder.store(args[2], pointer, align=align)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), build


@intrinsic
def splat(typing_context, x, width):
    """The number x in each of `width` lanes, or in as many as the vector `width` has."""
    if not (x in _LLVM and isinstance(width, types.IntegerLiteral | Vector)):
        return None
    vector = Vector(x, width.width if isinstance(width, Vector) else width.literal_value)

    def build(context, builder, signature, args):
        single = builder.insert_element(ir.Constant(vector.llvm, ir.Undefined), args[0], ir.IntType(32)(0))
        order = ir.Constant(ir.VectorType(ir.IntType(32), vector.width), [0] * vector.width)
        return builder.shuffle_vector(single, ir.Constant(vector.llvm, ir.Undefined), order)

    return vector(x, width), build


@intrinsic
def select(typing_context, mask, a, b):
    """a in the lanes where the mask is set, b in the others."""
    if not (isinstance(a, Vector) and a == b and mask == a.of(types.boolean)):
        return None

    def build(context, builder, signature, args):
        return builder.select(*args)

    return a(mask, a, b), build


@intrinsic
def multiply_add(typing_context, a, b, c):
    """a b + c of float vectors."""
    if not (isinstance(a, Vector) and a == b == c and a.element in types.real_domain):
        return None

    def build(context, builder, signature, args):
        name = f"llvm.fmuladd.v{a.width}f{a.element.bitwidth}"
        function = builder.module.declare_intrinsic(name, fnty=ir.FunctionType(a.llvm, [a.llvm] * 3))
        return builder.call(function, args)

    return a(a, b, c), build


@intrinsic
def as_type(typing_context, a, element):
    """The bits of a vector read as numbers of another type of the same size."""
    if not (isinstance(a, Vector) and isinstance(element, types.NumberClass)):
        return None
    target = a.of(element.dtype)

    def build(context, builder, signature, args):
        return builder.bitcast(args[0], target.llvm)

    return target(a, element), build


@intrinsic
def to_type(typing_context, a, element):
    """The numbers of a vector as another type, rounded to nearest where they do not fit into a float."""
    if not (isinstance(a, Vector) and isinstance(element, types.NumberClass)):
        return None
    source, target = a.element, a.of(element.dtype)

    def build(context, builder, signature, args):
        value, llvm = args[0], target.llvm
        if source in types.real_domain:
            if target.element not in types.real_domain:
                return builder.fptosi(value, llvm)
            wider = target.element.bitwidth > source.bitwidth
            return builder.fpext(value, llvm) if wider else builder.fptrunc(value, llvm)
        if target.element in types.real_domain:
            return (builder.uitofp if source is types.uint32 else builder.sitofp)(value, llvm)
        if target.element.bitwidth > source.bitwidth:
            return builder.sext(value, llvm)
        return builder.trunc(value, llvm) if target.element.bitwidth < source.bitwidth else value

    return target(a, element), build


@intrinsic
def bits(typing_context, mask):
    """uint64 with bit l set where lane l of the mask is."""
    if not (isinstance(mask, Vector) and mask.element == types.boolean):
        return None

    def build(context, builder, signature, args):
        number = builder.bitcast(args[0], ir.IntType(mask.width))
        return number if mask.width == 64 else builder.zext(number, ir.IntType(64))

    return types.uint64(mask), build


@intrinsic
def lowest(typing_context, number):
    """Number of the lowest set bit of a uint64 that is not zero, int64."""
    if number != types.uint64:
        return None

    def build(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(number), build


@intrinsic
def total(typing_context, a):
    """Sum of the lanes of a float vector, first to last."""
    if not (isinstance(a, Vector) and a.element in types.real_domain):
        return None

    def build(context, builder, signature, args):
        result = builder.extract_element(args[0], ir.IntType(32)(0))
        for lane in range(1, a.width):
            result = builder.fadd(result, builder.extract_element(args[0], ir.IntType(32)(lane)))
        return result

    return a.element(a), build
