"""How large a binary network is: one rule for images of all sizes, which gives the published sizes at 224 pixels.

    widths                   as published; half of that for images of less than 128 pixels
    heads                    one for every 64 channels, at least one
    patches                  those that leave a grid of 16x16 (pyramid) or 8x8 (flat), but of at most 4 or 16 pixels,
                             as published
    keys and values          in all stages of a pyramid but the last two, reduced by the largest power of two that
                             leaves at least 4x4 of them
    initial att_prob_clip    0.005 at 224 pixels, else in inverse proportion to the number of tokens (in a pyramid,
                             for all its stages, of the first), as is the probability that a token gets on average

Depths and MLP ratios do not change.
"""

from math import prod

SMALL_BELOW = 128
"""Pixels of the shorter side under which widths are halved."""


def width(dim, image_shape):
    """The width that a published ``dim`` becomes for images of (height, width) pixels."""
    return dim if min(image_shape) >= SMALL_BELOW else dim // 2


def heads(dim):
    """Number of heads for tokens of width ``dim``."""
    return max(1, dim // 64)


def patch_size(image_shape, grid, published):
    """Pixels of a patch: what leaves ``grid`` patches a side, but at most ``published``."""
    return max(1, min(published, min(image_shape) // grid))


def reduction(grid):
    """Largest power of two that divides a (rows, columns) grid and leaves at least 4x4."""
    factor = 1
    while all(side % (2 * factor) == 0 and side // (2 * factor) >= 4 for side in grid):
        factor *= 2
    return factor


def att_prob_clip(grid, published_grid):
    """Initial level of attention probabilities, from the grid (of the first stage) and its side at 224 pixels."""
    return 0.005 * published_grid**2 / prod(grid)
