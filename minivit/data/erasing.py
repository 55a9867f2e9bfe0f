"""Random erasing, and the random boxes that it shares with cropping and mixing.

A box is four integers: top, left, height, width. Boxes of a batch are int64 ``(B, 4)``.
"""

import numpy as np

from minivit.errors import UsageError, suggest

MODES = ("const", "rand", "pixel")


def random_erasing(
    images,
    rng,
    *,
    probability,
    mode,
    count=1,
    area=(0.02, 1 / 3),
    min_aspect=0.3,
    log_aspect=True,
    tries=10,
    values=None,
):
    """Fill random boxes of some images, in place. Comes after normalisation and before mixing.

    Args:
        images: normalised, float32 ``(B, C, H, W)``, changed.
        rng: ``np.random.Generator``.
        probability: of erasing anything in an image.
        mode: ``"const"`` fills with ``values``, ``"rand"`` with one N(0, 1) number for each channel of a box,
            ``"pixel"`` with an independent N(0, 1) number for each element.
        count: boxes in each chosen image. They may overlap.
        area: least and largest area of all boxes of an image together, as a part of the image's; uniform.
        min_aspect: least height over width of a box; the largest is its inverse.
        log_aspect: the logarithm of the aspect is uniform, as in timm; False: the aspect itself, as in the paper.
        tries: draws for a box that is smaller than the image on both sides; after that there is no box.
        values: C numbers for ``"const"``, 0 by default.

    Returns: ``images`` itself.

    Raises:
        UsageError: unknown mode, or ``values`` for another mode than ``"const"``.

    (Zhong et al., "Random Erasing Data Augmentation", arXiv 1708.04896, algorithm 1.)
    """
    if mode not in MODES:
        raise UsageError(f"unknown mode of random erasing {mode!r}{suggest(mode, MODES)}; known are {', '.join(MODES)}")
    if values is not None and mode != "const":
        raise UsageError(f"random erasing takes values in mode 'const' only, not {mode!r}")
    channels, height, width = images.shape[1:]
    chosen = np.flatnonzero(rng.random(len(images)) < probability)
    for _ in range(count):
        boxes = random_boxes(
            len(chosen),
            height,
            width,
            rng,
            area=(area[0] / count, area[1] / count),
            aspect=(min_aspect, 1 / min_aspect),
            log_aspect=log_aspect,
            largest=(height - 1, width - 1),
            tries=tries,
        )
        box, row, column = np.nonzero(box_mask(boxes, height, width))
        if mode == "const":
            fill = 0 if values is None else np.asarray(values, np.float32)
        elif mode == "rand":
            fill = rng.standard_normal((len(boxes), channels), np.float32)[box]
        else:
            fill = rng.standard_normal((len(box), channels), np.float32)
        images[chosen[box], :, row, column] = fill
    return images


def random_boxes(count, height, width, rng, *, area, aspect, largest, log_aspect=True, tries=10):
    """Draw boxes by area and aspect, and place each uniformly in its image.

    The first of ``tries`` draws counts that has no side below 1 or above ``largest``; without one, the box is empty.

    Args:
        count: boxes B, for as many images of ``height`` x ``width`` pixels.
        area: least and largest area as a part of the image's; uniform.
        aspect: least and largest height over width, before the sides are rounded (ties to even).
        largest: the largest height and width.
        log_aspect: the logarithm of the aspect is uniform, rather than the aspect.
        tries: draws for each box.

    Returns: int64 ``(B, 4)``; an empty box has height and width 0.
    """
    areas = rng.uniform(*area, (tries, count)) * (height * width)
    if log_aspect:
        aspects = np.exp(rng.uniform(*np.log(aspect), (tries, count)))
    else:
        aspects = rng.uniform(*aspect, (tries, count))
    heights = np.rint(np.sqrt(areas * aspects)).astype(np.int64)
    widths = np.rint(np.sqrt(areas / aspects)).astype(np.int64)
    fits = (heights >= 1) & (heights <= largest[0]) & (widths >= 1) & (widths <= largest[1])
    first = fits.argmax(axis=0), np.arange(count)
    box_heights, box_widths = fits[first] * heights[first], fits[first] * widths[first]
    tops = rng.integers(0, height - box_heights + 1)
    lefts = rng.integers(0, width - box_widths + 1)
    return np.stack([tops, lefts, box_heights, box_widths], axis=1)


def box_mask(boxes, height, width):
    """Return bool ``(B, height, width)``: which pixels of each image lie in its box."""
    top, left, box_height, box_width = np.asarray(boxes).T[:, :, None]
    rows, columns = np.arange(height), np.arange(width)
    in_rows = (rows >= top) & (rows < top + box_height)
    in_columns = (columns >= left) & (columns < left + box_width)
    return in_rows[:, :, None] & in_columns[:, None, :]
