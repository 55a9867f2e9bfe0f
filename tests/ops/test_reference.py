"""Forward results against plain definitions: finite differences agree with any forward, right or wrong."""

import itertools
import math

import numpy as np
import pytest
from scipy import special

from minivit import ops
from minivit.kernels import use_backend
from minivit.tensor import Tensor

RNG = np.random.default_rng(7)


@pytest.fixture(params=["numba", "numpy"], autouse=True)
def backend(request):
    with use_backend(request.param):
        yield


def close(out, expected, tolerance=1e-12):
    assert isinstance(out, Tensor)
    assert out.shape == np.shape(expected)
    np.testing.assert_allclose(out.data, expected, rtol=tolerance, atol=tolerance)


# --- images ------------------------------------------------------------------------------------------------------


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def windows(x, kernel, stride, padding, fill):
    """Yield (image, row, column, window (C, kh, kw)) by loops, on an image padded by hand."""
    (kh, kw), (sy, sx), (py, px) = pair(kernel), pair(stride), pair(padding)
    b, c, h, w = x.shape
    padded = np.full((b, c, h + 2 * py, w + 2 * px), fill, x.dtype)
    padded[:, :, py : py + h, px : px + w] = x
    for n in range(b):
        for i, top in enumerate(range(0, h + 2 * py - kh + 1, sy)):
            for j, left in enumerate(range(0, w + 2 * px - kw + 1, sx)):
                yield n, i, j, padded[n, :, top : top + kh, left : left + kw]


def result_shape(x, kernel, stride, padding):
    sizes = zip(x.shape[2:], pair(kernel), pair(stride), pair(padding), strict=True)
    return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in sizes)


GEOMETRIES = [(1, 1, 0), (3, 1, 1), (2, 2, 0), (3, 2, 1), ((3, 2), (2, 1), (1, 0)), ((1, 4), (1, 3), (0, 2)), (3, 5, 1)]


@pytest.mark.parametrize(("c", "o", "groups"), [(3, 4, 1), (4, 6, 2), (3, 3, 3), (2, 6, 2), (1, 1, 1)])
@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
def test_conv2d_is_a_loop_over_windows(kernel, stride, padding, c, o, groups):
    shapes = (2, c, 5, 6), (o, c // groups, *pair(kernel)), (o,)
    x, weight, bias = (RNG.normal(size=s) for s in shapes)
    expected = np.empty((2, o, *result_shape(x, kernel, stride, padding)))
    for n, i, j, window in windows(x, kernel, stride, padding, 0):
        for f in range(o):
            group = f // (o // groups)
            channels = window[group * (c // groups) : (group + 1) * (c // groups)]
            expected[n, f, i, j] = (channels * weight[f]).sum() + bias[f]
    close(ops.conv2d(x, weight, bias, stride=stride, padding=padding, groups=groups), expected)
    without = ops.conv2d(x, weight, stride=stride, padding=padding, groups=groups)
    close(without, expected - bias[:, None, None])


@pytest.mark.parametrize(("kernel", "stride", "padding"), [g for g in GEOMETRIES if g[2] != (0, 2)] + [(2, None, 1)])
def test_pooling_is_a_loop_over_windows(kernel, stride, padding):
    x, step = RNG.normal(size=(2, 3, 5, 6)), kernel if stride is None else stride
    if kernel == 1:
        padding = 0
    mean, largest = (np.empty((2, 3, *result_shape(x, kernel, step, padding))) for _ in range(2))
    for n, i, j, window in windows(x, kernel, step, padding, 0):
        mean[n, :, i, j] = window.mean((1, 2))
    for n, i, j, window in windows(x, kernel, step, padding, -np.inf):
        largest[n, :, i, j] = window.max((1, 2))
    close(ops.avg_pool2d(x, kernel, stride, padding), mean)
    close(ops.max_pool2d(x, kernel, stride, padding), largest, 0)


@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
def test_unfold_is_a_loop_over_windows(kernel, stride, padding):
    x = RNG.normal(size=(2, 3, 5, 6))
    rows, columns = result_shape(x, kernel, stride, padding)
    expected = np.empty((2, 3 * math.prod(pair(kernel)), rows * columns))
    for n, i, j, window in windows(x, kernel, stride, padding, 0):
        expected[n, :, i * columns + j] = window.reshape(-1)
    close(ops.unfold(x, kernel, stride, padding), expected, 0)


def test_a_nan_survives_pooling():
    x = np.zeros((1, 1, 2, 2))
    x[0, 0, 1, 0] = np.nan
    assert np.isnan(ops.max_pool2d(x, 2).item()) and np.isnan(ops.avg_pool2d(x, 2).item())


# --- normalisation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4,), (3, 5), (2, 3, 4), (0, 3), (2, 1)])
def test_layer_norm(shape):
    x, weight, bias = RNG.normal(3, 2, shape), RNG.normal(size=shape[-1]), RNG.normal(size=shape[-1])
    expected = np.empty(shape)
    for i in np.ndindex(shape[:-1]):
        row = x[i]
        variance = ((row - row.mean()) ** 2).mean()
        expected[i] = (row - row.mean()) / math.sqrt(variance + 1e-3) * weight + bias
    close(ops.layer_norm(x, weight, bias, eps=1e-3), expected)


@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 4), (2, 3, 2, 2)])
def test_batch_norm_in_training_and_evaluation(shape):
    x, weight, bias = RNG.normal(1, 2, shape), RNG.normal(size=3), RNG.normal(size=3)
    mean, var = np.array([1.0, 2, 3], np.float32), np.array([4.0, 5, 6], np.float32)
    before, out = (mean.copy(), var.copy()), np.empty(shape)
    values = [np.moveaxis(x, 1, 0)[c].reshape(-1) for c in range(3)]
    for c in range(3):
        out[:, c] = (x[:, c] - np.mean(values[c])) / math.sqrt(np.var(values[c]) + 1e-3) * weight[c] + bias[c]
    close(ops.batch_norm(x, weight, bias, mean, var, True, momentum=0.25, eps=1e-3), out)
    np.testing.assert_allclose(mean, 0.75 * before[0] + 0.25 * np.mean(values, axis=1), rtol=1e-6)
    np.testing.assert_allclose(var, 0.75 * before[1] + 0.25 * np.var(values, axis=1, ddof=1), rtol=1e-6)
    assert mean.dtype == var.dtype == np.float32

    before = mean.copy(), var.copy()
    for c in range(3):
        out[:, c] = (x[:, c] - np.float64(mean[c])) / math.sqrt(np.float64(var[c]) + 1e-3) * weight[c] + bias[c]
    close(ops.batch_norm(x, weight, bias, mean, var, False, eps=1e-3), out)
    np.testing.assert_array_equal([mean, var], before)


# --- attention ---------------------------------------------------------------------------------------------------


def attention_by_loops(q, k, v, scale, bias, diagonal):
    out = np.empty((*q.shape[:3], v.shape[3]))
    for b, h, i in np.ndindex(q.shape[:3]):
        scores = [scale[h] * float(np.dot(q[b, h, i], key)) for key in k[b, h]]
        if bias is not None:
            scores = [s + t for s, t in zip(scores, bias[b, h, i], strict=True)]
        if diagonal is not None and i < len(scores):
            scores[i] = diagonal
        weights = [math.exp(s) for s in scores]
        out[b, h, i] = sum(w * value for w, value in zip(weights, v[b, h], strict=True)) / sum(weights)
    return out


@pytest.mark.parametrize("diagonal", [None, -np.inf, 0.3])
@pytest.mark.parametrize("bias_shape", [None, (2, 3, 4, 5), (3, 1, 5), (4, 5), ()])
def test_attention_is_a_loop_over_queries(bias_shape, diagonal):
    q, k, v = (RNG.normal(size=(2, 3, n, d)) for n, d in [(4, 6), (5, 6), (5, 2)])
    scale, bias = RNG.normal(size=3), None if bias_shape is None else RNG.normal(size=bias_shape)
    full = None if bias is None else np.broadcast_to(bias, (2, 3, 4, 5))
    close(ops.attention(q, k, v, scale, bias, diagonal=diagonal), attention_by_loops(q, k, v, scale, full, diagonal))


def test_self_attention_is_attention_of_the_three_parts():
    b, n, heads, d = 2, 5, 3, 4
    qkv, scale, bias = RNG.normal(size=(b, n, 3 * heads * d)), RNG.normal(size=heads), RNG.normal(size=(heads, n, n))
    parts = [[qkv[:, :, (i * heads + h) * d :][:, :, :d] for h in range(heads)] for i in range(3)]
    q, k, v = (np.stack(part, axis=1) for part in parts)
    apart = ops.attention(q, k, v, scale, bias, diagonal=-np.inf)
    together = ops.self_attention(qkv, scale, bias, diagonal=-np.inf)
    close(together, np.concatenate([apart.data[:, h] for h in range(heads)], axis=-1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_masked_diagonal_gets_exactly_nothing(dtype):
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 1, 3, 3)).astype(dtype) for _ in range(3))
    v[...] = np.eye(3)  # so that the result is the matrix of probabilities
    out = ops.attention(q, k, v, np.ones(1, dtype), diagonal=-np.inf).data[0, 0]
    assert not np.diag(out).any() and out.dtype == dtype
    np.testing.assert_allclose(out.sum(1), 1, rtol=1e-6)


# --- products ----------------------------------------------------------------------------------------------------

MATMULS = [
    ((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (5, 3, 4)), ((1, 2, 3), (5, 3, 4)), ((6, 1, 2, 3), (5, 3, 4)), ((5, 2, 3), (3,)), ((3,), (5, 3, 4)),
    ((0, 3), (3, 2)), ((2, 0), (0, 3)), ((4, 0, 2, 3), (3, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), MATMULS)
def test_matmul_in_all_of_numpys_forms(a, b):
    a, b = RNG.normal(size=a), RNG.normal(size=b)
    expected = a @ b
    for out in (Tensor(a) @ Tensor(b), a @ Tensor(b), Tensor(a) @ b, Tensor(a).matmul(Tensor(b))):
        close(out, expected)
    if a.ndim == 2 and b.ndim == 2:
        loops = [[sum(a[i, k] * b[k, j] for k in range(len(b))) for j in range(b.shape[1])] for i in range(len(a))]
        close(Tensor(a) @ Tensor(b), np.array(loops).reshape(expected.shape))


def test_linear_is_matmul_with_the_transposed_weight():
    x, weight, bias = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(5, 4)), RNG.normal(size=5)
    close(ops.linear(x, weight, bias), np.einsum("bnk,ok->bno", x, weight) + bias)
    close(ops.linear(x[0, 0], weight), weight @ x[0, 0])
    close(ops.linear(x[:0], weight, bias), np.empty((0, 3, 5)))


EINSUMS = ["ij,jk->ik", "ij->ji", "ij->", "ij->j", "i,j->ij", "bij,bjk->bki", "ij,jk", "ij,jk,kl->il", "ij , ij"]


@pytest.mark.parametrize("subscripts", EINSUMS)
def test_einsum_equals_numpys(subscripts):
    terms = subscripts.replace(" ", "").partition("->")[0].split(",")
    operands = [RNG.normal(size=["bijkl".index(c) + 2 for c in term]) for term in terms]
    close(ops.einsum(subscripts, *operands), np.einsum(subscripts, *operands))


# --- functions ---------------------------------------------------------------------------------------------------

X = np.concatenate([np.linspace(-9, 9, 181), [-1e-8, 0, 1e-8, 40, -40]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (ops.erf, special.erf),
        (ops.gelu, lambda x: x * special.ndtr(x)),
        (lambda x: ops.gelu(x, "tanh"), lambda x: x * special.expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        (ops.sigmoid, special.expit),
        (ops.tanh, lambda x: 1 - 2 * special.expit(-2 * x)),
        (ops.relu, lambda x: x * (x > 0)),
        (ops.exp, np.exp),
    ],
)
def test_functions(fn, expected, dtype):
    x = X.astype(dtype)
    out = fn(x)
    assert out.dtype == dtype
    close(out, expected(x.astype(np.float64)), 1e-12 if dtype == np.float64 else 3e-7)


def test_sigmoid_and_softmax_neither_overflow_nor_lose_small_values():
    x = np.array([-500.0, -30, 0, 30, 500])
    np.testing.assert_allclose(ops.sigmoid(x).data, special.expit(x), rtol=1e-12)
    np.testing.assert_allclose(ops.softmax(np.array([-30.0, 0])).data, special.expit(np.array([-30.0, 30])), rtol=1e-12)


ROWS = np.array([[1e4, -1e4, 9999.0], [-np.inf, 0, 1], [-1e38, -1e38, -1e38], [5, -np.inf, -np.inf]])


@pytest.mark.parametrize("axis", [0, 1, -1, -2])
def test_softmaxes_of_huge_values_and_of_minus_infinity(axis):
    rows = ROWS if axis in (1, -1) else ROWS.T
    close(ops.softmax(rows, axis), special.softmax(rows, axis))
    close(ops.softmax(rows, axis, scale=0.25), special.softmax(rows / 4, axis))
    close(ops.log_softmax(rows, axis), special.log_softmax(rows, axis))
    close(ops.logsumexp(rows, axis), special.logsumexp(rows, axis))
    close(ops.logsumexp(rows, axis, keepdims=True), special.logsumexp(rows, axis, keepdims=True))


def test_logsumexp_at_infinity_and_over_several_axes():
    assert ops.logsumexp(np.full(3, -np.inf)).item() == -np.inf
    assert ops.logsumexp(np.array([1000.0, np.inf])).item() == np.inf
    assert np.isnan(ops.logsumexp(np.array([0.0, np.nan])).item())
    x = RNG.normal(size=(2, 3, 4))
    for axis in [None, (0, 2), (-1,), (0, 1, 2)]:
        close(ops.logsumexp(x, axis), special.logsumexp(x, axis))


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (1,), ()])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions_equal_numpys(axis, keepdims):
    x = RNG.normal(size=(2, 3, 4))
    for name in ("sum", "mean", "var", "max", "min"):
        close(getattr(ops, name)(x, axis, keepdims), getattr(x, name)(axis=axis, keepdims=keepdims))
    if axis != ():
        close(ops.var(x, axis, keepdims, correction=1), x.var(axis=axis, keepdims=keepdims, ddof=1))
    close(Tensor(x).std(axis, keepdims), x.std(axis=axis, keepdims=keepdims))


# --- losses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ce", {}),
        ("label_smoothing_0.1", {"label_smoothing": 0.1}),
        ("torch_label_smoothing_0.1", {"label_smoothing": 0.1}),
        ("label_smoothing_0.2", {"label_smoothing": 0.2}),
        ("soft_target_ce", {}),
    ],
)
def test_cross_entropy_equals_the_golden_values(golden, name, options):
    reference = golden("losses")
    targets = reference["soft_targets" if name == "soft_target_ce" else "labels"]
    logits = Tensor(reference["logits"], requires_grad=True)
    loss = ops.cross_entropy(logits, targets, **options)
    loss.backward()
    np.testing.assert_allclose(loss.data, reference[f"{name}.loss"], rtol=1e-6)
    np.testing.assert_allclose(logits.grad, reference[f"{name}.grad"], rtol=1e-5, atol=1e-7)
    assert loss.dtype == logits.grad.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_of_huge_and_of_masked_logits(dtype):
    logits = Tensor(np.array([[1e4, 0, -1e4], [2, -np.inf, 2]], dtype), requires_grad=True)
    loss = ops.cross_entropy(logits, [1, 0])
    close(loss, (1e4 + math.log(2)) / 2, 1e-6)
    loss.backward()
    np.testing.assert_allclose(logits.grad, [[0.5, -0.5, 0], [-0.25, 0, 0.25]], atol=1e-6)


def test_cross_entropy_of_wrong_and_infinite_logits_is_not_silent():
    assert np.isnan(ops.cross_entropy(np.array([[0.0, np.nan, 0.0]]), [0]).item())
    assert ops.cross_entropy(np.array([[0.0, -np.inf]]), [1]).item() == np.inf


# --- noise -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_keeps_a_share_and_the_mean(rate):
    x = np.ones((100, 100), np.float32)
    out = ops.dropout(x, rate, np.random.default_rng(0))
    assert set(np.unique(out.data)) == {0, np.float32(1 / np.float32(1 - rate))}
    assert abs((out.data == 0).mean() - rate) < 5 * math.sqrt(rate * (1 - rate) / x.size)
    again, other = (ops.dropout(x, rate, np.random.default_rng(seed)) for seed in (0, 1))
    np.testing.assert_array_equal(out.data, again.data)
    assert (out.data != other.data).any()


def test_drop_path_drops_whole_samples():
    out = ops.drop_path(np.ones((4000, 2, 3)), 0.25, np.random.default_rng(0)).data
    assert (out == out[:, :1, :1]).all()
    assert abs((out[:, 0, 0] == 0).mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 4000)
    np.testing.assert_allclose(out.max(), 4 / 3)


def test_noise_of_rate_zero_changes_nothing_and_advances_the_generator_alike():
    x, rngs = RNG.normal(size=(3, 4)), [np.random.default_rng(0) for _ in range(2)]
    close(ops.dropout(x, 0.0, rngs[0]), x, 0)
    ops.dropout(x, 0.5, rngs[1])
    assert rngs[0].random() == rngs[1].random()


# --- an independent implementation, where there is one -----------------------------------------------------------


def test_gradients_and_values_equal_pytorchs():
    torch = pytest.importorskip("torch", reason="PyTorch, an optional oracle, is not installed")
    functional = torch.nn.functional
    arrays = [RNG.normal(size=s) for s in [(2, 4, 5, 5), (6, 2, 3, 3), (6,), (3,), (3,)]]

    def ours(x, w, b, gamma, beta):
        y = ops.max_pool2d(ops.gelu(ops.conv2d(x, w, b, stride=1, padding=1, groups=2)), 3, 2, 1)
        return ops.softmax(ops.layer_norm(y, gamma, beta), axis=1) ** 2

    def theirs(x, w, b, gamma, beta):
        y = functional.max_pool2d(functional.gelu(functional.conv2d(x, w, b, 1, 1, groups=2)), 3, 2, 1)
        return functional.layer_norm(y, (3,), gamma, beta).softmax(1) ** 2

    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    oracles = [torch.tensor(a, requires_grad=True) for a in arrays]
    out, expected = ours(*tensors), theirs(*oracles)
    close(out, expected.detach().numpy(), 1e-10)
    cotangent = RNG.normal(size=out.shape)
    out.backward(cotangent)
    expected.backward(torch.tensor(cotangent))
    for t, o in itertools.zip_longest(tensors, oracles):
        np.testing.assert_allclose(t.grad, o.grad.numpy(), rtol=1e-9, atol=1e-11)
