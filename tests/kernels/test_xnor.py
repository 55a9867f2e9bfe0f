"""Products of bits: the kernels equal their twins and integer products of +1, -1 and 0, exactly."""

import numpy as np
import pytest
from exact_twins import both, run_apart
from hypothesis import given
from hypothesis import strategies as st

from minivit.kernels import bits, threads, use_backend, xnor

BACKENDS = pytest.mark.parametrize("backend", ["numba", "numpy"])
SIZES = st.integers(0, 600)
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True)
def restored_threads():
    before = threads.num_threads()
    yield
    threads.set_num_threads(before)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def signs(x):
    """+1 and -1, as float32: BLAS multiplies them without rounding, faster than NumPy multiplies integers."""
    return np.where(x >= 0, np.float32(1), np.float32(-1))


def matrices(seed, m, n, k):
    """Two sign matrices as floats (M, K) and (N, K), and packed."""
    x, weight = normal(seed, m, k), normal(seed + 1, n, k)
    return signs(x), signs(weight), bits.pack_signs(x), xnor.BinaryMatrix(bits.pack_signs(weight), k)


# --- products of signs -------------------------------------------------------------------------------------------


@given(SEEDS, SIZES, SIZES, SIZES)
def test_gemm_of_any_size(seed, m, n, k):
    x, weight, a, b = matrices(seed, m, n, k)
    expected, (scale, bias) = (x @ weight.T).astype(np.int32), normal(seed, 2, n)
    np.testing.assert_array_equal(xnor.xnor_gemm(a, b), expected, strict=True)
    scaled = xnor.xnor_gemm(a, b, scale, bias)
    np.testing.assert_array_equal(scaled, scale * expected.astype(np.float32) + bias, strict=True)


@given(SEEDS, st.integers(0, 40), st.integers(0, 80), SIZES)
def test_gemm_equals_its_twin(seed, m, n, k):
    _, _, a, b = matrices(seed, m, n, k)
    assert both(xnor.xnor_gemm, a, b).dtype == np.int32
    assert both(xnor.xnor_gemm, a, b, *normal(seed, 2, n)).dtype == np.float32


@BACKENDS
def test_gemm_of_every_length(backend):
    with use_backend(backend):
        for k in range(1, 258):
            x, weight, a, b = matrices(k, 5, 33, k)
            np.testing.assert_array_equal(xnor.xnor_gemm(a, b), x @ weight.T)


@pytest.mark.parametrize("m", range(1, 10))
@pytest.mark.parametrize("n", [1, 31, 32, 33, 63, 64, 65])
def test_gemm_at_the_edges_of_tiles(m, n):
    """Nothing is written beyond the result."""
    x, weight, a, b = matrices(m, m, n, 70)
    space = np.full((m + 8) * n, 7, np.int32)
    xnor.xnor_gemm(a, b, out=space[4 * n : (m + 4) * n].reshape(m, n))
    np.testing.assert_array_equal(space[4 * n : (m + 4) * n].reshape(m, n), x @ weight.T)
    assert (space[: 4 * n] == 7).all() and (space[(m + 4) * n :] == 7).all()


def test_by_hand():
    a = bits.pack_signs(np.array([[1, -1, 1], [-1, -1, -1]], np.float32))
    b = xnor.BinaryMatrix(bits.pack_signs(np.array([[1, 1, 1], [1, -1, -1]], np.float32)), 3)
    np.testing.assert_array_equal(both(xnor.xnor_gemm, a, b), [[1, 1], [-3, 1]])
    scale, bias = np.array([2, 3], np.float32), np.array([0.5, -1], np.float32)
    np.testing.assert_array_equal(both(xnor.xnor_gemm, a, b, scale, bias), [[2.5, 2], [-5.5, 2]])


def test_scale_and_bias_round_twice_as_in_numpy():
    """1/3 times 3 plus a small number: a fused multiplication and addition gives another result."""
    _, _, a, b = matrices(0, 200, 200, 99)
    scale, bias = np.float32([1 / 3, 0.1, 1e-3, 7.7] * 50), normal(1, 200) * np.float32(1e-3)
    both(xnor.xnor_gemm, a, b, scale, bias)


def test_strided_inputs():
    x, weight, a, b = matrices(0, 20, 40, 200)
    scale, bias = normal(1, 2, 80)[:, ::2]
    reversed_b = xnor.BinaryMatrix(b.words[::-1], 200)
    np.testing.assert_array_equal(both(xnor.xnor_gemm, a[::-2], reversed_b), x[::-2] @ weight[::-1].T)
    np.testing.assert_array_equal(both(xnor.xnor_gemm, np.asfortranarray(a), b), x @ weight.T)
    expected = scale * (x[::3] @ weight.T) + bias
    np.testing.assert_array_equal(both(xnor.xnor_gemm, a[::3], b, scale, bias), expected)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_threads_change_nothing(count):
    x, weight, a, b = matrices(0, 2050, 600, 600)
    threads.set_num_threads(count)
    np.testing.assert_array_equal(xnor.xnor_gemm(a, b), x @ weight.T)


@BACKENDS
def test_wrong_arguments_are_refused(backend):
    _, _, a, b = matrices(0, 5, 6, 100)
    ones, read_only = np.ones(6, np.float32), np.empty((5, 6), np.int32)
    read_only.flags.writeable = False
    for refused in (
        lambda: xnor.xnor_gemm(a[:, :1], b),
        lambda: xnor.xnor_gemm(a.astype(np.int64), b),
        lambda: xnor.xnor_gemm(a[0], b),
        lambda: xnor.xnor_gemm(a, b, out=np.empty((5, 5), np.int32)),
        lambda: xnor.xnor_gemm(a, b, out=np.empty((5, 6), np.float32)),
        lambda: xnor.xnor_gemm(a, b, out=np.empty((6, 5), np.int32).T),
        lambda: xnor.xnor_gemm(a, b, out=read_only),
        lambda: xnor.xnor_gemm(a.astype(">u8"), b),
        lambda: xnor.xnor_gemm(a, b, ones[:5], ones),
        lambda: xnor.xnor_gemm(a, b, ones[:1], ones[:1]),
        lambda: xnor.xnor_gemm(a, b, ones),
        lambda: xnor.xnor_gemm(a, b, None, ones),
        lambda: xnor.BinaryMatrix(b.words.astype(">u8"), 100),
        lambda: xnor.BinaryMatrix(b.words.astype(np.int64), 100),
        lambda: xnor.BinaryMatrix(b.words[0], 100),
        lambda: xnor.BinaryMatrix(b.words, 129),
        lambda: xnor.BinaryMatrix(b.words, -1),
        lambda: xnor.binary_scores(a[None, :, None], a[None, :, None], 129),
        lambda: xnor.binary_scores(a[None, :, None], a[None, :, None], 64),
        lambda: xnor.binary_scores(a[None, :, None], a[None, :, None, :1], 64),
        lambda: xnor.binary_scores(a[None, :, None], a[None, None], 64),
        lambda: xnor.binary_attention_values(a[None, None], a[None, None], ones, ones),
        lambda: xnor.binary_attention_values(a[None, None], a[None, None], ones[:5]),
        lambda: xnor.binary_attention_values(a[None, None], a[None, None], None, ones[:5]),
    ):
        with use_backend(backend), pytest.raises(ValueError):
            refused()


# --- attention ---------------------------------------------------------------------------------------------------

HEADS = (st.integers(0, 2), st.integers(1, 3), st.integers(0, 70), st.integers(0, 70), st.integers(1, 130))


@given(SEEDS, *HEADS)
def test_scores(seed, b, h, n, m, d):
    q, k = normal(seed, b, n, h, d), normal(seed + 1, b, m, h, d)
    scores = both(xnor.binary_scores, bits.pack_signs(q), bits.pack_signs(k), d)
    assert scores.dtype == np.int32
    np.testing.assert_array_equal(scores, np.einsum("bnhd,bmhd->bhnm", signs(q), signs(k)))


def test_heads_of_64_channels_are_packed_side_by_side():
    q, k, move = normal(0, 2, 50, 192), normal(1, 2, 49, 192), normal(2, 192)
    words = [bits.pack_signs(x, move).reshape(2, -1, 3, 1) for x in (q, k)]
    expected = np.einsum("bnhd,bmhd->bhnm", *(signs(x + move).reshape(2, -1, 3, 64) for x in (q, k)))
    np.testing.assert_array_equal(both(xnor.binary_scores, *words, 64), expected)


@given(SEEDS, *HEADS)
def test_values(seed, b, h, n, m, d):
    mask, v = normal(seed, b, h, n, m) > 0.3, normal(seed + 1, b, m, h * d)
    scale, bias = normal(seed, 2, h * d)
    arguments = bits.pack_bits(mask), bits.pack_columns(v).reshape(b, h, d, bits.word_count(m))
    values = both(xnor.binary_attention_values, *arguments)
    expected = np.einsum("bhnm,bmhd->bnhd", mask.astype(np.float32), signs(v).reshape(b, m, h, d))
    assert values.dtype == np.int32
    np.testing.assert_array_equal(values, expected)
    scaled = both(xnor.binary_attention_values, *arguments, scale, bias)
    np.testing.assert_array_equal(scaled, scale.reshape(h, d) * expected + bias.reshape(h, d), strict=True)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_threads_change_no_attention(count):
    q, k = normal(0, 6, 300, 5, 64), normal(1, 6, 200, 5, 64)
    threads.set_num_threads(count)
    scores = xnor.binary_scores(bits.pack_signs(q), bits.pack_signs(k), 64)
    np.testing.assert_array_equal(scores, np.einsum("bnhd,bmhd->bhnm", signs(q), signs(k), optimize=True))


# --- convolution -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 20, 64, 70, 128])
@pytest.mark.parametrize("grid", [(2, 2), (4, 6)])
def test_convolution_of_pixels_side_by_side(channels, grid):
    x, weight = normal(0, 2, *grid, channels), normal(1, 9, channels, 2, 2)
    patches = xnor.patches_2x2(bits.pack_signs(x).reshape(2, grid[0] * grid[1], -1), grid)
    found = both(xnor.xnor_gemm, patches, xnor.pack_filters(weight)).reshape(2, grid[0] // 2, grid[1] // 2, 9)
    cells = signs(x).reshape(2, grid[0] // 2, 2, grid[1] // 2, 2, channels)
    np.testing.assert_array_equal(found, np.einsum("biyjxc,ocyx->bijo", cells, signs(weight)))


# --- without the compiler ----------------------------------------------------------------------------------------


def test_without_the_compiler():
    code = """
import numpy as np
from minivit.kernels import bits, xnor
rng = np.random.default_rng(0)
normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
for m, n, k in [(1, 1, 1), (5, 33, 65), (4, 64, 128), (7, 70, 200), (0, 3, 5), (3, 0, 5), (3, 5, 0)]:
    x, weight, (scale, bias) = normal(m, k), normal(n, k), normal(2, n)
    a, b = bits.pack_signs(x), xnor.BinaryMatrix(bits.pack_signs(weight), k)
    expected = np.where(x >= 0, 1, -1) @ np.where(weight >= 0, 1, -1).T
    assert (xnor.xnor_gemm(a, b) == expected).all()
    assert (xnor.xnor_gemm(a, b, scale, bias) == scale * expected.astype(np.float32) + bias).all()
q, k, v, mask = normal(2, 5, 3, 20), normal(2, 7, 3, 20), normal(2, 7, 60), normal(2, 3, 5, 7) > 0
words = bits.pack_signs(q), bits.pack_signs(k), 20
assert (xnor.binary_scores(*words) == xnor.binary_scores_numpy(*words)).all()
words = bits.pack_bits(mask), bits.pack_columns(v).reshape(2, 3, 20, -1), *normal(2, 60)
assert (xnor.binary_attention_values(*words) == xnor.binary_attention_values_numpy(*words)).all()
print("done")
"""
    run_apart(code, NUMBA_DISABLE_JIT="1")
