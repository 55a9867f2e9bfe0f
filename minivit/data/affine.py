"""Shear, translation and rotation of 8-bit images, each image by its own amount.

They give the bytes that Pillow's ``Image.transform`` and ``Image.rotate`` give, on a whole batch at once. All of
them take uint8 ``images`` ``(B, C, H, W)`` and one argument per image ``(B,)``, return a new array, and take the
``fill``, a number or one for each channel, for what lies outside of the source image. ``interpolation`` is
"nearest", "bilinear" or "bicubic".
"""

import math

import numpy as np

from minivit.errors import UsageError, suggest

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


def shear_x(images, slope, fill=0, interpolation="nearest"):
    """Shift each row to the left by ``slope`` times its distance from the top."""
    return affine(images, _matrices(len(images), b=slope), fill, interpolation)


def shear_y(images, slope, fill=0, interpolation="nearest"):
    """Shift each column up by ``slope`` times its distance from the left."""
    return affine(images, _matrices(len(images), d=slope), fill, interpolation)


def translate_x(images, pixels, fill=0, interpolation="nearest"):
    """Shift to the left by ``pixels``, a real number; below 0 to the right."""
    return affine(images, _matrices(len(images), c=pixels), fill, interpolation)


def translate_y(images, pixels, fill=0, interpolation="nearest"):
    """Shift up by ``pixels``, a real number; below 0 down."""
    return affine(images, _matrices(len(images), f=pixels), fill, interpolation)


def rotate(images, degrees, fill=0, interpolation="nearest"):
    """Turn about the centre by ``degrees``, counter-clockwise."""
    angles = np.radians(-(np.asarray(degrees, np.float64) % 360)).tolist()
    # To 15 decimals, as Pillow: 90 degrees are then exact. By Python's round, which np.round only approximates.
    cos = np.array([round(math.cos(angle), 15) for angle in angles])
    sin = np.array([round(math.sin(angle), 15) for angle in angles])
    x, y = images.shape[3] / 2, images.shape[2] / 2
    to_centre = {"c": cos * -x + sin * -y + x, "f": -sin * -x + cos * -y + y}
    return affine(images, _matrices(len(images), a=cos, b=sin, d=-sin, e=cos, **to_centre), fill, interpolation)


def affine(images, matrices, fill=0, interpolation="nearest"):
    """Sample output pixel (column x, row y) at ``(a x + b y + c, d x + e y + f)`` of the source image.

    Coordinates count from the image's top left corner, so that the first pixel's centre is at (0.5, 0.5).

    Args:
        images: uint8 ``(B, C, H, W)``.
        matrices: float64 ``(B, 6)``, an image's ``a, b, c, d, e, f``: the inverse of the map from source to output.
        fill: a number, or ``(C,)``, for pixels whose sample lies outside of the image.
        interpolation: "nearest", "bilinear", or "bicubic" (Keys, "Cubic convolution interpolation", 1981, with
            a = -1). The latter two repeat the border's pixels and drop what is left of a value behind the point.

    Returns: uint8 ``(B, C, H, W)``.

    Raises: UsageError for an unknown interpolation.
    """
    if interpolation not in INTERPOLATIONS:
        raise UsageError(f"unknown interpolation {interpolation!r}{suggest(interpolation, INTERPOLATIONS)}")
    height, width = images.shape[2:]
    entries = np.asarray(matrices, np.float64).T[:, :, None, None]
    x, y = (_fixed_point_samples if interpolation == "nearest" else _samples)(height, width, *entries)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    if interpolation == "nearest":
        sampled = _gather(images, np.clip(x, 0, width - 1), np.clip(y, 0, height - 1))
    elif interpolation == "bilinear":
        sampled = _interpolate(images, x - 0.5, y - 0.5, _linear, taps=(0, 1))
    else:
        sampled = _interpolate(images, x - 0.5, y - 0.5, _cubic, taps=(-1, 0, 1, 2))
    return np.where(inside[:, None], sampled, np.asarray(fill, np.uint8).reshape(-1, 1, 1))


def _matrices(batch, **entries):
    """Return float64 ``(B, 6)``: the identity, but for the ``entries`` a to f that are given, each ``(B,)``."""
    identity = {"a": 1, "b": 0, "c": 0, "d": 0, "e": 1, "f": 0}
    return np.stack([np.broadcast_to(entries.get(k, v), batch) for k, v in identity.items()], axis=1, dtype=np.float64)


def _samples(height, width, a, b, c, d, e, f):
    """Return where each output pixel samples: x and y, float64 ``(B, H, W)``."""
    column = np.arange(width) + 0.5
    row = np.arange(height)[:, None] + 0.5
    return a * column + b * row + c, d * column + e * row + f


def _fixed_point_samples(height, width, a, b, c, d, e, f):
    """Return which source pixel each output pixel samples: column and row, integers ``(B, H, W)``.

    Pillow goes from pixel to pixel in steps of whole 1/65536ths, and in float64 where the axes do not mix (scaling
    and translation). Only for samples beyond 32768 pixels it has a third way, which is not followed here.
    """
    column = np.arange(width)
    row = np.arange(height)[:, None]

    def fixed(value):
        return np.floor(value * 65536 + 0.5).astype(np.int64)

    def sum_of_steps(first, step, number, axis):
        return np.floor(np.cumsum(np.where(number == 0, first, step), axis))

    x = fixed(a) * column + fixed(b) * row + fixed(c + a * 0.5 + b * 0.5) >> 16
    y = fixed(d) * column + fixed(e) * row + fixed(f + d * 0.5 + e * 0.5) >> 16
    apart = ((b == 0) & (d == 0)).reshape(-1)
    x[apart] = sum_of_steps((c + a * 0.5)[apart], a[apart], column, axis=2)
    y[apart] = sum_of_steps((f + e * 0.5)[apart], e[apart], row, axis=1)
    return x, y


def _gather(images, columns, rows):
    """Return ``images[b, c, rows[b, y, x], columns[b, y, x]]`` for all b, c, y, x."""
    batch, channels, height, width = images.shape
    planes = height * width * np.arange(batch * channels).reshape(batch, channels, 1, 1)
    return images.reshape(-1).take((rows * width + columns)[:, None] + planes)


def _interpolate(images, x, y, interpolate, taps):
    """Interpolate each channel at column ``x`` and row ``y``, float64 ``(B, H, W)``, first along rows.

    ``interpolate(*values, t)`` takes the values of the pixels at ``taps``, columns or rows away from the one at or
    before the sample, and the fraction ``t`` of a pixel that the sample lies after that one.
    """
    batch, channels, height, width = images.shape
    left, top = np.floor(x), np.floor(y)
    x_fraction, y_fraction = (x - left)[:, None], (y - top)[:, None]
    # Two more copies of the border's pixels, so that a sample inside of the image finds all its taps: each is then
    # at the same distance in memory from the sample's first pixel.
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge").astype(np.int16)
    row_length = width + 4
    planes = padded[0, 0].size * np.arange(batch * channels).reshape(batch, channels, 1, 1)
    first = (np.clip(top, -1, height - 1) + 1) * row_length + np.clip(left, -1, width - 1) + 1
    first = first.astype(np.int64)[:, None] + planes

    def pixels(row_tap, column_tap):
        return padded.reshape(-1)[(row_tap + 1) * row_length + column_tap + 1 :].take(first)

    def along_row(row_tap):
        # Without a fraction the pixel itself is the exact result: shear and translation move along one axis only.
        if not x_fraction.any():
            return pixels(row_tap, 0)
        return interpolate(*(pixels(row_tap, column_tap) for column_tap in taps), x_fraction)

    values = interpolate(*map(along_row, taps), y_fraction) if y_fraction.any() else along_row(0)
    return np.clip(values, 0, 255).astype(np.uint8)


def _linear(before, after, t):
    """Return the value at ``t`` on the line from ``before`` at 0 to ``after`` at 1."""
    return before + (after - before) * t


def _cubic(p0, p1, p2, p3, t):
    """Return the value at ``t`` between ``p1`` at 0 and ``p2`` at 1 of Keys's cubic with a = -1, by Horner's rule."""
    return p1 + t * (p2 - p0 + t * (2 * (p0 - p1) + p2 - p3 + t * (p1 - p0 - p2 + p3)))
