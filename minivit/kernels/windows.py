"""Windows over images: where they lie, and images as columns of windows and back (im2col, col2im).

Images are (B, C, H, W), and there are ``out_size`` windows (rows, columns) on each.
"""

import numpy as np

from minivit.kernels.backend import get_backend, njit
from minivit.kernels.threads import parallel_for, row_grain


class Windows:
    """The windows of one op over images of one shape.

    Args:
        shape: (B, C, H, W).
        kernel, stride, padding: numbers, or pairs (rows, columns).

    Raises:
        ValueError: sizes that make no sense.
    """

    def __init__(self, shape, kernel, stride, padding):
        if len(shape) != 4:
            raise ValueError("expected images of shape (B, C, H, W)")
        self.kernel, self.stride, self.padding = _pair(kernel), _pair(stride), _pair(padding)
        if min(self.kernel) < 1 or min(self.stride) < 1 or min(self.padding) < 0:
            raise ValueError(
                f"expected kernel and stride of at least 1 and padding of at least 0, got kernel {kernel}, "
                f"stride {stride} and padding {padding}"
            )
        self.shape = tuple(shape)
        padded = [n + 2 * p for n, p in zip(shape[2:], self.padding, strict=True)]
        self.padded_shape = (*shape[:2], *padded)
        if any(n < k for n, k in zip(padded, self.kernel, strict=True)):
            raise ValueError(f"the kernel {self.kernel} is larger than the padded image {tuple(padded)}")
        sizes = zip(padded, self.kernel, self.stride, strict=True)
        self.out_size = tuple((n - k) // s + 1 for n, k, s in sizes)

    @property
    def count(self):
        """Number of windows on an image."""
        return self.out_size[0] * self.out_size[1]

    @property
    def size(self):
        """Number of elements of a window, all channels together."""
        return self.shape[1] * self.kernel[0] * self.kernel[1]

    def pad(self, x, value=0):
        """The images with their padding."""
        (top, left) = self.padding
        if top == left == 0:
            return x
        return np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)), constant_values=value)

    def crop(self, padded):
        """The images without their padding."""
        (top, left), (h, w) = self.padding, self.shape[2:]
        return padded[:, :, top : top + h, left : left + w]

    def offsets(self):
        """For every place in the kernel: its number, and the slices of a padded image that lie under it."""
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                rows = slice(i, i + self.stride[0] * (self.out_size[0] - 1) + 1, self.stride[0])
                columns = slice(j, j + self.stride[1] * (self.out_size[1] - 1) + 1, self.stride[1])
                yield i * self.kernel[1] + j, (..., rows, columns)


def _pair(value):
    pair = (value, value) if np.ndim(value) == 0 else tuple(value)
    if len(pair) != 2 or not all(isinstance(n, (int, np.integer)) for n in pair):
        raise ValueError(f"expected a whole number or a pair of them, got {value!r}")
    return pair


@njit
def _inside(offset, stride, size, count):
    """Range of the windows 0..count-1 along an axis whose element at ``offset + stride * window`` is no padding."""
    first = min(count, max(0, -(offset // stride)))
    return first, max(first, min(count, (size - 1 - offset) // stride + 1))


@njit
def _im2col(x, size, kernel, stride, padding, out_size, columns):
    """x: (n, C, H W). size: (H, W). columns: as for ``im2col``."""
    (height, width), (kh, kw), (sy, sx), (rows, across) = size, kernel, stride, out_size
    flat = sy == sx == 1 and across == width  # then neighbours in a line of columns are neighbours in the image
    for c in range(x.shape[1]):
        for place in range(kh * kw):
            top, left = place // kw - padding[0], place % kw - padding[1]
            (upper, lower), (first, last) = _inside(top, sy, height, rows), _inside(left, sx, width, across)
            for b in range(x.shape[0]):
                line = columns[c * kh * kw + place, b * rows * across : (b + 1) * rows * across]
                if upper == lower or first == last:
                    line[:] = 0
                    continue
                line[: upper * across] = 0
                line[lower * across :] = 0
                for row in range(upper, upper + 1 if flat else lower):
                    target = line[row * across + first :]
                    source = x[b, c, (row * sy + top) * width + first * sx + left :]
                    if flat:
                        for k in range((lower - upper - 1) * across + last - first):
                            target[k] = source[k]
                    else:
                        for k in range(last - first):
                            target[k] = source[k * sx]
                _clear_sides(line, across, upper, lower, first, last)


@njit
def _clear_sides(line, across, upper, lower, first, last):
    """Set to 0 what lies in the padding on the left and right."""
    for row in range(upper, lower):
        for k in range(first):
            line[row * across + k] = 0
        for k in range(last, across):
            line[row * across + k] = 0


@njit
def _col2im(columns, size, kernel, stride, padding, out_size, x):
    """Arguments as for ``_im2col``."""
    (height, width), (kh, kw), (sy, sx), (rows, across) = size, kernel, stride, out_size
    flat = sy == sx == 1 and across == width
    x[:] = 0
    for c in range(x.shape[1]):
        for place in range(kh * kw):
            top, left = place // kw - padding[0], place % kw - padding[1]
            (upper, lower), (first, last) = _inside(top, sy, height, rows), _inside(left, sx, width, across)
            if upper == lower or first == last:
                continue
            for b in range(x.shape[0]):
                line = columns[c * kh * kw + place, b * rows * across : (b + 1) * rows * across]
                if flat:
                    _clear_sides(line, across, upper, lower, first, last)
                for row in range(upper, upper + 1 if flat else lower):
                    source = line[row * across + first :]
                    target = x[b, c, (row * sy + top) * width + first * sx + left :]
                    if flat:
                        for k in range((lower - upper - 1) * across + last - first):
                            target[k] += source[k]
                    else:
                        for k in range(last - first):
                            target[k * sx] += source[k]


def im2col(x, w, columns):
    """Write windows as columns. Serial: for a few images that one thread works on.

    Args:
        x: (n, C, H, W), C-contiguous.
        w: Windows on such images.
        columns: (w.size, at least n * w.count), written in place: images side by side, in each the windows row by row.
    """
    _im2col(_flat(x), w.shape[2:], w.kernel, w.stride, w.padding, w.out_size, columns)


def col2im(columns, w, x):
    """The VJP of ``im2col``: write to x (n, C, H, W) the sum of all elements of columns that come from each pixel.

    Elements of columns that lie in the padding may be overwritten.
    """
    _col2im(columns, w.shape[2:], w.kernel, w.stride, w.padding, w.out_size, _flat(x))


def _flat(x):
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3])


def unfold(x, w):
    """All windows as columns: (B, w.size, w.count)."""
    if get_backend() == "numpy":
        return unfold_numpy(x, w)
    x, out = np.ascontiguousarray(x), np.empty((len(x), w.size, w.count), x.dtype)

    def body(start, stop):
        for b in range(start, stop):
            im2col(x[b : b + 1], w, out[b])

    parallel_for(body, len(x), row_grain(out))
    return out


def unfold_numpy(x, w):
    """What ``unfold`` computes."""
    windows = np.lib.stride_tricks.sliding_window_view(w.pad(x), w.kernel, axis=(2, 3))
    windows = windows[:, :, :: w.stride[0], :: w.stride[1]]  # B, C, rows, columns, kernel_h, kernel_w
    return windows.transpose(0, 1, 4, 5, 2, 3).reshape(len(x), w.size, w.count)


def fold(columns, w):
    """The VJP of ``unfold``: add columns (B, w.size, w.count) up where windows overlap, to (B, C, H, W)."""
    if get_backend() == "numpy":
        return fold_numpy(columns, w)
    columns, out = np.array(columns, order="C"), np.empty((len(columns), *w.shape[1:]), columns.dtype)

    def body(start, stop):
        for b in range(start, stop):
            col2im(columns[b], w, out[b : b + 1])

    parallel_for(body, len(columns), row_grain(columns))
    return out


def fold_numpy(columns, w):
    """What ``fold`` computes."""
    out = np.zeros((len(columns), *w.padded_shape[1:]), columns.dtype)
    columns = columns.reshape(len(columns), w.shape[1], w.kernel[0] * w.kernel[1], *w.out_size)
    for number, place in w.offsets():
        out[place] += columns[:, :, number]
    return w.crop(out)
