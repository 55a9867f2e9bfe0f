"""Image files decoded once, and from then on mapped into memory as arrays.

A cache is one folder: ``train_images.npy`` and ``test_images.npy`` (uint8 ``(N, 3, S, S)``), their labels,
and ``manifest.json``, which names the source it was made from. It is built in a temporary folder and renamed
when it is complete. When the source has changed since, or a file is damaged, it is built again.
"""

import hashlib
import json
import os
import shutil
import tokenize
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minivit.data.dataset import Dataset, Split, channel_statistics
from minivit.data.durable import is_writable, move_folder, temporary_folder
from minivit.data.images import decode
from minivit.data.progress import progress_bar
from minivit.errors import MinivitError

FORMAT = 1  # to be raised when what a cache holds for the same source changes
FOLDER = "decoded"


@dataclass(frozen=True)
class ImageFile:
    """An image still to be decoded: its class, its name for errors, and how to get its bytes."""

    label: int
    where: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Listing:
    """All images of a data set, before decoding."""

    class_names: tuple
    train: list
    test: list


def load_decoded(name, key, source, data_dir, img_size, open_listing, note):
    """Return the Dataset of a cache, building the cache first where there is none that fits.

    Args:
        name: the Dataset's name.
        key: the cache is the folder ``data_dir/decoded/<key>-<img_size>``, or where ``data_dir`` cannot be
            written to, the same below the user's cache folder.
        source: what the images are made from, as a JSON-able dictionary; a cache made from another is stale.
        data_dir: the folder of data sets.
        img_size: pixels a side.
        open_listing: ``() -> context manager`` that gives a :class:`Listing`; used only to build.
        note: called with one-line remarks.

    Raises:
        MinivitError: an image is damaged, or there is no place to keep the cache.
    """
    key = f"{key}-{img_size}"
    stamp = {"format": FORMAT, "source": source}
    beside, user = Path(data_dir) / FOLDER, user_cache_dir() / FOLDER
    for home in (beside, user):
        dataset = _read(home / key, name, img_size, stamp)
        if dataset is not None:
            return dataset
    with suppress(OSError):
        Path(data_dir).mkdir(parents=True, exist_ok=True)
    home = beside if is_writable(data_dir) else user
    if home is user:
        note(f"note: {data_dir} cannot be written to; keeping decoded images in {home}")
    try:
        home.mkdir(parents=True, exist_ok=True)
        with temporary_folder(home / key) as temporary:
            with open_listing() as listing:
                _build(temporary, listing, img_size, stamp)
            _move_into_place(temporary, home / key)
    except OSError as error:
        raise MinivitError(
            f"decoded images cannot be kept in {home} ({error}): free some space there, "
            f"or set XDG_CACHE_HOME to a folder with room"
        ) from error
    dataset = _read(home / key, name, img_size, stamp)
    if dataset is None:
        raise MinivitError(f"{home / key} was changed by another process: start again")
    return dataset


def user_cache_dir():
    """``$XDG_CACHE_HOME/minivit``, by default ``~/.cache/minivit``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "minivit"


def fingerprint(root, names):
    """SHA-256 over name, size and modification time of files: another when a file is added or changed.

    Names are relative to the folder ``root``, so the result does not depend on how ``root`` is written.
    """
    digest = hashlib.sha256()
    for name in names:
        status = os.stat(os.path.join(root, name))
        line = f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read_file(path):
    """Return the bytes of a file of the source. Raises MinivitError: it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise MinivitError(f"{path} cannot be read ({error.strerror})") from error


def _build(folder, listing, img_size, stamp):
    """Decode every image into the arrays of ``folder``, and write the manifest last."""
    manifest = {**stamp, "class_names": listing.class_names}
    for split, files in (("train", listing.train), ("test", listing.test)):
        path = folder / f"{split}_images.npy"
        _decode_to_file(path, files, img_size, f"decoding {split} images")
        np.save(folder / f"{split}_labels.npy", np.array([file.label for file in files], np.int64))
        if split == "train":
            images = np.load(path, mmap_mode="r", allow_pickle=False)
            manifest["mean"], manifest["std"] = channel_statistics(images)
    with open(folder / "manifest.json", "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)


def _decode_to_file(path, files, img_size, title):
    """Write the images one after the other as one ``.npy`` array ``(N, 3, img_size, img_size)``.

    They are not written through a memory map: on a full disk that kills the process, where this raises OSError.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), 3, img_size, img_size)}
    with open(path, "wb") as output, progress_bar(files, desc=title, unit="image") as bar:
        np.lib.format.write_array_header_1_0(output, header)
        for file in bar:
            output.write(decode(file.read(), img_size, file.where).tobytes())


def _read(folder, name, img_size, stamp):
    """Return the Dataset of a cache folder, or None if it is absent, stale or damaged."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if any(manifest[key] != value for key, value in stamp.items()):
            return None
        class_names = tuple(manifest["class_names"])
        splits = []
        for split in ("train", "test"):
            images = np.load(folder / f"{split}_images.npy", mmap_mode="r", allow_pickle=False)
            labels = np.load(folder / f"{split}_labels.npy", allow_pickle=False)
            expected = (len(labels), 3, img_size, img_size)
            if images.dtype != np.uint8 or images.shape != expected or labels.dtype != np.int64:
                return None
            if labels.ndim != 1 or labels.min() < 0 or labels.max() >= len(class_names):
                return None
            splits.append(Split(images, labels))
        mean, std = tuple(manifest["mean"]), tuple(manifest["std"])
        return Dataset(name, *splits, class_names, mean, std, img_size)
    except (OSError, ValueError, KeyError, TypeError, EOFError, SyntaxError, tokenize.TokenError):  # a damaged header
        return None


def _move_into_place(temporary, target):
    """Rename ``temporary`` to ``target``, after moving a stale ``target`` out of the way."""
    stale = temporary.with_name(f"{temporary.name}-stale")
    with suppress(OSError):  # there is none, or another process was quicker
        os.rename(target, stale)
    try:
        move_folder(temporary, target)
    except OSError:
        if not target.exists():  # else another process put its own cache there: as good as this one
            raise
    finally:
        shutil.rmtree(stale, ignore_errors=True)
