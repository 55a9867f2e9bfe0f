"""The checker catches what it is there to catch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minivit import ops
from minivit.gradcheck import GradientError, gradcheck
from minivit.tensor import OPS, Tensor, op

X = np.random.default_rng(0).standard_normal((3, 4))


@pytest.fixture
def planted(monkeypatch):
    """Ops for one test: they leave the registry afterwards."""
    before = dict(OPS)
    yield op
    OPS.clear()
    OPS.update(before)


def wrong_softmax(a, /):
    out = ops.softmax.raw(a)[0]
    return out, (lambda g: out * g,)  # forgets that the elements of a row compete


def test_a_wrong_softmax_is_caught_where_the_cotangent_of_ones_is_blind(planted):
    softmax = planted(wrong_softmax)
    right, wrong = (Tensor(X, requires_grad=True) for _ in range(2))
    (ops.softmax(right) + 0).sum().backward()
    assert np.abs(right.grad).max() < 1e-15  # rows sum to one, so a plain sum sees nothing at all
    gradcheck(ops.softmax, [X])
    with pytest.raises(GradientError, match=r"input 0, element \(\d, \d\)"):
        gradcheck(softmax, [X])

    centred = planted(lambda a, /: (ops.softmax.raw(a)[0], (lambda g: 0 * g,)))
    centred(wrong).sum().backward()
    np.testing.assert_allclose(wrong.grad, right.grad, atol=1e-15)  # a VJP of zeros passes the plain sum
    with pytest.raises(GradientError):
        gradcheck(centred, [X])


def test_the_report_says_where_and_by_how_much(planted):
    @planted
    def off_in_one_place(a, b, /):
        error = np.zeros(b.shape)
        error[1, 2] = 0.25
        return a * b, (lambda g: g * b, lambda g: g * a + error)

    with pytest.raises(GradientError) as caught:
        gradcheck(off_in_one_place, [X, X])
    cotangent = np.random.default_rng(0).standard_normal(X.shape)
    expected = X[1, 2] * cotangent[1, 2]
    message = str(caught.value)
    assert message.startswith("input 1, element (1, 2): ") and "(1 of 12 elements differ)" in message
    assert f"tape gives {expected + 0.25:.6f}" in message and f"differences {expected:.6f}" in message


def test_a_lost_gradient_is_caught():
    with pytest.raises(GradientError, match="the tape gives 0,"):
        gradcheck(lambda a, b: a * b.detach(), [X, X])
    with pytest.raises(GradientError, match="input 0"):
        gradcheck(lambda a: Tensor(a.data * 2), [X])


def test_a_gradient_of_nan_is_caught(planted):
    nan = planted(lambda a, /: (a * 1, (lambda g: g * np.nan,)))
    with pytest.raises(GradientError, match="tape gives nan"):
        gradcheck(nan, [X])


def test_infinite_differences_do_not_pass_for_agreement():
    def jump(a):
        return ops.where(a.data > 1, np.inf, a)

    with pytest.raises(GradientError, match="inf"):
        gradcheck(jump, [np.array([0.5, 1.0])])


@pytest.mark.parametrize("when", ["forward", "backward"])
def test_writing_to_an_input_is_caught(planted, when):
    @planted
    def writes(a, /):
        def vjp(g):
            if when == "backward":
                a[0] = 0
            return g

        out = a * 1
        if when == "forward":
            a[0] = 0
        return out, (vjp,)

    with pytest.raises(GradientError, match="input 0 was changed in place"):
        gradcheck(writes, [X.copy()])


def test_surrogate_stands_in_for_a_step(planted):
    @planted
    def step(a, /):
        return np.where(a >= 0, 1.0, -1.0), (lambda g: g * (np.abs(a) < 1),)

    gradcheck(step, [X], surrogate=lambda a: ops.clip(a, -1, 1))
    with pytest.raises(GradientError):
        gradcheck(step, [X])
    with pytest.raises(GradientError):
        gradcheck(step, [X], surrogate=ops.tanh)


def test_inputs_of_every_kind():
    gradcheck(lambda a, b, c: a * b + c, [2.5, X.astype(np.float32), Tensor(X[:, 1:2])])
    gradcheck(lambda a, i: a[i.data], [X, np.array([0, 2, 2])])  # integers pass through, not differentiated
    gradcheck(lambda a: a * 2, [np.empty((0, 3))])
    gradcheck(lambda a, b: a @ b, [X[::2, ::-1], np.asfortranarray(X.T)])
    gradcheck(lambda a: a * a, [np.broadcast_to(X[0], (3, 4))])
    x = X.copy()
    gradcheck(lambda a, b: a * b, [x, x])
    np.testing.assert_array_equal(x, X)


def test_the_differences_see_the_strides_that_the_tape_saw():
    for array in (X, X.T, X[::-1], X[:, ::-1].T, np.asfortranarray(X), X.reshape(3, 2, 2).transpose(2, 0, 1)):
        seen = []
        gradcheck(lambda a, seen=seen: (seen.append(a.data.strides), a * 2)[1], [array])
        signs = {tuple(np.sign(s)) for s in seen}
        orders = {tuple(np.argsort(np.abs(s))) for s in seen}
        assert len(signs) == len(orders) == 1


def test_an_inexact_function_needs_looser_tolerances():
    def rounded(a):
        return a.astype(np.float32).astype(np.float64)

    with pytest.raises(GradientError):
        gradcheck(rounded, [X])
    gradcheck(rounded, [X], eps=1e-2, rtol=1e-4)


ORDERS = {
    "function": "import minivit; minivit.gradcheck(f, [x])",
    "function, then module": "import minivit; minivit.gradcheck(f, [x]); import minivit.gradcheck; "
    "minivit.gradcheck(f, [x]); from minivit.gradcheck import GradientError, gradcheck; gradcheck(f, [x])",
    "module, then function": "import minivit.gradcheck; minivit.gradcheck.gradcheck(f, [x]); "
    "assert issubclass(minivit.gradcheck.GradientError, AssertionError); minivit.gradcheck(f, [x], rtol=1e-4)",
    "from the package": "from minivit import gradcheck, GradientError; gradcheck(f, [x])",
    "from the module, then the package": "from minivit.gradcheck import gradcheck; from minivit import gradcheck as g; "
    "gradcheck(f, [x]); g(f, [x])",
}


def test_function_and_module_in_either_order_of_import():
    """Each order in a new interpreter."""
    for name, code in ORDERS.items():
        code = f"f, x = lambda a: a * 2, 1.5; {code}"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (name, done.stderr)


def test_the_module_keeps_its_names_after_a_call():
    code = (
        "import minivit; minivit.gradcheck(lambda x: x * x, [[1.0, 2.0]]); "
        "print(minivit.gradcheck.GradientError is minivit.GradientError)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_a_vjp_that_writes_to_its_cotangent_is_found(planted):
    @planted
    def greedy(a, /):
        def vjp(g):
            part = 2 * g
            g[...] = 0
            return part

        return 2 * a, (vjp,)

    with pytest.raises(GradientError, match="wrote to its cotangent"):
        gradcheck(greedy, [np.ones(3)])
