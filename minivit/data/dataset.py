"""What every data set is once loaded: two splits of images and labels, class names, channel statistics."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class Split:
    """Images and labels in matching order.

    Attributes:
        images: uint8 ``(N, 3, H, W)``, RGB; an array in memory or a read-only memory map.
        labels: int64 ``(N,)``, each in ``[0, num_classes)``.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self):
        return len(self.labels)

    def limited(self, limit, seed):
        """Return the first ``limit`` examples of a seeded permutation; the split itself if it has no more."""
        if limit is None or limit >= len(self):
            return self
        chosen = np.random.default_rng(seed).permutation(len(self))[:limit]
        return Split(self.images[chosen], self.labels[chosen])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named pair of splits.

    Attributes:
        name: the name that :func:`minivit.data.load_dataset` was given.
        train: the split to learn from.
        test: the split to judge by; the official validation split where test labels are not public.
        class_names: the name of class ``i`` at index ``i``.
        mean, std: per channel, of the training images scaled to [0, 1].
        img_size: height and width in pixels that batches shall have; stored images may be smaller.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple
    mean: tuple
    std: tuple
    img_size: int

    @property
    def num_classes(self):
        return len(self.class_names)

    def limited(self, limit_train, limit_test, seed):
        """Return the data set with fewer images; see :meth:`Split.limited`."""
        train, test = self.train.limited(limit_train, [seed, 0]), self.test.limited(limit_test, [seed, 1])
        return replace(self, train=train, test=test)


def channel_statistics(images, chunk=4096):
    """Return ``(mean, std)``, each three floats in [0, 1] units, of uint8 images ``(N, 3, H, W)``.

    Exact: it counts how often each of the 256 values occurs, reading ``chunk`` images at a time, so that a
    memory map may be larger than memory.
    """
    counts = np.zeros((3, 256), np.int64)
    for start in range(0, len(images), chunk):
        for channel in range(3):
            counts[channel] += np.bincount(images[start : start + chunk, channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    total = counts.sum(axis=1)
    mean = counts @ values / total
    variance = counts @ values**2 / total - mean**2
    return tuple(mean.tolist()), tuple(np.sqrt(np.maximum(variance, 0)).tolist())
