"""Signs packed into words: the kernels equal their twins, which equal the definition."""

import numpy as np
import pytest
from exact_twins import run_apart
from hypothesis import given
from hypothesis import strategies as st

from minivit.kernels import bits, threads, use_backend

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
BACKENDS = pytest.mark.parametrize("backend", ["numba", "numpy"])
SIZES = st.integers(0, 600)
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True)
def restored_threads():
    before = threads.num_threads()
    yield
    threads.set_num_threads(before)


def normal(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def words_of(booleans):
    """One row of booleans as words, bit by bit."""
    words = [0] * max(1, -(-len(booleans) // 64))
    for j, bit in enumerate(booleans):
        words[j // 64] |= int(bit) << (j % 64)
    return np.array(words, np.uint64)


def check(x, move=None):
    """Kernel and twin agree; return what they give."""
    found = []
    for backend in ("numba", "numpy"):
        with use_backend(backend):
            found.append(bits.pack_signs(x, move))
    fast, plain = found
    assert fast.dtype == plain.dtype == np.uint64 and fast.flags.c_contiguous
    np.testing.assert_array_equal(fast, plain, strict=True)
    return fast


@DTYPES
@given(SEEDS, st.integers(0, 20), SIZES, st.booleans())
def test_signs_of_any_length(dtype, seed, rows, k, moved):
    x, move = normal(seed, rows, k, dtype=dtype), normal(seed + 1, k, dtype=dtype) if moved else None
    words = check(x, move)
    assert words.shape == (rows, max(1, -(-k // 64)))
    positive = (x + move if moved else x) >= 0
    np.testing.assert_array_equal(bits.unpack_bits(words, k), positive)
    np.testing.assert_array_equal(bits.unpack_signs(words, k), np.where(positive, 1, -1))
    if rows:
        np.testing.assert_array_equal(words[-1], words_of(positive[-1]))  # and so the padding is 0


def test_every_length_by_hand():
    for k in range(1, 258):
        x = normal(k, 2, k)
        np.testing.assert_array_equal(check(x), [words_of(row >= 0) for row in x])


@given(SEEDS, st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 150))
def test_a_shift_for_each_head(seed, b, n, heads, k):
    x, move = normal(seed, b, n, heads, k), normal(seed + 1, heads, k)
    np.testing.assert_array_equal(bits.unpack_bits(check(x, move), k), x + move >= 0)


@DTYPES
def test_any_strides(dtype):
    x = normal(0, 40, 300, dtype=dtype)
    repeated = np.broadcast_to(x[0], (4, 300))
    for view in (x[::-1], x[:, ::-1], x[::3, 5::2], x.T, x[:, 7], repeated, np.asfortranarray(x)):
        np.testing.assert_array_equal(check(view), check(view.copy()))
        move = normal(1, 2 * view.shape[-1], dtype=dtype)[::2]
        np.testing.assert_array_equal(check(view, move), check(view.copy(), move.copy()))


@DTYPES
def test_zeros_are_positive_and_not_a_number_is_not(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([0.0, -0.0, tiny, -tiny, np.inf, -np.inf, np.nan, -np.nan] * 12, dtype)
    expected = [True, True, True, False, True, False, False, False] * 12
    np.testing.assert_array_equal(bits.unpack_bits(check(x), len(x)), expected)
    # The sum decides: a number and its opposite give 0; what is lost in rounding is lost.
    x, move = np.array([3, 3, -3, 1, tiny, np.inf], dtype), np.array([-3, -4, 3, -1, -2 * tiny, -np.inf], dtype)
    with np.errstate(invalid="ignore"):
        words = check(x, move)
    np.testing.assert_array_equal(bits.unpack_bits(words, 6), [True, False, True, True, False, False])


@BACKENDS
@given(st.integers(0, 3), st.integers(0, 200), st.integers(0, 70), st.booleans())
def test_columns_are_rows_of_the_transpose(backend, b, n, c, moved):
    x, move = normal(n, b, n, c), normal(c, c) if moved else None
    with use_backend(backend):
        words = bits.pack_columns(x, move)
        flipped = bits.pack_columns(x[:, ::-1, ::-1], None if move is None else move[::-1])
    expected = bits.pack_bits((x if move is None else x + move).swapaxes(1, 2) >= 0)
    np.testing.assert_array_equal(words, expected, strict=True)
    np.testing.assert_array_equal(bits.unpack_bits(flipped, n), bits.unpack_bits(expected, n)[:, ::-1, ::-1])


@given(SEEDS, st.integers(0, 5), SIZES)
def test_booleans_come_back(seed, rows, k):
    booleans = normal(seed, rows, k) > 0.5
    words = bits.pack_bits(booleans)
    np.testing.assert_array_equal(bits.unpack_bits(words, k), booleans, strict=True)
    np.testing.assert_array_equal(bits.unpack_bits(words[::-1], k), booleans[::-1])
    assert np.bitwise_count(words).sum() == booleans.sum()


def test_threads_change_nothing():
    x, move = normal(0, 9, 2000, 7, 30), normal(1, 7, 30)
    expected = bits.pack_signs_numpy(x, move)
    columns = bits.pack_columns_numpy(x.reshape(9, 2000, 210))
    for count in (1, 2, 3):
        threads.set_num_threads(count)
        np.testing.assert_array_equal(bits.pack_signs(x, move), expected)
        np.testing.assert_array_equal(bits.pack_columns(x.reshape(9, 2000, 210)), columns)


@BACKENDS
def test_shifts_and_dtypes_that_do_not_fit_are_refused(backend):
    x = normal(0, 2, 3, 70)
    with use_backend(backend):
        for shape in [(35,), (140,), (210,), (1, 70), (2, 70), (2, 3, 70), (3, 35), (1,), ()]:
            for pack in (bits.pack_signs, bits.pack_columns):
                with pytest.raises(ValueError, match="and a shift of shape"):
                    pack(x, np.zeros(shape, np.float32))
        with pytest.raises(ValueError, match="and a shift of shape"):
            bits.pack_columns(x, np.zeros((3, 70), np.float32))
        for dtype in (">f4", np.float16, np.int32, bool, np.complex64):
            for pack in (bits.pack_signs, bits.pack_columns):
                with pytest.raises(ValueError, match="float32 and float64"):
                    pack(x.astype(dtype))


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 7), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.uint64])
def test_aligned_arrays(shape, dtype):
    x = bits.aligned_empty(shape, dtype)
    assert x.shape == shape and x.dtype == dtype and x.flags.c_contiguous and x.flags.writeable
    assert x.ctypes.data % 64 == 0
    x[...] = 1
    assert x.sum() == np.prod(shape)


def test_without_the_compiler():
    code = """
import numpy as np
from minivit.kernels import bits
rng = np.random.default_rng(0)
for k in (0, 1, 63, 64, 65, 200):
    x, move = rng.standard_normal((2, 3, 2, k)).astype(np.float32), rng.standard_normal((2, k)).astype(np.float32)
    assert (bits.pack_signs(x, move) == bits.pack_signs_numpy(x, move)).all()
    assert (bits.pack_columns(x[0]) == bits.pack_columns_numpy(x[0])).all()
print("done")
"""
    run_apart(code, NUMBA_DISABLE_JIT="1")
