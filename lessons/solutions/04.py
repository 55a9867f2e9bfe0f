"""Solutions of lesson 04."""

import numpy as np


def output_size(size, kernel, stride, padding):
    return (size + 2 * padding - kernel) // stride + 1


def im2col(x, kernel):
    c, h, w = x.shape
    rows, columns = h - kernel + 1, w - kernel + 1
    out = np.empty((c, kernel, kernel, rows, columns), x.dtype)
    for u in range(kernel):
        for v in range(kernel):
            out[:, u, v] = x[:, u : u + rows, v : v + columns]
    return out.reshape(c * kernel**2, rows * columns)


def col2im(columns, shape, kernel):
    c, h, w = shape
    rows, width = h - kernel + 1, w - kernel + 1
    columns = columns.reshape(c, kernel, kernel, rows, width)
    out = np.zeros(shape, columns.dtype)
    for u in range(kernel):
        for v in range(kernel):
            out[:, u : u + rows, v : v + width] += columns[:, u, v]
    return out
