"""Files of weights as others write and read them: ``.safetensors``, plain ``.npz``, PyTorch's ``.pth``.

What a file holds becomes a dictionary name -> array; half-precision numbers become float32. Nothing in a file is ever
executed: NumPy refuses pickles here, and PyTorch unpickles tensors only.
"""

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np

from minivit.errors import MinivitError, UsageError, suggest

WRAPPERS = ("model", "state_dict", "model_state_dict", "state_dict_ema", "model_ema")
"""Keys under which training scripts save a state dict beside other things; the first that is there counts."""

MAX_GROWTH, HARMLESS = 20, 1 << 30
"""A file may unfold to so many times its size (weights hardly compress), or to so many bytes if that is more."""

_SAFETENSORS_DTYPES = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "U16": np.uint16, "I16": np.int16, "U32": np.uint32,
    "I32": np.int32, "U64": np.uint64, "I64": np.int64, "F16": np.float16, "F32": np.float32, "F64": np.float64,
}  # fmt: skip


def read_weights(path):
    """Read all tensors of a file.

    Args:
        path: ends in ``.safetensors``, ``.npz`` (arrays as ``np.savez`` writes them), or ``.pth``, ``.pt``, ``.bin``,
            ``.pth.tar`` (a state dict that PyTorch saved, perhaps under one of the keys ``WRAPPERS``).

    Returns:
        (arrays, metadata): name -> array of real numbers, and text -> text, which only ``.safetensors`` files have.

    Raises:
        UsageError: the file has another ending.
        MinivitError: there is no such file, it is damaged, it holds something else than arrays of real numbers, it
            unfolds to much more than its own size, or the library that reads it is not installed.
        MemoryError: the arrays are too big for this machine.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(ENDINGS)
        raise UsageError(f"{path}: no file of weights ends so{suggest(path.suffix, ENDINGS)} (known: {known})")
    try:
        arrays, metadata = reader(path)
    except FileNotFoundError:
        raise MinivitError(f"no such file: {path}") from None
    except OSError as error:
        raise MinivitError(f"cannot read {path}: {error.strerror or error}") from error
    except (MinivitError, MemoryError):
        raise
    except Exception as error:  # bytes that make no sense can raise nearly anything in the libraries
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MinivitError(f"{path} is damaged or no {path.suffix} file of weights: {reason}") from error
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise MinivitError(f"{path}: {name} holds {array.dtype}, not real numbers")
        if array.dtype == np.float16:
            arrays[name] = array.astype(np.float32)
    return arrays, metadata


def write_safetensors(file, arrays, metadata):
    """Write name -> array to an open binary file, with ``metadata`` (text -> text) in its header.

    Raises:
        MinivitError: the library safetensors is not installed.
    """
    _import_safetensors()
    from safetensors.numpy import save

    # The library reads raw memory: arrays must be contiguous, and 0-d ones must not become scalars.
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    file.write(save(contiguous, {"format": "pt", **metadata}))  # without the format some readers refuse the file


def _read_safetensors(path):
    safetensors = _import_safetensors()
    content = path.read_bytes()
    tensors = safetensors.deserialize(content)  # checks the header, and that the tensors fill the file
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    arrays = {}
    for name, tensor in tensors:
        dtype, data = tensor["dtype"], tensor["data"]
        if dtype == "BF16":  # the upper half of a float32
            array = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
        elif dtype in _SAFETENSORS_DTYPES:
            array = np.frombuffer(data, _SAFETENSORS_DTYPES[dtype])
        else:
            raise MinivitError(f"{path}: {name} holds {dtype}, which minivit does not read")
        arrays[name] = array.reshape(tensor["shape"])
    return arrays, header.get("__metadata__") or {}


def _read_npz(path):
    _check_zip(path)
    with open(path, "rb") as file:
        arrays = np.load(file, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array without a name")
        return {name: arrays[name] for name in arrays.files}, {}


def _read_pytorch(path):
    try:
        import torch
    except ImportError:
        raise MinivitError(
            f'{path} can be read only by PyTorch: pip install "minivit[bench]", or use a .safetensors file'
        ) from None
    _check_zip(path)
    with open(path, "rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise ValueError(
                "it is cut short, or holds Python objects, which are never loaded; where it comes from, save the "
                "weights without them: torch.save(checkpoint['model'], FILE), under whatever key they are"
            ) from None
    for _ in range(4):  # wrappers in wrappers; a dictionary may even hold itself
        if isinstance(content, dict) and not any(torch.is_tensor(value) for value in content.values()):
            content = next((content[key] for key in WRAPPERS if key in content), content)
    if not isinstance(content, dict) or not all(torch.is_tensor(value) for value in content.values()):
        raise ValueError(f"neither itself nor under {', '.join(WRAPPERS)} does it hold a state dict")
    if not all(isinstance(name, str) for name in content):
        raise ValueError("the names in its state dict are not all text")
    # Views of one small storage can be tensors of any number and size.
    _check_growth(path, sum(t.numel() * max(4, t.element_size()) for t in content.values()))
    half = (torch.float16, torch.bfloat16)
    return {name: (t.float() if t.dtype in half else t).detach().numpy() for name, t in content.items()}, {}


def _check_zip(path):
    """Refuse a zip that unfolds to far more than its size; what is no zip passes."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _check_growth(path, sum(entry.file_size for entry in archive.infolist()))


def _check_growth(path, size):
    if size > max(HARMLESS, MAX_GROWTH * path.stat().st_size):
        raise MinivitError(f"{path} would unfold to {size:,} bytes, which is absurd for a file of its size")


def _import_safetensors():
    try:
        import safetensors
    except ImportError:
        raise MinivitError(
            'files that end in .safetensors need the library safetensors: pip install "minivit[interop]"'
        ) from None
    return safetensors


_READERS = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".pth": _read_pytorch,
    ".pt": _read_pytorch,
    ".bin": _read_pytorch,
    ".tar": _read_pytorch,  # PyTorch's example scripts write *.pth.tar, which is no tar archive
}
ENDINGS = tuple(_READERS)
"""Endings of the files that :func:`read_weights` reads."""
