"""Each Numba kernel equals its NumPy twin; threads share out work without changing results."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivit.kernels import attention, blas_threads, exponential, products, rows, threads, use_backend

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SIZES = st.integers(1, 9)
SEEDS = st.integers(0, 2**32 - 1)
TOLERANCE = {np.float32: 2e-6, np.float64: 1e-13}
SPECIAL = [np.nan, np.inf, -np.inf]


@pytest.fixture(autouse=True)
def restored_threads():
    before = threads.num_threads()
    yield
    threads.set_num_threads(before)


def normal(seed, *shapes, dtype):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


def both(function, *args):
    """Results of the Numba kernel and of its twin, as tuples of arrays."""
    found = []
    for backend in ("numba", "numpy"):
        with use_backend(backend), np.errstate(all="ignore"):
            result = function(*args)
        found.append(result if isinstance(result, tuple) else (result,))
    return found


def agree(function, *args, dtype, scale=1.0):
    """The kernel equals the twin within rounding errors of numbers of size ``scale``, and both keep the dtype."""
    for fast, plain in zip(*both(function, *args), strict=True):
        if plain is None:
            assert fast is None
            continue
        assert fast.dtype == plain.dtype == dtype and fast.shape == plain.shape
        np.testing.assert_allclose(fast, plain, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale)


# --- exponentials ------------------------------------------------------------------------------------------------


GELU = pytest.mark.parametrize(
    "gelu, gelu_backward",
    [(exponential.gelu, exponential.gelu_backward), (exponential.gelu_tanh, exponential.gelu_tanh_backward)],
    ids=["exact", "tanh"],
)


@DTYPES
@GELU
@given(SEEDS, st.integers(0, 40), st.sampled_from([0.1, 1.0, 5.0, 30.0]))
def test_gelu(gelu, gelu_backward, dtype, seed, n, spread):
    x, g = normal(seed, n, n, dtype=dtype)
    x *= dtype(spread)
    agree(gelu, x, dtype=dtype)
    agree(gelu_backward, g, x, dtype=dtype)
    agree(gelu, x.reshape(-1, 1)[::-2], dtype=dtype)
    agree(gelu_backward, g.reshape(-1, 1)[::-2], x.reshape(-1, 1)[::-2], dtype=dtype)


@DTYPES
@GELU
def test_gelu_over_its_whole_range(gelu, gelu_backward, dtype):
    x = np.concatenate([np.linspace(-15, 15, 4001), [0.0, -0.0, 1e30, -1e30]]).astype(dtype)
    agree(gelu, x, dtype=dtype)
    agree(gelu_backward, np.ones_like(x), x, dtype=dtype)


@DTYPES
@given(SEEDS, SIZES, SIZES, st.sampled_from([1.0, 30.0, 300.0]))
def test_cross_entropy(dtype, seed, b, c, spread):
    logits, targets = normal(seed, (b, c), (b, c), dtype=dtype)
    logits = logits * dtype(spread)
    targets = np.abs(targets) / np.abs(targets).sum(axis=1, keepdims=True)
    losses, probabilities = exponential.cross_entropy(logits, targets)
    plain_losses, plain_probabilities = exponential.cross_entropy_numpy(logits, targets)
    np.testing.assert_allclose(probabilities, plain_probabilities, rtol=0, atol=4 * TOLERANCE[dtype])
    np.testing.assert_allclose(losses, plain_losses, rtol=4 * TOLERANCE[dtype], atol=4 * TOLERANCE[dtype])


@pytest.mark.parametrize("offset", [0, 20, 1000, 10000])
def test_cross_entropy_does_not_see_what_logits_have_in_common(offset):
    """Small losses must survive a large common part: log(1 + exp(-10)) = 4.54e-5."""
    logits = np.array([[offset, offset - 10]], np.float32)
    losses, _ = exponential.cross_entropy(logits, np.array([[1, 0]], np.float32))
    np.testing.assert_allclose(losses, np.log1p(np.exp(-10.0)), rtol=2e-3)  # 1 + 4.5e-5 keeps three digits


@DTYPES
@given(SEEDS, SIZES, SIZES, st.sampled_from([None, -np.inf, 0.5]), st.booleans())
def test_attention_softmax(dtype, seed, n, m, diagonal, with_bias):
    diagonal = None if m == 1 else diagonal
    scores, scale, bias, grad = normal(seed, (2, 2, n, m), 2, (2, 2, n, m), (2, 2, n, m), dtype=dtype)
    bias = bias if with_bias else None
    plain = exponential.attention_softmax_numpy(scores, scale, bias, diagonal)
    fast = scores.copy()
    exponential.attention_softmax(fast, scale, bias, diagonal)
    np.testing.assert_allclose(fast, plain, rtol=0, atol=TOLERANCE[dtype])
    expected = exponential.attention_softmax_backward_numpy(grad, plain, diagonal)
    exponential.attention_softmax_backward(grad, plain, diagonal)
    np.testing.assert_allclose(grad, expected, rtol=0, atol=TOLERANCE[dtype])
    if diagonal == -np.inf:
        assert not fast[..., np.arange(min(n, m)), np.arange(min(n, m))].any()


# --- rows --------------------------------------------------------------------------------------------------------


@DTYPES
@given(SEEDS, st.integers(0, 9), st.sampled_from([7, 17, 65, 192]), st.sampled_from([1.0, 100.0]))
def test_layer_norm(dtype, seed, r, d, spread):
    x, weight, bias, g = normal(seed, (r, d), d, d, (r, d), dtype=dtype)
    x = (x + dtype(3)) * dtype(spread)
    fast, plain = rows.layer_norm(x, weight, bias, 1e-5), rows.layer_norm_numpy(x, weight, bias, 1e-5)
    for a, b in zip(fast, plain):
        assert_close_to_scale(a, b, 50 * TOLERANCE[dtype])
    _, mean, rstd = plain
    fast = rows.layer_norm_backward(g, x, weight, mean, rstd)
    for a, b in zip(fast, rows.layer_norm_backward_numpy(g, x, weight, mean, rstd)):
        assert_close_to_scale(a, b, 50 * TOLERANCE[dtype])


def assert_close_to_scale(found, expected, tolerance):
    """Equal up to ``tolerance`` times the largest entry expected."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    largest = np.abs(expected).max(initial=0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * largest + np.finfo(found.dtype).tiny)


@DTYPES
@given(SEEDS, st.integers(0, 9), SIZES)
def test_bias_and_column_sums(dtype, seed, r, d):
    x, bias = normal(seed, (r, d), d, dtype=dtype)
    agree(rows.column_sums, x, dtype=dtype)
    agree(rows.column_sums, np.asfortranarray(x)[:, ::-1], dtype=dtype)
    agree(lambda: (y := x.copy(), rows.add_bias(y, bias))[0], dtype=dtype)


# --- products ----------------------------------------------------------------------------------------------------


@DTYPES
@given(SEEDS, st.integers(0, 9), SIZES, SIZES)
def test_products(dtype, seed, r, n, k):
    x, weight, bias, g = normal(seed, (r, k), (n, k), n, (r, n), dtype=dtype)
    for a, w in [(x, weight), (np.asfortranarray(x)[::-1], weight[:, ::-1][:, ::-1])]:
        agree(products.times_transposed, a, w, bias, dtype=dtype, scale=9)
        agree(products.times_transposed, a, w, dtype=dtype, scale=9)
        agree(products.transposed_times, g, a, dtype=dtype, scale=9)
    agree(products.times, g, weight, dtype=dtype, scale=9)


# --- attention ---------------------------------------------------------------------------------------------------


def attention_forward_and_backward(q, k, v, scale, bias, diagonal, g):
    out = np.full(g.shape, np.nan, q.dtype)
    probabilities = attention.attention(q, k, v, scale, bias, diagonal, out)
    dq, dk, dv = (np.full(x.shape, np.nan, x.dtype) for x in (q, k, v))
    dscale, dscores = attention.attention_backward(
        g, q, k, v, scale, probabilities, diagonal, dq, dk, dv, bias is not None
    )
    return probabilities, out, dq, dk, dv, dscale, dscores if bias is not None else None


@DTYPES
@given(SEEDS, st.integers(0, 3), st.integers(1, 3), *[st.integers(1, 5)] * 4, st.booleans(), st.booleans())
def test_attention(dtype, seed, b, h, n, m, d, e, masked, with_bias):
    shapes = [(b, h, n, d), (b, h, m, d), (b, h, m, e), h, (b, h, n, m), (b, h, n, e)]
    q, k, v, scale, bias, g = normal(seed, *shapes, dtype=dtype)
    diagonal = -np.inf if masked and n <= m and m > 1 else None
    bias = bias if with_bias else None
    agree(attention_forward_and_backward, q, k, v, scale, bias, diagonal, g, dtype=dtype, scale=30)


# --- not a number, and infinity ----------------------------------------------------------------------------------


@DTYPES
@given(SEEDS, SIZES, st.integers(2, 9), st.sampled_from(SPECIAL), st.data())
def test_special_values_come_through_alike(dtype, seed, r, d, value, data):
    """Where the twin gives NaN or an infinity, the kernel gives the same; a NaN that goes in comes out."""
    x, g, weight, bias = normal(seed, (r, d), (r, d), d, d, dtype=dtype)
    i, j = data.draw(st.integers(0, r - 1)), data.draw(st.integers(0, d - 1))
    x[i, j] = value
    calls = {
        "gelu": (exponential.gelu, x),
        "gelu_tanh": (exponential.gelu_tanh, x),
        "cross_entropy": (exponential.cross_entropy, x, np.abs(g)),
        "layer_norm": (rows.layer_norm, x, weight, bias, 1e-5),
        "layer_norm_backward": (rows.layer_norm_backward, x, g, weight, bias[:1].repeat(r), weight[:1].repeat(r)),
        "column_sums": (rows.column_sums, x),
        "times_transposed": (products.times_transposed, x, g, g[:, 0].copy()),
        "transposed_times": (products.transposed_times, g, x),
        "attention": (
            attention_forward_and_backward, x[None, None], g[None, None], g[None, None], weight[:1], None, None,
            x[None, None],
        ),
    }  # fmt: skip
    for name, (function, *args) in calls.items():
        fast, plain = both(function, *args)
        for a, b in zip(fast, plain, strict=True):
            if a is not None:
                np.testing.assert_array_equal(np.isnan(a), np.isnan(b), err_msg=name)
                np.testing.assert_array_equal(np.isposinf(a), np.isposinf(b), err_msg=name)
                np.testing.assert_array_equal(np.isneginf(a), np.isneginf(b), err_msg=name)
        if np.isnan(value):
            assert any(np.isnan(a).any() for a in fast if a is not None), name


@DTYPES
@GELU
def test_a_nan_in_a_gradient_or_in_gelus_input_comes_out(gelu, gelu_backward, dtype):
    x, g = np.ones(40, dtype), np.ones(40, dtype)
    x[3] = g[5] = np.nan
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(gelu(x))), [3])
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(gelu_backward(g, x))), [3, 5])


@DTYPES
def test_one_bad_row_spoils_no_other(dtype):
    scores, scale = np.ones((1, 1, 4, 6), dtype), np.ones(1, dtype)
    scores[0, 0, 1, 2] = np.nan
    scores[0, 0, 2, :] = -np.inf
    with np.errstate(invalid="ignore"):
        plain = exponential.attention_softmax_numpy(scores, scale, None, None)
    exponential.attention_softmax(scores, scale, None, None)
    for out in (scores, plain):
        np.testing.assert_array_equal(np.isnan(out[0, 0]).all(axis=1), [False, True, True, False])
        np.testing.assert_allclose(out[0, 0, [0, 3]], 1 / 6, rtol=1e-6)


# --- threads -----------------------------------------------------------------------------------------------------


@given(st.integers(0, 300), st.integers(-1, 80), st.integers(1, 5))
def test_parallel_for_visits_every_index_once(n, grain, count):
    threads.set_num_threads(count)
    visits, lock, smallest = np.zeros(n, int), threading.Lock(), []

    def body(start, stop):
        with lock:
            visits[start:stop] += 1
            smallest.append(stop - start)

    threads.parallel_for(body, n, grain)
    assert (visits == 1).all()
    assert len(smallest) == 1 or min(smallest) >= max(1, grain)
    assert count > 1 or len(smallest) == 1


@given(st.integers(0, 300), st.integers(1, 80), st.integers(1, 5))
def test_partial_sums_add_up(n, grain, count):
    threads.set_num_threads(count)

    def body(start, stop, total):
        total += [stop - start, sum(range(start, stop))]

    total = threads.partial_sums(body, n, grain, (2,), np.int64)
    np.testing.assert_array_equal(total, [n, sum(range(n))])


def test_an_error_in_a_body_reaches_the_caller_and_the_pool_lives_on():
    threads.set_num_threads(3)

    def body(start, stop):
        if start:
            raise KeyError(start)

    for _ in range(3):
        with pytest.raises(KeyError):
            threads.parallel_for(body, 100, 1)
    done = []
    threads.parallel_for(lambda a, b: done.append(b - a), 100, 1)
    assert sum(done) == 100


def test_several_callers_share_the_pool():
    threads.set_num_threads(2)
    x, results = np.arange(400_000.0).reshape(-1, 4), []
    callers = [threading.Thread(target=lambda: results.append(rows.column_sums(x))) for _ in range(4)]
    for t in callers:
        t.start()
    for t in callers:
        t.join(30)
    assert len(results) == 4 and all((r == results[0]).all() for r in results)
    np.testing.assert_allclose(results[0], x.sum(0), rtol=1e-12)


def large_results(dtype):
    """Kernels on inputs that are large enough to be shared out among threads."""
    x, g, w, b = normal(0, (2000, 96), (2000, 96), (64, 96), 96, dtype=dtype)
    q, k, v, scale, out = normal(1, *[(40, 2, 33, 8)] * 3, 2, (40, 2, 33, 8), dtype=dtype)
    out, mean, rstd = rows.layer_norm(x, b, b, 1e-5)
    return [
        exponential.gelu(x), exponential.gelu_backward(g, x), rows.column_sums(x), out, mean, rstd,
        *rows.layer_norm_backward(g, x, b, mean, rstd), *exponential.cross_entropy(x, g),
        products.times_transposed(x, w, b[:64]), products.times(x[:, :64], w), products.transposed_times(g, x),
        *attention_forward_and_backward(q, k, v, scale, None, -np.inf, v)[:-1],
    ]  # fmt: skip


@DTYPES
def test_results_repeat_bit_for_bit_and_depend_on_the_number_of_threads_only_by_rounding(dtype):
    by_count = {}
    for count in (1, 2, 3, 2):
        threads.set_num_threads(count)
        results = large_results(dtype)
        for a, b in zip(results, by_count.setdefault(count, results), strict=True):
            np.testing.assert_array_equal(a, b)
    with use_backend("numpy"):
        by_count["twin"] = large_results(dtype)
    for results in by_count.values():
        for a, b in zip(results, by_count[1], strict=True):
            assert a.dtype == b.dtype == dtype
            np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[dtype] * 20 * max(1, np.abs(b).max()))


# --- BLAS --------------------------------------------------------------------------------------------------------


def blas_counts():
    return [get() for get, _ in blas_threads._libraries()]


@pytest.mark.skipif(not blas_threads.controllable(), reason="the threads of this BLAS cannot be set")
class TestSingleThreadedBlas:
    @pytest.fixture(autouse=True)
    def two_threads(self):
        before = blas_counts()
        for _, set_threads in blas_threads._libraries():
            set_threads(2)
        yield
        for (_, set_threads), count in zip(blas_threads._libraries(), before, strict=True):
            set_threads(count)

    def test_restores_the_count_nested_and_after_an_error(self):
        outer = blas_counts()
        assert max(outer) == 2
        with pytest.raises(KeyError), blas_threads.single_threaded_blas():
            with blas_threads.single_threaded_blas():
                assert set(blas_counts()) == {1}
            assert set(blas_counts()) == {1}
            raise KeyError
        assert blas_counts() == outer

    def test_restores_the_count_when_the_last_of_several_threads_leaves(self):
        outer, inside, leave = blas_counts(), threading.Barrier(4, timeout=10), [threading.Event() for _ in range(3)]

        def hold(event):
            with blas_threads.single_threaded_blas():
                inside.wait()
                event.wait(10)

        holders = [threading.Thread(target=hold, args=(e,)) for e in leave]
        for t in holders:
            t.start()
        inside.wait()
        for event, t in zip(leave, holders, strict=True):
            assert set(blas_counts()) == {1}
            event.set()
            t.join(10)
        assert blas_counts() == outer

    def test_kernels_leave_it_as_it_was(self):
        outer = blas_counts()
        large_results(np.float32)
        assert blas_counts() == outer
