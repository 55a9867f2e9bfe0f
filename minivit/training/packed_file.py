"""Packed files: a binary network on bits in one small file. ``minivit.training.checkpoint`` writes and reads them.

    16 bytes    MAGIC
    32 bytes    SHA-256 of all that follows
    deflated    metadata as in a checkpoint, JSON, and under "arrays" [name, dtype, shape] for each array, in order
    deflated    for each of DTYPES, all arrays of that dtype end to end, as byte planes

Byte planes are the first bytes of all numbers, then all second ones, and so on: deflate finds something to save in the
exponents of floats when they lie side by side. Floats are stored exactly: a change in the last digit would turn signs
over somewhere, and behind a sign that is no longer a small change.

Reading trusts nothing: the digest covers every byte, and no part may unfold to more than the metadata states, nor to
much more than the file.
"""

import hashlib
import json
import math
import zlib

import numpy as np

from minivit.errors import UsageError

FORMAT = "minivit packed"
VERSION = 1
MAGIC = b"\x89minivit packed\n"
DTYPES = ("<u8", "<f4", "<i8")
"""Words of bits, floats, and counters."""
MAX_GROWTH, FLOAT_GROWTH, HARMLESS = 2, 20, 1 << 20
"""A part may unfold to so many times the size of the file, floats to FLOAT_GROWTH times, or to so many bytes if that is
more. Bits hardly deflate, and the float network that they are loaded into takes 32 times their size; but constants of a
network that has not been trained take hardly any space."""

_START = len(MAGIC) + hashlib.sha256().digest_size


def is_packed(path):
    """Return whether the file begins as packed files do. Raises OSError: it cannot be read."""
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def write(file, metadata, arrays):
    """Write to an open binary file.

    Args:
        file: where to.
        metadata: JSON values by name.
        arrays: name -> array, the state dict of a network that ``minivit.models.packing.pack`` has packed.

    Raises:
        UsageError: an array of another dtype than DTYPES.
    """
    arrays = {name: array.astype(array.dtype.newbyteorder("<")) for name, array in arrays.items()}
    listed = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    for name, array in arrays.items():
        if array.dtype.str not in DTYPES:
            raise UsageError(f"packed networks are float32, and {name} is {array.dtype}: turn the network to float32")
    header = json.dumps({**metadata, "arrays": listed}, allow_nan=False).encode()
    body = _deflate(header)
    for dtype in DTYPES:
        body += _deflate(_planes([a for a in arrays.values() if a.dtype.str == dtype], dtype), dtype)
    file.write(MAGIC + hashlib.sha256(body).digest() + body)


def read_metadata(path):
    """Read a packed file and check its digest.

    Returns:
        (metadata, rest): JSON value, and what :func:`read_arrays` needs beside it.

    Raises:
        ValueError: damage.
    """
    content = path.read_bytes()
    body = content[_START:]
    if hashlib.sha256(body).digest() != content[len(MAGIC) : _START]:
        raise ValueError("its checksum is wrong, so it is cut short, or bytes of it have changed")
    header, rest = _inflate(body, _limit(len(body)))
    return json.loads(header), rest


def read_arrays(metadata, rest):
    """Return the arrays, name -> array, of a file that :func:`read_metadata` has read.

    Raises:
        ValueError, TypeError, KeyError, zlib.error: damage.
    """
    shapes = {dtype: {} for dtype in DTYPES}
    for name, dtype, shape in metadata["arrays"]:
        if not isinstance(name, str) or not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError("its list of arrays makes no sense")
        if dtype not in DTYPES:
            raise ValueError(f"it lists an array of the unknown dtype {dtype}")
        shapes[dtype][name] = tuple(shape)
    arrays = {}
    for dtype, named in shapes.items():
        size = sum(map(math.prod, named.values())) * np.dtype(dtype).itemsize
        if size > _limit(len(rest), dtype):
            raise ValueError("its arrays would unfold to far more than its size")
        planes, rest = _inflate(rest, size, exactly=True)
        flat, start = _from_planes(planes, dtype), 0
        for name, shape in named.items():
            arrays[name] = flat[start : start + math.prod(shape)].reshape(shape)
            start += math.prod(shape)
    if rest:
        raise ValueError("there are bytes behind its end")
    if len(arrays) < len(metadata["arrays"]):
        raise ValueError("two of its arrays have one name")
    return arrays


def _limit(size, dtype=None):
    """Bytes that a part may unfold to in a file of which ``size`` bytes are left; ``dtype`` is None for the header."""
    return max((FLOAT_GROWTH if dtype == "<f4" else MAX_GROWTH) * size, HARMLESS)


def _deflate(part, dtype=None):
    """Deflate a part, unless it shrinks so much that a reader would refuse it."""
    deflated = zlib.compress(part, 9)
    return zlib.compress(part, 0) if len(part) > _limit(len(deflated), dtype) else deflated


def _planes(arrays, dtype):
    size = np.dtype(dtype).itemsize
    flat = np.concatenate([np.empty(0, dtype), *(array.ravel() for array in arrays)])
    return flat.view(np.uint8).reshape(flat.size, size).T.tobytes()


def _from_planes(planes, dtype):
    kind = np.dtype(dtype)
    octets = np.frombuffer(planes, np.uint8).reshape(kind.itemsize, len(planes) // kind.itemsize)
    return np.ascontiguousarray(octets.T).reshape(-1).view(kind).astype(kind.newbyteorder("="))


def _inflate(content, limit, exactly=False):
    """Unfold the deflated stream that ``content`` begins with, to at most ``limit`` bytes. Returns (unfolded, rest)."""
    stream = zlib.decompressobj()
    unfolded = stream.decompress(content, limit + 1)
    if not stream.eof or len(unfolded) > limit or (exactly and len(unfolded) < limit):
        raise ValueError("a part of it is not of the size that it states")
    return unfolded, stream.unused_data
