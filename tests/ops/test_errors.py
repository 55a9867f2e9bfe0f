"""A call that cannot work says which op, with which shapes and dtypes, and what it expected."""

import numpy as np
import pytest

from minivit import ops
from minivit.errors import UsageError
from minivit.kernels import backend, threads, use_backend
from minivit.tensor import Tensor

RNG = np.random.default_rng(0)


def t(*shape):
    return Tensor(np.ones(shape, np.float32))


INTS = Tensor(np.ones((2, 3, 4, 4), np.int64))

WRONG = {
    # shapes
    "add": (lambda: t(2, 3) + t(4), ValueError, r"add\(float32\[2, 3\], float32\[4\]\): .*broadcast"),
    "matmul": (lambda: t(2, 3) @ t(2, 3), ValueError, r"matmul\(float32\[2, 3\], float32\[2, 3\]\): expected the last"),
    "matmul 0-d": (lambda: t(2) @ 3, ValueError, r"matmul\(float32\[2\], 3\): expected"),
    "linear": (lambda: ops.linear(t(2, 3), t(4, 2)), ValueError, r"linear\(.*\): expected x of shape \(..., in\)"),
    "linear bias": (lambda: ops.linear(t(2, 3), t(4, 3), t(3)), ValueError, r"expected a bias of shape \(out,\)"),
    "conv2d": (lambda: ops.conv2d(t(1, 3, 4, 4), t(8, 4, 3, 3)), ValueError, r"conv2d\(.*expected x \(B, C, H, W\)"),
    "conv2d groups": (
        lambda: ops.conv2d(t(1, 4, 4, 4), t(3, 2, 1, 1), groups=2), ValueError, "O to divide into groups=2"
    ),
    "conv2d kernel": (lambda: ops.conv2d(t(1, 1, 2, 2), t(1, 1, 3, 3)), ValueError, "larger than the padded image"),
    "conv2d stride": (lambda: ops.conv2d(t(1, 1, 2, 2), t(1, 1, 1, 1), stride=0), ValueError, "stride of at least 1"),
    "max_pool2d": (lambda: ops.max_pool2d(t(1, 1, 4, 4), 2, padding=2), ValueError, "at most half the kernel"),
    "pool pair": (lambda: ops.avg_pool2d(t(1, 1, 4, 4), (2, 2, 2)), ValueError, r"a pair of them, got \(2, 2, 2\)"),
    "unfold": (lambda: ops.unfold(t(4, 4), 2), ValueError, r"unfold\(float32\[4, 4\]\): expected images"),
    "layer_norm": (lambda: ops.layer_norm(t(2, 3), t(2), t(2)), ValueError, "layer_norm.*weight and a bias of shape"),
    "batch_norm": (
        lambda: ops.batch_norm(t(2, 3), t(3), t(3), np.ones(3), np.ones(2), True), ValueError, "running statistics"
    ),
    "batch_norm of one": (
        lambda: ops.batch_norm(t(1, 3), t(3), t(3), np.ones(3), np.ones(3), True), ValueError, "more than one value"
    ),
    "attention": (
        lambda: ops.attention(t(1, 2, 3, 4), t(1, 2, 3, 5), t(1, 2, 3, 4), t(2)), ValueError, r"q \(B, H, N, d\)"
    ),
    "attention without keys": (
        lambda: ops.attention(t(1, 1, 2, 3), t(1, 1, 0, 3), t(1, 1, 0, 3), t(1)), ValueError, "at least one"
    ),
    "attention scale": (
        lambda: ops.attention(t(1, 2, 3, 4), t(1, 2, 3, 4), t(1, 2, 3, 4), 0.5), ValueError, r"a scale of shape \(H,\)"
    ),
    "attention bias": (
        lambda: ops.attention(t(1, 2, 3, 4), t(1, 2, 3, 4), t(1, 2, 3, 4), t(2), t(4, 4)), ValueError, "broadcast"
    ),
    "self_attention": (lambda: ops.self_attention(t(1, 2, 7), t(2)), ValueError, r"qkv of shape \(B, N, 3 H d\)"),
    "self_attention scale": (lambda: ops.self_attention(t(1, 2, 6), 0.5), ValueError, r"a scale of shape \(H,\)"),
    "self_attention heads": (lambda: ops.self_attention(t(1, 2, 6), t(0)), ValueError, r"a scale of shape \(H,\)"),
    "reshape": (lambda: t(2, 3).reshape(4, 2), ValueError, r"reshape\(float32\[2, 3\]\): cannot reshape .* \(4,2\)"),
    "concat": (lambda: ops.concat([t(2, 3), t(2, 4)]), ValueError, r"concat\(float32\[2, 3\], float32\[2, 4\]\)"),
    "concat of nothing": (lambda: ops.concat([]), ValueError, "at least one"),
    "stack": (lambda: ops.stack([t(2), t(3)]), ValueError, r"stack\(float32\[2\], float32\[3\]\): .*same shape"),
    "split": (lambda: ops.split(t(2, 3), 2, 1), ValueError, "split: axis 1 of size 3 does not divide into 2"),
    "squeeze": (lambda: t(2, 3).squeeze(0), ValueError, r"squeeze\(float32\[2, 3\]\)"),
    "pad": (lambda: ops.pad(t(2, 3), [(0, -1), (0, 0)]), ValueError, "widths of at least 0"),
    "broadcast_to": (lambda: t(2, 3).broadcast_to((2, 4)), ValueError, r"broadcast_to\(float32\[2, 3\]\)"),
    "einsum sizes": (lambda: ops.einsum("ij,jk->ik", t(2, 3), t(2, 3)), ValueError, r"einsum\(float32\[2, 3\]"),
    "einsum operands": (lambda: ops.einsum("ij,jk->ik", t(2, 3)), ValueError, "names 2 operands, 1 were given"),
    "einsum diagonal": (lambda: ops.einsum("ii->i", t(2, 2)), ValueError, "twice in one term"),
    "einsum ellipsis": (lambda: ops.einsum("...i->i", t(2, 2)), ValueError, "ellipsis"),
    "cross_entropy": (lambda: ops.cross_entropy(t(2, 3), [0, 1, 2]), ValueError, r"expected labels \(2,\)"),
    "cross_entropy 1-D": (lambda: ops.cross_entropy(t(3), [0]), ValueError, r"logits of shape \(B, C\)"),
    "cross_entropy empty": (lambda: ops.cross_entropy(t(0, 3), np.zeros(0, int)), ValueError, "not empty"),
    "mean of nothing": (lambda: t(0, 3).mean(0), ValueError, r"mean\(float32\[0, 3\]\): cannot reduce an empty axis"),
    "logsumexp of nothing": (lambda: t(2, 0).logsumexp(1), ValueError, "empty axis"),
    "max of nothing": (lambda: t(0).max(), ValueError, r"max\(float32\[0\]\)"),
    "var of one": (lambda: t(1, 3).var(0, correction=1), ValueError, "more than 1 elements for correction=1"),
    "item": (lambda: t(2).item(), ValueError, "size 1"),
    "truth": (lambda: bool(t(2)), ValueError, "ambiguous"),
    # axes and indices
    "sum axis": (lambda: t(2, 3).sum(2), ValueError, r"sum\(float32\[2, 3\]\): axis 2 is out of bounds"),
    "mean axis": (lambda: t(2, 3).mean(-3), ValueError, r"mean\(float32\[2, 3\]\): axis -3 is out of bounds"),
    "var axes": (lambda: t(2, 3).var((0, -2)), ValueError, r"var\(float32\[2, 3\]\): .*[dD]uplicate|repeated"),
    "softmax axis": (lambda: t(2, 3).softmax(2), ValueError, r"softmax\(float32\[2, 3\]\): axis 2"),
    "transpose": (lambda: t(2, 3).transpose(0, 0), ValueError, r"transpose\(float32\[2, 3\]\): repeated axis"),
    "swapaxes": (lambda: t(2, 3).swapaxes(0, 2), IndexError, r"swapaxes: axes 0 and 2 of a tensor of shape \(2, 3\)"),
    "split axis": (lambda: ops.split(t(2, 3), 1, 2), IndexError, r"split: axis 2 of a tensor of shape \(2, 3\)"),
    "flatten": (lambda: t(2, 3).flatten(2), IndexError, r"flatten: axes 2 to -1 of a tensor of shape \(2, 3\)"),
    "flatten backwards": (lambda: t(2, 3).flatten(1, 0), IndexError, "flatten: axes 1 to 0"),
    "index": (lambda: t(2, 3)[2], IndexError, r"getitem\(float32\[2, 3\]\): index 2 is out of bounds"),
    "float index": (lambda: t(2, 3)[1.0], IndexError, r"getitem\(float32\[2, 3\]\): only integers"),
    # dtypes
    "add text": (lambda: t(2) + "a", TypeError, r"add\(float32\[2\], 'a'\)"),
    "add None": (lambda: t(2) + None, TypeError, r"add\(float32\[2\], None\): expected arrays, got None"),
    "dot 3-d": (lambda: t(2, 3, 4).dot(t(2, 4, 5)), ValueError, r"dot\(float32\[2, 3, 4\], .*at most 2 axes"),
    "greater": (lambda: t(2) > t(3), ValueError, r"greater\(float32\[2\], float32\[3\]\)"),
    "softmax of integers": (lambda: Tensor([1, 2]).softmax(), TypeError, r"softmax\(int64\[2\]\): expected floating"),
    "layer norm of nothing": (lambda: ops.layer_norm(t(2, 0), t(0), t(0)), ValueError, "D at least 1"),
    "complex": (lambda: t(2) * 1j, TypeError, r"mul\(float32\[2\], 1j\): .*would be complex"),
    "half": (lambda: t(2).astype(np.float16), TypeError, r"astype\(float32\[2\]\): expected float32, float64"),
    "where": (lambda: ops.where(np.ones(2), t(2), 0), TypeError, "condition of dtype bool, got float32"),
    "gelu": (lambda: ops.gelu(INTS), TypeError, r"gelu\(int64\[2, 3, 4, 4\]\): expected floating dtypes"),
    "gelu of a form": (lambda: ops.gelu(t(2), "tan"), ValueError, "expected form 'exact' or 'tanh', got 'tan'"),
    "dropout ints": (lambda: ops.dropout(INTS, 0.5, RNG), TypeError, "dropout.*expected floating dtypes"),
    "avg_pool2d ints": (lambda: ops.avg_pool2d(INTS, 2), TypeError, "avg_pool2d.*expected floating dtypes"),
    "max_pool2d ints": (lambda: ops.max_pool2d(INTS, 2), TypeError, "max_pool2d.*expected floating dtypes"),
    "layer_norm ints": (lambda: ops.layer_norm(INTS, np.ones(4), np.ones(4)), TypeError, "layer_norm.*floating"),
    "self_attention ints": (lambda: ops.self_attention(INTS[0, 0, :, :3][None], [1]), TypeError, "floating dtypes"),
    "cross_entropy ints": (lambda: ops.cross_entropy(INTS[0, 0], np.zeros(4, int)), TypeError, "floating dtypes"),
    "labels": (lambda: ops.cross_entropy(t(2, 3), [0.0, 1.0]), TypeError, "integer labels, got dtype float64"),
    "layer_norm None": (lambda: ops.layer_norm(t(2, 3), None, None), TypeError, "expected arrays, got None"),
    "missing argument": (lambda: ops.mul(t(2)), TypeError, r"mul\(float32\[2\]\): .*missing 1 required"),
    "unknown option": (lambda: t(2).sum(dim=0), TypeError, r"sum\(float32\[2\]\): .*unexpected keyword argument 'dim'"),
    "float16 tensor": (lambda: Tensor(np.ones(2, np.float16)), TypeError, "got dtype float16"),
    "text tensor": (lambda: Tensor("a"), TypeError, "Tensor: expected float32, float64, integers or bool"),
    "None tensor": (lambda: Tensor(None), TypeError, "got dtype object"),
    "integer leaf": (lambda: Tensor([1], requires_grad=True), TypeError, "only floating dtypes can require"),
    "writing": (lambda: t(2).__setitem__(0, 1), TypeError, "in place"),
    # values
    "label": (lambda: ops.cross_entropy(t(2, 3), [0, 3]), ValueError, r"labels must lie in \[0, 3\), got 0 to 3"),
    "negative label": (lambda: ops.cross_entropy(t(2, 3), [-1, 0]), ValueError, "got -1 to 0"),
    "smoothing": (lambda: ops.cross_entropy(t(1, 3), [0], label_smoothing=2), ValueError, r"smoothing in \[0, 1\]"),
    "rate": (lambda: ops.dropout(t(2), 1.0, RNG), ValueError, r"a rate in \[0, 1\), got 1.0"),
    "NaN rate": (lambda: ops.drop_path(t(2), float("nan"), RNG), ValueError, "got nan"),
    "no generator": (lambda: ops.dropout(t(2), 0.5, None), TypeError, "np.random.Generator, got NoneType"),
    "clip": (lambda: t(2).clip(), ValueError, r"clip\(float32\[2\]\): expected a minimum, a maximum, or both"),
    "backend": (lambda: use_backend("cuda").__enter__(), UsageError, "unknown kernels 'cuda'; expected one of numba"),
    "threads": (lambda: threads.set_num_threads(0), UsageError, "at least 1, got 0"),
    "threads in text": (lambda: threads.set_num_threads("two"), UsageError, "got 'two'"),
    "threads in exotic digits": (lambda: threads.set_num_threads("²"), UsageError, "whole number"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_error(name):
    call, kind, message = WRONG[name]
    with pytest.raises(kind, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kernels", backend.BACKENDS)
def test_a_failed_call_changes_nothing(kernels):
    running = np.zeros(3), np.ones(3)
    with use_backend(kernels):
        with pytest.raises(ValueError):
            ops.batch_norm(t(1, 3), t(3), t(3), *running, True)
        assert backend.get_backend() == kernels
    np.testing.assert_array_equal(running, [np.zeros(3), np.ones(3)])
