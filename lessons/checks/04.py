"""How the exercises of lesson 04 are checked."""

import numpy as np

from lessons.checking import Exercise

SHAPE, KERNEL = (2, 5, 4), 3
ROWS, COLUMNS = SHAPE[1] - KERNEL + 1, SHAPE[2] - KERNEL + 1


def size_cases(rng):
    return [(10, 3, 1, 0), (32, 3, 2, 1), (10, 4, 3, 2), (7, 7, 2, 0)]


def padded_once(size, kernel, stride, padding):
    return (size + padding - kernel) // stride + 1


def without_the_last(size, kernel, stride, padding):
    return (size + 2 * padding - kernel) // stride


def rounded_up(size, kernel, stride, padding):
    return -(-(size + 2 * padding - kernel) // stride) + 1


def windows(x, kernel):
    """Windows (C, rows, columns, k, k)."""
    return np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))


def image_cases(rng):
    return [(rng.standard_normal(SHAPE), KERNEL)]


def in_rows(x, kernel):
    return windows(x, kernel).transpose(1, 2, 0, 3, 4).reshape(ROWS * COLUMNS, -1)


def channels_fastest(x, kernel):
    return windows(x, kernel).transpose(3, 4, 0, 1, 2).reshape(-1, ROWS * COLUMNS)


def places_transposed(x, kernel):
    return windows(x, kernel).transpose(0, 3, 4, 2, 1).reshape(-1, ROWS * COLUMNS)


def windows_transposed(x, kernel):
    return windows(x, kernel).transpose(0, 4, 3, 1, 2).reshape(-1, ROWS * COLUMNS)


def columns_cases(rng):
    return [(rng.standard_normal((SHAPE[0] * KERNEL**2, ROWS * COLUMNS)), SHAPE, KERNEL)]


def sums_and_uses(columns, shape, kernel):
    """What all windows send to each pixel, what the last one sends, and how many there are."""
    c, h, w = shape
    rows, width = h - kernel + 1, w - kernel + 1
    columns = columns.reshape(c, kernel, kernel, rows, width)
    total, last, uses = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for u in range(kernel):
        for v in range(kernel):
            place = np.s_[:, u : u + rows, v : v + width]
            total[place] += columns[:, u, v]
            last[place] = columns[:, u, v]
            uses[place] += 1
    return total, last, uses


def overwritten(columns, shape, kernel):
    return sums_and_uses(columns, shape, kernel)[1]


def averaged(columns, shape, kernel):
    total, _, uses = sums_and_uses(columns, shape, kernel)
    return total / uses


EXERCISES = {
    "output_size": Exercise(
        size_cases,
        "draw a line of seven pixels, lay windows of three on it, and count",
        {
            "zeros are added at both ends": padded_once,
            "the first window counts too, before any stride is made": without_the_last,
            "a window that reaches over the end is none": rounded_up,
        },
    ),
    "im2col": Exercise(
        image_cases,
        "try it on paper with one channel, a 3x3 image and 2x2 windows",
        {
            "the windows are the rows here: they should be the columns": in_rows,
            "within a column the order is channel, row, column, the last of them fastest":
                channels_fastest,
            "the order of the windows: first along a row of the image, then to the next row":
                places_transposed,
            "the order within a window: first along its row, then to the next row":
                windows_transposed,
        },
    ),
    "col2im": Exercise(
        columns_cases,
        "put each column back to where im2col has read it",
        {
            "a pixel is used by several windows, and the last one has overwritten the others":
                overwritten,
            "this is the mean over the windows that use a pixel: "
            "what does the tape do with several uses?": averaged,
        },
    ),
}
