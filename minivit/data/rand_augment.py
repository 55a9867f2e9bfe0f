"""RandAugment: a few random operations on each image, all of one magnitude. timm's and the original TensorFlow one.

An operation *table* maps names to functions ``(images, level, sign)`` that return new images: ``level`` is the
magnitude divided by 10 and ``sign`` is +1 or -1 at random, both ``(B,)``; an operation that has no use for them
ignores them. (Cubuk et al., "RandAugment: practical automated data augmentation", 2020.)
"""

import re

import numpy as np

from minivit.data.affine import rotate, shear_x, shear_y, translate_x, translate_y
from minivit.data.image_ops import (
    auto_contrast,
    brightness,
    color,
    contrast,
    equalize,
    invert,
    posterize,
    sharpness,
    solarize,
    solarize_add,
)
from minivit.errors import UsageError

IMAGENET_MEAN_COLOR = (124, 116, 104)
GREY = 128

WITHOUT_ARGUMENT = {
    "auto_contrast": lambda x, level, sign: auto_contrast(x),
    "equalize": lambda x, level, sign: equalize(x),
    "invert": lambda x, level, sign: invert(x),
}


def rand_augment(
    images,
    rng,
    *,
    layers=2,
    magnitude=9,
    noise=0.5,
    max_magnitude=10,
    probability=0.5,
    increasing=True,
    fill=IMAGENET_MEAN_COLOR,
    interpolation="bicubic",
):
    """Apply timm's RandAugment; the defaults are DeiT's ``rand-m9-mstd0.5-inc1``.

    In each layer every image draws one of 15 operations and, with ``probability``, goes through it.

    Args:
        images: uint8 RGB ``(B, 3, H, W)``.
        rng: ``np.random.Generator``.
        layers: operations drawn for each image, with replacement.
        magnitude: their strength; each application draws its own from Normal(magnitude, ``noise``), clipped to
            0..``max_magnitude``.
        increasing: use the operations whose effect grows with the magnitude (see ``timm_operations``).
        fill: a number, or one for each channel, for what rotation, shear and translation bring in.
        interpolation: "nearest", "bilinear" or "bicubic", for the same three.

    Returns: a new uint8 array ``(B, 3, H, W)``.
    """
    table = timm_operations(increasing, fill, interpolation)
    images = images.copy()
    for _ in range(layers):
        chosen = rng.integers(len(table), size=len(images))
        applied = rng.random(len(images)) < probability
        level = np.clip(rng.normal(magnitude, noise, len(images)), 0, max_magnitude) / 10
        apply_operations(images, np.where(applied, chosen, -1), level, random_signs(rng, len(images)), table)
    return images


def tf_rand_augment(images, rng, *, layers, magnitude, contrast_bug=False):
    """Apply the original RandAugment, which "How to train your ViT?" (Steiner et al., 2022) uses.

    In each layer every image goes through one of 16 operations: timm's plain set and cutout, at just this
    ``magnitude``, which may exceed 10. Magnitude 0 is not weak: it blackens (posterize) and inverts (solarize).
    Translation and cutout, given in pixels of 224x224 images, shrink with the images. Pixels come from the nearest
    neighbour, and grey where there is none.

    Args:
        images: uint8 RGB ``(B, 3, H, W)``.
        rng: ``np.random.Generator``.
        layers: operations for each image, drawn with replacement.
        magnitude: 0 or more.
        contrast_bug: blend contrast with pixels / 256 in place of the mean grey, as the original does.

    Returns: a new uint8 array ``(B, 3, H, W)``.
    """
    height, width = images.shape[2:]
    table = timm_operations(False, GREY, "nearest") | {
        "solarize_add": lambda x, level, sign: solarize_add(x, (110 * level).astype(int)),
        "translate_x": lambda x, level, sign: translate_x(x, sign * 100 * level * width / 224, GREY),
        "translate_y": lambda x, level, sign: translate_y(x, sign * 100 * level * height / 224, GREY),
        "cutout": lambda x, level, sign: _cutout(x, (40 * level * min(height, width) / 224).astype(int), rng),
    }
    if contrast_bug:
        mean = min(height * width // 256, 255)
        table["contrast"] = lambda x, level, sign: contrast(x, 0.1 + 1.8 * level, mean)
    images = images.copy()
    level = np.full(len(images), magnitude / 10)
    for _ in range(layers):
        chosen = rng.integers(len(table), size=len(images))
        apply_operations(images, chosen, level, random_signs(rng, len(images)), table)
    return images


def parse_rand_augment(text):
    """Return ``rand_augment``'s keywords for timm's notation, such as "rand-m9-mstd0.5-inc1".

    Parts after "rand", in any order, each with what holds without it: m magnitude (10), n layers (2), p probability
    (0.5), mstd noise (0), mmax largest magnitude (10), inc1 the increasing set or inc0 the plain one (inc0).

    Raises: UsageError for anything else.
    """
    result = {"magnitude": 10, "layers": 2, "probability": 0.5, "noise": 0.0, "max_magnitude": 10, "increasing": False}
    keywords = {
        "m": ("magnitude", int),
        "n": ("layers", int),
        "p": ("probability", float),
        "mstd": ("noise", float),
        "mmax": ("max_magnitude", int),
        "inc": ("increasing", {"0": False, "1": True}.__getitem__),
    }
    start, *parts = str(text).split("-")
    if start != "rand":
        raise UsageError(f"RandAugment is written like rand-m9-mstd0.5-inc1, not {text!r}")
    for part in parts:
        key = re.match("[a-z]*", part)[0]
        try:
            name, convert = keywords[key]
            result[name] = convert(part[len(key) :])
        except (KeyError, ValueError):
            message = f"RandAugment {text!r}: {part!r} is not one of {', '.join(keywords)} and a number (inc: 0 or 1)"
            raise UsageError(message) from None
    for name, least, most in (("magnitude", 0, 100), ("layers", 0, 100), ("max_magnitude", 1, 100)):
        if not least <= result[name] <= most:
            raise UsageError(f"RandAugment {text[:40]!r}: {name} is between {least} and {most}")
    if not 0 <= result["probability"] <= 1:
        raise UsageError(f"RandAugment {text!r}: a probability (p) is between 0 and 1")
    if not 0 <= result["noise"] <= 100:
        raise UsageError(f"RandAugment {text!r}: noise (mstd) is between 0 and 100")
    return result


def timm_operations(increasing, fill, interpolation):
    """Return timm's table of 15 operations.

    In the plain set, TensorFlow's, posterize and solarize weaken as the magnitude grows, and colour, contrast,
    brightness and sharpness change nothing at 5. In the increasing set every effect grows with the magnitude, and
    those four go up or down from no change.
    """
    table = WITHOUT_ARGUMENT | {
        "rotate": lambda x, level, sign: rotate(x, sign * 30 * level, fill, interpolation),
        "posterize": lambda x, level, sign: posterize(x, (4 * level).astype(int)),
        "solarize": lambda x, level, sign: solarize(x, _threshold(level)),
        "solarize_add": lambda x, level, sign: solarize_add(x, np.minimum((110 * level).astype(int), 128)),
        "color": lambda x, level, sign: color(x, 0.1 + 1.8 * level),
        "contrast": lambda x, level, sign: contrast(x, 0.1 + 1.8 * level),
        "brightness": lambda x, level, sign: brightness(x, 0.1 + 1.8 * level),
        "sharpness": lambda x, level, sign: sharpness(x, 0.1 + 1.8 * level),
        "shear_x": lambda x, level, sign: shear_x(x, sign * 0.3 * level, fill, interpolation),
        "shear_y": lambda x, level, sign: shear_y(x, sign * 0.3 * level, fill, interpolation),
        "translate_x": lambda x, level, sign: translate_x(x, sign * 0.45 * level * x.shape[3], fill, interpolation),
        "translate_y": lambda x, level, sign: translate_y(x, sign * 0.45 * level * x.shape[2], fill, interpolation),
    }
    if increasing:
        table |= {
            "posterize": lambda x, level, sign: posterize(x, 4 - (4 * level).astype(int)),
            "solarize": lambda x, level, sign: solarize(x, 256 - _threshold(level)),
            "color": lambda x, level, sign: color(x, _signed_factor(level, sign)),
            "contrast": lambda x, level, sign: contrast(x, _signed_factor(level, sign)),
            "brightness": lambda x, level, sign: brightness(x, _signed_factor(level, sign)),
            "sharpness": lambda x, level, sign: sharpness(x, _signed_factor(level, sign)),
        }
    return table


def apply_operations(images, chosen, level, sign, table):
    """Put image i through operation number ``chosen[i]`` of the ``table``, in place; -1 leaves it as it is.

    ``level`` and ``sign`` ``(B,)`` are handed on to the operations.
    """
    for number, operation in enumerate(table.values()):
        (rows,) = np.nonzero(chosen == number)
        if len(rows):
            images[rows] = operation(images[rows], level[rows], sign[rows])


def random_signs(rng, count):
    """Return ``count`` times +1 or -1, equally likely."""
    return rng.choice((-1, 1), size=count)


def _threshold(level):
    return np.minimum((256 * level).astype(int), 256)


def _signed_factor(level, sign):
    return np.maximum(0.1, 1 + sign * 0.9 * level)


def _cutout(images, half, rng):
    """Paint a grey square with sides of ``2 * half[i]`` pixels over image i, centred anywhere and cut at the border."""
    batch, _, height, width = images.shape
    row, column = np.arange(height)[:, None], np.arange(width)
    centre_row, centre_column = rng.integers((height, width), size=(batch, 2)).T[:, :, None, None]
    half = half[:, None, None]
    inside = (centre_row - half <= row) & (row < centre_row + half)
    inside = inside & (centre_column - half <= column) & (column < centre_column + half)
    return np.where(inside[:, None], np.uint8(GREY), images)
