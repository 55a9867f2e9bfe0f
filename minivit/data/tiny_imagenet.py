"""Tiny-ImageNet: 200 classes of ImageNet at 64x64, 500 training images each (Le and Yang, 2015).

The labels of its test images were never published, so the test split here is the official *validation* split,
as in the literature. Classes are in the order of their WordNet ids.

Where the whole archive is missing, ``tiny-imagenet-200-subset.zip`` stands in for it: a zip file of the same layout
with fewer training and validation images of every class, for trying things out. Results on it are not those of
Tiny-ImageNet, and a remark says so at each load.
"""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from minivit.data.archive import open_zip, read_zip_member
from minivit.data.decoded import ImageFile, Listing, fingerprint, load_decoded, read_file
from minivit.data.download import RemoteFile, note_checksum, obtain
from minivit.data.images import require_pillow
from minivit.errors import MinivitError

ARCHIVE = RemoteFile(
    "tiny-imagenet-200.zip",
    urls=("https://cs231n.stanford.edu/tiny-imagenet-200.zip",),
    sha256="6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
)
SLICE = "tiny-imagenet-200-subset.zip"  # fewer images of every class in the same layout
FOLDER = "tiny-imagenet-200"  # the name inside the archives, and of the unpacked folder
MEAN = (0.4802, 0.4481, 0.3975)
STD = (0.2770, 0.2691, 0.2821)


def load_tiny_imagenet(data_dir, *, img_size, offline, note):
    """Load Tiny-ImageNet from its unpacked folder, its archive, a slice of it, or the network, in that order.

    Raises:
        MinivitError: nothing to load, Pillow is missing, or a part is damaged or absent.
    """
    path = _find(Path(data_dir), offline, note)
    if path.is_dir():
        unpacked = _file_names(path)
        source = {"files": fingerprint(path, sorted(unpacked))}
    else:
        source = {"files": fingerprint(path.parent, [path.name])}

    @contextmanager
    def open_listing():
        if path.is_dir():
            yield _list_images(path, unpacked, lambda name: read_file(path / name))
            return
        with open_zip(path) as opened:
            prefix = FOLDER + "/"
            names = {name.removeprefix(prefix) for name in opened.namelist() if name.startswith(prefix)}
            yield _list_images(path, names, lambda name: read_zip_member(opened, prefix + name))
        if path.name == ARCHIVE.name:
            note_checksum(ARCHIVE, path, note)

    dataset = load_decoded("tiny_imagenet", "tiny_imagenet", source, data_dir, img_size, open_listing, note)
    if path.name == SLICE:
        note(
            f"note: {path} is a slice of Tiny-ImageNet with {len(dataset.train)} training images; "
            f"the whole data set is {ARCHIVE.urls[-1]}"
        )
    return replace(dataset, mean=MEAN, std=STD)


def _find(data_dir, offline, note):
    """Return the folder or zip file to read, after a download if there is none."""
    for path in (data_dir / FOLDER, data_dir / ARCHIVE.name, data_dir / SLICE):
        if path.exists():
            return path
    if not offline:
        require_pillow()  # rather now than after 237 MiB
    return obtain(ARCHIVE, data_dir, offline=offline, note=note)


def _file_names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _list_images(source, names, read):
    """Build the Listing from the set of file names and ``read(name) -> bytes``."""

    def lines(name):
        if name not in names:
            raise MinivitError(f"{source} has no {name}: it does not have the layout of Tiny-ImageNet")
        return read(name).decode("utf-8", "replace").splitlines()

    def image(name, label):
        return ImageFile(label, f"{source}/{name}", partial(read, name))

    ids = sorted(line.strip() for line in lines("wnids.txt") if line.strip())
    label_of = {wordnet_id: label for label, wordnet_id in enumerate(ids)}
    words = dict(line.split("\t", 1) for line in lines("words.txt") if "\t" in line)
    class_names = tuple(words.get(wordnet_id, wordnet_id).split(",")[0].strip() for wordnet_id in ids)

    train = []
    for name in sorted(names):  # train/<id>/images/<id>_<number>.JPEG
        folder, wordnet_id, kind, *rest = (*name.split("/"), "", "")
        if folder == "train" and kind == "images" and rest[0] and wordnet_id in label_of:
            train.append(image(name, label_of[wordnet_id]))
    without = len(ids) - len({file.label for file in train})
    if without or not ids:
        raise MinivitError(f"{source} has no training images for {without} of its {len(ids)} classes")

    test = []
    for line in lines("val/val_annotations.txt"):
        file, wordnet_id, *_ = (*line.split("\t"), "")
        name = f"val/images/{file}"
        if name not in names or wordnet_id not in label_of:
            raise MinivitError(f"{source}: val_annotations.txt names {name} or {wordnet_id!r} in vain")
        test.append(image(name, label_of[wordnet_id]))
    if not test:
        raise MinivitError(f"{source} has no validation images")
    return Listing(class_names, train, test)
