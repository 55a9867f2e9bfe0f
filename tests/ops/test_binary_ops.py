"""Quantisers against the official code, at their thresholds, and against their definitions written as loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivit import Tensor, ops
from minivit.kernels import use_backend

TOLERANCE = {np.float64: 1e-6, np.float32: 1e-4}  # relative to the largest entry of each tensor
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE)


@pytest.fixture(params=["numba", "numpy"], autouse=True)
def backend(request):
    with use_backend(request.param):
        yield


def assert_close(found, expected, dtype):
    assert found.shape == expected.shape and found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[dtype] * np.abs(expected).max())


def differentiate(fn, g, *arrays):
    """Result of ``fn``, and the gradients of its inputs for the cotangent ``g``."""
    tensors = [Tensor(np.asarray(a), requires_grad=True) for a in arrays]
    out = fn(*tensors)
    out.backward(g)
    return out.data, *(tensor.grad for tensor in tensors)


# --- the official code -------------------------------------------------------------------------------------------


@DTYPES
def test_sign(golden, dtype):
    file = {key: array.astype(dtype) for key, array in golden("layer_sign_ste").items()}
    out, dx = differentiate(ops.sign, file["grad_output"], file["input"])
    zero = file["input"] == 0
    assert zero.sum() == 2 and not file["output"][zero].any() and (out[zero] == 1).all()  # a bit has no third value
    assert_close(out[~zero], file["output"][~zero], dtype)
    assert_close(dx, file["grad.input"], dtype)


@DTYPES
def test_attention_probabilities(golden, dtype):
    file = {key: array.astype(dtype) for key, array in golden("layer_attn_prob_quant").items()}
    out, dp, dlevel = differentiate(ops.quantize_probabilities, file["grad_output"], file["input"], file["clip"])
    assert_close(out, file["output"], dtype)
    assert_close(dp, file["grad.input"], dtype)
    assert_close(dlevel, file["grad.clip"], dtype)


@pytest.mark.parametrize("name", ["distill", "ce", "label_smooth_0.1", "mix"])
@DTYPES
def test_losses(golden, name, dtype):
    """Distillation is the cross-entropy with the teacher's probabilities."""
    file = golden("losses_binary_sl")
    logits = Tensor(file["logits"].astype(dtype), requires_grad=True)
    if name == "mix":
        share = float(file["mix_lam"])
        losses = [ops.cross_entropy(logits, file[key], label_smoothing=0.1) for key in ("labels", "labels_b")]
        loss = share * losses[0] + (1 - share) * losses[1]
    elif name == "distill":
        loss = ops.cross_entropy(logits, ops.softmax(Tensor(file["teacher_logits"].astype(dtype))).data)
    else:
        loss = ops.cross_entropy(logits, file["labels"], label_smoothing=0.0 if name == "ce" else 0.1)
    loss.backward()
    assert_close(loss.data, file[f"{name}.loss"], dtype)
    assert_close(logits.grad, file[f"{name}.grad"], dtype)


# --- thresholds --------------------------------------------------------------------------------------------------

POINTS = [-np.inf, -1.5, -1, -0.5, -1e-30, -0.0, 0.0, 1e-30, 0.5, 1, 1.5, np.inf]


@pytest.mark.parametrize(
    "estimator, slopes", [("bi_real", [0, 0, 0, 1, 2, 2, 2, 2, 1, 0, 0, 0]), ("clipped", [0, 0, *[1] * 8, 0, 0])]
)
def test_sign_at_its_thresholds(estimator, slopes):
    x = np.array(POINTS)
    for shift in ((), (np.zeros(len(x)),)):
        out, dx, *dshift = differentiate(lambda *a: ops.sign(*a, estimator=estimator), np.ones(12), x, *shift)
        np.testing.assert_array_equal(out, [-1] * 5 + [1] * 7)
        np.testing.assert_array_equal(dx, slopes)
        assert all((d == slopes).all() for d in dshift)


def test_what_the_shift_of_sign_decides():
    out, dx, dshift = differentiate(ops.sign, np.ones((2, 2)), np.array([[0.5, 0.5], [-0.25, 3]]), np.array([-1, 0.25]))
    np.testing.assert_array_equal(out, [[-1, 1], [-1, 1]])
    np.testing.assert_array_equal(dx, [[1, 0.5], [0, 0]])
    np.testing.assert_array_equal(dshift, [1, 0.5])


def test_probabilities_at_their_thresholds():
    """A half is rounded to 0, the even number; gradients pass to p from 0 to c, both included, and to c above."""
    q = np.array([-0.5, 0, 0.25, 0.5, 0.75, 1, 1.5, 40])
    out, dp, _ = differentiate(ops.quantize_probabilities, np.ones(8), q / 4, np.array(0.25))
    np.testing.assert_array_equal(out, [0, 0, 0, 0, 0.25, 0.25, 0.25, 0.25])
    np.testing.assert_array_equal(dp, [0, 1, 1, 1, 1, 1, 0, 0])
    slopes = [differentiate(ops.quantize_probabilities, 1.0, p, np.array(0.25))[2] for p in q / 4]
    np.testing.assert_array_equal(slopes, [0, 0, -0.25, -0.5, 0.25, 0, 1, 1])


def test_weights_at_their_thresholds():
    weight = np.array([[-1.5, -1, 0, 1, 1.5], [2, 2, 2, 2, 2]])
    g = np.arange(10.0).reshape(2, 5)
    out, dweight = differentiate(lambda w: ops.binary_weight(w, centred=False), g, weight)
    np.testing.assert_array_equal(out, [[-1, -1, 1, 1, 1], [2] * 5])  # times mean |w|, 1 and 2
    np.testing.assert_array_equal(dweight, [[0, 1, 2, 3, 0], [0] * 5])
    out, dweight = differentiate(lambda w: ops.binary_weight(w, centred=True), g, weight)
    np.testing.assert_array_equal(out, [[-1, -1, 1, 1, 1], [2] * 5])  # a weight at the mean of its row counts as +
    np.testing.assert_array_equal(dweight, [np.array([0, 1, 2, 3, 0]) - 6 / 5, np.arange(5) - 2])


# --- definitions -------------------------------------------------------------------------------------------------


@DTYPES
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 300), st.booleans(), st.sampled_from([0.01, 1.0]))
def test_weights_by_their_definition(dtype, seed, rows, columns, centred, spread):
    weight = (spread * np.random.default_rng(seed).standard_normal((rows, columns))).astype(dtype)
    found = ops.binary_weight(weight, centred=centred).data
    for row, binary in zip(weight.astype(np.float64), found, strict=True):
        signs = np.where(row - (dtype(row.mean()) if centred else 0) >= 0, 1, -1)
        expected = dtype(np.abs(row).mean()) * signs
        np.testing.assert_allclose(binary, expected, rtol=0 if dtype is np.float32 else 1e-14)  # summed in float64


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_pooling_branches_by_their_definition(b, h, w, c):
    rng = np.random.default_rng(0)
    x, scale, shift = rng.standard_normal((b, h, w, c)), rng.standard_normal((4, c)), rng.standard_normal((4, c))
    expected = np.zeros_like(x)
    windows = [(3, 1), (1, 3), (5, 1), (1, 5)]
    for n, i, j in np.ndindex(b, h, w):
        for (rows, columns), a, s in zip(windows, scale, shift, strict=True):
            top, left = max(0, i - rows // 2), max(0, j - columns // 2)
            cells = x[n, top : i + rows // 2 + 1, left : j + columns // 2 + 1]
            expected[n, i, j] += a * cells.sum((0, 1)) / (rows * columns) + s
    found = ops.pooling_branches(Tensor(x.reshape(b, h * w, c)), scale, shift, grid=(h, w))
    np.testing.assert_allclose(found.data, expected.reshape(b, h * w, c), atol=1e-12)


def test_the_gradient_of_shifts_stays_exact_for_many_tokens():
    """A running sum in float32 is wrong by 1e-5 here."""
    g = np.random.default_rng(0).random((2000, 64, 2), np.float32)
    x, vectors = np.zeros_like(g), np.zeros((4, 2), np.float32)
    *_, dshift = differentiate(lambda *a: ops.pooling_branches(*a, grid=(8, 8)), g, x, vectors, vectors)
    np.testing.assert_allclose(dshift, np.tile(g.sum(axis=(0, 1), dtype=np.float64), (4, 1)), rtol=1e-6)


def test_cells_by_hand():
    x = np.arange(16.0).reshape(1, 8, 2)  # 2 rows of 4 tokens
    np.testing.assert_array_equal(ops.pool_cells(x, grid=(2, 4), size=2).data, [[[5, 6], [9, 10]]])


def test_shortcuts_put_copies_side_by_side_and_average_neighbours():
    x = np.arange(4.0)[None]
    np.testing.assert_array_equal(ops.add_shortcut(np.zeros((1, 8)), Tensor(x)).data, [[0, 1, 2, 3, 0, 1, 2, 3]])
    np.testing.assert_array_equal(ops.add_shortcut(np.zeros((1, 2)), Tensor(x)).data, [[0.5, 2.5]])
    np.testing.assert_array_equal(ops.add_shortcut(x, Tensor(x)).data, 2 * x)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ops.sign(ones(2, 3), ones(2)), r"sign\(.*expected x of shape \(..., C\) and a shift of shape \(C,\)"),
        (lambda: ops.sign(ones(2), estimator="tanh"), "expected an estimator among bi_real, clipped, got 'tanh'"),
        (lambda: ops.binary_weight(ones(3), centred=True), r"expected a weight of shape \(O, ...\)"),
        (lambda: ops.quantize_probabilities(ones(3), ones(1)), "expected a single level"),
        (lambda: ops.rprelu(ones(2, 3), ones(3), ones(3), ones(2)), r"all others of shape \(C,\)"),
        (lambda: ops.affine(ones(2, 3), ones(2), ones(3)), r"all others of shape \(C,\)"),
        (lambda: ops.add_shortcut(ones(2, 3), ones(2, 2)), "a multiple of the other"),
        (lambda: ops.add_shortcut(ones(2, 3), ones(1, 3)), r"expected shapes \(..., D\) and \(..., C\)"),
        (lambda: ops.pooling_branches(ones(1, 6, 2), ones(4, 2), ones(4, 2), grid=(2, 2)), "on a grid of 2x2"),
        (lambda: ops.pool_cells(ones(1, 6, 2), grid=(2, 3), size=2), "on a grid of 2x3, in cells of 2x2"),
        (lambda: ops.binary_linear(ones(2, 3), ones(2, 2)), "binary_linear"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def ones(*shape):
    return Tensor(np.ones(shape, np.float32))
