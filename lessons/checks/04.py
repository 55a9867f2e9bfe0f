"""How the exercises of lesson 04 are checked."""

import numpy as np

from lessons.checking import Exercise

SETTINGS = [((2, 5, 4), 3), ((3, 4, 6), 2)]  # shape of the image, kernel


def size_cases(rng):
    """In the first case each mistake gives another number."""
    return [(100, 7, 3, 5), (10, 3, 1, 0), (32, 3, 2, 1), (7, 7, 2, 0)]


def padded_once(size, kernel, stride, padding):
    return (size + padding - kernel) // stride + 1


def without_the_last(size, kernel, stride, padding):
    return (size + 2 * padding - kernel) // stride


def rounded_up(size, kernel, stride, padding):
    return -(-(size + 2 * padding - kernel) // stride) + 1


def windows(x, kernel):
    """Windows (C, m, n, k, k)."""
    return np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))


def image_cases(rng):
    return [(rng.standard_normal(shape), kernel) for shape, kernel in SETTINGS]


def as_columns(x, kernel, axes):
    """The windows with their axes in another order, as a matrix of columns."""
    return windows(x, kernel).transpose(axes).reshape(len(x) * kernel**2, -1)


def in_rows(x, kernel):
    return as_columns(x, kernel, (0, 3, 4, 1, 2)).T


def channels_fastest(x, kernel):
    return as_columns(x, kernel, (3, 4, 0, 1, 2))


def places_transposed(x, kernel):
    return as_columns(x, kernel, (0, 3, 4, 2, 1))


def windows_transposed(x, kernel):
    return as_columns(x, kernel, (0, 4, 3, 1, 2))


def columns_cases(rng):
    return [
        (rng.standard_normal((c * k**2, (h - k + 1) * (w - k + 1))), (c, h, w), k)
        for (c, h, w), k in SETTINGS
    ]


def sources(shape, kernel):
    """For each element of the columns, the number of the pixel that it was read from."""
    return as_columns(np.arange(np.prod(shape)).reshape(shape), kernel, (0, 3, 4, 1, 2))


def last_window_stays(columns, shape, kernel):
    out = np.zeros(np.prod(shape))
    for pixels, column in zip(sources(shape, kernel).T, columns.T):
        out[pixels] = column
    return out.reshape(shape)


def last_offset_stays(columns, shape, kernel):
    out = np.zeros(np.prod(shape))
    for pixels, row in zip(sources(shape, kernel), columns):
        out[pixels] = row
    return out.reshape(shape)


def averaged(columns, shape, kernel):
    pixels = sources(shape, kernel).ravel()
    return (np.bincount(pixels, columns.ravel()) / np.bincount(pixels)).reshape(shape)


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
                last_window_stays,
            "a pixel is at several places of windows, and the last one has overwritten the others":
                last_offset_stays,
            "this is the mean over the windows that use a pixel: "
            "what does the tape do with several uses?": averaged,
        },
    ),
}
