"""What stands between binary units: kernels equal their twins exactly, and those equal the formulas in floats."""

import numpy as np
import pytest
from exact_twins import both, layouts, run_apart, spoiled
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from minivit.kernels import binary_block, bits, threads, use_backend

SEEDS = st.integers(0, 2**32 - 1)
ROWS, WIDTHS, KEYS = st.integers(0, 11), st.integers(1, 150), st.integers(1, 150)


@pytest.fixture(autouse=True)
def restored_threads():
    before = threads.num_threads()
    yield
    threads.set_num_threads(before)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def signs_of(words, k):
    return bits.unpack_signs(words, k)


@given(SEEDS, ROWS, WIDTHS, st.integers(1, 3))
def test_batch_norm_and_packing(seed, rows, c, units):
    x, norm, moves = normal(seed, rows, c), normal(seed + 1, 3, c), normal(seed + 2, units, c)
    out, words = both(binary_block.normalize_to_bits, x, norm, moves)
    np.testing.assert_array_equal(out, (x - norm[0]) * norm[1] + norm[2])
    np.testing.assert_array_equal(signs_of(words, c), np.where(out + moves[:, None] >= 0, 1, -1))


def scores_of(seed, d, *shape):
    """Products of d signs, their scale, and the table of exponentials."""
    scores = 2 * np.random.default_rng(seed).binomial(d, 0.5, shape).astype(np.int32) - d
    scale = np.float32(d**-0.5)
    return scores, scale, np.exp(-np.arange(2 * d + 1, dtype=np.float32) * scale)


@given(SEEDS, st.integers(0, 2), st.integers(1, 3), st.integers(0, 5), KEYS, WIDTHS, st.sampled_from([0.3, 1, 2]))
def test_probabilities(seed, b, h, n, keys, d, share):
    scores, scale, exponentials = scores_of(seed, d, b, h, n, keys)
    level = np.float32(share * 2 / keys)
    words = both(binary_block.probability_bits, scores, exponentials, level)
    ratio = special.softmax(scores * np.float64(scale), axis=-1) / level
    clear = np.abs(ratio - 0.5) > 1e-5  # elsewhere float32 decides
    np.testing.assert_array_equal(bits.unpack_bits(words, keys)[clear], (ratio > 0.5)[clear])


@pytest.mark.parametrize("level", [0.0, -1.0, np.inf, np.nan])
def test_levels_that_no_training_should_reach(level):
    scores, _, exponentials = scores_of(0, 64, 1, 2, 3, 70)
    with np.errstate(divide="ignore"):
        both(binary_block.probability_bits, scores, exponentials, np.float32(level))


def test_a_half_is_not_more_than_a_half():
    """Two keys alike, and a level of 1: both probabilities are 1/2 of it."""
    _, _, exponentials = scores_of(0, 4)
    words = both(binary_block.probability_bits, np.zeros((1, 1, 1, 2), np.int32), exponentials, np.float32(1))
    assert words == 0


@given(SEEDS, st.integers(0, 3), st.integers(1, 9), st.integers(1, 4), WIDTHS)
def test_the_end_of_attention(seed, b, n, m, c):
    context, q, k, v = (normal(seed + i, b, tokens, c) for i, tokens in enumerate((n, n, m, m)))
    cells, table, move = np.random.default_rng(seed).integers(0, m, n), normal(seed + 5, 6, c), normal(seed + 6, c)
    out, words = both(binary_block.join, context, q, k, v, cells, table, move)
    mean, slope, bias, shift_in, prelu, shift_out = table.astype(np.float64)
    t = (context - mean) * slope + bias + q + k[:, cells] + v[:, cells] - shift_in
    expected = np.maximum(t, 0) + prelu * np.minimum(t, 0) + shift_out
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(signs_of(words, c), np.where(out + move >= 0, 1, -1).reshape(b * n, c))


# --- whatever may come in ----------------------------------------------------------------------------------------


def calls():
    """Each kernel here that takes floats, with these and with what else it takes."""
    cells = np.array([0, 1, 1, 0, 1])
    floats = [normal(i, 2, tokens, 70) for i, tokens in enumerate((5, 5, 2, 2))] + [normal(4, 6, 70), normal(5, 70)]
    return {
        "normalize": (binary_block.normalize_to_bits, [normal(0, 9, 70), normal(1, 3, 70), normal(2, 2, 70)]),
        "join": (lambda *args: binary_block.join(*args[:4], cells, *args[4:]), floats),
    }


@pytest.mark.parametrize("name", calls())
def test_layouts_and_dtypes_change_nothing(name):
    function, floats = calls()[name]
    expected = both(function, *floats)
    for others in (*layouts(*floats), [a.astype(np.float64) for a in floats]):
        for found, wanted in zip(both(function, *others), expected, strict=True):
            np.testing.assert_array_equal(found, wanted, strict=True)


@pytest.mark.parametrize("name", calls())
def test_special_values_come_through_alike(name):
    function, floats = calls()[name]
    for seed in range(20):
        out, words = both(function, *(spoiled(a, seed + i) for i, a in enumerate(floats)))
        assert np.isnan(out).any() and np.isfinite(out).any() and words.any()


@pytest.mark.parametrize("name", calls())
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_sizes_that_do_not_fit_are_refused(name, backend):
    """Of each argument: fewer channels, more of them, an axis more."""
    function, floats = calls()[name]
    with use_backend(backend):
        for i, a in enumerate(floats):
            for wrong in (a[..., :69], np.repeat(a, 2, axis=-1), a[None]):
                with pytest.raises(ValueError):
                    function(*floats[:i], wrong, *floats[i + 1 :])


def test_no_channels():
    """A word without bits is 0."""
    _, words = both(binary_block.normalize_to_bits, normal(0, 300, 0), normal(1, 3, 0), normal(2, 2, 0))
    assert words.shape == (2, 300, 1) and not words.any()
    nothing = normal(0, 2, 50, 0)
    _, words = both(binary_block.join, *[nothing] * 4, np.arange(50), normal(0, 6, 0), normal(0, 0))
    assert words.shape == (100, 1) and not words.any()


@pytest.mark.parametrize("count", [2, 3])
def test_threads_change_nothing(count):
    scores, _, exponentials = scores_of(0, 64, 2, 3, 700, 80)
    x, norm, moves = normal(0, 3000, 100), normal(1, 3, 100), normal(2, 2, 100)
    context, cells, table = x.reshape(2, 1500, 100), np.arange(1500) // 4, normal(3, 6, 100)
    for call in (
        lambda: (binary_block.probability_bits(scores, exponentials, np.float32(0.02)),),
        lambda: binary_block.normalize_to_bits(x, norm, moves),
        lambda: binary_block.join(context, -context, context[:, :375], context[:, 1125:], cells, table, moves[0]),
    ):
        threads.set_num_threads(1)
        alone = call()
        threads.set_num_threads(count)
        for found, expected in zip(call(), alone, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_without_the_compiler():
    code = """
import numpy as np
from minivit.kernels import binary_block as k
normal = lambda *shape: np.random.default_rng(0).standard_normal(shape, np.float32)
def equal(name, *args):
    fast, plain = getattr(k, name)(*args), getattr(k, name + "_numpy")(*args)
    for f, p in zip(fast, plain) if isinstance(fast, tuple) else [(fast, plain)]:
        assert f.shape == p.shape and f.dtype == p.dtype and (f == p).all(), name
equal("normalize_to_bits", normal(3, 70), normal(3, 70), normal(2, 70))
scores = 2 * np.random.default_rng(0).binomial(64, 0.5, (2, 1, 3, 70)).astype(np.int32) - 64
equal("probability_bits", scores, np.exp(-np.arange(129, dtype=np.float32) / 8), np.float32(0.02))
table = normal(6, 70)
equal("join", *(normal(2, n, 70) for n in (4, 4, 2, 2)), np.array([0, 1, 1, 0]), table, table[0])
print("done")
"""
    run_apart(code, NUMBA_DISABLE_JIT="1")
