"""Fetching a data set's archive: mirrors in turn, resumed when cut, checked before it counts."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from minivit.data.durable import is_writable, sync_folder
from minivit.data.progress import progress_bar
from minivit.errors import MinivitError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

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

    A file that is there is used as it is: :func:`note_checksum` tells whether it is the official one.

    Raises:
        MinivitError: it is not there, and ``offline`` or no mirror delivered it, or there is no place for it.
    """
    path = Path(data_dir) / remote.name
    try:
        if path.is_file():
            return path
        if offline:
            raise _unavailable(remote, path, "downloads are off")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not is_writable(path.parent):
            raise _unavailable(remote, path, "that folder is read-only")
        with _one_at_a_time(path.parent, note):
            if not path.is_file():  # it is there now if another process has just fetched it
                _download(remote, path, note)
            return path
    except OSError as error:
        raise _unavailable(remote, path, str(error)) from error


def note_checksum(remote, path, note):
    """Tell the user if ``path`` is not the official file. To be called once its structure is known to be right.

    Raises:
        OSError: it cannot be read.
    """
    if sha256(path) != remote.sha256:
        note(f"note: the checksum of {path} is not the official one; using the file as it is")


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


@contextmanager
def _one_at_a_time(folder, note):
    """Wait until no other process downloads into ``folder``, on systems and disks with locks."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)  # the folder itself is locked: no lock file is left behind
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"note: waiting for another download into {folder}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # some network disks have no locks
            pass
        yield
    finally:
        os.close(descriptor)


def _download(remote, path, note):
    """Fetch ``remote`` to ``path`` by way of ``path.part``, which stays behind for the next try."""
    part = path.with_name(path.name + ".part")
    for url in remote.urls:
        note(f"downloading {url}")
        try:
            reason = _download_from(url, part, remote.sha256)
            if reason is None:
                os.replace(part, path)
                sync_folder(path.parent)
        except OSError:
            if not path.is_file():
                raise
        if path.is_file():  # without locks, another process may have been quicker and have moved our part away
            return
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
        bar = progress_bar(
            desc=part.stem, initial=start, total=total, unit="B", unit_scale=True, unit_divisor=1024
        )
        with open(part, "ab" if start else "wb") as file, bar:
            while block := response.read(BLOCK):
                file.write(block)
                start += len(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())
    if total is not None and start < total:
        raise ConnectionError(f"the connection ended after {start} of {total} bytes")
