"""Windows over images: convolution, pooling, unfold.

Images are (B, C, H, W). ``kernel``, ``stride`` and ``padding`` are one number or a pair (rows, columns). A result
has ``(size + 2 padding - kernel) // stride + 1`` rows and columns.
"""

import numpy as np

from minivit.kernels import convolution, depthwise
from minivit.kernels import windows as columns
from minivit.kernels.windows import Windows
from minivit.tensor import op, require_floats


@op
def conv2d(x, weight, bias=None, /, stride=1, padding=0, groups=1):
    """Cross-correlation of images with filters, each group of channels with its own filters.

    Args:
        x: (B, C, H, W).
        weight: (O, C / groups, kernel_h, kernel_w).
        bias: (O,) or None.

    Returns:
        (B, O, out_h, out_w).
    """
    require_floats(x, weight, bias)
    if not isinstance(groups, (int, np.integer)) or groups < 1:
        raise ValueError(f"expected groups to be a whole number of at least 1, got {groups!r}")
    if weight.ndim != 4 or x.ndim != 4 or x.shape[1] != weight.shape[1] * groups:
        raise ValueError(f"expected x (B, C, H, W) and a weight (O, C / groups, kh, kw), groups={groups}")
    if weight.shape[0] % groups or bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"expected O to divide into groups={groups}, and a bias of shape (O,)")
    windows = Windows(x.shape, weight.shape[2:], stride, padding)
    if groups > 1 and weight.shape[1] == 1:
        return _depthwise_conv2d(windows, x, weight, bias)
    return convolution.conv2d(x, weight, bias, windows, groups), (
        lambda g: convolution.conv2d_input(g, weight, windows, groups),
        lambda g: convolution.conv2d_weight(g, x, windows, groups),
        lambda g: g.sum((0, 2, 3)),
    )


def _depthwise_conv2d(windows, x, weight, bias):
    """``conv2d`` with one input channel in each group: too little for BLAS to do, so a kernel of its own."""
    filters, stride = weight[:, 0], windows.stride
    out = depthwise.depthwise(windows.pad(x), filters, stride, windows.out_size)
    if bias is not None:
        out += bias[:, None, None]

    def vjp_x(g):
        return windows.crop(depthwise.depthwise_input(g, filters, stride, windows.padded_shape))

    def vjp_weight(g):
        return depthwise.depthwise_weight(g, windows.pad(x), stride, windows.kernel)[:, None]

    return out, (vjp_x, vjp_weight, lambda g: g.sum((0, 2, 3)))


@op
def avg_pool2d(x, /, kernel, stride=None, padding=0):
    """Mean of each window; padding counts as zeros, as in PyTorch. ``stride`` defaults to ``kernel``."""
    require_floats(x)
    windows = Windows(x.shape, kernel, kernel if stride is None else stride, padding)
    mean = np.full((x.shape[1], *windows.kernel), 1 / np.prod(windows.kernel), x.dtype)
    out = depthwise.depthwise(windows.pad(x), mean, windows.stride, windows.out_size)

    def vjp(g):
        return windows.crop(depthwise.depthwise_input(g, mean, windows.stride, windows.padded_shape))

    return out, (vjp,)


@op
def max_pool2d(x, /, kernel, stride=None, padding=0):
    """Largest element of each window; padding counts as -inf. The first of equal ones gets the cotangent."""
    require_floats(x)
    windows = Windows(x.shape, kernel, kernel if stride is None else stride, padding)
    if any(2 * p > k for p, k in zip(windows.padding, windows.kernel, strict=True)):
        raise ValueError(f"expected a padding of at most half the kernel, got {windows.padding} for {windows.kernel}")
    padded = windows.pad(x, -np.inf)
    out = np.full((*x.shape[:2], *windows.out_size), -np.inf, x.dtype)
    winner = np.zeros(out.shape, np.int32)
    for number, place in windows.offsets():
        better = (padded[place] > out) | np.isnan(padded[place])  # a NaN wins, so that it does not go unseen
        winner[better] = number
        np.copyto(out, padded[place], where=better)

    def vjp(g):
        spread = np.zeros(windows.padded_shape, g.dtype)
        for number, place in windows.offsets():
            spread[place] += g * (winner == number)
        return windows.crop(spread)

    return out, (vjp,)


@op
def unfold(x, /, kernel, stride=1, padding=0):
    """All windows as columns, as in PyTorch: (B, C kernel_h kernel_w, out_h out_w), channels slowest."""
    windows = Windows(x.shape, kernel, stride, padding)
    return columns.unfold(x, windows), (lambda g: columns.fold(g, windows),)
