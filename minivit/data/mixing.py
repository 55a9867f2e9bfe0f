"""Mixup and CutMix: each image is mixed with another one of its batch, and so are their labels."""

import numpy as np

from minivit.data.erasing import box_mask
from minivit.errors import UsageError, suggest

MODES = ("batch", "pair", "elem")
PARTNERS = ("reversed", "rolled", "shuffled")


def mix(
    images,
    labels,
    num_classes,
    rng,
    *,
    mixup=0.8,
    cutmix=1.0,
    probability=1.0,
    switch_probability=0.5,
    mode="batch",
    partner="reversed",
    cutmix_minmax=None,
    keep_larger=False,
    even_boxes=True,
):
    """Mix a batch by Mixup or CutMix.

    A draw decides whether to mix, by which method, with which lambda, and where the box of CutMix lies.

    Args:
        images: float32 ``(B, C, H, W)``, not changed.
        labels: int64 ``(B,)``.
        num_classes: K.
        rng: ``np.random.Generator``.
        mixup, cutmix: alpha of each method, whose lambda is drawn from Beta(alpha, alpha); 0 switches it off.
        probability: that a draw mixes at all.
        switch_probability: that it takes CutMix where both methods are on.
        mode: one draw for the whole ``"batch"``, for each ``"pair"`` of partners, or for each image (``"elem"``).
        partner: image ``i`` is mixed with image ``B-1-i`` (``"reversed"``: timm; the middle one of an odd batch
            with itself), ``i-1`` (``"rolled"``: AugReg) or that of a random permutation (``"shuffled"``: the
            small-data paper). Pairs need ``"reversed"``.
        cutmix_minmax: two fractions; the sides of a box are then drawn uniformly between these parts of the
            image's, the upper one excluded, and the box lies wholly in the image. Switches CutMix on.
        keep_larger: replace each lambda by ``max(lambda, 1 - lambda)`` (AugReg).
        even_boxes: see :func:`cutmix_boxes`.

    Returns: images float32 ``(B, C, H, W)``, which are ``images`` itself if nothing was mixed; and targets float32
        ``(B, K)``, whose rows sum to 1.

    Raises:
        UsageError: unknown mode or partner, or pairs with another partner than ``"reversed"``.

    (Zhang et al., "mixup", arXiv 1710.09412, eq. 1; Yun et al., "CutMix", arXiv 1905.04899, eq. 1 and 2.)
    """
    for what, value, known in (("mode", mode, MODES), ("partner", partner, PARTNERS)):
        if value not in known:
            raise UsageError(f"unknown {what} of mixing {value!r}{suggest(value, known)}; known are {', '.join(known)}")
    if mode == "pair" and partner != "reversed":
        raise UsageError(f"mixing in pairs needs partner 'reversed', not {partner!r}")
    batch, _, height, width = images.shape
    index = np.arange(batch)
    draw = {"batch": np.zeros_like(index), "pair": np.minimum(index, index[::-1]), "elem": index}[mode]
    order = {"reversed": index[::-1], "rolled": np.roll(index, 1)}.get(partner)
    order = rng.permutation(batch) if order is None else order

    draws = draw.max(initial=-1) + 1
    if cutmix_minmax is not None:
        cutmix = 1.0  # Lambda does not matter then, but switches CutMix on.
    lam, cutting = _draw_lambdas(draws, mixup, cutmix, probability, switch_probability, rng)
    if keep_larger:
        lam = np.maximum(lam, 1 - lam)
    if cutmix_minmax is None:
        rows, columns = rng.integers(0, height, draws), rng.integers(0, width, draws)
        boxes = cutmix_boxes(lam, rows, columns, height, width, even_boxes=even_boxes)
    else:
        boxes = _minmax_boxes(draws, cutmix_minmax, height, width, rng)
    boxes = np.where(cutting[:, None], boxes, 0)
    lam = np.where(cutting, kept_area(boxes, height, width), lam)

    lam, cutting, boxes = lam[draw], cutting[draw], boxes[draw]
    partners, mixed = images[order], images
    blending = ~cutting & (lam < 1)
    if blending.any():
        mixed = mixup_images(images, partners, np.where(blending, lam, 1))
    if cutting.any():
        mixed = cutmix_images(mixed, partners, boxes)
    return mixed, mixed_targets(labels, labels[order], lam, num_classes)


def _draw_lambdas(draws, mixup, cutmix, probability, switch_probability, rng):
    """Draw lambda ``(draws,)``, 1 where nothing is mixed, and whether each draw is one of CutMix."""
    if mixup == cutmix == 0:
        return np.ones(draws), np.zeros(draws, bool)
    share = switch_probability if mixup and cutmix else float(cutmix > 0)
    cutting = rng.random(draws) < share
    alpha = np.where(cutting, cutmix, mixup)
    lam = rng.beta(alpha, alpha)
    mixing = rng.random(draws) < probability
    return np.where(mixing, lam, 1), cutting & mixing


def cutmix_boxes(lam, rows, columns, height, width, *, even_boxes=True):
    """Boxes of CutMix: sides ``sqrt(1 - lam)`` of the image's, rounded down, cut off at the border.

    Args:
        lam: ``(B,)``, the part of the image that should stay.
        rows, columns: int ``(B,)``, the centres.
        height, width: of the images.
        even_boxes: half a side, rounded down, on either side of the centre, so that an odd side loses a pixel: the
            rule of CutMix's authors, of the small-data paper and of timm when DeiT and CaiT were trained. False
            keeps odd sides, as timm 1.0.31 does.

    Returns: int64 ``(B, 4)``: top, left, height, width. :func:`kept_area` is the lambda that belongs to them.
    """
    ratio = np.sqrt(1 - np.asarray(lam))

    def spans(centres, side):
        cut = (side * ratio).astype(np.int64)
        after = cut // 2 if even_boxes else (cut + 1) // 2
        start = np.clip(centres - cut // 2, 0, side)
        return start, np.clip(centres + after, 0, side) - start

    (top, box_height), (left, box_width) = spans(rows, height), spans(columns, width)
    return np.stack([top, left, box_height, box_width], axis=-1)


def _minmax_boxes(count, minmax, height, width, rng):
    """Boxes with uniform sides, lying uniformly in the image: timm's min/max variant of CutMix."""

    def spans(side):
        low, high = (int(part * side) for part in minmax)
        cut = rng.integers(low, max(high, low + 1), count)
        return rng.integers(0, side - cut + 1), cut

    (top, box_height), (left, box_width) = spans(height), spans(width)
    return np.stack([top, left, box_height, box_width], axis=-1)


def kept_area(boxes, height, width):
    """The part of each image that lies outside its box, float64 ``(B,)``: lambda after CutMix."""
    return 1 - boxes[..., 2] * boxes[..., 3] / (height * width)


def mixup_images(images, partners, lam):
    """Return float32 ``lam * images + (1 - lam) * partners`` for images ``(B, C, H, W)`` and lam ``(B,)``."""
    lam = np.asarray(lam).reshape(-1, 1, 1, 1)
    mixed = (1 - lam).astype(np.float32) * partners
    mixed += lam.astype(np.float32) * images
    return mixed


def cutmix_images(images, partners, boxes):
    """Return ``images`` ``(B, C, H, W)`` with the pixels in ``boxes`` ``(B, 4)`` taken from ``partners``."""
    return np.where(box_mask(boxes, *images.shape[2:])[:, None], partners, images)


def mixed_targets(labels, partners, lam, num_classes, smoothing=0.0):
    """Mix one-hot targets: ``lam * Y(labels) + (1 - lam) * Y(partners)``, rows that sum to 1.

    ``Y(y)`` is ``smoothing / K`` everywhere and ``1 - smoothing`` more at y.

    Args:
        labels, partners: int ``(B,)``, classes of the images and of the ones mixed in.
        lam: ``(B,)``.
        num_classes: K.
        smoothing: label smoothing.

    Returns: float32 ``(B, K)``.
    """
    lam = np.asarray(lam)
    rows = np.arange(len(labels))
    targets = np.full((len(labels), num_classes), smoothing / num_classes, np.float32)
    targets[rows, labels] += (1 - smoothing) * lam
    targets[rows, partners] += (1 - smoothing) * (1 - lam)
    return targets
