"""The data sets by name."""

import os
import sys
from dataclasses import replace
from pathlib import Path

from minivit.errors import MinivitError, UsageError, suggest

DATASETS = {
    "shapes10": "10 shapes, 32x32, drawn on the fly: no download (the default)",
    "shapes100": "10 shapes in 10 textures, 32x32, drawn on the fly: no download",
    "cifar10": "CIFAR-10, 10 classes, 32x32 (downloads 162 MiB)",
    "cifar100": "CIFAR-100, 100 classes, 32x32 (downloads 161 MiB)",
    "tiny_imagenet": "Tiny-ImageNet, 200 classes, 64x64 (downloads 237 MiB; needs Pillow)",
    "folder:PATH": "your own images, one folder a class (needs Pillow)",
}


def print_to_stderr(message):
    """The default way to show a remark to the user."""
    print(message, file=sys.stderr)


def resolve_data_dir(path=None):
    """Return the folder that holds data sets: ``path``, else ``$MINIVIT_DATA``, else ``data``."""
    return Path(path or os.environ.get("MINIVIT_DATA") or "data").expanduser()


def load_dataset(
    name,
    data_dir=None,
    *,
    limit_train=None,
    limit_test=None,
    seed=0,
    offline=False,
    img_size=None,
    note=print_to_stderr,
):
    """Load a data set, downloading it if need be.

    Args:
        name: a key of :data:`DATASETS`; ``folder:PATH`` with the path of a folder of images.
        data_dir: where archives are looked for and put; see :func:`resolve_data_dir`.
        limit_train, limit_test: keep only so many images, the same ones for the same seed.
        seed: chooses the limited subsets, what ``shapes10`` and ``shapes100`` draw, and how ``folder:PATH``
            is split where it has no test folder. Leave it alone between training and evaluation.
        offline: never touch the network.
        img_size: pixels a side. Image files are decoded at that size (64 unless told); the 32 pixels of the other data
            sets stay what they are in memory, and the loader enlarges each batch.
        note: called with one-line remarks for the user.

    Returns: a :class:`~minivit.data.Dataset`.

    Raises:
        UsageError: an unknown name, a number out of range, or a size that the data set does not have.
        MinivitError: the files are missing, damaged or unreadable.
    """
    for option, value, least in (
        ("limit on training images", limit_train, 1),
        ("limit on test images", limit_test, 1),
        ("image size", img_size, 1),
        ("seed", seed, 0),
    ):
        if value is not None and value < least:
            raise UsageError(f"the {option} must be at least {least}, not {value}")
    is_folder = name.startswith("folder:")
    if name not in DATASETS and not is_folder:
        raise UsageError(f"no data set {name!r}{suggest(name, DATASETS)} (known: {', '.join(DATASETS)})")
    data_dir = resolve_data_dir(data_dir)
    if name.startswith("shapes"):
        from minivit.data.shapes import load_shapes

        dataset = load_shapes(name, seed=seed, limit_train=limit_train, limit_test=limit_test)
        return replace(dataset, img_size=img_size or dataset.img_size)
    try:
        dataset = _load_files(name, data_dir, seed=seed, offline=offline, img_size=img_size or 64, note=note)
    except OSError as error:  # a folder that may not be read, a failing disk
        raise MinivitError(f"{error.filename or data_dir} cannot be read ({error.strerror or error})") from error
    return replace(dataset.limited(limit_train, limit_test, seed), img_size=img_size or dataset.img_size)


def _load_files(name, data_dir, *, seed, offline, img_size, note):
    """Load a data set that is kept in files."""
    if name.startswith("cifar"):
        from minivit.data.cifar import CIFAR10, CIFAR100, load_cifar

        layout = CIFAR10 if name == "cifar10" else CIFAR100
        return load_cifar(name, layout, data_dir, offline=offline, note=note)
    if name == "tiny_imagenet":
        from minivit.data.tiny_imagenet import load_tiny_imagenet

        return load_tiny_imagenet(data_dir, img_size=img_size, offline=offline, note=note)
    from minivit.data.folder import load_folder

    return load_folder(name, data_dir, img_size=img_size, seed=seed, note=note)
