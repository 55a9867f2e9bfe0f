"""Files that are either whole or absent: written beside the target, forced to disk, renamed into place."""

import contextlib
import os

from minivit.errors import MinivitError

SUFFIX = ".tmp"


@contextlib.contextmanager
def atomic_write(path):
    """Yield a binary file that becomes ``path`` when the block ends without an exception.

    The bytes go to ``path.tmp`` in the same folder; that file is flushed and synced before the rename, and
    the folder after it, so that neither a kill nor a power cut leaves half a file under the final name.

    Raises:
        MinivitError: the folder cannot be written, or the disk is full.
    """
    temporary = path.with_name(path.name + SUFFIX)
    try:
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise MinivitError(f"cannot write {path}: {error.strerror or error}") from error


def sweep_temporaries(folder):
    """Delete what killed writers left in ``folder``: SIGKILL gives nobody the time to tidy up."""
    for leftover in folder.glob("*" + SUFFIX):
        leftover.unlink(missing_ok=True)


def _sync_folder(folder):
    if os.name != "posix":
        return  # only POSIX lets a folder be opened, and needs it
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
