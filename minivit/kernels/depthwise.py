"""Depthwise convolution: each output channel is a filter of one input channel. Average pooling is one, too.

Arrays are (B, C, H, W), already padded. There are O = m C filters, and output channel o reads input channel o // m.
"""

import numpy as np

from minivit.kernels.backend import get_backend, njit
from minivit.kernels.threads import parallel_for, partial_sums

_GRAIN = 32768  # multiply-adds worth a thread


@njit
def _depthwise(x, weight, sy, sx, out):
    m = weight.shape[0] // max(1, x.shape[1])
    for b in range(x.shape[0]):
        for o in range(weight.shape[0]):
            image = x[b, o // m]
            for i in range(out.shape[2]):
                row = out[b, o, i]
                row[:] = 0
                for ky in range(weight.shape[1]):
                    for kx in range(weight.shape[2]):
                        w, source = weight[o, ky, kx], image[i * sy + ky, kx:]
                        for j in range(row.shape[0]):
                            row[j] += w * source[j * sx]


@njit
def _depthwise_input(g, weight, sy, sx, dx):
    m = weight.shape[0] // max(1, dx.shape[1])
    for b in range(g.shape[0]):
        for o in range(weight.shape[0]):
            image = dx[b, o // m]
            for i in range(g.shape[2]):
                row = g[b, o, i]
                for ky in range(weight.shape[1]):
                    for kx in range(weight.shape[2]):
                        w, target = weight[o, ky, kx], image[i * sy + ky, kx:]
                        for j in range(row.shape[0]):
                            target[j * sx] += w * row[j]


@njit
def _depthwise_weight(g, x, sy, sx, dweight):
    m = dweight.shape[0] // max(1, x.shape[1])
    for b in range(g.shape[0]):
        for o in range(dweight.shape[0]):
            image = x[b, o // m]
            for i in range(g.shape[2]):
                row = g[b, o, i]
                for ky in range(dweight.shape[1]):
                    for kx in range(dweight.shape[2]):
                        source = image[i * sy + ky, kx:]
                        total = g.dtype.type(0)
                        for j in range(row.shape[0]):
                            total += row[j] * source[j * sx]
                        dweight[o, ky, kx] += total


def depthwise(x, weight, stride, out_size):
    """Correlate each channel with its filters.

    Args:
        x: (B, C, H, W). weight: (O, kernel_h, kernel_w). stride: pair. out_size: rows and columns of the result.

    Returns:
        (B, O, *out_size).
    """
    if get_backend() == "numpy":
        return depthwise_numpy(x, weight, stride, out_size)
    x, weight = np.ascontiguousarray(x), np.ascontiguousarray(weight)
    out = np.empty((len(x), len(weight), *out_size), x.dtype)
    parallel_for(lambda a, b: _depthwise(x[a:b], weight, *stride, out[a:b]), len(x), _grain(weight, out_size))
    return out


def depthwise_numpy(x, weight, stride, out_size):
    """What ``depthwise`` computes."""
    x = x.repeat(len(weight) // max(1, x.shape[1]), axis=1)
    out = np.zeros((len(x), len(weight), *out_size), x.dtype)
    for w, place in _offsets(weight, stride, out_size):
        out += w[:, None, None] * x[place]
    return out


def depthwise_input(g, weight, stride, shape):
    """Cotangent of ``x``, of the given shape, where ``g`` (B, O, rows, columns) is that of the result."""
    if get_backend() == "numpy":
        return depthwise_input_numpy(g, weight, stride, shape)
    g, weight = np.ascontiguousarray(g), np.ascontiguousarray(weight)
    dx = np.zeros(shape, g.dtype)
    parallel_for(lambda a, b: _depthwise_input(g[a:b], weight, *stride, dx[a:b]), len(g), _grain(weight, g.shape[2:]))
    return dx


def depthwise_input_numpy(g, weight, stride, shape):
    """What ``depthwise_input`` computes."""
    m = len(weight) // max(1, shape[1])
    dx = np.zeros((shape[0], len(weight), *shape[2:]), g.dtype)
    for w, place in _offsets(weight, stride, g.shape[2:]):
        dx[place] += w[:, None, None] * g
    return dx.reshape(shape[0], shape[1], m, *shape[2:]).sum(axis=2)


def depthwise_weight(g, x, stride, kernel):
    """Cotangent of the weight (O, *kernel)."""
    if get_backend() == "numpy":
        return depthwise_weight_numpy(g, x, stride, kernel)
    g, x = np.ascontiguousarray(g), np.ascontiguousarray(x)
    shape = (g.shape[1], *kernel)

    def body(start, stop, total):
        _depthwise_weight(g[start:stop], x[start:stop], *stride, total)

    return partial_sums(body, len(g), max(1, _GRAIN // max(1, int(np.prod(shape + g.shape[2:])))), shape, g.dtype)


def depthwise_weight_numpy(g, x, stride, kernel):
    """What ``depthwise_weight`` computes."""
    x = x.repeat(g.shape[1] // max(1, x.shape[1]), axis=1)
    dweight = np.zeros((g.shape[1], *kernel), g.dtype)
    for slot, place in _offsets(dweight, stride, g.shape[2:]):
        slot += (g * x[place]).sum(axis=(0, 2, 3))
    return dweight


def _offsets(weight, stride, out_size):
    """For each place in the kernel: the column (O,) of the weight, and the slices of the image under it."""
    for i in range(weight.shape[1]):
        for j in range(weight.shape[2]):
            rows = slice(i, i + stride[0] * (out_size[0] - 1) + 1, stride[0])
            columns = slice(j, j + stride[1] * (out_size[1] - 1) + 1, stride[1])
            yield weight[:, i, j], (..., rows, columns)


def _grain(weight, out_size):
    return max(1, _GRAIN // max(1, weight.size * int(np.prod(out_size))))
