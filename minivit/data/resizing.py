"""Resizing batches of 8-bit images as Pillow does, to the last bit; and the random resized crop."""

import numpy as np

from minivit.data.erasing import random_boxes
from minivit.errors import UsageError, suggest

PRECISION = 2.0**22  # Pillow rounds weights to multiples of 1/PRECISION.
CHUNK = 2**15  # Numbers to work on at once: float64 arrays of that size fit into a cache, and malloc reuses them.


def _triangle(x):
    return np.maximum(1 - np.abs(x), 0)


def _cubic(x):
    """Keys' cubic with a = -1/2 (PyTorch's has -3/4)."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, near, np.where(x < 2, far, 0))


FILTERS = {"bilinear": (_triangle, 1), "bicubic": (_cubic, 2)}  # name -> (function, where it becomes 0)


def resize(images, size, interpolation="bicubic", boxes=None, *, cut=False):
    """Resize a box of each image, with the filter widened when the image shrinks ("antialiasing").

    One axis after the other, each rounded to 8 bits: the same bytes as Pillow 13's ``Image.resize``.

    Args:
        images: uint8 ``(B, C, H, W)``.
        size: height and width of the result.
        interpolation: ``"bilinear"`` or ``"bicubic"``.
        boxes: integers ``(B, 4)`` or ``(4,)``: top, left, height, width; by default the whole image.
        cut: as ``image.crop(box).resize(size)``: no pixel outside the box matters. By default as
            ``image.resize(size, box=box)``: the filter reaches over the box's border into the image.

    Returns: a new uint8 array ``(B, C, *size)``.

    Raises:
        UsageError: unknown interpolation, an empty size, or a box that is empty or reaches out of the image.
    """
    if interpolation not in FILTERS:
        known = ", ".join(FILTERS)
        raise UsageError(f"unknown interpolation {interpolation!r}{suggest(interpolation, FILTERS)}; known are {known}")
    batch, channels, height, width = images.shape
    if min(size) < 1:
        raise UsageError(f"images cannot be resized to {size[0]} x {size[1]} pixels")
    boxes = np.broadcast_to((0, 0, height, width) if boxes is None else boxes, (batch, 4))
    starts, sides = boxes[:, :2], boxes[:, 2:]
    if np.any(starts < 0) or np.any(sides < 1) or np.any(starts + sides > (height, width)):
        raise UsageError(f"a box to resize is empty or reaches out of its image of {height} x {width} pixels")

    # Columns come first, but since version 13 Pillow takes the rows first where that saves work.
    shrink = (sides if cut else np.array([height, width])) - size
    rows_first = np.broadcast_to((shrink[..., 0] > 0) & (shrink[..., 0] > 2 * shrink[..., 1]), batch)
    result = np.empty((batch, channels, *size), np.uint8)
    step = max(1, CHUNK // (channels * max(height * width, size[0] * size[1])))
    for order in (False, True):
        chosen = np.flatnonzero(rows_first == order)
        for part in (chosen[start : start + step] for start in range(0, len(chosen), step)):
            top, left, box_height, box_width = boxes[part].T[:, :, None]
            rows = _weights(top, box_height, height, size[0], interpolation, cut)
            columns = _weights(left, box_width, width, size[1], interpolation, cut)
            rows, columns = rows[:, None], columns.swapaxes(1, 2)[:, None]
            pixels = images[part].astype(np.float64)
            result[part] = _round(_round(rows @ pixels) @ columns) if order else _round(rows @ _round(pixels @ columns))
    return result


def _weights(start, extent, side, size, interpolation, cut):
    """Weights of the input pixels along one axis, float64 ``(B, size, side)``, multiples of 1/PRECISION.

    The products of a matrix with 8-bit numbers, and all their sums, are then exact in float64, in any order: a
    matrix product gives what Pillow's integer arithmetic gives. Rounding errors before that are Pillow's too, since
    the formulas are evaluated in its order.

    Args:
        start, extent: int ``(B, 1)``, the boxes along this axis.
        side, size: input and output pixels.
    """
    function, support = FILTERS[interpolation]
    # A cut image is one for itself: its pixels are counted from the box's start, and end with the box.
    origin, start, end = (start, 0, extent) if cut else (0, start, side)
    scale = extent / size
    filter_scale = np.maximum(scale, 1.0)
    support = support * filter_scale
    centres = start + (np.arange(size) + 0.5) * scale
    first = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + support + 0.5).astype(np.int64), end)
    taps = 2 * int(np.ceil(support.max(initial=1))) + 1
    pixels = first[:, :, None] + np.arange(taps)
    weights = function((pixels - centres[:, :, None] + 0.5) * (1 / filter_scale)[:, :, None])
    weights = np.where(pixels < last[:, :, None], weights, 0)
    weights /= weights.cumsum(axis=2)[:, :, -1:]  # cumsum adds from left to right; sum may not
    weights = np.trunc(weights * PRECISION + np.copysign(0.5, weights)) / PRECISION
    # Room for the taps that reach over the last pixel. Their weights are 0.
    matrix = np.zeros((len(pixels), size, side + taps))
    np.put_along_axis(matrix, pixels + np.expand_dims(origin, -1), weights, axis=2)
    return matrix[:, :, :side]


def _round(values):
    """Round to the nearest integer, ties up, and clip to 0..255, in place."""
    values += 0.5
    np.floor(values, out=values)
    return np.clip(values, 0, 255, out=values)


def random_resized_crop(images, size, rng, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation="bicubic"):
    """Cut a random box out of each image and resize it.

    Args:
        images: uint8 ``(B, C, H, W)``.
        size: height and width of the result.
        rng: ``np.random.Generator``.
        scale, ratio, interpolation: see :func:`random_crop_boxes` and :func:`resize`.

    Returns: a new uint8 array ``(B, C, *size)``.

    Raises:
        UsageError: unknown interpolation, or an empty size.

    (Szegedy et al., "Going Deeper with Convolutions", section 6; boxes and rounding as in torchvision and timm.)
    """
    boxes = random_crop_boxes(len(images), *images.shape[2:], rng, scale, ratio)
    return resize(images, size, interpolation, boxes, cut=True)


def random_crop_boxes(count, height, width, rng, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)):
    """Draw the boxes of :func:`random_resized_crop`.

    Area ``scale`` of the image's, uniform; width over height in ``ratio``, the logarithm uniform. A box that is
    larger than the image is drawn again, ten times at most; then it is the largest central one with its ratio in range.

    Returns: int64 ``(count, 4)``: top, left, height, width.
    """
    aspect = (1 / ratio[1], 1 / ratio[0])
    boxes = random_boxes(count, height, width, rng, area=scale, aspect=aspect, largest=(height, width))
    box_height = min(height, max(1, round(width / ratio[0])))
    box_width = min(width, max(1, round(height * ratio[1])))
    central = ((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)
    return np.where(boxes[:, 2:3] > 0, boxes, central)
