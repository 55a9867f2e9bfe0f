"""Operations on colour and contrast of 8-bit images, each image with its own argument.

They give the bytes that Pillow's ``ImageOps`` and ``ImageEnhance`` give, which timm and torchvision call, but on
a whole batch at once. All of them take uint8 ``images`` ``(B, C, H, W)`` and, except the first three, one
argument per image ``(B,)``; they return a new array and leave their input as it is. (Cubuk et al.,
"AutoAugment", 2019, table 6, lists the operations.)
"""

import numpy as np


def auto_contrast(images):
    """Stretch each channel of each image to the full range 0..255; a channel of one value stays as it is."""
    pixels = images.reshape(*images.shape[:2], -1)
    low = pixels.min(axis=-1, keepdims=True).astype(np.float64)
    high = pixels.max(axis=-1, keepdims=True)
    flat = high == low
    scale = 255 / np.where(flat, 1, high - low)
    stretched = np.clip(np.arange(256) * scale - low * scale, 0, 255)
    return _look_up(images, np.where(flat, np.arange(256), stretched).astype(np.uint8))


def equalize(images):
    """Spread each channel's values so that its histogram becomes as even as 256 levels allow.

    A channel with fewer than 255 pixels below its brightest value stays as it is, as in Pillow.
    """
    batch, channels, height, width = images.shape
    offsets = 256 * np.arange(batch * channels).reshape(batch, channels, 1, 1)
    counts = np.bincount((images + offsets).ravel(), minlength=256 * batch * channels).reshape(batch, channels, 256)
    brightest = images.max(axis=(2, 3))[..., None]
    step = (height * width - np.take_along_axis(counts, brightest, axis=-1)) // 255
    below = np.cumsum(counts, axis=-1) - counts
    spread = np.minimum((step // 2 + below) // np.maximum(step, 1), 255)
    return _look_up(images, np.where(step == 0, np.arange(256), spread).astype(np.uint8))


def invert(images):
    """Return the negative, ``255 - images``."""
    return ~images


def solarize(images, threshold):
    """Invert the values that are at least ``threshold``, a number of 0 (all) to 256 (none)."""
    return np.where(images < np.ceil(_per_image(threshold)).astype(np.int16), images, ~images)


def solarize_add(images, amount):
    """Add ``amount``, integers of at least 0, to the values below 128, up to 255."""
    brighter = np.minimum(images + _per_image(amount).astype(np.int16), 255).astype(np.uint8)
    return np.where(images < 128, brighter, images)


def posterize(images, bits):
    """Keep the ``bits`` highest bits of every value: with 8 or more all of them, with 0 or fewer none (black)."""
    dropped = 8 - np.clip(_per_image(bits), 0, 8)
    return images & (0xFF << dropped & 0xFF).astype(np.uint8)


def color(images, factor):
    """Blend RGB images with their grey versions: factor 0 is grey, 1 unchanged, above 1 more colourful."""
    return _blend(_grey(images), images, factor)


def contrast(images, factor, mean=None):
    """Blend RGB images with a flat grey: factor 0 is flat, 1 unchanged, above 1 more contrast.

    The grey is ``mean`` or, by default, each image's mean, rounded.
    """
    if mean is None:
        mean = np.floor(_grey(images).mean(axis=(1, 2, 3), keepdims=True) + 0.5).astype(np.float32)
    return _blend(mean, images, factor)


def brightness(images, factor):
    """Multiply by ``factor``: 0 is black, 1 unchanged."""
    return _blend(0, images, factor)


def sharpness(images, factor):
    """Blend with a smoothed version: factor 0 is smooth, 1 unchanged, above 1 sharper.

    Smoothing is the mean of 3x3 pixels in which the middle counts five times; border pixels stay as they are.
    """
    smooth = images.copy()
    if min(images.shape[2:]) > 2:
        wide = images.astype(np.uint16)
        rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
        total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * wide[:, :, 1:-1, 1:-1]
        smooth[:, :, 1:-1, 1:-1] = (2 * total + 13) // 26  # total / 13, rounded: the thirteenths never tie
    return _blend(smooth, images, factor)


def _per_image(argument):
    """Give an array ``(B,)`` the shape that broadcasts against images."""
    return np.asarray(argument).reshape(-1, 1, 1, 1)


def _grey(images):
    """Return the luma (ITU-R 601-2, in Pillow's fixed point) of RGB images as uint8 ``(B, 1, H, W)``."""
    red, green, blue = (images[:, channel : channel + 1].astype(np.int32) for channel in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).astype(np.uint8)


def _blend(degenerate, images, factor):
    """Return ``degenerate + factor * (images - degenerate)`` without its fraction, in 0..255.

    In float32, as Pillow's ``Image.blend``; a factor above 1 extrapolates. (Haeberli and Voorhies, "Image
    processing by interpolation and extrapolation", 1994.)
    """
    blended = np.subtract(images, degenerate, dtype=np.float32)
    blended *= _per_image(factor).astype(np.float32)
    blended += degenerate
    return np.clip(blended, 0, 255, out=blended).astype(np.uint8)


def _look_up(images, tables):
    """Replace each value by its entry in uint8 ``tables`` ``(B, C, 256)``."""
    batch, channels = images.shape[:2]
    offsets = 256 * np.arange(batch * channels).reshape(batch, channels, 1, 1)
    return tables.reshape(-1).take(images + offsets)
