"""Measuring a network on a split: loss, top-1, top-5."""

import time
from dataclasses import dataclass

import numpy as np

from minivit.data import DataLoader
from minivit.ops.loss import cross_entropy
from minivit.tensor import Tensor, no_grad

BATCH_SIZE = 256


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` measures.

    Args:
        loss: mean cross-entropy, without label smoothing.
        top1, top5: percent of the images whose label is the highest logit, or among the five highest. With
            fewer than five classes top5 counts all of them.
        images: how many images were measured.
        seconds: wall-clock time.
    """

    loss: float
    top1: float
    top5: float
    images: int
    seconds: float


def evaluate(model, split, mean, std, batch_size=BATCH_SIZE, img_size=None, on_batch=None, on_logits=None):
    """Run ``model`` over ``split`` in eval mode and without a tape. Its mode is restored afterwards.

    Args:
        model: a network from images ``(B, 3, H, W)`` to logits ``(B, C)``.
        split: images and labels, a ``minivit.data.Split``.
        mean, std: normalisation, three floats each.
        batch_size: images at once.
        img_size: pixels a side that the model takes; None for those of the images.
        on_batch: called with the number of images after each batch; returning True gives up.
        on_logits: called with the logits ``(B, C)`` and labels ``(B,)`` of each batch, both arrays.

    Returns:
        Evaluation, or None if ``on_batch`` gave up.
    """
    started, was_training = time.perf_counter(), model.training
    loss = top1 = top5 = 0.0
    model.eval()
    try:
        with no_grad():
            for images, labels in DataLoader(split, batch_size, mean=mean, std=std, img_size=img_size).epoch(0):
                logits = model(Tensor(images))
                loss += cross_entropy(logits, labels).item() * len(labels)
                if on_logits is not None:
                    on_logits(logits.data, labels)
                hit1, hit5 = count_hits(logits.data, labels)
                top1, top5 = top1 + hit1, top5 + hit5
                if on_batch is not None and on_batch(len(labels)):
                    return None
    finally:
        model.train(was_training)
    n = len(split)
    return Evaluation(loss / n, 100 * top1 / n, 100 * top5 / n, n, time.perf_counter() - started)


def count_hits(logits, labels, k=5):
    """Count the labels ``(B,)`` that are the highest, and among the ``k`` highest, of the logits ``(B, C)``.

    A label's rank is the number of logits above its own, and of equal ones before it, so that a network that
    gives all classes the same logit is not taken to be right. A row with NaN never is.

    Returns:
        Two integers.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    before = np.arange(logits.shape[1]) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & before)).sum(axis=1)
    valid = ~np.isnan(logits).any(axis=1)
    return int((valid & (rank == 0)).sum()), int((valid & (rank < k)).sum())
