"""Every op's gradient against finite differences, and the documented derivatives at kinks and ties."""

import numpy as np
import pytest
from binary_op_strategies import CASES
from hypothesis import given
from hypothesis import strategies as st

from minivit import ops
from minivit.gradcheck import gradcheck
from minivit.kernels import use_backend
from minivit.tensor import OPS, Tensor, profile_ops

OURS = sorted(name for name, op in OPS.items() if op.raw.__module__.startswith("minivit."))


def test_every_op_has_a_strategy_and_every_strategy_an_op():
    assert sorted(CASES) == OURS


# What stands between an input and the op, or between the op and the cotangent: views made by other ops, so that the
# op sees negative, swapped and zero strides and read-only memory in both directions.
VIEWS = {
    "none": lambda x: x,
    "flipped": lambda x: x.flip(),
    "transposed": lambda x: x.T,
    "part": lambda x: x[1:, ...] if x.ndim else x,
    "summed": lambda x: x.sum(0) if x.ndim else x,
}


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("name", OURS)
@given(data=st.data())
def test_gradient(name, backend, data):
    case = data.draw(CASES[name])
    after = VIEWS[data.draw(st.sampled_from(sorted(VIEWS)))]
    through_views = data.draw(st.booleans())

    def among_views(fn):
        def viewed(*inputs):
            if through_views:
                inputs = [x.T.flip().T.flip() for x in inputs]
            return after(fn(*inputs))

        return viewed

    options = dict(case.options)
    if "surrogate" in options:
        options["surrogate"] = among_views(options["surrogate"])
    with use_backend(backend):
        with profile_ops() as seen:
            case.fn(*(Tensor(x) for x in case.inputs))
        assert name in seen
        gradcheck(among_views(case.fn), case.inputs, **options)


@pytest.mark.parametrize("name", OURS)
@given(data=st.data())
def test_float32_stays_float32(name, data):
    case = data.draw(CASES[name])
    if name == "astype":
        return
    inputs = [Tensor(x.astype(np.float32), requires_grad=True) for x in case.inputs]
    out = case.fn(*inputs)
    exact = case.fn(*(Tensor(x) for x in case.inputs))
    assert out.dtype == np.float32 and out.shape == exact.shape
    np.testing.assert_allclose(out.data, exact.data, rtol=2e-3, atol=2e-5)
    out.backward(np.ones(out.shape))
    assert all(x.grad is None or x.grad.dtype == np.float32 and x.grad.shape == x.shape for x in inputs)


def gradients(fn, *arrays):
    tensors = [Tensor(np.array(a, np.float64), requires_grad=True) for a in arrays]
    fn(*tensors).sum().backward()
    return [t.grad for t in tensors]


@pytest.mark.parametrize(
    ("fn", "x", "expected"),
    [
        (ops.abs, [-2, 0, 2], [-1, 0, 1]),
        (ops.relu, [-2, 0, 2], [0, 0, 1]),
        (lambda x: ops.clip(x, -1, 1), [-1.5, -1, 0, 1, 1.5], [0, 1, 1, 1, 0]),
        (lambda x: x**2, [0, 3], [0, 6]),
        (lambda x: x**0, [0, 3], [0, 0]),
        (lambda x: x**1, [0, 3], [1, 1]),
        (ops.max, [1, 3, 3], [0, 0.5, 0.5]),
        (ops.min, [1, 1, 3], [0.5, 0.5, 0]),
    ],
)
def test_documented_derivative_at_a_kink(fn, x, expected):
    np.testing.assert_array_equal(gradients(fn, x)[0], expected)


@pytest.mark.parametrize("fn", [ops.maximum, ops.minimum])
def test_ties_halve_the_cotangent(fn):
    for g in gradients(fn, [1, 5], [1, 5]):
        np.testing.assert_array_equal(g, [0.5, 0.5])


def test_power_of_zero_in_the_exponent_is_flat():
    base, exponent = gradients(lambda a, b: a**b, [0.0, 2.0], [2.0, 3.0])
    np.testing.assert_allclose(base, [0, 12])
    np.testing.assert_allclose(exponent, [0, 8 * np.log(2)])


def test_square_root_at_zero_is_infinitely_steep():
    with np.errstate(divide="ignore"):
        assert gradients(ops.sqrt, [0.0])[0] == np.inf


def test_ties_in_max_pooling_go_to_the_first():
    (g,) = gradients(lambda x: ops.max_pool2d(x, 2), np.ones((1, 1, 2, 2)))
    np.testing.assert_array_equal(g[0, 0], [[1, 0], [0, 0]])


def test_an_infinite_cotangent_stays_out_of_the_branch_that_was_not_taken():
    x = Tensor(np.array([1.0, 0.0]), requires_grad=True)
    with np.errstate(divide="ignore"):
        ops.sqrt(ops.where(x.data > 0.5, 1.0, x)).sum().backward()
    np.testing.assert_array_equal(x.grad, [0, np.inf])


def test_masked_scores_pass_no_gradient():
    rng = np.random.default_rng(0)
    scores = Tensor(rng.standard_normal((2, 3)), requires_grad=True)
    mask = np.array([0, -np.inf, 0])
    for fn in (ops.softmax, ops.logsumexp):
        scores.grad = None
        out = fn(scores + mask, axis=-1)
        out.backward(rng.standard_normal(out.shape))
        assert np.isfinite(scores.grad).all() and not scores.grad[:, 1].any()


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: ops.split(x, 3, axis=1)[1],
        lambda x: ops.stack(ops.split(ops.split(x, [1, 4], axis=-1)[1], 3, -1)),
        lambda x: x.swapaxes(0, -1),
        lambda x: x.std(1),
        lambda x: x.std(0, keepdims=True, correction=1),
        lambda x: x.flatten(),
        lambda x: ops.einsum("ij,kj", x, x),
        lambda x: (x[0] + x[-1] * x[:, :1]) @ x.T,
        lambda x: ops.stack(list(x)[::-1], 1),
        lambda x: ops.log_softmax(x).mean(0) - x.max(0) + 1 / (2 + x * x) - 2**x,
    ],
)
def test_gradient_of_compositions(fn):
    gradcheck(fn, [np.random.default_rng(1).standard_normal((3, 6))])
