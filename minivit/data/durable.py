"""Writing folders in one step: filled under another name, flushed to the disk, then renamed."""

import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

ABANDONED = 3600  # seconds without a change after which a temporary folder counts as left behind


def is_writable(folder):
    """Whether files may be created in ``folder``. One without any write bit is left alone even by root."""
    folder = Path(folder)
    return folder.is_dir() and os.access(folder, os.W_OK) and bool(folder.stat().st_mode & 0o222)


def write_folder(files, target):
    """Write ``{relative name: bytes}`` as the new folder ``target``: it appears whole, or not at all.

    Raises:
        OSError: no room or no permission, or ``target`` is there already.
    """
    target = Path(target)
    with temporary_folder(target) as temporary:
        for name, content in files.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        move_folder(temporary, target)


@contextmanager
def temporary_folder(target):
    """Make a folder beside ``target`` that :func:`move_folder` may move there; removed at the end if it is not.

    First removes what processes that were killed left behind of the same ``target``.
    """
    _remove_abandoned(target)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def move_folder(temporary, target):
    """Rename a finished temporary folder to ``target`` on the same disk, durably and readable by all."""
    for path in temporary.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
    sync_folder(temporary)
    temporary.chmod(0o755)  # tempfile makes it private
    os.rename(temporary, target)
    sync_folder(target.parent)


def sync_folder(folder):
    """Flush a folder's entries, so that a rename survives a power cut. Windows has no handles for that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_abandoned(target):
    # Only what tempfile named, so that nobody's own files are taken; "-stale" is a replaced folder on its way out.
    ours = re.compile(rf"\.{re.escape(target.name)}-[a-z0-9_]{{8}}(-stale)?")
    for path in target.parent.iterdir():
        if ours.fullmatch(path.name):
            with suppress(OSError):  # another process removes it, too
                changed = max(entry.stat().st_mtime for entry in (path, *path.rglob("*")))
                if time.time() - changed > ABANDONED:
                    shutil.rmtree(path, ignore_errors=True)
