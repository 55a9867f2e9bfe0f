"""AutoAugment: policies that were searched for on CIFAR-10, SVHN and ImageNet. (Cubuk et al., 2019, appendix A.)

A policy has 25 sub-policies of two operations. Each image draws one sub-policy; each of the two operations then has
its probability and its magnitude, an index of 0 to 9 (auto_contrast, equalize and invert have no use for one).
"""

import numpy as np

from minivit.data.affine import rotate, shear_x, shear_y, translate_x, translate_y
from minivit.data.image_ops import brightness, color, contrast, posterize, sharpness, solarize
from minivit.data.rand_augment import (
    GREY,
    IMAGENET_MEAN_COLOR,
    WITHOUT_ARGUMENT,
    apply_operations,
    random_signs,
    timm_operations,
)
from minivit.errors import UsageError, suggest

# Sub-policies: (operation, probability, magnitude), twice.
CIFAR = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("auto_contrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("auto_contrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("auto_contrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("auto_contrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("auto_contrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("auto_contrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("auto_contrast", 0.9, 1)),
)
SVHN = (
    (("shear_x", 0.9, 4), ("invert", 0.2, 3)),
    (("shear_y", 0.9, 8), ("invert", 0.7, 5)),
    (("equalize", 0.6, 5), ("solarize", 0.6, 6)),
    (("invert", 0.9, 3), ("equalize", 0.6, 3)),
    (("equalize", 0.6, 1), ("rotate", 0.9, 3)),
    (("shear_x", 0.9, 4), ("auto_contrast", 0.8, 3)),
    (("shear_y", 0.9, 8), ("invert", 0.4, 5)),
    (("shear_y", 0.9, 5), ("solarize", 0.2, 6)),
    (("invert", 0.9, 6), ("auto_contrast", 0.8, 1)),
    (("equalize", 0.6, 3), ("rotate", 0.9, 3)),
    (("shear_x", 0.9, 4), ("solarize", 0.3, 3)),
    (("shear_y", 0.8, 8), ("invert", 0.7, 4)),
    (("equalize", 0.9, 5), ("translate_y", 0.6, 6)),
    (("invert", 0.9, 4), ("equalize", 0.6, 7)),
    (("contrast", 0.3, 3), ("rotate", 0.8, 4)),
    (("invert", 0.8, 5), ("translate_y", 0.0, 2)),
    (("shear_y", 0.7, 6), ("solarize", 0.4, 8)),
    (("invert", 0.6, 4), ("rotate", 0.8, 4)),
    (("shear_y", 0.3, 7), ("translate_x", 0.9, 3)),
    (("shear_x", 0.1, 6), ("invert", 0.6, 5)),
    (("solarize", 0.7, 2), ("translate_y", 0.6, 7)),
    (("shear_y", 0.8, 4), ("invert", 0.8, 8)),
    (("shear_x", 0.7, 9), ("translate_y", 0.8, 3)),
    (("shear_y", 0.8, 5), ("auto_contrast", 0.7, 3)),
    (("shear_x", 0.7, 2), ("invert", 0.1, 5)),
)
IMAGENET = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
    (("color", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)

# The arguments of the ten magnitudes. Shifts are in image sides, FACTORS are distances from 1.
SLOPES = np.linspace(0, 0.3, 10)
SHIFTS = np.linspace(0, 150 / 331, 10)
DEGREES = np.linspace(0, 30, 10)
FACTORS = np.linspace(0, 0.9, 10)
BITS = np.rint(np.linspace(8, 4, 10)).astype(int)

# Operation tables as in rand_augment.py, but for magnitudes 0 to 9 in place of levels.
# The code of "Vision Transformer for Small-Size Datasets" (Lee et al., 2021), where rotation goes one way only:
SMALL_DATA_OPERATIONS = WITHOUT_ARGUMENT | {
    "color": lambda x, magnitude, sign: color(x, 1 + sign * FACTORS[magnitude]),
    "contrast": lambda x, magnitude, sign: contrast(x, 1 + sign * FACTORS[magnitude]),
    "brightness": lambda x, magnitude, sign: brightness(x, 1 + sign * FACTORS[magnitude]),
    "sharpness": lambda x, magnitude, sign: sharpness(x, 1 + sign * FACTORS[magnitude]),
    "posterize": lambda x, magnitude, sign: posterize(x, BITS[magnitude]),
    "solarize": lambda x, magnitude, sign: solarize(x, np.linspace(256, 0, 10)[magnitude]),
    "rotate": lambda x, magnitude, sign: rotate(x, DEGREES[magnitude], GREY),
    "shear_x": lambda x, magnitude, sign: shear_x(x, sign * SLOPES[magnitude], GREY, "bicubic"),
    "shear_y": lambda x, magnitude, sign: shear_y(x, sign * SLOPES[magnitude], GREY, "bicubic"),
    "translate_x": lambda x, magnitude, sign: translate_x(x, sign * SHIFTS[magnitude] * x.shape[3], GREY),
    "translate_y": lambda x, magnitude, sign: translate_y(x, sign * SHIFTS[magnitude] * x.shape[2], GREY),
}
# torchvision's AutoAugment: translation by whole pixels, and black where there is none.
TORCHVISION_OPERATIONS = SMALL_DATA_OPERATIONS | {
    "solarize": lambda x, magnitude, sign: solarize(x, np.linspace(255, 0, 10)[magnitude]),
    "rotate": lambda x, magnitude, sign: rotate(x, sign * DEGREES[magnitude]),
    "shear_x": lambda x, magnitude, sign: shear_x(x, sign * SLOPES[magnitude]),
    "shear_y": lambda x, magnitude, sign: shear_y(x, sign * SLOPES[magnitude]),
    "translate_x": lambda x, magnitude, sign: translate_x(x, np.trunc(sign * SHIFTS[magnitude] * x.shape[3])),
    "translate_y": lambda x, magnitude, sign: translate_y(x, np.trunc(sign * SHIFTS[magnitude] * x.shape[2])),
}
# timm's "original": RandAugment's plain set and levels, but posterize keeps 4 to 8 bits.
TIMM_OPERATIONS = {
    name: lambda x, magnitude, sign, operation=operation: operation(x, magnitude / 10, sign)
    for name, operation in timm_operations(False, IMAGENET_MEAN_COLOR, "bicubic").items()
} | {"posterize": lambda x, magnitude, sign: posterize(x, 4 + (4 * (magnitude / 10)).astype(int))}

# Name -> (sub-policies, operations).
POLICIES = {
    "cifar": (CIFAR, SMALL_DATA_OPERATIONS),
    "svhn": (SVHN, SMALL_DATA_OPERATIONS),
    "imagenet": (IMAGENET, SMALL_DATA_OPERATIONS),
    "cifar_torchvision": (CIFAR, TORCHVISION_OPERATIONS),
    "svhn_torchvision": (SVHN, TORCHVISION_OPERATIONS),
    "imagenet_torchvision": (IMAGENET, TORCHVISION_OPERATIONS),
    "imagenet_original": (IMAGENET, TIMM_OPERATIONS),
}


def auto_augment(images, policy, rng):
    """Put each image through a sub-policy of ``policy``, drawn uniformly.

    Args:
        images: uint8 RGB ``(B, 3, H, W)``.
        policy: a name in ``POLICIES``: "cifar", "svhn" and "imagenet" read the tables as the small-data paper's code
            does, "..._torchvision" as torchvision, "imagenet_original" as timm's "original".
        rng: ``np.random.Generator``.

    Returns: a new uint8 array ``(B, 3, H, W)``.

    Raises: UsageError for an unknown policy.
    """
    if policy not in POLICIES:
        raise UsageError(f"unknown AutoAugment policy {policy!r}{suggest(policy, POLICIES)}")
    sub_policies, table = POLICIES[policy]
    images = images.copy()
    drawn = rng.integers(len(sub_policies), size=len(images))
    for operations in zip(*sub_policies):  # all the first operations, then all the second
        names, probabilities, magnitudes = zip(*operations)
        numbers = np.array([list(table).index(name) for name in names])
        applied = rng.random(len(images)) < np.array(probabilities)[drawn]
        chosen = np.where(applied, numbers[drawn], -1)
        apply_operations(images, chosen, np.array(magnitudes)[drawn], random_signs(rng, len(images)), table)
    return images
