"""The teacher of a distillation: a trained network that answers with logits and learns nothing."""

import hashlib

import numpy as np

from minivit.errors import MinivitError, UsageError
from minivit.tensor import Tensor, no_grad
from minivit.training import checkpoint


class Teacher:
    """A checkpoint as teacher for the images of a data set.

    Args:
        path: the checkpoint.
        dataset: the data set that the student learns; the teacher must know its classes, and images of its size.

    Raises:
        UsageError: the teacher was trained for other classes or another image size.
        MinivitError: the file is no checkpoint.
    """

    def __init__(self, path, dataset):
        saved = checkpoint.read(path)
        try:
            checkpoint.check_fits(saved, dataset)
        except UsageError as error:
            raise UsageError(f"{path} cannot teach: {error}") from error
        self.model = saved.build()
        # images come normalised for the student: x' = factor x + offset is what the teacher has learned to see
        mean, std = (np.array(a, np.float32).reshape(-1, 1, 1) for a in (dataset.mean, dataset.std))
        own_mean, own_std = mean, std
        if saved.mean is not None and saved.std is not None:
            own_mean, own_std = (np.array(a, np.float32).reshape(-1, 1, 1) for a in (saved.mean, saved.std))
        self.factor, self.offset = std / own_std, (mean - own_mean) / own_std
        self.same = np.array_equal(mean, own_mean) and np.array_equal(std, own_std)

    def __call__(self, images):
        """Logits (B, K) for images (B, C, H, W) as the student gets them, augmented and normalised: an array."""
        with no_grad():
            return self.model(Tensor(images if self.same else images * self.factor + self.offset)).data


def fingerprint(path):
    """SHA-256 of the file, by which a resumed run knows its teacher again."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise MinivitError(f"cannot read the teacher {path}: {error.strerror or error}") from error
    return digest.hexdigest()
