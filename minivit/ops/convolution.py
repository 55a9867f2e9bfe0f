"""Windows over images: convolution as a matrix product, pooling, unfold.

Images are (B, C, H, W). ``kernel``, ``stride`` and ``padding`` are one number or a pair (rows, columns). A result
has ``(size + 2 padding - kernel) // stride + 1`` rows and columns.
"""

import numpy as np

from minivit.kernels import depthwise
from minivit.tensor import op, require_floats


class _Windows:
    """The windows of one op over images of one shape: how to cut them out and how to add them back."""

    def __init__(self, x, kernel, stride, padding):
        if x.ndim != 4:
            raise ValueError("expected images of shape (B, C, H, W)")
        self.kernel, self.stride, self.padding = _pair(kernel), _pair(stride), _pair(padding)
        if min(self.kernel) < 1 or min(self.stride) < 1 or min(self.padding) < 0:
            raise ValueError(f"expected kernel and stride of at least 1 and padding of at least 0, got {vars(self)}")
        self.shape = x.shape
        padded = [n + 2 * p for n, p in zip(x.shape[2:], self.padding, strict=True)]
        self.padded_shape = (*x.shape[:2], *padded)
        if any(n < k for n, k in zip(padded, self.kernel, strict=True)):
            raise ValueError(f"the kernel {self.kernel} is larger than the padded image {tuple(padded)}")
        sizes = zip(padded, self.kernel, self.stride, strict=True)
        self.out_size = tuple((n - k) // s + 1 for n, k, s in sizes)

    def pad(self, x, value=0):
        (top, left) = self.padding
        if top == left == 0:
            return x
        return np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)), constant_values=value)

    def crop(self, padded):
        (top, left), (h, w) = self.padding, self.shape[2:]
        return padded[:, :, top : top + h, left : left + w]

    def offsets(self):
        """For every place in the kernel: its number, and the slices of a padded image that lie under it."""
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                rows = slice(i, i + self.stride[0] * (self.out_size[0] - 1) + 1, self.stride[0])
                columns = slice(j, j + self.stride[1] * (self.out_size[1] - 1) + 1, self.stride[1])
                yield i * self.kernel[1] + j, (..., rows, columns)

    def cut(self, x):
        """View of all windows: (B, C, out_h, out_w, kernel_h, kernel_w)."""
        windows = np.lib.stride_tricks.sliding_window_view(self.pad(x), self.kernel, axis=(2, 3))
        return windows[:, :, :: self.stride[0], :: self.stride[1]]

    def add_back(self, windows):
        """The VJP of ``cut``: add windows (B, C, out_h, out_w, kernel_h, kernel_w) up where they overlap."""
        out = np.zeros(self.padded_shape, windows.dtype)
        flat = windows.reshape(*windows.shape[:4], self.kernel[0] * self.kernel[1])
        for number, place in self.offsets():
            out[place] += flat[..., number]
        return self.crop(out)


def _pair(value):
    pair = (value, value) if isinstance(value, (int, np.integer)) else tuple(value)
    if len(pair) != 2:
        raise ValueError(f"expected a number or a pair, got {value!r}")
    return pair


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
    if weight.ndim != 4 or groups < 1 or x.ndim != 4 or x.shape[1] != weight.shape[1] * groups:
        raise ValueError(f"expected x (B, C, H, W) and a weight (O, C / groups, kh, kw), groups={groups}")
    if weight.shape[0] % groups or bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"expected O to divide into groups={groups}, and a bias of shape (O,)")
    windows = _Windows(x, weight.shape[2:], stride, padding)
    if groups > 1 and weight.shape[1] == 1:
        return _depthwise_conv2d(windows, x, weight, bias)
    b, (oh, ow), (c, kh, kw), per_group = len(x), windows.out_size, weight.shape[1:], len(weight) // groups
    filters = weight.reshape(groups, per_group, c * kh * kw)

    def columns():
        """Windows as matrices (groups, B out_h out_w, C / groups * kernel). Made twice: they are large to keep."""
        cut = windows.cut(x).reshape(b, groups, c, oh, ow, kh, kw)
        return cut.transpose(1, 0, 3, 4, 2, 5, 6).reshape(groups, b * oh * ow, c * kh * kw)

    def matrices(g):
        return g.reshape(b, groups, per_group, oh * ow).transpose(1, 0, 3, 2).reshape(groups, b * oh * ow, per_group)

    def vjp_x(g):
        parts = (matrices(g) @ filters).reshape(groups, b, oh, ow, c, kh, kw)
        return windows.add_back(parts.transpose(1, 0, 4, 2, 3, 5, 6).reshape(b, groups * c, oh, ow, kh, kw))

    def vjp_weight(g):
        return (matrices(g).swapaxes(1, 2) @ columns()).reshape(weight.shape)

    out = columns() @ filters.swapaxes(1, 2)
    out = out.reshape(groups, b, oh * ow, per_group).transpose(1, 0, 3, 2).reshape(b, len(weight), oh, ow)
    if bias is not None:
        out += bias[:, None, None]
    return out, (vjp_x, vjp_weight, lambda g: g.sum((0, 2, 3)))


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
    windows = _Windows(x, kernel, kernel if stride is None else stride, padding)
    mean = np.full((x.shape[1], *windows.kernel), 1 / np.prod(windows.kernel), x.dtype)
    out = depthwise.depthwise(windows.pad(x), mean, windows.stride, windows.out_size)

    def vjp(g):
        return windows.crop(depthwise.depthwise_input(g, mean, windows.stride, windows.padded_shape))

    return out, (vjp,)


@op
def max_pool2d(x, /, kernel, stride=None, padding=0):
    """Largest element of each window; padding counts as -inf. The first of equal ones gets the cotangent."""
    require_floats(x)
    windows = _Windows(x, kernel, kernel if stride is None else stride, padding)
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
    windows = _Windows(x, kernel, stride, padding)
    b, c, (kh, kw), (oh, ow) = *x.shape[:2], windows.kernel, windows.out_size
    out = windows.cut(x).transpose(0, 1, 4, 5, 2, 3).reshape(b, c * kh * kw, oh * ow)

    def vjp(g):
        return windows.add_back(g.reshape(b, c, kh, kw, oh, ow).transpose(0, 1, 4, 5, 2, 3))

    return out, (vjp,)
