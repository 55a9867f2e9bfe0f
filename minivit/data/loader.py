"""Batches for training and evaluation: shuffled, augmented, normalised, prepared ahead by a thread.

Nothing here has a state that advances. The order of epoch ``e`` depends on ``(seed, e)`` alone, and the augmentation
of its batch ``b`` on ``(seed, e, b)``. So a run that stopped after 137 batches of an epoch goes on
with ``loader.epoch(e, start_batch=137)``, and sees exactly the batches that it would have seen.
"""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from minivit.data.augment import normalize
from minivit.data.augmentation import Augmentation, fit
from minivit.errors import UsageError

SAMPLER_ROUNDS = 256  # DeiT's sampler for repeated augmentation shows a multiple of so many images

# First word of a generator's key: orders and augmentations never share a random stream.
ORDER, AUGMENTATION = 0, 1


class DataLoader:
    """Cuts a split into batches.

    Args:
        split: a :class:`~minivit.data.Split`.
        batch_size: images in a batch; the last one may be smaller unless ``drop_last``.
        mean, std: three floats each in [0, 1] units; see :func:`~minivit.data.augment.normalize`.
        seed: non-negative integer behind order and augmentation.
        shuffle: a fresh permutation for each pass instead of the stored order.
        augmentation: an :class:`~minivit.data.augmentation.Augmentation`; None for normalisation only.
        num_classes: length of the soft targets of an augmentation that mixes images.
        img_size: pixels a side of the batches; None for those of the stored images.
        drop_last: leave out a last incomplete batch.
        repeats: passes over the split in one epoch, each with its own permutation, joined and then cut into
            batches. The "repeated augmentation" of the official SL-ViT code is this with 3.
        repeated_augmentation: how often an epoch shows each of the images that it shows, one after the other and each
            time augmented anew (Hoffer et al. 2020; DeiT takes 3). An epoch then has about as many images as without,
            but only a third of them are different.
        spread: put these repetitions into consecutive batches instead, so that no image is mixed with itself.
        prefetch: batches prepared ahead by one background thread; 0 prepares them in the caller's thread.

    Raises:
        UsageError: a number is out of range, or ``drop_last`` leaves no batch at all.
    """

    def __init__(
        self,
        split,
        batch_size,
        *,
        mean,
        std,
        seed=0,
        shuffle=False,
        augmentation=None,
        num_classes=None,
        img_size=None,
        drop_last=False,
        repeats=1,
        repeated_augmentation=1,
        spread=False,
        prefetch=2,
    ):
        for option, value, least in (
            ("batch size", batch_size, 1),
            ("seed", seed, 0),
            ("number of repeats", repeats, 1),
            ("number of repeated augmentations", repeated_augmentation, 1),
            ("number of batches to prefetch", prefetch, 0),
        ):
            if value < least:
                raise UsageError(f"the {option} must be at least {least}, not {value}")
        self.split = split
        self.batch_size = batch_size
        self.mean, self.std = mean, std
        self.seed = seed
        self.shuffle = shuffle
        self.augmentation = Augmentation() if augmentation is None else augmentation
        self.num_classes = num_classes
        self.img_size = img_size
        self.drop_last = drop_last
        self.repeats = repeats
        self.repeated_augmentation = repeated_augmentation
        self.spread = spread
        self.prefetch = prefetch
        if len(self) == 0:
            raise UsageError(f"{self._images_in_pass() * repeats} images do not fill one batch of {batch_size}: "
                             f"use a smaller batch size")

    def _images_in_pass(self):
        """Images that one pass over the split shows; where they are repeated, the official sampler rounds down."""
        count = len(self.split)
        return count if self.repeated_augmentation == 1 or count < SAMPLER_ROUNDS else count - count % SAMPLER_ROUNDS

    def __len__(self):
        """Batches in an epoch."""
        images = self._images_in_pass() * self.repeats
        return images // self.batch_size if self.drop_last else -(-images // self.batch_size)

    def epoch(self, epoch, start_batch=0):
        """Iterate over the batches of one epoch, from batch ``start_batch`` on.

        Yields ``(images, targets)``: float32 ``(B, 3, H, W)``, C-contiguous and normalised; labels, int64 ``(B,)``, or
        where the augmentation mixes images their shares, float32 ``(B, num_classes)``. Both are the caller's to keep.
        Closing or dropping the iterator early stops the background thread.

        Raises:
            UsageError: there is no such epoch or batch.
        """
        if epoch < 0 or not 0 <= start_batch <= len(self):
            raise UsageError(f"there is no batch {start_batch} of {len(self)} in epoch {epoch}")
        order = self._order(epoch)
        batches = range(start_batch, len(self))
        if self.prefetch == 0:
            return (self._batch(order, epoch, batch) for batch in batches)
        return self._prefetched(order, epoch, batches)

    def _prefetched(self, order, epoch, batches):
        """Yield batches in order while one thread works on at most ``prefetch`` later ones."""
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="minivit-loader")
        pending = deque()
        try:
            for batch in batches:
                pending.append(thread.submit(self._batch, order, epoch, batch))
                if len(pending) > self.prefetch:
                    yield pending.popleft().result()  # raises here what was raised in the thread
            while pending:
                yield pending.popleft().result()
        finally:
            thread.shutdown(wait=True, cancel_futures=True)

    def indices(self, epoch, batch):
        """Which images of the split batch ``batch`` of an epoch shows, int64 (B,)."""
        return self._chosen(self._order(epoch), batch)

    def _order(self, epoch):
        """Indices of the whole epoch, int64 ``(images in an epoch,)``."""
        count = len(self.split)
        if not self.shuffle:
            passes = [np.arange(count)] * self.repeats
        else:
            keys = ([ORDER, self.seed, epoch, repeat] for repeat in range(self.repeats))
            passes = [np.random.default_rng(key).permutation(count) for key in keys]
        return np.concatenate([self._repeated(order)[: self._images_in_pass()] for order in passes])

    def _repeated(self, order):
        """Each index of ``order`` as often in a row as augmentation is repeated, or as many batches in a row."""
        times = self.repeated_augmentation
        if not self.spread:
            return np.repeat(order, times)
        whole = len(order) // self.batch_size * self.batch_size
        batches = order[:whole].reshape(-1, 1, self.batch_size).repeat(times, axis=1)
        return np.concatenate([batches.ravel(), np.tile(order[whole:], times)])

    def _chosen(self, order, batch):
        return order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def _batch(self, order, epoch, batch):
        chosen = self._chosen(order, batch)
        images, labels = self.split.images[chosen], self.split.labels[chosen]  # copies: they may be changed
        size = self.img_size or images.shape[2]
        if not self.augmentation.is_random:
            return normalize(fit(images, (size, size)), self.mean, self.std), labels
        return self.augmentation(
            images,
            labels,
            np.random.default_rng([AUGMENTATION, self.seed, epoch, batch]),
            size=size,
            mean=self.mean,
            std=self.std,
            num_classes=self.num_classes,
        )
