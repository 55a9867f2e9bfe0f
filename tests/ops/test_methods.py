"""Tensor's operators and methods behave as a user of NumPy or PyTorch expects."""

import operator

import numpy as np
import pytest

from minivit import ops
from minivit.tensor import Tensor

A = np.random.default_rng(3).uniform(0.5, 2, (2, 3, 4)).astype(np.float32)


def same(out, expected):
    """``out`` is a Tensor that equals the NumPy result, in float32 where that is floating."""
    assert isinstance(out, Tensor) and out.shape == np.shape(expected)
    assert out.dtype == (np.float32 if np.asarray(expected).dtype.kind == "f" else np.asarray(expected).dtype)
    np.testing.assert_allclose(out.data, expected, rtol=1e-6)


OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
OTHERS = [
    2, 2.5, np.float32(1.5), np.float64(1.5), np.int64(2), True, A[0], A.astype(np.float64), np.arange(1, 5),
    [1.0, 2, 3, 4], np.ones((2, 1, 1)),
]  # fmt: skip


@pytest.mark.parametrize("other", OTHERS, ids=lambda x: f"{type(x).__name__}{np.shape(x)}")
@pytest.mark.parametrize("function", OPERATORS)
def test_arithmetic_on_both_sides_stays_float32_and_on_the_tape(function, other):
    x, plain = Tensor(A, requires_grad=True), np.asarray(other).astype(np.float32)
    for out, expected in [(function(x, other), function(A, plain)), (function(other, x), function(plain, A))]:
        same(out, expected)
        assert out.requires_grad


def test_matmul_and_unary_operators():
    x, left = Tensor(A[0]), np.ones((5, 3))
    same(left @ x, left @ A[0])
    same(x @ A[0].T, A[0] @ A[0].T)
    same(x @ x.T, A[0] @ A[0].T)
    same(x.matmul(x.T), A[0] @ A[0].T)
    same(-x, -A[0])
    same(abs(-x), A[0])
    assert +x is x


def test_augmented_assignment_makes_a_new_tensor():
    x = y = Tensor(A, requires_grad=True)
    y += 1
    y *= 2
    same(y, (A + 1) * 2)
    assert y is not x and x.is_leaf
    array = np.ones(A.shape)
    with pytest.raises(TypeError):  # an array cannot hold the tape
        array += x


@pytest.mark.parametrize("function", [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge])
def test_comparisons_give_bool_tensors_without_gradient(function):
    x, other = Tensor(A, requires_grad=True), A[::-1].copy()
    for out in (function(x, other), function(x, Tensor(other))):
        same(out, function(A, other))
        assert not out.requires_grad
    same(function(x, 1.0), function(A, 1.0))
    same(function(1.0, x), function(1.0, A))
    same(function(other, x), function(other, A))


def test_comparison_with_none_is_false_everywhere():
    x = Tensor(A)
    assert not (x == None).data.any()  # noqa: E711 (what users write)


def test_masks_multiply_without_turning_float64():
    x = Tensor(A, requires_grad=True)
    same((x > 1) * 0.5 * x, (A > 1) * np.float32(0.5) * A)
    same(Tensor(np.arange(3)) * 0.5, np.arange(3) * np.float32(0.5))
    same(ops.where(x > 1, x, 0.0), np.where(A > 1, A, 0))
    same(x[x > 1], A[A > 1])


def test_tensors_are_dictionary_keys_by_identity():
    a, b = Tensor(A), Tensor(A)
    assert {a: 1, b: 2}[a] == 1 and len({a, b, a}) == 2


def test_iteration_unpacking_and_length():
    x = Tensor(A, requires_grad=True)
    first, second = x
    same(first, A[0])
    same(second, A[1])
    assert len(x) == 2 and len(list(x)) == 2 and first.requires_grad
    with pytest.raises(TypeError, match="0-d"):
        iter(Tensor(1.0))
    with pytest.raises(TypeError, match="unsized"):
        len(Tensor(1.0))


INDICES = [
    0, -1, np.int64(1), slice(None), slice(None, None, -1), slice(1, 1), ..., None, (0, 1), (0, ..., 1), (..., None, 0),
    (slice(None), slice(1, 3), slice(None, None, 2)), [0, 0, 1], [], np.array([[1, 0], [0, 0]]), ([1, 0], [2, 2]),
    (slice(None), [0, 2, 2]), (0, [0, 2], slice(1, 2)), True, A > 1, (A > 1)[:, 0, 0], (0, (A > 1)[0, 0, :3]),
    (np.array([0, 1])[:, None], np.array([[0, 2]])),
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indexing(index):
    same(Tensor(A)[index], A[index])


def test_indexing_by_tensors_and_by_lists_that_change_afterwards():
    x = Tensor(A, requires_grad=True)
    same(x[Tensor(np.array([1, 1, 0]))], A[[1, 1, 0]])
    same(x[0, Tensor(np.array(2))], A[0, 2])
    growing = [1]
    out = x[growing]
    growing.append(0)
    out.sum().backward()
    assert x.grad[1].all() and not x.grad[0].any()


def test_an_element_picked_twice_gets_both_cotangents():
    x = Tensor(np.zeros(3), requires_grad=True)
    x[[0, 2, 2, -1]].backward(np.array([1.0, 10, 100, 1000]))
    np.testing.assert_array_equal(x.grad, [1, 0, 1110])


METHODS = {
    "sum": lambda x: x.sum(),
    "sum of an axis": lambda x: x.sum(1),
    "sum of negative axes": lambda x: x.sum((-1, 0)),
    "sum with keepdims": lambda x: x.sum(axis=-1, keepdims=True),
    "mean": lambda x: x.mean(0),
    "mean with keepdims": lambda x: x.mean((0, 2), keepdims=True),
    "var": lambda x: x.var(axis=2),
    "std": lambda x: x.std(axis=(0, 1), keepdims=True),
    "max": lambda x: x.max(1),
    "min": lambda x: x.min(axis=-2, keepdims=True),
    "reshape": lambda x: x.reshape(4, -1),
    "reshape to a tuple": lambda x: x.reshape((6, 4)),
    "reshape to one axis": lambda x: x.reshape(-1),
    "reshape by lengths": lambda x: x.reshape(x.shape[0], -1),
    "flatten": lambda x: x.flatten(),
    "T": lambda x: x.T,
    "transpose": lambda x: x.transpose(),
    "transpose with axes": lambda x: x.transpose(1, 0, 2),
    "transpose with a tuple": lambda x: x.transpose((-1, 0, 1)),
    "swapaxes": lambda x: x.swapaxes(-1, 0),
    "squeeze": lambda x: x[:1].squeeze(),
    "squeeze one axis": lambda x: x[:1, :1].squeeze(1),
    "clip": lambda x: x.clip(0.8, 1.2),
    "clip from above": lambda x: x.clip(None, 1.0),
    "square": lambda x: x**2,
    "inverse": lambda x: 1 / x,
    "power of a number": lambda x: 2**x,
    "astype": lambda x: x.astype(np.int64),
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_as_numpys(name):
    same(METHODS[name](Tensor(A)), METHODS[name](A))


def test_methods_as_pytorchs():
    x = Tensor(A)
    same(x.permute(2, 0, 1), A.transpose(2, 0, 1))
    same(x.unsqueeze(1), A[:, None])
    same(x.unsqueeze(-1), A[..., None])
    same(x.flatten(1), A.reshape(2, 12))
    same(x.flatten(0, 1), A.reshape(6, 4))
    same(x.flatten(-2), A.reshape(2, 12))
    same(Tensor(2.0).flatten(), np.full(1, 2, np.float32))
    same(x.exp().log(), A)
    same(x.sqrt() ** 2, A)
    same(x.abs().relu(), A)
    same(x.roll(1, 0).flip(0), np.roll(A, 1, 0)[::-1])
    same(x.broadcast_to((5, 2, 3, 4)), np.broadcast_to(A, (5, 2, 3, 4)))
    np.testing.assert_allclose(x.softmax(-1).sum(-1).data, 1, rtol=1e-6)
    np.testing.assert_allclose(x.log_softmax(0).logsumexp(0).data, 0, atol=1e-6)
    for name in ("tanh", "sigmoid", "erf", "gelu"):
        same(getattr(x, name)(), getattr(ops, name)(A).data)
    np.testing.assert_array_equal(x.argmax(1), A.argmax(1))
    assert x.argmin() == A.argmin()


def test_split_joins_back():
    x = Tensor(A)
    cuts = [(2, 2), ([1, 3], -1), (np.int64(4), 2), ([0, 4], 2)]
    for parts in (ops.split(x, sections, axis) for sections, axis in cuts):
        same(ops.concat(parts, axis=-1), A)
    assert [p.shape for p in ops.split(x, [1, 3], -1)] == [(2, 3, 1), (2, 3, 2), (2, 3, 1)]


def test_concat_and_stack_as_numpys():
    x = Tensor(A)
    same(ops.concat([x, A, x[:0]]), np.concatenate([A, A]))
    same(ops.stack([x, A], axis=-1), np.stack([A, A], -1))
    same(ops.concat(x, axis=1), np.concatenate(A, axis=1))  # as NumPy: an array is a sequence


def test_padding_as_numpys():
    for widths in (1, (0, 2), [(1, 0), (0, 2), (1, 1)]):
        same(ops.pad(A, widths, 7), np.pad(A, widths, constant_values=7))


def test_conversion_to_python_numbers_and_text():
    loss = Tensor(A).sum() * 0 + 2.5
    assert loss.item() == 2.5 and float(loss) == 2.5 and int(loss) == 2 and bool(loss)
    assert f"{loss:.3f}" == "2.500" and f"{loss}" == str(loss) == "Tensor(2.5, dtype=float32)"
    assert float(Tensor(np.full((1, 1), 3.0))) == 3 and f"{Tensor(np.full(1, 3.0)):g}" == "3"
    assert isinstance(loss.item(), float) and isinstance(Tensor([3]).item(), int)
    with pytest.raises(ValueError, match="size 1"):
        f"{Tensor(A):.3f}"


def test_conversion_to_arrays():
    x = Tensor(A, requires_grad=True)
    plain = x.detach()
    assert x.numpy() is A and np.asarray(plain) is A
    assert np.asarray(plain, dtype=np.float64).dtype == np.float64
    assert not np.shares_memory(np.array(plain), A)
    assert x.detach().data is A and not x.detach().requires_grad


@pytest.mark.parametrize("function", [np.exp, np.sqrt, np.add.reduce, lambda x: np.maximum(x, 0), np.sum, np.mean])
def test_numpys_functions_refuse_rather_than_leave_the_tape(function):
    with pytest.raises(TypeError):
        function(Tensor(A, requires_grad=True))


def test_repr_is_short_and_says_what_matters():
    text = repr(Tensor(np.zeros((1000, 1000)), requires_grad=True))
    assert "dtype=float64" in text and "requires_grad=True" in text and len(text) < 700


def test_repeated_use_in_one_operation():
    for function, slope in [(lambda x: x * x, 6), (lambda x: x / x, 0), (lambda x: x - x, 0), (lambda x: x + x, 2)]:
        x = Tensor(3.0, requires_grad=True)
        function(x).backward()
        assert x.grad == slope


def test_std_is_flat_where_nothing_varies():
    x = Tensor(np.ones((2, 1)), requires_grad=True)
    x.std(1).backward(np.ones(2))
    np.testing.assert_array_equal(x.grad, 0)


@pytest.mark.parametrize(
    "result",
    [
        lambda: Tensor([1, 2]) / 2,
        lambda: (Tensor([1.0, 2.0]) > 1).mean(),
        lambda: Tensor([1, 2]) * [0.5, 0.5],
        lambda: ops.where(np.array([True, False]), -np.inf, 0.0),
        lambda: ops.clip(Tensor([1.0, 2.0]), np.float64(-1), np.float64(1)),
        lambda: Tensor([1.0]).clip(min=0),
    ],
)
def test_nothing_becomes_float64_by_accident(result):
    assert result().dtype == np.float32


def test_asked_for_float64_stays():
    assert (Tensor(np.array([1, 2])) * np.array([0.5, 0.5])).dtype == np.float64
    assert Tensor([1, 2]).astype(np.float64).dtype == np.float64
    assert Tensor([1.5]).astype(np.int64).tolist() == [1]


def test_comparisons_follow_the_dtype_of_the_tensor():
    assert (Tensor(np.float32(0.1)) == np.float64(0.1)).item()


def test_an_index_that_changes_later_does_no_harm():
    x, index = Tensor(np.arange(3.0), requires_grad=True), np.array([0, 1])
    out = x[index]
    index[:] = 2
    out.backward(np.ones(2))
    np.testing.assert_array_equal(x.grad, [1, 1, 0])


def test_integers_are_measured_as_numbers():
    bits, bytes_ = Tensor(np.array([True, False, True, False])), Tensor(np.arange(600).astype(np.uint8))
    assert bits.var().item() == 0.25 and bits.std().item() == 0.5
    np.testing.assert_allclose(bytes_.std().item(), bytes_.data.std(), rtol=1e-6)
    assert Tensor(np.array([4, 9], np.uint8)).sqrt().tolist() == [2, 3]


def test_clipping_integers_promotes_as_in_numpy():
    assert Tensor([1, 2, 3]).clip(1.5, 2.5).tolist() == [1.5, 2, 2.5]
    assert Tensor(np.array([3, 200], np.uint8)).clip(0, 256).tolist() == [3, 200]


def test_comparison_with_text_is_a_type_error():
    with pytest.raises(TypeError, match=r"equal\(float32\[1\], 'a'\)"):
        Tensor([1.0]) == "a"  # noqa: B015
