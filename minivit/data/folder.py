"""Your own images: ``folder:PATH``, where each sub-folder of PATH is a class and its name the class's name.

If PATH has a folder ``train``, the classes are in there, and ``test`` or ``val`` beside it is the test split.
Where there is no such split, a tenth of each class is set aside, chosen by the seed.
"""

import hashlib
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np

from minivit.data.decoded import ImageFile, Listing, fingerprint, load_decoded, read_file
from minivit.errors import MinivitError, UsageError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
TEST_SHARE = 0.1


def load_folder(name, data_dir, *, img_size, seed, note):
    """Load ``folder:PATH``; the module's text gives the layout. Decoded images are kept in ``data_dir``.

    Raises:
        UsageError: no PATH was given.
        MinivitError: PATH is no such folder, or an image is damaged.
    """
    path = name.removeprefix("folder:")
    if not path:
        raise UsageError("folder: needs the path of a folder of images, as in folder:photos")
    root = Path(path).expanduser()
    if not root.is_dir():
        raise MinivitError(f"no folder {root}: folder:PATH needs one with a sub-folder for each class")
    listing = _list_images(root, seed)
    key = "folder-" + hashlib.sha256(str(root.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    files = listing.train + listing.test  # in this order, so that other splits differ, too
    source = {"files": fingerprint(root, (Path(file.where).relative_to(root).as_posix() for file in files))}
    return load_decoded(name, key, source, data_dir, img_size, lambda: nullcontext(listing), note)


def _list_images(root, seed):
    train_root, test_root = root, None
    if (root / "train").is_dir():
        train_root = root / "train"
        test_root = next((root / split for split in ("test", "val") if (root / split).is_dir()), None)

    class_names = _class_names(train_root)
    if len(class_names) < 2:
        raise MinivitError(f"{train_root} has {len(class_names)} class folders: it needs two or more")
    if test_root:
        unknown = sorted(set(_class_names(test_root)) - set(class_names))
        if unknown:
            raise MinivitError(f"{test_root} has the class {unknown[0]!r}, which {train_root} has not")

    train, test = [], []
    rng = np.random.default_rng(seed)
    for label, class_name in enumerate(class_names):
        files = _images(train_root / class_name, label)
        needed = 1 if test_root else 2
        if len(files) < needed:
            raise MinivitError(f"{train_root / class_name} has {len(files)} images; it needs {needed}")
        if test_root:
            train += files
            test += _images(test_root / class_name, label)
        else:
            order = rng.permutation(len(files))
            held_out = max(1, round(TEST_SHARE * len(files)))
            test += [files[index] for index in np.sort(order[:held_out])]
            train += [files[index] for index in np.sort(order[held_out:])]
    if not test:
        raise MinivitError(f"{test_root} has no images of any class")
    return Listing(class_names, train, test)


def _class_names(folder):
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    return tuple(sorted(path.name for path in visible if path.is_dir()))


def _images(folder, label):
    """The images below ``folder`` in a fixed order; hidden files and other formats are passed over."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return [ImageFile(label, str(path), partial(read_file, path)) for path in paths if not path.name.startswith(".")]
