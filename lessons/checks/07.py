"""How the exercises of lesson 07 are checked."""

import numpy as np

from lessons.checking import Exercise


def shift_cases(rng):
    image = rng.standard_normal((2, 5, 7))
    return [(image, up, left) for up, left in ((2, 2), (1, 0), (0, -3), (-2, 1), (0, 0))]


def moved(image, up, left):
    """out[c, i, j] = image[c, i - up, j - left], 0 outside: pixel by pixel."""
    out = np.zeros_like(image)
    for i in range(image.shape[1]):
        for j in range(image.shape[2]):
            if 0 <= i - up < image.shape[1] and 0 <= j - left < image.shape[2]:
                out[:, i, j] = image[:, i - up, j - left]
    return out


def around(image, up, left):
    return np.roll(image, (up, left), axis=(1, 2))


def other_way(image, up, left):
    return moved(image, -up, -left)


def axes_exchanged(image, up, left):
    return moved(image, left, up)


def border_repeated(image, up, left):
    rows = np.clip(np.arange(image.shape[1]) - up, 0, image.shape[1] - 1)
    columns = np.clip(np.arange(image.shape[2]) - left, 0, image.shape[2] - 1)
    return image[:, rows[:, None], columns]


def vector_cases(rng):
    return [(rng.standard_normal((3, 8, 12)), 4), (rng.standard_normal((2, 10, 10)), 5)]


def cut(x, p, order=(1, 3, 2, 4, 0)):
    c, h, w = x.shape
    return x.reshape(c, h // p, p, w // p, p).transpose(*order).reshape(-1, p * p * c)


def join(image, shifts):
    return np.concatenate([image, *(moved(image, up, left) for up, left in shifts)])


def corners(s):
    return [(s, s), (s, -s), (-s, s), (-s, -s)]


def with_other_side(image, p):
    return cut(np.concatenate([image, *(around(image, *shift) for shift in corners(p // 2))]), p)


def channels_first(image, p):
    return cut(join(image, corners(p // 2)), p, (1, 3, 0, 2, 4))


def whole_patch(image, p):
    return cut(join(image, corners(p)), p)


def one_pixel_along_the_axes(image, p):
    return cut(join(image, [(0, -1), (0, 1), (-1, 0), (1, 0)]), p)


def opposite_corners(image, p):
    return cut(join(image, corners(-(p // 2))), p)


def clockwise(image, p):
    s = p // 2
    return cut(join(image, [(s, s), (s, -s), (-s, -s), (-s, s)]), p)


def without_the_image(image, p):
    return cut(join(image, corners(p // 2))[len(image) :], p)


def window_cases(rng):
    tokens = [(2, 3, 4, 32, 32), (0, 0, 4, 32, 32), (7, 1, 4, 32, 24)]
    return [*tokens, (1, 5, 5, 30, 30), (1, 0, 3, 9, 9), (5, 7, 8, 48, 64)]


def window_of(row, column, p, reach):
    return (row * p - reach, row * p + p + reach, column * p - reach, column * p + p + reach)


def clipped(sides, height, width):
    top, bottom, left, right = sides
    return max(top, 0), min(bottom, height), max(left, 0), min(right, width)


def over_the_border(row, column, p, height, width):
    return window_of(row, column, p, p // 2)


def patch_only(row, column, p, height, width):
    return window_of(row, column, p, 0)


def reaches_too_far(row, column, p, height, width):
    return clipped(window_of(row, column, p, p), height, width)


def always_double(row, column, p, height, width):
    top, _, left, _ = window_of(row, column, p, p // 2)
    return clipped((top, top + 2 * p, left, left + 2 * p), height, width)


def last_included(row, column, p, height, width):
    top, bottom, left, right = clipped(window_of(row, column, p, p // 2), height, width)
    return top, bottom - 1, left, right - 1


EXERCISES = {
    "shifted": Exercise(
        shift_cases,
        "put zeros around the image, and take the window that begins at the right place",
        {
            "what leaves on one side comes in again on the other, where zeros should stand": around,
            "it moves the wrong way: to show what lies above, the image must move down": other_way,
            "up and left are exchanged: which axis is that of the rows?": axes_exchanged,
            "outside the image stand zeros, not its border": border_repeated,
        },
    ),
    "spt_vectors": Exercise(
        vector_cases,
        "five images, one after the other along the channels; then patches, then the order within "
        "them",
        {
            "in a vector, all channels of a pixel come side by side, then the next pixel":
                channels_first,
            "outside the image stand zeros, not its other side": with_other_side,
            "shifts are by half a patch, not by a whole one": whole_patch,
            "shifts are diagonal, and by half a patch; some other codes shift by a pixel to the "
            "four sides": one_pixel_along_the_axes,
            "the shifts are those to the opposite corners: the first shows what lies to the left "
            "and up": opposite_corners,
            "the order of the last two shifts is exchanged": clockwise,
            "the image itself is missing": without_the_image,
        },
    ),
    "window": Exercise(
        window_cases,
        "where does the patch begin and end, how far do the shifts reach beyond it, and where does "
        "the image end?",
        {
            "in the middle it is right, but pixels outside the image do not exist": over_the_border,
            "that is the patch alone, without what the shifts add": patch_only,
            "the shifts reach half a patch beyond the patch, not a whole one": reaches_too_far,
            "for an odd patch, half of it is rounded down, on both sides": always_double,
            "bottom and right are the first that it does not see": last_included,
        },
    ),
}
