"""Random changes of brightness, contrast and saturation."""

import numpy as np

from minivit.data.image_ops import brightness as change_brightness
from minivit.data.image_ops import color as change_saturation
from minivit.data.image_ops import contrast as change_contrast
from minivit.errors import UsageError


def color_jitter(images, rng, *, brightness=0.4, contrast=0.4, saturation=0.4):
    """Change brightness, contrast and saturation of each image, in an order of its own.

    Each factor is uniform in ``[max(0, 1 - strength), 1 + strength]``, independent of the others; every one of the six
    orders is as likely. (As timm's recipes use torchvision's ``ColorJitter`` on 8-bit images; no change of hue.)

    Args:
        images: uint8 ``(B, 3, H, W)``, not changed.
        rng: ``np.random.Generator``.
        brightness, contrast, saturation: the strengths; 0 changes nothing.

    Returns: a new uint8 array ``(B, 3, H, W)``.

    Raises:
        UsageError: a strength is negative.
    """
    steps = ((change_brightness, brightness), (change_contrast, contrast), (change_saturation, saturation))
    strengths = np.array([strength for _, strength in steps])
    if strengths.min() < 0:
        raise UsageError(f"strengths of colour jitter cannot be negative, as in {tuple(strengths.tolist())}")
    batch = len(images)
    factors = rng.uniform(np.maximum(0, 1 - strengths), 1 + strengths, (batch, len(steps)))
    orders = rng.permuted(np.tile(np.arange(len(steps)), (batch, 1)), axis=1)  # image, position -> step
    result = images.copy()
    for turn in orders.T:
        for index, (change, _) in enumerate(steps):
            chosen = np.flatnonzero(turn == index)
            result[chosen] = change(result[chosen], factors[chosen, index])
    return result
