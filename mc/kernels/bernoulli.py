"""Random bits of given probability, a vector of words at a time: every bit is a lane, and lanes share no random bit.

A vector is `VECTOR` uint64 words held in registers. It is a Numba type of its own: whether a loop over arrays becomes
vector instructions is up to the compiler, which often gives up without a word, but a value of a vector type cannot
become anything else, and a generator made of vectors stays in registers for a whole sweep. On a machine with shorter
registers the compiler cuts vectors up. The operators &, |, ^, ~, +, <<, >> act word by word.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model

from mc.kernels.random_streams import advance

VECTOR = 8  # words, an AVX-512 register
BITS = 64  # binary places of a probability
# `bernoulli` of 2 * 512 lanes: after 6 places the two words of a lane are seldom both undecided (in 12 % of the calls
# for a lane anywhere), after 13 any lane is in 12 %. A look at the lanes that turns out either way costs as much as
# three places, because the processor guesses wrong.
APART = 6
TOGETHER = 7

BIT, INT32, INT64, FLAGS = ir.IntType(1), ir.IntType(32), ir.IntType(64), ir.IntType(VECTOR)
WORDS = ir.VectorType(INT64, VECTOR)


class Words(types.Type):
    """Numba type of a vector of words."""

    def __init__(self):
        super().__init__(name=f"uint64 x {VECTOR}")


words_type = Words()


@register_model(Words)
class WordsModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, WORDS)


def _constant(value, element=INT64):
    return ir.Constant(ir.VectorType(element, VECTOR), [element(value)] * VECTOR)


def _spread(builder, value):
    undefined = ir.Constant(ir.VectorType(value.type, VECTOR), ir.Undefined)
    first = builder.insert_element(undefined, value, INT32(0))
    return builder.shuffle_vector(first, undefined, _constant(0, INT32))


def _address(context, builder, kind, array, index, pointee):
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), pointee.as_pointer())


def _is_words(array):
    return isinstance(array, types.Array) and array.layout == "C" and array.dtype == types.uint64


@intrinsic
def load(typingctx, array, index):
    """The words array[index : index + VECTOR] of a contiguous uint64 array; index int64, not checked."""
    if not _is_words(array):
        return None

    def generate(context, builder, signature, args):
        return builder.load(_address(context, builder, signature.args[0], *args, WORDS), typ=WORDS, align=8)

    return words_type(array, types.int64), generate


@intrinsic
def store(typingctx, array, index, words):
    """array[index : index + VECTOR] = words, for a contiguous uint64 array; index int64, not checked."""
    if not _is_words(array):
        return None

    def generate(context, builder, signature, args):
        builder.store(args[2], _address(context, builder, signature.args[0], *args[:2], WORDS), align=8)
        return context.get_dummy_value()

    return types.void(array, types.int64, words_type), generate


@intrinsic
def gather(typingctx, array, indices, first):
    """The words array[indices[first : first + VECTOR]] of contiguous arrays, uint64 and int32, not checked."""
    if not (_is_words(array) and isinstance(indices, types.Array) and indices.dtype == types.int32):
        return None

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        integers, pointers = ir.VectorType(INT32, VECTOR), ir.VectorType(data.type, VECTOR)
        where = _address(context, builder, signature.args[1], *args[1:], integers)
        address = builder.gep(
            _spread(builder, data), [builder.load(where, typ=integers, align=4)], source_etype=INT64
        )
        kind = ir.FunctionType(WORDS, [pointers, INT32, ir.VectorType(BIT, VECTOR), WORDS])
        name = f"llvm.masked.gather.v{VECTOR}i64.v{VECTOR}p0"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(function, [address, INT32(8), _constant(1, BIT), _constant(0)])

    return words_type(array, indices, types.int64), generate


@intrinsic
def broadcast(typingctx, word):
    """A vector of equal words."""
    return words_type(types.uint64), lambda context, builder, signature, args: _spread(builder, args[0])


@intrinsic
def broadcast_from(typingctx, array, index):
    """A vector of words equal to array[index]; index int64, not checked."""
    if not _is_words(array):
        return None

    def generate(context, builder, signature, args):
        address = _address(context, builder, signature.args[0], *args, INT64)
        return _spread(builder, builder.load(address, typ=INT64, align=8))

    return words_type(array, types.int64), generate


@intrinsic
def whole_words(typingctx, flags):
    """Word v of the vector is ~0 where bit v of a uint8 is set, else 0."""

    def generate(context, builder, signature, args):
        return builder.sext(builder.bitcast(args[0], ir.VectorType(BIT, VECTOR)), WORDS)

    return words_type(types.uint8), generate


@intrinsic
def any_bit(typingctx, words):
    """Whether any bit of the vector is set."""

    def generate(context, builder, signature, args):
        differs = builder.icmp_unsigned("!=", args[0], _constant(0))
        return builder.icmp_unsigned("!=", builder.bitcast(differs, FLAGS), FLAGS(0))

    return types.boolean(words_type), generate


def _operator(function, instruction, second):
    @intrinsic
    def apply(typingctx, a, b):
        def generate(context, builder, signature, args):
            other = args[1] if second is words_type else _spread(builder, args[1])
            return getattr(builder, instruction)(args[0], other)

        return words_type(words_type, second), generate

    @overload(function)
    def choose(a, b):
        matches = isinstance(b, Words) if second is words_type else isinstance(b, types.Integer)
        if isinstance(a, Words) and matches:
            return lambda a, b: apply(a, b)


_operator(operator.and_, "and_", words_type)
_operator(operator.or_, "or_", words_type)
_operator(operator.xor, "xor", words_type)
_operator(operator.ixor, "xor", words_type)  # a ^= b makes a new vector, as for integers
_operator(operator.add, "add", words_type)
_operator(operator.lshift, "shl", types.uint64)
_operator(operator.rshift, "lshr", types.uint64)


@intrinsic
def _complement(typingctx, a):
    return words_type(words_type), lambda context, builder, signature, args: builder.not_(args[0])


@overload(operator.invert)
def _invert(a):
    if isinstance(a, Words):
        return lambda a: _complement(a)


@njit(cache=True, nogil=True, forceinline=True)
def probability(planes, at, high, low):
    """One binary place of the probabilities of all bits of a vector, see `bernoulli`."""
    p = (broadcast_from(planes, at) & ~low) | (broadcast_from(planes, at + BITS) & low)
    return (p & ~high) | (broadcast_from(planes, at + 2 * BITS) & high)


@njit(cache=True, nogil=True, forceinline=True)
def compare(undecided, bits, p, random):
    """Decide where one place of p and of the random number differ; returns (undecided, bits)."""
    decided = undecided & (random ^ p)
    return undecided ^ decided, bits | (decided & p)


@njit(cache=True, nogil=True, forceinline=True)
def bernoulli(a, high_a, low_a, b, high_b, low_b, planes, first, s0, s1, s2, s3):
    """Two vectors of independent bits: set with the probability of the lane where a or b is set, else 0.

    planes (n,) uint64: bit l of planes[first + BITS * c + k] is binary place k + 1 of the probability of lane l in
    case c, which is 2 high + low, one of 0, 1, 2. So a probability is exact to 2^-BITS, and 1 is short of it by as
    much. s0 to s3: state of the generator. Returns (bits of a, bits of b, s0, s1, s2, s3).

    A uniform number is compared with p, from the first binary place on until they differ, which takes two random bits
    on average; but a vector waits for its last lane. So once no word of a is undecided in a lane where the same word
    of b is, both go on with the same random words: each of their bits is used for one of the two only.
    """
    bits_a, bits_b = a ^ a, b ^ b
    place, last = first, first + BITS - TOGETHER
    for _ in range(APART):
        random, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
        a, bits_a = compare(a, bits_a, probability(planes, place, high_a, low_a), random)
        random, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
        b, bits_b = compare(b, bits_b, probability(planes, place, high_b, low_b), random)
        place += 1
    while any_bit(a & b) and place < last:
        random, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
        a, bits_a = compare(a, bits_a, probability(planes, place, high_a, low_a), random)
        random, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
        b, bits_b = compare(b, bits_b, probability(planes, place, high_b, low_b), random)
        place += 1
    either, bits = a | b, a ^ a
    high, low = (high_a & a) | (high_b & b), (low_a & a) | (low_b & b)
    for _ in range(TOGETHER):
        random, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
        either, bits = compare(either, bits, probability(planes, place, high, low), random)
        place += 1
    while any_bit(either) and place < first + BITS:
        random, s0, s1, s2, s3 = advance(s0, s1, s2, s3)
        either, bits = compare(either, bits, probability(planes, place, high, low), random)
        place += 1
    return bits_a | (bits & a), bits_b | (bits & b), s0, s1, s2, s3
