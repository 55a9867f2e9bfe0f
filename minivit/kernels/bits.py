"""Signs as bits, 64 to a word: 1 for +1 (x >= 0, so also for 0 and -0), 0 for -1 (x < 0, and NaN).

Row r of K signs becomes ``word_count(K)`` words of uint64; sign j is bit j % 64 of word j // 64. Bits beyond K are 0.
"""

import math

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from minivit.kernels.backend import exact_njit, get_backend, njit
from minivit.kernels.threads import parallel_for, row_grain

WORD = 64
_GRAIN = 1 << 19  # signs worth a thread
_LINE = 64  # bytes of a cache line, and of the longest vector registers


def word_count(k):
    """Words that hold k signs. At least one, so that no kernel meets rows without any."""
    return max(1, -(-k // WORD))


def aligned_empty(shape, dtype):
    """Like ``np.empty``, starting on a cache line: vectors that straddle two lines take twice as long to store."""
    space = np.empty(math.prod(shape) * np.dtype(dtype).itemsize + _LINE, np.uint8)
    return np.ndarray(shape, dtype, space, offset=-space.ctypes.data % _LINE)


# --- inside kernels ----------------------------------------------------------------------------------------------


def call_llvm(builder, name, result, *values):
    """Emit a call of LLVM's own function ``llvm.name``, whose result has the type ``result``."""
    kind = cgutils.ir.FunctionType(result, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}"), values)


def splat(builder, value, vector):
    """Emit a vector, of the type ``vector``, of copies of ``value``."""
    ir = cgutils.ir
    index = ir.VectorType(ir.IntType(32), vector.count)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(index.element, 0))
    return builder.shuffle_vector(one, one, ir.Constant(index, [0] * vector.count))


def _sign_word(x, i, move, h, j, count):
    """The word of signs of ``x[i, j : j + count] + move[h, j : j + count]``; a count of None means 64.

    x and move are C-contiguous and of one dtype.
    """
    columns, bits = slice(j, j + (count or WORD)), np.zeros(WORD, bool)
    bits[: count or WORD] = x[i, columns] + move[h, columns] >= 0
    return np.packbits(bits, bitorder="little").view(np.uint64)[0]


@overload(_sign_word, inline="always")
def _sign_word_overload(x, i, move, h, j, count):
    return lambda x, i, move, h, j, count: _compare_64(x, i, move, h, j, count)


@intrinsic
def _compare_64(typingctx, x, i, move, h, j, count):
    """One comparison of a vector of 64 floats: LLVM makes it masks (AVX-512) or movemasks (AVX2)."""
    whole, bitwidth = isinstance(count, types.NoneType), x.dtype.bitwidth

    def codegen(context, builder, signature, args):
        ir = cgutils.ir
        floats, octets = (ir.VectorType(t, WORD) for t in (context.get_value_type(x.dtype), ir.IntType(8)))
        zeros = ir.Constant(floats, [0.0] * WORD)
        if not whole:
            count_here = splat(builder, builder.trunc(args[5], octets.element), octets)
            inside = builder.icmp_unsigned("<", ir.Constant(octets, list(range(WORD))), count_here)

        def load(kind, array, row):
            array = context.make_array(kind)(context, builder, array)
            width = cgutils.unpack_tuple(builder, array.shape)[1]
            start = builder.gep(array.data, [builder.add(builder.mul(row, width), args[4])])
            start = builder.bitcast(start, floats.as_pointer())
            if whole:
                return builder.load(start, align=bitwidth // 8)
            align = ir.Constant(ir.IntType(32), bitwidth // 8)
            return call_llvm(builder, f"masked.load.v{WORD}f{bitwidth}.p0", floats, start, align, inside, zeros)

        value = builder.fadd(load(x, *args[0:2]), load(move, *args[2:4]))
        bits = builder.fcmp_ordered(">=", value, zeros)
        return builder.bitcast(bits if whole else builder.and_(bits, inside), ir.IntType(WORD))

    return types.uint64(x, types.intp, move, types.intp, types.intp, count), codegen


# --- packing -----------------------------------------------------------------------------------------------------


@exact_njit
def pack_row(x, i, move, h, words):
    """The signs of ``x[i] + move[h]``, into ``words`` (W,). For use in kernels, like ``_sign_word``."""
    whole, rest = x.shape[1] // WORD, x.shape[1] % WORD
    for w in range(whole):
        words[w] = _sign_word(x, i, move, h, w * WORD, None)
    if rest:
        words[whole] = _sign_word(x, i, move, h, whole * WORD, rest)
    elif not whole:
        words[0] = 0


@njit
def _pack_signs(x, move, words, start, stop):
    h = start % len(move)
    for i in range(start, stop):
        pack_row(x, i, move, h, words[i])
        h = h + 1 if h + 1 < len(move) else 0


@njit
def _pack_columns(x, move, words):
    words[:] = 0
    for i in range(len(x)):
        row, target, bit = x[i], words[i // WORD], np.uint64(1) << np.uint64(i % WORD)
        for j in range(row.size):
            target[j] |= bit if row[j] + move[j] >= 0 else np.uint64(0)


def pack_signs(x, move=None):
    """Signs of ``x + move`` along the last axis.

    Args:
        x: (..., K), float32 or float64, any strides.
        move: a shift for each channel, (K,), or for each channel of each head, (H, K) where x is (..., H, K).

    Returns:
        uint64 (..., word_count(K)), C-contiguous.

    Raises:
        ValueError: another dtype, or a shift of another shape.
    """
    shifts = _shifts(move, x, x.shape[-1:], x.shape[-2:])
    if get_backend() == "numpy":
        return pack_signs_numpy(x, move)
    k = x.shape[-1]
    rows = np.ascontiguousarray(x).reshape(math.prod(x.shape[:-1]), k)
    words = np.empty((*x.shape[:-1], word_count(k)), np.uint64)
    target = words.reshape(len(rows), words.shape[-1])
    parallel_for(lambda a, b: _pack_signs(rows, shifts, target, a, b), len(rows), row_grain(rows, _GRAIN))
    return words


def pack_signs_numpy(x, move=None):
    """What ``pack_signs`` computes."""
    return pack_bits((x if move is None else x + np.asarray(move, x.dtype)) >= 0)


def pack_columns(x, move=None):
    """Signs of ``x + move`` along the rows: ``pack_signs`` of x transposed, in one pass over x.

    Args:
        x: (B, N, C), float32 or float64, any strides.
        move: (C,) or None.

    Returns:
        uint64 (B, C, word_count(N)); in memory the channels lie side by side.

    Raises:
        ValueError: another dtype, or a shift of another shape.
    """
    (shift,) = _shifts(move, x, x.shape[-1:])
    if get_backend() == "numpy":
        return pack_columns_numpy(x, move)
    x, (b, n, c) = np.ascontiguousarray(x), x.shape
    words = np.empty((b, word_count(n), c), np.uint64)

    def body(start, stop):
        for i in range(start, stop):
            _pack_columns(x[i], shift, words[i])

    parallel_for(body, b, row_grain(x, _GRAIN))
    return words.swapaxes(1, 2)


def pack_columns_numpy(x, move=None):
    """What ``pack_columns`` computes."""
    return pack_bits(((x if move is None else x + np.asarray(move, x.dtype)) >= 0).swapaxes(1, 2))


def pack_bits(bits):
    """Booleans (..., K) as words (..., word_count(K)) of uint64. Plain NumPy."""
    space = np.zeros((*bits.shape[:-1], word_count(bits.shape[-1]) * 8), np.uint8)
    space[..., : -(-bits.shape[-1] // 8)] = np.packbits(bits, axis=-1, bitorder="little")
    return space.view("<u8").astype(np.uint64, copy=False)


def unpack_bits(words, k):
    """The inverse of ``pack_bits``: words (..., W) as booleans (..., k). Plain NumPy."""
    octets = np.ascontiguousarray(words, "<u8").view(np.uint8)
    return np.unpackbits(octets, axis=-1, count=k, bitorder="little").view(bool)


def unpack_signs(words, k, dtype=np.float32):
    """The inverse of ``pack_signs``: words (..., W) as +1 and -1, (..., k). Plain NumPy."""
    return np.where(unpack_bits(words, k), 1, -1).astype(dtype)


def _shifts(move, x, *shapes):
    """``move``, of one of the ``shapes``, as a matrix (heads, K) for the kernels; zeros for None."""
    if x.dtype not in (np.float32, np.float64):
        raise ValueError(f"signs are packed of float32 and float64, not of {x.dtype}")
    if move is None:
        return np.zeros((1, x.shape[-1]), x.dtype)
    if move.shape not in shapes:
        raise ValueError(f"expected x of shape (..., C) and a shift of shape (C,), got {x.shape} and {move.shape}")
    move = np.ascontiguousarray(move, x.dtype)
    return move if move.ndim == 2 else move[None]
