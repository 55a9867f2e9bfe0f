"""Products of matrices of bits: K - 2 popcount(a xor b) for signs, 2 popcount(m & b) - popcount(m) for {0, 1} x signs.

The kernels go through the result in tiles of ROWS x LANES. Columns of b lie side by side, 32 bits of each: a tile
loads such a vector once for ROWS rows of a, and keeps all its counts in registers until the last word. Each entry
is then written once, as an int32, or as float32 after what follows the product in the network (a scale and a bias for
its column, or all of a binary unit): for small K most of the time goes into that and into writing. Floats round after
every operation, as in NumPy.
"""

import functools
import math

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from minivit.kernels.backend import exact_njit, get_backend, njit
from minivit.kernels.bits import WORD, aligned_empty, call_llvm, pack_signs, splat, word_count
from minivit.kernels.threads import parallel_for

ROWS, LANES = 4, 32
_GRAIN = 1 << 26  # products of bits worth a thread
_INT32, _FLOAT32, _UINT64 = np.dtype(np.int32), np.dtype(np.float32), np.dtype(np.uint64)
_NO_TABLE = np.empty((2, 0), np.float32)
_WRITE = 128  # products of bits that take as long as writing one result

SCALE, MEAN, SLOPE, BIAS, SHIFT_IN, PRELU, SHIFT_OUT = range(7)
"""Rows of the table of constants (7, N) of a binary unit, one for each output channel:
out = prelu(((product scale - mean) slope + bias + shortcut) - shift_in) + shift_out."""


class BinaryMatrix:
    """The right-hand side of ``xnor_gemm``: N rows of K signs.

    Args:
        words: (N, W) of uint64, from ``pack_signs``.
        k: K, below 2**24. Less than 64 W where there is padding, which is 0 here and in the left-hand side.

    Raises:
        ValueError: words of another dtype or shape, or too few of them in a row for K signs.
    """

    def __init__(self, words, k):
        if words.dtype != _UINT64 or words.ndim != 2 or not 0 <= k <= WORD * words.shape[1]:
            raise ValueError(f"expected uint64 (N, W) for {k} signs in a row, got {words.dtype} {words.shape}")
        self.words, self.k = words, k
        # A piece of work for one thread, in groups of ROWS rows of the left-hand side.
        self.grain = _GRAIN // (ROWS * max(1, len(words) * (k + _WRITE)))

    @functools.cached_property
    def tiles(self):
        """The words as the kernels read them, arranged once: (ceil(N / LANES), 2 W, LANES) of uint32."""
        tiles = _empty_tiles(*self.words.shape)
        arrange(self.words, tiles)
        return tiles


# --- the tile ----------------------------------------------------------------------------------------------------


def _tile(a, i, panel, k, table, x, out, j):
    """Rows i to i + ROWS, columns j to j + LANES of a product; fewer where the result ends.

    Args:
        a: (M, W) of uint64, rows contiguous.
        panel: (2 W, LANES) of uint32, contiguous: LANES columns of b.
        k: number of bits, for products of signs; None where rows of ``a`` are masks.
        table: float32, rows contiguous: (2, N) of scales and biases if x is None, else (7, N), a unit's constants.
            Not looked at when ``out`` is int32.
        x: shortcut of a unit, (M, C) float32, rows contiguous, repeated side by side: C is N, or divides it and is a
            multiple of LANES. None: no unit.
        out: (M, N), int32 or float32, rows contiguous.
    """
    rows = np.ascontiguousarray(a[i : i + ROWS]).view(np.uint32)
    panel, columns = panel[:, : out.shape[1] - j], slice(j, j + LANES)
    base = np.bitwise_count(rows).sum(axis=1, keepdims=True, dtype=np.int32) if k is None else k
    differ = rows[:, :, None] & ~panel if k is None else rows[:, :, None] ^ panel
    result = base - 2 * np.bitwise_count(differ).sum(axis=1, dtype=np.int32)
    if x is not None:
        shortcut = x[i : i + ROWS, j % x.shape[1] :][:, : result.shape[1]]
        result = finish_unit_numpy(result, shortcut, table[:, columns])
    elif out.dtype == np.float32:
        result = result.astype(np.float32) * table[0, columns] + table[1, columns]
    out[i : i + ROWS, columns] = result


def finish_unit_numpy(product, x, table):
    """What follows a product (M, N) in a binary unit, given its shortcut x (M, N) and constants (7, N)."""
    y = (product.astype(np.float32) * table[SCALE] - table[MEAN]) * table[SLOPE] + table[BIAS]
    t = (y + x) - table[SHIFT_IN]
    return np.where(t > 0, t, table[PRELU] * t) + table[SHIFT_OUT]


@overload(_tile, inline="always")
def _tile_overload(a, i, panel, k, table, x, out, j):
    return lambda a, i, panel, k, table, x, out, j: _emit_tile(a, i, panel, k, table, x, out, j)


@intrinsic
def _emit_tile(typingctx, a, i, panel, k, table, x, out, j):
    """``_tile`` on LLVM's vectors of LANES, each two registers with AVX-512 and four with AVX2: loops that Numba
    vectorises cannot keep a block of counts in registers."""
    masks, in_floats, unit = isinstance(k, types.NoneType), out.dtype == types.float32, isinstance(x, types.Array)
    ir = cgutils.ir
    word = ir.IntType(32)
    integers, floats = ir.VectorType(word, LANES), ir.VectorType(ir.FloatType(), LANES)
    results = floats if in_floats else integers

    def codegen(context, builder, signature, args):
        def array(at):
            return context.make_array(signature.args[at])(context, builder, args[at])

        a, panel, table, out = (array(at) for at in (0, 2, 4, 6))
        i, j = args[1], args[7]

        def constant(value, kind=i.type):
            return ir.Constant(kind, [value] * LANES if isinstance(kind, ir.VectorType) else value)

        def vector_at(pointer, index, kind):
            return builder.bitcast(builder.gep(pointer, [index]), kind.as_pointer())

        def row_pointers(array, kind):
            """To each of ROWS rows; beyond the last row of the array, to that one, which is then done again."""
            last = builder.sub(cgutils.unpack_tuple(builder, array.shape)[0], constant(1))
            stride = cgutils.unpack_tuple(builder, array.strides)[0]
            for r in range(ROWS):
                row = builder.add(i, constant(r))
                row = builder.select(builder.icmp_signed("<", row, last), row, last)
                pointer = cgutils.pointer_add(builder, array.data, builder.mul(row, stride))
                yield builder.bitcast(pointer, kind.as_pointer())

        sources = list(row_pointers(a, word))
        targets = list(row_pointers(out, results.element))
        counts = [cgutils.alloca_once(builder, integers) for _ in range(ROWS)]
        ones = [cgutils.alloca_once(builder, word) for _ in range(ROWS)]  # of each mask

        def count_word(w, first=False):
            """Add the counts of word w; the first one finds them unset."""
            columns = builder.load(vector_at(panel.data, builder.mul(w, constant(LANES)), integers), align=4)
            for source, count, one in zip(sources, counts, ones):
                bits = builder.load(builder.gep(source, [w]))
                if masks:
                    differ = builder.and_(splat(builder, bits, integers), builder.not_(columns))
                    own = builder.ctpop(bits)
                    builder.store(own if first else builder.add(builder.load(one), own), one)
                else:
                    differ = builder.xor(splat(builder, bits, integers), columns)
                found = call_llvm(builder, f"ctpop.v{LANES}i32", integers, differ)
                builder.store(found if first else builder.add(builder.load(count), found), count)

        count_word(constant(0), first=True)
        with cgutils.for_range(builder, cgutils.unpack_tuple(builder, panel.shape)[0], start=constant(1)) as loop:
            count_word(loop.index)

        def finish_unit(product, shortcut, scale, mean, slope, bias, shift_in, prelu, shift_out):
            y = builder.fsub(builder.fmul(product, scale), mean)
            y = builder.fadd(builder.fmul(y, slope), bias)
            t = builder.fsub(builder.fadd(y, shortcut), shift_in)
            positive = builder.fcmp_ordered(">", t, constant(0.0, floats))
            return builder.fadd(builder.select(positive, t, builder.fmul(prelu, t)), shift_out)

        def finish(load, store):
            """Write the results, given how to load and store a vector."""
            if in_floats:
                stride = cgutils.unpack_tuple(builder, table.strides)[0]
                rows = (builder.mul(stride, constant(row)) for row in range(7 if unit else 2))
                rows = [cgutils.pointer_add(builder, table.data, row) for row in rows]
                constants = [load(vector_at(row, j, floats)) for row in rows]
            if unit:
                shortcuts = array(5)
                column = builder.urem(j, cgutils.unpack_tuple(builder, shortcuts.shape)[1])
                shortcuts = [load(vector_at(row, column, floats)) for row in row_pointers(shortcuts, floats.element)]
            for r in range(ROWS):
                base = builder.load(ones[r]) if masks else context.cast(builder, args[3], k, types.int32)
                count = builder.load(counts[r])
                result = builder.sub(splat(builder, base, integers), builder.add(count, count))
                if unit:
                    result = finish_unit(builder.sitofp(result, floats), shortcuts[r], *constants)
                elif in_floats:
                    scale, bias = constants
                    result = builder.fadd(builder.fmul(builder.sitofp(result, floats), scale), bias)
                store(result, vector_at(targets[r], j, results))

        left = builder.sub(cgutils.unpack_tuple(builder, out.shape)[1], j)
        with builder.if_else(builder.icmp_signed(">=", left, constant(LANES))) as (whole, part):
            with whole:
                finish(lambda at: builder.load(at, align=4), lambda value, at: builder.store(value, at, align=4))
            with part:
                lanes, limit = ir.Constant(integers, list(range(LANES))), builder.trunc(left, word)
                options = constant(4, word), builder.icmp_signed("<", lanes, splat(builder, limit, integers))
                load = f"masked.load.v{LANES}f32.p0"
                store = f"masked.store.v{LANES}{'f' if in_floats else 'i'}32.p0"
                finish(
                    lambda at: call_llvm(builder, load, floats, at, *options, constant(0.0, floats)),
                    lambda value, at: call_llvm(builder, store, ir.VoidType(), value, at, *options),
                )
        return context.get_dummy_value()

    return types.none(a, types.intp, panel, k, table, x, out, types.intp), codegen


# --- products of whole matrices ----------------------------------------------------------------------------------


@njit
def arrange(words, tiles):
    """Fill ``tiles`` (ceil(n / LANES), 2 W, LANES), uint32, with ``words`` (n, W), uint64, and zeros. Serial."""
    for i in range(len(tiles) * LANES):
        panel, lane = tiles[i // LANES], i % LANES
        for w in range(words.shape[1]):
            word = words[i, w] if i < len(words) else np.uint64(0)
            panel[2 * w, lane] = word & np.uint64(0xFFFFFFFF)
            panel[2 * w + 1, lane] = word >> np.uint64(32)


@exact_njit
def products(a, tiles, k, table, x, out, start, stop):
    """Groups ``start`` to ``stop`` of ROWS rows of a product, into ``out``. Serial, also for use in other kernels.

    The arguments are those of ``_tile``, with the tiles of a whole matrix, as ``arrange`` makes them.
    """
    for group in range(start, stop):
        for p in range(len(tiles)):
            _tile(a, group * ROWS, tiles[p], k, table, x, out, p * LANES)


@exact_njit
def _head_products(a, b, k, table, out, tiles, start, stop):
    heads, groups = b.shape[1], -(-a.shape[2] // ROWS)
    for pair in range(start, stop):
        i, h = pair // heads, pair % heads
        arrange(b[i, h], tiles)
        products(a[i, h], tiles, k, table[h], None, out[i, h], 0, groups)


def xnor_gemm(a, b, scale=None, bias=None, out=None):
    """Products of rows of signs: a b^T, by xnor and popcount.

    Args:
        a: (M, W) of uint64, rows from ``pack_signs``.
        b: a ``BinaryMatrix`` of N rows of W words; its padding must be where that of ``a`` is.
        scale, bias: (N,) or both None.
        out: an array for the result, C-contiguous; a new one if None.

    Returns:
        int32 (M, N); with scale and bias, float32 (M, N): ``scale * product + bias``, each column with its own.

    Raises:
        ValueError: ``a`` is not uint64 with as many words in a row as ``b``, or ``out``, scale or bias do not fit.
    """
    shape, dtype = (len(a), len(b.words)), _INT32 if scale is None else _FLOAT32
    table = _columns(scale, bias, shape[1])
    if a.dtype != _UINT64 or a.shape != (len(a), b.words.shape[1]):
        raise ValueError(f"{a.dtype} {a.shape} times {b.words.dtype} {b.words.shape}: pack rows of one length")
    if out is None:
        out = aligned_empty(shape, dtype)
    elif out.shape != shape or out.dtype != dtype or not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError(f"out must be a writeable C-contiguous {dtype} array {shape}, got {out.dtype} {out.shape}")
    if get_backend() == "numpy":
        out[...] = xnor_gemm_numpy(a, b, scale, bias)
        return out
    a, tiles, k = np.ascontiguousarray(a), b.tiles, b.k
    parallel_for(lambda i, j: products(a, tiles, k, table, None, out, i, j), -(-len(a) // ROWS), b.grain)
    return out


def xnor_gemm_numpy(a, b, scale=None, bias=None):
    """What ``xnor_gemm`` computes."""
    return _finish(b.k - 2 * _overlaps(np.bitwise_xor, a, b.words), scale, bias)


def binary_scores(q, k, d):
    """Products of all queries with all keys of their head: q k^T.

    Args:
        q, k: (B, N, H, W) and (B, M, H, W) of uint64, signs of d channels in each row of W words. Where d is a
            multiple of 64, that is how ``pack_signs`` packs (B, N, H d).

    Returns:
        int32 (B, H, N, M).

    Raises:
        ValueError: the sizes of q, k and d do not fit.
    """
    _check_heads(q.swapaxes(1, 2), k.swapaxes(1, 2))
    if q.shape[3:] != (word_count(d),):
        raise ValueError(f"{d} channels of a head take {word_count(d)} words, got queries {q.shape}")
    if get_backend() == "numpy":
        return binary_scores_numpy(q, k, d)
    out = aligned_empty((q.shape[0], q.shape[2], q.shape[1], k.shape[1]), np.int32)
    _by_heads(np.ascontiguousarray(q).swapaxes(1, 2), k.swapaxes(1, 2), d, _NO_TABLE, out)
    return out


def binary_scores_numpy(q, k, d):
    """What ``binary_scores`` computes."""
    return d - 2 * _overlaps(np.bitwise_xor, q.swapaxes(1, 2), k.swapaxes(1, 2))


def binary_attention_values(mask, v, scale=None, bias=None):
    """Products of probabilities, each 0 or 1, with values, each +1 or -1.

    Args:
        mask: (B, H, N, W) of uint64, a bit for each of M keys in each row of W words.
        v: (B, H, d, W) of uint64, signs over the keys: ``pack_columns`` of values (B, M, H d), reshaped.
        scale, bias: (H d,), or both None.

    Returns:
        int32 (B, N, H, d); with scale and bias, float32: ``scale * product + bias``, each channel with its own.

    Raises:
        ValueError: the sizes of mask, v, scale and bias do not fit.
    """
    _check_heads(mask, v)
    table = _columns(scale, bias, v.shape[1] * v.shape[2])
    if get_backend() == "numpy":
        return binary_attention_values_numpy(mask, v, scale, bias)
    dtype = np.int32 if scale is None else np.float32
    out = aligned_empty((mask.shape[0], mask.shape[2], *v.shape[1:3]), dtype)
    _by_heads(np.ascontiguousarray(mask), v, None, table, out.swapaxes(1, 2))
    return out


def binary_attention_values_numpy(mask, v, scale=None, bias=None):
    """What ``binary_attention_values`` computes."""
    ones = np.bitwise_count(mask).sum(axis=-1, dtype=np.int32)[..., None]
    product = (2 * _overlaps(np.bitwise_and, mask, v) - ones).swapaxes(1, 2)
    if scale is None:
        return product
    return _finish(product, *(np.reshape(c, product.shape[2:]) for c in (scale, bias)))


def patches_2x2(words, grid):
    """The rows that a 2x2 convolution with stride 2 multiplies, with the bits of 4 pixels side by side.

    Args:
        words: (B, rows * columns, W), a pixel's channels in each row of W words.
        grid: (rows, columns), both even.

    Returns:
        (B rows/2 columns/2, 4 W), pixels in the order (0, 0), (0, 1), (1, 0), (1, 1). Plain NumPy. The
        ``BinaryMatrix`` for filters (O, C, 2, 2) is ``pack_filters`` of them, and K is 4 C.
    """
    b, _, w = words.shape
    cells = words.reshape(b, grid[0] // 2, 2, grid[1] // 2, 2, w).swapaxes(2, 3)
    return cells.reshape(b * (grid[0] // 2) * (grid[1] // 2), 4 * w)


def pack_filters(weight):
    """Filters (O, C, kernel_h, kernel_w), float: the ``BinaryMatrix`` of their signs, channels innermost."""
    words = pack_signs(weight.transpose(0, 2, 3, 1))
    return BinaryMatrix(words.reshape(len(weight), math.prod(words.shape[1:])), math.prod(weight.shape[1:]))


def _check_heads(a, b):
    if a.dtype != _UINT64 or b.dtype != _UINT64 or (*a.shape[:2], *a.shape[3:]) != (*b.shape[:2], *b.shape[3:]):
        raise ValueError(f"{a.dtype} {a.shape} times {b.dtype} {b.shape}: images, heads and words of a row must agree")


def _by_heads(a, b, k, table, out):
    """out[i, h] = products of a[i, h] (N, W) with b[i, h] (n, W), for all images i and heads h."""
    images, heads, n, words = b.shape
    table = np.ascontiguousarray(table.reshape(2, heads, table.shape[1] // max(1, heads)).swapaxes(0, 1))

    def body(start, stop):
        _head_products(a, b, k, table, out, _empty_tiles(n, words), start, stop)

    parallel_for(body, images * heads, _GRAIN // max(1, a.shape[2] * n * (words * WORD + _WRITE)))


def _overlaps(combine, a, b):
    """Set bits of combine(row of a, row of b): (..., M, W) and (..., N, W) -> int32 (..., M, N)."""
    total = np.zeros((*a.shape[:-1], b.shape[-2]), np.int32)
    for w in range(a.shape[-1]):
        total += np.bitwise_count(combine(a[..., :, None, w], b[..., None, :, w]))
    return total


def _finish(product, scale, bias):
    if scale is None:
        return product
    return product.astype(np.float32) * np.asarray(scale, np.float32) + np.asarray(bias, np.float32)


def _columns(scale, bias, n):
    """Scale and bias as the kernels want them; they do not look at them when the result is int32."""
    if scale is None and bias is None:
        return _NO_TABLE
    shapes = np.shape(scale), np.shape(bias)  # () for None
    if shapes != ((n,), (n,)):
        raise ValueError(f"scale and bias must both have one entry for each of {n} columns, got shapes {shapes}")
    return np.array((scale, bias), np.float32)


def _empty_tiles(n, words):
    return aligned_empty((-(-n // LANES), 2 * words, LANES), np.uint32)
