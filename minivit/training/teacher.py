"""The teacher of a distillation: a trained network that answers with logits and learns nothing.

Its answers to images that look the same in every epoch are kept on disk, for this run and for others.
"""

import hashlib
import os
from contextlib import suppress

import numpy as np

from minivit.data import DataLoader
from minivit.data.decoded import user_cache_dir
from minivit.errors import MinivitError, StateDictError, UsageError
from minivit.models.transfer import position_grids, transfer
from minivit.tensor import Tensor, no_grad
from minivit.training import checkpoint, report
from minivit.training.atomic import atomic_write

BATCH_SIZE = 256


class Teacher:
    """A checkpoint as teacher for the images of a data set.

    A teacher of another image size is brought to that of the student: position embeddings are resampled, and
    convolutions take any size.

    Args:
        path: the checkpoint.
        dataset: the data set that the student learns; the teacher must know its classes.

    Raises:
        UsageError: the teacher was trained for other classes, or cannot take images of the student's size.
        MinivitError: the file is no checkpoint.
    """

    def __init__(self, path, dataset):
        saved = checkpoint.read(path)
        self.path, self.dataset = path, dataset
        try:
            self.model = self._build(saved, dataset)
        except UsageError as error:
            raise UsageError(f"{path} cannot teach: {error}") from error
        # images come normalised for the student: x' = factor x + offset is what the teacher has learned to see
        mean, std = (np.array(a, np.float32).reshape(-1, 1, 1) for a in (dataset.mean, dataset.std))
        own_mean, own_std = mean, std
        if saved.mean is not None and saved.std is not None:
            own_mean, own_std = (np.array(a, np.float32).reshape(-1, 1, 1) for a in (saved.mean, saved.std))
        self.factor, self.offset = std / own_std, (mean - own_mean) / own_std
        self.same = np.array_equal(mean, own_mean) and np.array_equal(std, own_std)

    @staticmethod
    def _build(saved, dataset):
        checkpoint.check_classes(saved, dataset)
        if saved.arguments.get("img_size") in (None, dataset.img_size) or saved.packed:
            checkpoint.check_fits(saved, dataset)
            return saved.build()
        saved.check_sizes()
        try:
            arguments = {**saved.arguments, "img_size": dataset.img_size}
            grids = position_grids(saved.architecture, saved.arguments)
            return transfer(saved.weights, saved.architecture, arguments, grids=grids).model.eval()
        except StateDictError as error:
            raise UsageError(f"it cannot be brought to {dataset.img_size} pixels: {error}") from error

    def __call__(self, images):
        """Logits (B, K) for images (B, C, H, W) as the student gets them, augmented and normalised: an array."""
        with no_grad():
            return self.model(Tensor(images if self.same else images * self.factor + self.offset)).data

    def answers(self):
        """Logits for all training images of the data set as they are, without augmentation, float32 (N, K).

        They come from a file below the user's cache folder where they were asked for before.
        """
        split = self.dataset.train
        seen = hashlib.sha256(np.ascontiguousarray(split.images)).hexdigest()
        normalised = repr((self.dataset.mean, self.dataset.std)).encode()
        seen = hashlib.sha256(seen.encode() + normalised).hexdigest()
        name = f"{fingerprint(self.path)[:20]}-{seen[:20]}-{self.dataset.img_size}.npy"
        path, shape = user_cache_dir() / "teachers" / name, (len(split), self.dataset.num_classes)
        with suppress(OSError, ValueError, EOFError):
            known = np.load(path, allow_pickle=False)
            if known.shape == shape and known.dtype == np.float32 and np.isfinite(known).all():
                return known
        logits = np.empty(shape, np.float32)
        loader = DataLoader(
            split, BATCH_SIZE, mean=self.dataset.mean, std=self.dataset.std, img_size=self.dataset.img_size
        )
        with report.progress("asking the teacher", len(split), "images") as bar:
            for batch, (images, _) in enumerate(loader.epoch(0)):
                logits[batch * BATCH_SIZE :][: len(images)] = self(images)
                bar.update(len(images))
        _keep(path, logits)
        return logits


def _keep(path, logits):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        own = path.with_suffix(f".{os.getpid()}")  # other runs may write the same answers at the same time
        with atomic_write(own) as file:
            np.save(file, logits)
        os.replace(own, path)
    except (OSError, MinivitError) as error:
        report.note(f"note: the teacher's answers are not kept for other runs: {error}")


def fingerprint(path, what="teacher"):
    """SHA-256 of the file, by which a resumed run knows its teacher again, or the weights that it started from."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise MinivitError(f"cannot read the {what} {path}: {error.strerror or error}") from error
    return digest.hexdigest()
