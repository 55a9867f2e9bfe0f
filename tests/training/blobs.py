"""A data set that is learnt in seconds, and the settings of a run on it."""

import numpy as np

from minivit.data import Dataset, Split

STEPS = 3  # in an epoch of the settings below
SETTINGS = {
    "data": "blobs",
    "recipe": "quick",
    "epochs": 3,
    "batch_size": 8,
    "drop_path": 0.3,  # so that the model draws random numbers in every step
    "warmup_epochs": 1,
    "model_args": {"patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2},
}


def make_blobs(train_images=26):
    """A data set that is learnt in seconds: each class has a colour of its own."""
    rng = np.random.default_rng(0)

    def split(n):
        labels = np.arange(n) % 3
        images = rng.integers(0, 120, (n, 3, 8, 8))
        images[np.arange(n), labels] += 100
        return Split(images.astype(np.uint8), labels)

    names = ("red", "green", "blue")
    return Dataset("blobs", split(train_images), split(10), names, (0.3,) * 3, (0.2,) * 3, 8)
