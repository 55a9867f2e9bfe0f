"""Solutions of lesson 04."""

import numpy as np


def output_size(size, kernel, stride, padding):
    return (size + 2 * padding - kernel) // stride + 1


def im2col(x, kernel):
    c, h, w = x.shape
    m, n = h - kernel + 1, w - kernel + 1
    out = np.empty((c, kernel, kernel, m, n), x.dtype)
    for u in range(kernel):
        for v in range(kernel):
            out[:, u, v] = x[:, u : u + m, v : v + n]
    return out.reshape(c * kernel**2, m * n)


def col2im(columns, shape, kernel):
    c, h, w = shape
    m, n = h - kernel + 1, w - kernel + 1
    columns = columns.reshape(c, kernel, kernel, m, n)
    out = np.zeros(shape, columns.dtype)
    for u in range(kernel):
        for v in range(kernel):
            out[:, u : u + m, v : v + n] += columns[:, u, v]
    return out
