"""Checkpoints: one self-describing file that holds the network, its weights, and what they were trained for.

A checkpoint is an ``.npz``, that is a zip of ``.npy`` arrays, with one more entry, ``metadata.json``.
Entries are stored uncompressed, so a file can never unfold into more than its own size. Names of entries:

    metadata.json             architecture, arguments, classes, normalisation; in ``last.npz`` the run's state
    model/NAME.npy            parameters and buffers, under the names of ``model.state_dict()``
    optimizer/NAME.npy        only in ``last.npz``: what ``Optimizer.state_dict()`` gives
    ema/NAME.npy              only in ``last.npz``: what ``ModelEma.state_dict()`` gives, where there is one

Reading trusts nothing: no pickles, every entry's CRC is verified, and array headers cannot claim more than
the bytes that are there.

A network that runs on bits becomes a file of another layout, see ``minivit.training.packed_file``. The functions here
write and read both.
"""

import io
import json
import math
import os
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minivit.errors import MinivitError, UsageError
from minivit.kernels.bits import WORD
from minivit.models import configure, create_model
from minivit.models.packing import is_packed, pack
from minivit.models.weight_files import ENDINGS
from minivit.training import packed_file
from minivit.training.atomic import atomic_write

FORMAT = "minivit checkpoint"
VERSION = 1
METADATA = "metadata.json"


@dataclass
class Checkpoint:
    """What a checkpoint file holds.

    Args:
        path: the file.
        architecture: name in the model registry.
        arguments: constructor keywords, JSON values.
        weights: name -> array, as ``model.state_dict()``; where ``packed``, as that of the packed network.
        data: name of the data set that the model was trained on, or None.
        class_names: names of the classes in the order of the logits; empty when unknown.
        mean, std: normalisation per channel, in units of [0, 1] pixels; None when unknown.
        training: JSON values that describe the state of a run; None in a plain checkpoint.
        optimizer, ema: name -> array, empty in a plain checkpoint.
        packed: whether it is the file of a network that runs on bits.
    """

    path: Path
    architecture: str
    arguments: dict
    weights: dict
    data: str | None = None
    class_names: tuple = ()
    mean: tuple | None = None
    std: tuple | None = None
    training: dict | None = None
    optimizer: dict = field(default_factory=dict)
    ema: dict = field(default_factory=dict)
    packed: bool = False

    def configuration(self):
        """Return the configuration of the network that ``arguments`` describe.

        Raises:
            MinivitError: this version has no such model.
        """
        try:
            return configure(self.architecture, **self.arguments)
        except (MinivitError, *_DAMAGE) as error:
            raise MinivitError(f"{self.path} does not fit this version of minivit: {error}") from error

    def check_sizes(self):
        """Refuse sizes that the stored weights cannot have, before a network of those sizes fills the memory.

        Raises:
            MinivitError: such sizes, or this version has no such model.
        """
        stored = sum(array.size * (WORD if array.dtype == np.uint64 else 1) for array in self.weights.values())
        needed = self.configuration().least_weights()
        if needed > stored:
            raise MinivitError(
                f"{self.path} is damaged: the sizes that it declares need at least {needed} weights, and it holds "
                f"{stored}"
            )

    def build(self):
        """Return the model with these weights, in eval mode; a packed one runs on its bits as they are.

        Raises:
            MinivitError: this version has no such model, or the weights do not fit it.
        """
        self.check_sizes()
        try:
            model = create_model(self.architecture, seed=None, **self.arguments)
            if self.packed:
                pack(model)
            model.load_state_dict(self.weights, resample=None)
        except (MinivitError, *_DAMAGE) as error:
            raise MinivitError(f"{self.path} does not fit this version of minivit: {error}") from error
        return model.eval()


def save(
    path, model, *, data=None, class_names=(), mean=None, std=None, training=None, optimizer=None, ema=None, check=None
):
    """Write ``model`` to ``path``, atomically: whatever happens, the old file or the new one is there, whole.

    Args:
        path: file name, by custom ending in ``.npz``.
        model: a network from ``minivit.create_model``; if ``minivit.models.packing.pack`` has packed it, the file is a
            packed one.
        others: see :class:`Checkpoint`; ``optimizer`` is an ``Optimizer.state_dict()``, ``ema`` that of a ``ModelEma``;
            neither is for packed networks.
        check: see ``atomic_write``.

    Raises:
        MinivitError: the file cannot be written.
    """
    packed = is_packed(model)
    metadata = {
        "format": packed_file.FORMAT if packed else FORMAT,
        "version": packed_file.VERSION if packed else VERSION,
        "architecture": model.architecture,
        "arguments": model.arguments,
        "data": data,
        "class_names": list(class_names),
        "mean": None if mean is None else [float(x) for x in mean],
        "std": None if std is None else [float(x) for x in std],
        "training": training,
    }
    if packed:
        with atomic_write(Path(path), check) as file:
            packed_file.write(file, metadata, model.state_dict())
        return
    arrays = {f"model/{name}": array for name, array in model.state_dict().items()}
    arrays |= {f"optimizer/{name}": array for name, array in (optimizer or {}).items()}
    arrays |= {f"ema/{name}": array for name, array in (ema or {}).items()}
    with atomic_write(Path(path), check) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry(METADATA), json.dumps(metadata, indent=1, allow_nan=False))
        for name, array in arrays.items():
            with archive.open(_entry(name + ".npy"), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asarray(array, order="C"), allow_pickle=False)


def load(path):
    """Read a checkpoint and return its model in eval mode.

    Raises:
        MinivitError: no such file, or it is not a whole checkpoint that this version understands.
    """
    return read(path).build()


def check_fits(saved, dataset):
    """Check that a data set has the classes and the image size that the checkpoint ``saved`` was trained for.

    Raises:
        UsageError: saying in which of the two they differ.
    """
    check_classes(saved, dataset)
    size = saved.arguments.get("img_size")
    if size not in (None, dataset.img_size):
        height, width = size if isinstance(size, list | tuple) else (size, size)
        raise UsageError(
            f"the checkpoint takes images of {height}x{width}, but those of {dataset.name} are "
            f"{dataset.img_size}x{dataset.img_size}"
        )


def check_classes(saved, dataset):
    """Check that a data set has the classes that the checkpoint ``saved`` was trained for; raises as ``check_fits``."""
    classes = saved.arguments["num_classes"]
    if classes != dataset.num_classes:
        raise UsageError(
            f"the checkpoint knows {classes} classes, but {dataset.name} has {dataset.num_classes}"
        )
    if saved.class_names and saved.class_names != tuple(dataset.class_names):
        theirs = next(
            pair for pair in zip(saved.class_names, dataset.class_names, strict=True) if pair[0] != pair[1]
        )
        raise UsageError(
            f"the checkpoint was trained on other classes than those of {dataset.name}: "
            f"{theirs[0]!r} where that has {theirs[1]!r}"
        )


def read(path):
    """Read and verify a checkpoint, or a packed file.

    Returns:
        Checkpoint.

    Raises:
        MinivitError: in one line, why the file is not one.
    """
    path = Path(path)
    try:
        return _read_packed(path) if packed_file.is_packed(path) else _read(path)
    except FileNotFoundError:
        raise MinivitError(f"no such checkpoint: {path}") from None
    except OSError as error:
        raise MinivitError(f"cannot read {path}: {error.strerror or error}") from error
    except _DAMAGE as error:
        hint = " (python -m minivit.convert makes one)" if path.suffix in ENDINGS and path.suffix != ".npz" else ""
        reason = f"it has no entry {error}" if isinstance(error, KeyError) else error
        raise MinivitError(f"{path} is damaged or not a checkpoint of minivit: {reason}{hint}") from error


# What zipfile, zlib, the .npy header parser and json raise when they meet bytes that make no sense.
_DAMAGE = (
    zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError, EOFError, struct.error,
    NotImplementedError, RuntimeError, SyntaxError, tokenize.TokenError, ArithmeticError, MemoryError,
    zlib.error,
)  # fmt: skip


def _read(path):
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if METADATA not in archive.namelist():
            raise ValueError(f"it has no entry {METADATA}")
        stored = all(e.compress_type == zipfile.ZIP_STORED for e in entries)
        if not stored or sum(e.file_size for e in entries) > os.path.getsize(path):
            raise ValueError("its entries are compressed or overlap")
        metadata = json.loads(archive.read(METADATA))
        _check_version(path, metadata, FORMAT, VERSION)
        groups = {"model": {}, "optimizer": {}, "ema": {}}
        for name in archive.namelist():
            if name != METADATA:
                group, _, rest = name.removesuffix(".npy").partition("/")
                if group not in groups:
                    raise ValueError(f"it has an unknown entry {name}")
                groups[group][rest] = _parse_array(archive.read(name))  # read() verifies the CRC
    return _checkpoint(path, metadata, groups["model"], optimizer=groups["optimizer"], ema=groups["ema"])


def _read_packed(path):
    metadata, rest = packed_file.read_metadata(path)
    _check_version(path, metadata, packed_file.FORMAT, packed_file.VERSION)
    return _checkpoint(path, metadata, packed_file.read_arrays(metadata, rest), packed=True)


def _check_version(path, metadata, name, newest):
    """Raise an error unless ``metadata`` is of the format ``name``, in a version from 1 to ``newest``."""
    if metadata["format"] != name:
        raise ValueError(f"its metadata names another format, {metadata['format']!r}")
    if type(metadata["version"]) is not int or metadata["version"] < 1:
        raise ValueError(f"there is no format {metadata['version']!r}")
    if metadata["version"] > newest:
        raise MinivitError(
            f"{path} was written by a newer minivit (format {metadata['version']}; this one reads up to {newest}): "
            "upgrade minivit"
        )


def _checkpoint(path, metadata, weights, **more):
    check_metadata(metadata)
    return Checkpoint(
        path=path,
        architecture=metadata["architecture"],
        arguments=metadata["arguments"],
        weights=weights,
        data=metadata["data"],
        class_names=tuple(metadata["class_names"]),
        mean=None if metadata["mean"] is None else tuple(metadata["mean"]),
        std=None if metadata["std"] is None else tuple(metadata["std"]),
        training=metadata["training"],
        **more,
    )


def check_metadata(m):
    """Raise ValueError unless the entries of ``metadata.json`` are what :func:`save` writes."""
    arguments, names = m["arguments"], m["class_names"]
    if not isinstance(m["architecture"], str) or not isinstance(m["data"], str | None):
        raise ValueError("the name of its model or data set is no text")
    if not isinstance(arguments, dict) or not all(_is_plain(a) for a in arguments.values()):
        raise ValueError("the arguments of its model are no keywords with plain values")
    if type(arguments.get("num_classes")) is not int or {"name", "seed"} & arguments.keys():
        raise ValueError("the arguments of its model do not state num_classes, or state what is none")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its class names are no list of texts")
    if names and len(names) != arguments["num_classes"]:
        raise ValueError(f"it names {len(names)} classes, and has {arguments['num_classes']}")
    for key in ("mean", "std"):
        channels = arguments.get("in_chans", 3)
        if m[key] is not None and not (
            isinstance(m[key], list) and len(m[key]) == channels and all(_is_finite(x) for x in m[key])
        ):
            raise ValueError(f"its {key} is not a number for each of {channels} channels")
    if m["std"] is not None and min(m["std"]) <= 0:
        raise ValueError("its std is not above 0")
    if not isinstance(m["training"], dict | None):
        raise ValueError("the state of its run is no JSON object")


def _is_plain(value):
    """Whether ``value`` is a number that is no NaN, a text, None, or a short list of whole numbers."""
    if isinstance(value, list):
        return len(value) <= 64 and all(type(v) is int and abs(v) < 1 << 31 for v in value)
    return isinstance(value, str | bool | None) or _is_finite(value)


def _is_finite(value):
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)


def _parse_array(raw):
    """Return the array of a ``.npy`` entry. Its header is believed only as far as the bytes reach."""
    stream = io.BytesIO(raw)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("an entry is not a .npy array of version 1.0")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject or fortran_order:
        raise ValueError("an entry holds Python objects or is in Fortran order")
    if dtype.kind not in "biuf":
        raise ValueError(f"an entry holds {dtype}, not real numbers")
    data = raw[stream.tell() :]
    if len(data) != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise ValueError("an array is not of the size that its header states")
    return np.frombuffer(bytearray(data), dtype).reshape(shape)


def _entry(name):
    """A zip entry without a time stamp, so that equal checkpoints are equal files."""
    return zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
