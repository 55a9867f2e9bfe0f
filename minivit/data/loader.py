"""Batches for training and evaluation: shuffled, augmented, normalised, prepared ahead by a thread.

Nothing here has a state that advances. The order of epoch ``e`` depends on ``(seed, e)`` alone, and the crops
and flips of its batch ``b`` on ``(seed, e, b)``. So a run that stopped after 137 batches of an epoch goes on
with ``loader.epoch(e, start_batch=137)``, and sees exactly the batches that it would have seen.
"""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from minivit.data.augment import normalize, random_crop, random_flip
from minivit.errors import UsageError

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
        crop_padding: pixels of black padding for the random crop; 0 for none.
        flip: mirror half of the images at random.
        drop_last: leave out a last incomplete batch.
        repeats: passes over the split in one epoch, each with its own permutation, joined and then cut into
            batches. The "repeated augmentation" of the official SL-ViT code is this with 3.
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
        crop_padding=0,
        flip=False,
        drop_last=False,
        repeats=1,
        prefetch=2,
    ):
        for option, value, least in (
            ("batch size", batch_size, 1),
            ("seed", seed, 0),
            ("crop padding", crop_padding, 0),
            ("number of repeats", repeats, 1),
            ("number of batches to prefetch", prefetch, 0),
        ):
            if value < least:
                raise UsageError(f"the {option} must be at least {least}, not {value}")
        self.split = split
        self.batch_size = batch_size
        self.mean, self.std = mean, std
        self.seed = seed
        self.shuffle = shuffle
        self.crop_padding = crop_padding
        self.flip = flip
        self.drop_last = drop_last
        self.repeats = repeats
        self.prefetch = prefetch
        if len(self) == 0:
            raise UsageError(f"{len(split) * repeats} images do not fill one batch of {batch_size}: "
                             f"use a smaller batch size")

    def __len__(self):
        """Batches in an epoch."""
        images = len(self.split) * self.repeats
        return images // self.batch_size if self.drop_last else -(-images // self.batch_size)

    def epoch(self, epoch, start_batch=0):
        """Iterate over the batches of one epoch, from batch ``start_batch`` on.

        Yields ``(images, labels)``: float32 ``(B, 3, H, W)``, C-contiguous and normalised; int64 ``(B,)``.
        Both are the caller's to keep. Closing or dropping the iterator early stops the background thread.

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

    def _order(self, epoch):
        """Indices of the whole epoch, int64 ``(len(split) * repeats,)``."""
        count = len(self.split)
        if not self.shuffle:
            return np.tile(np.arange(count), self.repeats)
        keys = ([ORDER, self.seed, epoch, repeat] for repeat in range(self.repeats))
        return np.concatenate([np.random.default_rng(key).permutation(count) for key in keys])

    def _batch(self, order, epoch, batch):
        chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
        images, labels = self.split.images[chosen], self.split.labels[chosen]  # copies: they may be changed
        rng = np.random.default_rng([AUGMENTATION, self.seed, epoch, batch])
        if self.flip:
            images = random_flip(images, rng)
        if self.crop_padding:
            images = random_crop(images, self.crop_padding, rng)
        return normalize(images, self.mean, self.std), labels
