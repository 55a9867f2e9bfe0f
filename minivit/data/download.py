"""Fetching a data set's archive: mirrors in turn, resumed when cut, checked before it counts."""

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from minivit.data.archive import is_writable, sync_folder
from minivit.errors import MinivitError

TIMEOUT = 30  # seconds without a byte
ATTEMPTS = 4  # requests to one mirror, as long as each brings something new
BLOCK = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file on the network: its official name, its mirrors (fastest first, official last), its SHA-256."""

    name: str
    urls: tuple
    sha256: str


def obtain(remote, data_dir, *, offline, note):
    """Return the path of ``remote`` in ``data_dir``, downloading it unless it is there.

    A file that is there is used as it is; where its checksum is not the official one, ``note`` is told so.

    Raises:
        MinivitError: it is not there, and ``offline`` or no mirror delivered it, or there is no place for it.
    """
    path = Path(data_dir) / remote.name
    try:
        if path.is_file():
            if sha256(path) != remote.sha256:
                note(f"note: the checksum of {path} is not the official one; using the file as it is")
            return path
        if offline:
            raise _unavailable(remote, path, "downloads are off")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not is_writable(path.parent):
            raise _unavailable(remote, path, "that folder is read-only")
        return _download(remote, path, note)
    except OSError as error:
        raise _unavailable(remote, path, str(error)) from error


def sha256(path):
    """SHA-256 of a file as lower-case hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _unavailable(remote, path, reason):
    return MinivitError(
        f"no {path} ({reason}): download {remote.urls[-1]} and put it there, "
        f"or use shapes10 or shapes100, which need no download"
    )


def _download(remote, path, note):
    """Fetch ``remote`` to ``path`` by way of ``path.part``, which stays behind for the next try."""
    part = path.with_name(path.name + ".part")
    for url in remote.urls:
        note(f"downloading {url}")
        reason = _download_from(url, part, remote.sha256)
        if reason is None:
            os.replace(part, path)
            sync_folder(path.parent)
            return path
        note(f"note: {url} failed: {reason}")
    raise _unavailable(remote, path, f"every mirror failed, the last with: {reason}")


def _download_from(url, part, expected):
    """Fetch ``url`` into ``part``, going on from what is there. Returns None, or why this mirror failed."""
    for _ in range(ATTEMPTS):
        start = part.stat().st_size if part.exists() else 0
        try:
            _fetch(url, part, start)
        except (http.client.HTTPException, OSError) as error:  # urllib's own errors are OSErrors
            if getattr(error, "code", None) != 416:  # 416: nothing follows `start`; the part may be whole
                reason = str(getattr(error, "reason", None) or error)
                if part.exists() and part.stat().st_size > start:
                    continue
                return reason
        if sha256(part) == expected:
            return None
        part.unlink()
        reason = "the file has the wrong checksum"
        if start == 0:  # whole and wrong: it will not get better; one put together from two tries may
            return reason
    return reason


def _fetch(url, part, start):
    """One request: append the bytes from ``start`` on to ``part``. An early end is a ConnectionError."""
    request = urllib.request.Request(url, headers={"User-Agent": "minivit"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if response.status != 206:  # the server ignores ranges and sends the whole file
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with open(part, "ab" if start else "wb") as file, _progress_bar(part.stem, start, total) as bar:
            while block := response.read(BLOCK):
                file.write(block)
                start += len(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())
    if total is not None and start < total:
        raise ConnectionError(f"the connection ended after {start} of {total} bytes")


def _progress_bar(name, start, total):
    from tqdm import tqdm  # only a download needs it

    return tqdm(
        desc=name,
        initial=start,
        total=total,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        leave=False,
        disable=not sys.stderr.isatty(),
    )
