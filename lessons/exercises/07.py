"""Exercises of lesson 07, shifted patch tokenization. Check them by: python -m lessons check 07"""


def shifted(image, up, left):
    """Return the image that shows what lies so far up and to the left.

    Args:
        image: (C, H, W) array.
        up, left: whole numbers of pixels, smaller than H and W; negative ones mean down and right.

    Returns:
        (C, H, W): out[c, i, j] = image[c, i - up, j - left], and 0 where that is outside.
    """
    raise NotImplementedError


def spt_vectors(image, p):
    """Return the vector that SPT makes of each patch, before its LayerNorm.

    Args:
        image: (C, H, W) array, H and W multiples of p.
        p: how many pixels a patch is high and wide.

    Returns:
        (N, 5 C p p): the image is joined, along its channels, with what lies floor(p / 2) pixels
        to the left and up, right and up, left and down, right and down (0 outside), in this order;
        then cut into patches, row by row of the grid. In a vector the pixels come row by row of
        the patch, and of each pixel all 5C channels side by side.
    """
    raise NotImplementedError


def window(row, column, p, height, width):
    """Return which pixels one token of SPT sees.

    Args:
        row, column: place of the token in the grid of patches, from 0.
        p: how many pixels a patch is high and wide.
        height, width: of the image.

    Returns:
        A tuple (top, bottom, left, right) of four integers: it sees the pixels (i, j) of the image
        with top <= i < bottom and left <= j < right, and no others.
    """
    raise NotImplementedError
