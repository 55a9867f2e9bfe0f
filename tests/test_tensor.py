"""The tape: order, accumulation, freeing, modes, dtypes."""

import copy
import gc
import pickle
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

from minivit import ops
from minivit.tensor import OPS, Tensor, backward, is_grad_enabled, no_grad, op, profile_ops, unbroadcast


def leaf(values, dtype=np.float64):
    return Tensor(np.array(values, dtype), requires_grad=True)


@pytest.fixture
def planted():
    """Ops for one test: they leave the registry afterwards."""
    before = dict(OPS)
    yield op
    OPS.clear()
    OPS.update(before)


# --- order and accumulation --------------------------------------------------------------------------------------


def test_a_chain_of_ten_thousand():
    x = leaf(1.0)
    y = x
    for _ in range(10_000):
        y = y + x * 0
    y.backward()
    assert x.grad == 1


def test_a_chain_of_two_hundred_thousand_is_freed_without_recursion():
    x = leaf(1.0)
    y = x
    for _ in range(200_000):
        y = -y
    node = y._node
    del y, node
    gc.collect()
    assert x.grad is None


def test_a_diamond_of_diamonds():
    a = leaf(1.0)
    b = a
    for _ in range(60):
        b = b + b  # 2**60 paths, 60 nodes
    b.backward()
    assert a.grad == 2.0**60


def test_a_node_runs_after_all_of_its_consumers(planted):
    calls = []

    @planted
    def watched(a, /):
        return a * 1, (lambda g: calls.append(float(g)) or g,)

    a = leaf(2.0)
    b = watched(a)
    c = b * 3
    d = b + c  # b is a parent twice, at different depths
    (d * c + b).backward()
    assert len(calls) == 1
    assert a.grad == calls[0] == 2 * 4 * 3 * 2 + 1


def test_two_backwards_add_up_and_new_gradients_are_new_arrays():
    x = leaf([1.0, 2])
    (x * x).backward(np.ones(2))
    first = x.grad
    (x * 3).backward(np.ones(2))
    np.testing.assert_array_equal(x.grad, [5, 7])
    np.testing.assert_array_equal(first, [2, 4])
    x.zero_grad()
    assert x.grad is None


def test_a_used_graph_says_so_and_leaves_the_gradients_alone():
    x = leaf([1.0])
    shared = x * 2
    y, z = shared + 1, shared + 2
    y.backward()
    for root in (y, z):
        with pytest.raises(RuntimeError, match="used by an earlier backward"):
            root.backward()
    np.testing.assert_array_equal(x.grad, [2])
    assert shared.grad is None and y.grad is None  # gradients are for leaves


def test_a_leaf_can_be_its_own_root():
    x = leaf([1.0, 2], np.float32)
    x.backward(Tensor(np.array([3.0, 4])))
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad, [3, 4])


def test_only_leaves_that_ask_get_gradients():
    x, constant, unused = leaf(1.0), Tensor(np.float64(2)), leaf(3.0)
    y = x * constant + (unused * 0).detach()
    y.backward()
    assert x.grad == 2 and constant.grad is None and unused.grad is None


def test_backward_without_a_graph():
    for tensor in (Tensor(1.0), Tensor(1.0) * 2, (leaf(1.0) * 2).detach()):
        with pytest.raises(RuntimeError, match="does not depend on any tensor that requires a gradient"):
            tensor.backward()


def test_cotangents_are_checked_copied_and_cast():
    x = leaf([1.0, 2], np.float32)
    y = x * 2
    with pytest.raises(ValueError, match=r"single element needs no cotangent, and the shape is \(2,\)"):
        y.backward()
    with pytest.raises(ValueError, match=r"the cotangent has shape \(2, 1\), the tensor \(2,\)"):
        y.backward(np.ones((2, 1)))
    with pytest.raises(ValueError, match="cotangent has shape"):
        y.backward(1.0)
    y.backward([True, False])
    np.testing.assert_array_equal(x.grad, [2, 0])
    g = np.ones(2)
    x.zero_grad()
    (x + 0).backward(g)
    x.grad[0] = 9
    assert g[0] == 1 and x.grad.dtype == np.float32


def test_leaves_share_gradient_memory_with_nobody():
    a, b, c, d = (leaf(np.ones((2, 2))) for _ in range(4))
    g = np.ones((2, 2))
    out = (a + b) + (c.T + d.reshape(4).reshape(2, 2))
    out.backward(g)
    e, f = leaf(np.ones(2)), leaf(np.ones(2))
    (ops.concat([e, f]) + ops.stack([e, f]).flatten()).backward(np.ones(4))
    arrays = [t.grad for t in (a, b, c, d, e, f)] + [g]
    for i, one in enumerate(arrays):
        assert one.flags.writeable
        assert not any(np.shares_memory(one, other) for other in arrays[:i])


def test_the_gradient_of_a_sum_is_no_view_of_one_number():
    x = leaf([1.0, 2])
    x.sum().backward()
    assert x.grad.flags.writeable and x.grad.flags.owndata and x.grad.strides == (8,)


def test_a_graph_that_nobody_needs_is_freed_at_once():
    x = leaf(np.ones(1000))
    y = ops.exp(x)
    held = weakref.ref(y)
    z = y.sum()
    y = None
    assert held() is None  # the node keeps arrays for its VJP, not tensors
    z.backward()
    assert z._node.vjps is None and z._node.parents == ()


def test_constants_keep_no_graph():
    x = Tensor(np.ones(3))
    assert (x * 2 + 1).sum().is_leaf and not (x * 2).requires_grad


def test_a_vjp_is_skipped_for_an_argument_that_needs_none(planted):
    @planted
    def product(a, b, /):
        return a * b, (lambda g: g * b, lambda g: pytest.fail("nobody needs this"))

    x = leaf(2.0)
    product(x, 5.0).backward()
    assert x.grad == 5


def test_an_op_may_return_one_joint_vjp_with_gaps(planted):
    @planted
    def product(a, b, /):
        return a * b, lambda g: (g * b, None)

    a, b = leaf([2.0, 3]), leaf(4.0)
    product(a, b).backward(np.ones(2))
    np.testing.assert_array_equal(a.grad, [4, 4])
    assert b.grad is None


# --- modes -------------------------------------------------------------------------------------------------------


def test_no_grad_as_context_nested_and_through_exceptions():
    x = leaf(1.0)
    with no_grad():
        assert not is_grad_enabled()
        with no_grad():
            assert not (x * 2).requires_grad
        assert not is_grad_enabled()
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert is_grad_enabled() and (x * 2).requires_grad


def test_no_grad_as_decorator_even_of_a_recursive_function():
    @no_grad()
    def depth(n):
        """Count down."""
        assert not is_grad_enabled()
        return depth(n - 1) if n else leaf(1.0) * 2

    assert not depth(3).requires_grad and is_grad_enabled()
    assert depth.__name__ == "depth" and depth.__doc__ == "Count down."


def test_one_decorated_function_in_two_threads_at_once():
    """The outer modes differ, and the calls overlap: each thread must get its own mode back."""
    both_inside, results = threading.Barrier(2, timeout=10), {}

    @no_grad()
    def meet():
        both_inside.wait()
        both_inside.wait()

    def thread(name, outer):
        if outer:
            meet()
            results[name] = is_grad_enabled()
        else:
            with no_grad():
                meet()
                results[name] = is_grad_enabled()

    threads = [threading.Thread(target=thread, args=(i, i % 2 == 0)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(10)
    assert results == {0: True, 1: False}


def test_no_grad_holds_for_its_own_thread_only():
    seen = []
    with no_grad():
        t = threading.Thread(target=lambda: seen.append(is_grad_enabled()))
        t.start()
        t.join()
    assert seen == [True]


def test_profile_ops_counts_calls_and_time():
    x = leaf(np.ones((50, 50)))
    with profile_ops() as times:
        (x @ x + x @ x).sum().backward()
        with profile_ops() as inner:
            ops.exp(x)
    ops.exp(x)
    assert {name: row[0] for name, row in times.items()} == {"matmul": 2, "add": 1, "sum": 1}
    assert all(row[1] > 0 and row[2] > 0 for row in times.values())
    assert inner.keys() == {"exp"} and inner["exp"][0] == 1 and inner["exp"][2] == 0
    with pytest.raises(ZeroDivisionError), profile_ops():
        1 / 0  # noqa: B018
    ops.exp(x)
    assert "exp" not in times


# --- dtypes ------------------------------------------------------------------------------------------------------

CONSTANTS = [2, 0.5, True, np.float64(0.5), np.float32(0.5), np.int32(2), np.array(0.5), np.full(3, 0.5), np.arange(3)]


@pytest.mark.parametrize("constant", CONSTANTS, ids=lambda c: f"{type(c).__name__}-{np.asarray(c).dtype}")
def test_constants_take_the_dtype_of_the_tensor(constant):
    for dtype in (np.float32, np.float64):
        x = leaf([1.0, 2, 3], dtype)
        for out in (x * constant, constant * x, constant - x, x / 2 + constant, ops.maximum(x, constant)):
            assert out.dtype == dtype
        (x * constant).backward(np.ones(3))
        assert x.grad.dtype == dtype


def test_tensors_of_two_dtypes_promote_and_gradients_come_back_in_their_own():
    single, double = leaf([1.0, 2], np.float32), leaf([3.0, 4])
    for combine in (lambda a, b: a * b, lambda a, b: ops.layer_norm(a, b, b), lambda a, b: ops.linear(a, b[None])):
        single.grad = double.grad = None
        out = combine(single, double)
        assert out.dtype == np.float64
        out.backward(np.ones(out.shape))
        assert single.grad.dtype == np.float32 and double.grad.dtype == np.float64
        reference = leaf([1.0, 2])
        combine(reference, double).backward(np.ones(out.shape))
        np.testing.assert_allclose(single.grad, reference.grad, rtol=1e-6)


def test_integers_and_bools():
    i = Tensor(np.arange(3))
    assert i.dtype == np.int64 and (i + 1).dtype == np.int64 and (i > 1).dtype == bool
    assert (i * 0.5).dtype == (Tensor(np.array([True])) * 0.5).dtype == np.float32  # not float64 by accident
    assert (i * leaf([1.0, 2, 3], np.float32)).dtype == np.float32
    assert (i * np.full(3, 0.5)).dtype == np.float64  # no float among the tensors, so the array has its say
    assert i.sum().item() == 3


def test_what_tensors_are_made_of():
    assert Tensor([1.0, 2]).dtype == Tensor(0.5).dtype == np.float32
    assert Tensor(np.float64(0.5)).dtype == Tensor(np.ones(2)).dtype == np.float64
    assert Tensor([1, 2]).dtype == np.int64 and Tensor([True]).dtype == bool
    array = np.ones(3, np.float32)
    assert Tensor(array).data is array and Tensor(Tensor(array)).data is array
    x = Tensor(np.ones((2, 3)))
    assert (x.shape, x.ndim, x.size, x.dtype, x.is_leaf, x.grad) == ((2, 3), 2, 6, np.float64, True, None)


def test_writing_in_place_is_refused():
    with pytest.raises(TypeError, match="in place"):
        leaf([1.0])[0] = 2


def test_leaves_copy_and_pickle():
    x = leaf([1.0, 2])
    (x * x).backward(np.ones(2))
    for twin in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert twin.requires_grad and not np.shares_memory(twin.data, x.data)
        np.testing.assert_array_equal([twin.data, twin.grad], [x.data, x.grad])


# --- un-broadcasting ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1), (1, 4), (2, 3, 4), (1, 1, 1), (1, 3, 1)])
def test_unbroadcast_sums_what_broadcasting_repeated(shape):
    g = np.random.default_rng(0).standard_normal((2, 3, 4))
    expected = np.zeros(shape)
    numbers = np.broadcast_to(np.arange(expected.size).reshape(shape), g.shape)
    for i in np.ndindex(g.shape):
        expected.reshape(-1)[numbers[i]] += g[i]
    np.testing.assert_allclose(unbroadcast(g, shape), expected, atol=1e-14)


def test_broadcasting_with_empty_axes():
    x, y = leaf(np.ones((1, 3))), leaf(np.ones((0, 1)))
    out = x * y
    assert out.shape == (0, 3)
    backward(out, np.ones((0, 3)))
    np.testing.assert_array_equal(x.grad, np.zeros((1, 3)))
    assert y.grad.shape == (0, 1)


def test_numpy_functions_do_not_leave_the_tape_unseen():
    t = Tensor(np.ones(2), requires_grad=True)
    with pytest.raises(TypeError, match=r"use an op of minivit.ops, or .detach\(\) first"):
        np.concatenate([t, t])
    np.testing.assert_array_equal(np.concatenate([t.detach(), t.detach()]), np.ones(4))


def test_logic_of_comparisons():
    t = Tensor(np.array([1.0, 2.0, 3.0]))
    middle = (t > 1) & ~(t > 2)
    np.testing.assert_array_equal(middle.data, [False, True, False])
    np.testing.assert_array_equal(((t < 2) | (t > 2)).data, [True, False, True])
    assert middle.any() and not middle.all() and middle.tolist() == [False, True, False]


def test_the_tape_alone_has_its_operators():
    code = "from minivit.tensor import Tensor; print((Tensor([1.0]) + 1).item())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2.0\n"


def test_an_op_cannot_replace_another():
    with pytest.raises(ValueError, match="there is an op 'mul' already"):

        @op
        def mul(a, b, /):
            return a * b, (None, None)


def test_an_error_in_a_vjp_names_its_op():
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    out = ops.reshape(x, (3, 2))
    out._node.vjps = (lambda g: g.reshape(7),)
    with pytest.raises(RuntimeError, match=r"backward of reshape, with inputs of shapes \(\(2, 3\),\)"):
        out.sum().backward()
