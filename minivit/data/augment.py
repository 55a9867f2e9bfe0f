"""Image augmentation on whole batches: random crop, random flip, normalisation. No loop over images."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def random_crop(images, padding, rng):
    """Pad each image with black pixels on every side, then cut a window of the original size at random.

    Args:
        images: uint8 ``(B, C, H, W)``.
        padding: pixels on each side; offsets are uniform in ``[0, 2 * padding]``, rows drawn before columns.
        rng: ``np.random.Generator``.

    Returns: a new uint8 array ``(B, C, H, W)``. (He et al., "Deep Residual Learning", section 4.2.)
    """
    batch, channels, height, width = images.shape
    padded = np.zeros((batch, channels, height + 2 * padding, width + 2 * padding), images.dtype)
    padded[:, :, padding : padding + height, padding : padding + width] = images
    top, left = rng.integers(0, 2 * padding + 1, size=(2, batch))
    windows = sliding_window_view(padded, (height, width), axis=(2, 3))  # a view (B, C, 2p+1, 2p+1, H, W)
    return windows[np.arange(batch), :, top, left]


def random_flip(images, rng):
    """Mirror each image left to right with probability 1/2, in place.

    Args:
        images: ``(B, C, H, W)``, changed.
        rng: ``np.random.Generator``.

    Returns: ``images`` itself.
    """
    mirrored = rng.random(len(images)) < 0.5
    images[mirrored] = images[mirrored, :, :, ::-1]
    return images


def normalize(images, mean, std):
    """Return float32 ``(images / 255 - mean) / std`` for uint8 images ``(B, 3, H, W)``, C-contiguous.

    ``mean`` and ``std`` are three floats each, in [0, 1] units, as in PyTorch's ``ToTensor`` + ``Normalize``.
    """
    mean = np.asarray(mean, np.float64).reshape(-1, 1, 1)
    std = np.asarray(std, np.float64).reshape(-1, 1, 1)
    result = np.empty(images.shape, np.float32)
    # One scale and one shift a channel; the first pass also converts uint8 to float32, without a temporary.
    np.multiply(images, (1 / (255 * std)).astype(np.float32), out=result)
    result -= (mean / std).astype(np.float32)
    return result
