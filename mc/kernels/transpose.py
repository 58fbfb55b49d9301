"""Transposing matrices of float64 in compiled code, eight by eight in registers.

A plain loop reads or writes with a stride, for which the compiler takes gather or scatter instructions: three times
as slow.
"""

from __future__ import annotations

from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

SIDE = 8
LANE = ir.IntType(32)


@intrinsic
def transpose_square(typing_context, source, begin, stride, target, target_begin, target_stride):
    """8 rows of 8 numbers of a flat array, `stride` apart from position `begin` on, into 8 columns of another."""
    if not all(isinstance(a, types.Array) and a.layout == "C" and a.dtype == types.float64 for a in (source, target)):
        return None

    def build(context, builder, signature, args):
        def pointers(array_type, array, begin, stride):
            data = make_array(array_type)(context, builder, array).data
            for i in range(SIDE):
                place = builder.add(begin, builder.mul(stride, ir.Constant(stride.type, i)))
                yield builder.bitcast(builder.gep(data, [place]), ir.VectorType(ir.DoubleType(), SIDE).as_pointer())

        def shuffled(one, other, lanes):
            return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(LANE, SIDE), lanes))

        rows = [builder.load(place, align=8) for place in pointers(signature.args[0], *args[:3])]
        for block in (4, 2, 1):  # the two blocks off the diagonal change places, then those of each block
            for i in range(SIDE):
                if not i & block:
                    one, other = rows[i], rows[i + block]
                    low = [SIDE + lane - block if lane & block else lane for lane in range(SIDE)]
                    high = [SIDE + lane if lane & block else lane + block for lane in range(SIDE)]
                    rows[i], rows[i + block] = shuffled(one, other, low), shuffled(one, other, high)
        for row, place in zip(rows, pointers(signature.args[3], *args[3:]), strict=True):
            builder.store(row, place, align=8)
        return context.get_dummy_value()

    place = types.int64
    return types.void(source, place, place, target, place, place), build


@njit(cache=True, nogil=True, error_model="numpy")
def transpose(source, begin, n_rows, n_columns, stride, target, target_begin, target_stride):
    """n_rows x n_columns numbers of `source`, rows `stride` apart, into n_columns rows of `target`.

    source, target: C-contiguous float64 arrays that do not overlap, taken as flat whatever their axes; begin and
    target_begin are positions in them, target_stride what the new rows are apart. Nothing is checked.
    """
    flat, target_flat = source.reshape(-1), target.reshape(-1)
    rows, columns = n_rows // SIDE * SIDE, n_columns // SIDE * SIDE
    for i in range(0, rows, SIDE):
        for j in range(0, columns, SIDE):
            place, target_place = begin + i * stride + j, target_begin + j * target_stride + i
            transpose_square(flat, place, stride, target_flat, target_place, target_stride)
    for i in range(n_rows):
        for j in range(columns if i < rows else 0, n_columns):
            target_flat[target_begin + j * target_stride + i] = flat[begin + i * stride + j]
