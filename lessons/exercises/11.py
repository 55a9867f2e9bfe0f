"""Exercises of lesson 11, AugReg. Check them by: python -m lessons check 11"""


def cutmix(images, partners, labels, partner_labels, classes, box):
    """Return images into which a box of their partners is pasted, and the targets for them.

    CutMix is Mixup's neighbour: pixels are not blended but replaced, and each label gets the share
    of the image's area that it has in the end.

    Args:
        images, partners: arrays (B, C, H, W), not to be changed.
        labels, partner_labels: their classes, arrays of integers (B,).
        classes: how many there are, K.
        box: (top, left, height, width) in pixels, the same place in all images; it lies wholly in
            them.

    Returns:
        (array (B, C, H, W), array (B, K) whose rows add up to 1)
    """
    raise NotImplementedError


def drop_path(x, keep, rate):
    """Return what stochastic depth makes of a branch's result in training.

    Args:
        x: array (B, N, D): images, tokens, channels.
        keep: whether each image keeps the branch, array of bool (B,), True with probability
            1 - rate.
        rate: from 0 to below 1.

    Returns:
        array (B, N, D) whose expectation over random ``keep`` is x.
    """
    raise NotImplementedError


def surviving_branches(rate, depth):
    """Return how many residual branches of a transformer are kept on average.

    The rates rise evenly from 0 in the first block to ``rate`` in the last. A block has two
    branches, attention and MLP, which are dropped independently.

    Args:
        rate: from 0 to below 1.
        depth: blocks, at least 2.
    """
    raise NotImplementedError
