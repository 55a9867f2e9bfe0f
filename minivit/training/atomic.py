"""Files that are either whole or absent: written beside the target, forced to disk, renamed into place."""

import contextlib
import os

from minivit.errors import MinivitError

SUFFIX = ".tmp"


@contextlib.contextmanager
def atomic_write(path):
    """Yield a binary file that becomes ``path`` when the block ends without an exception.

    The bytes go to ``path.tmp`` in the same folder; that file is flushed and synced before the rename, and the folder
    after it, so that neither a kill nor a power cut leaves half a file under the final name.

    Raises:
        MinivitError: the folder cannot be written, or the disk is full.
    """
    temporary = _temporary(path)
    try:
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
        except BaseException:
            sweep_temporaries([path])
            raise
    except OSError as error:
        raise MinivitError(f"cannot write {path}: {error.strerror or error}") from error


def sweep_temporaries(paths):
    """Delete what killed writers of these files left behind: SIGKILL gives nobody the time to tidy up."""
    for path in paths:
        with contextlib.suppress(OSError):  # mostly there is nothing; what cannot go away does no harm
            _temporary(path).unlink()


def _temporary(path):
    return path.with_name(path.name + SUFFIX)


def _sync_folder(folder):
    if os.name != "posix":
        return  # only POSIX lets a folder be opened, and needs it
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
