"""Files that are either whole or absent: written beside the target, forced to disk, renamed into place."""

import contextlib
import glob
import os
import secrets

from minivit.errors import MinivitError


@contextlib.contextmanager
def atomic_write(path, check=None):
    """Yield a binary file that becomes ``path`` when the block ends without an exception.

    The bytes go to a hidden file of a name of its own in the same folder; that is flushed and synced before the rename,
    and the folder after it, so that neither a kill nor a power cut leaves half a file under the final name.

    Args:
        path: a Path.
        check: called with the Path of the finished file before the rename; if it raises, the old ``path`` stays.

    Raises:
        MinivitError: the folder cannot be written, or the disk is full.
    """
    temporary = path.parent / f".{path.name}.minivit-{secrets.token_hex(4)}.tmp"
    try:
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if check is not None:
                check(temporary)
            os.replace(temporary, path)
            _sync_folder(path.parent)
        except BaseException:
            _remove(temporary)
            raise
    except OSError as error:
        raise MinivitError(f"cannot write {path}: {error.strerror or error}") from error


def sweep_temporaries(paths):
    """Delete what killed writers of these files left behind: SIGKILL gives nobody the time to tidy up.

    Only for files that nobody is writing at the moment.
    """
    for path in paths:
        for temporary in path.parent.glob(f".{glob.escape(path.name)}.minivit-{'[0-9a-f]' * 8}.tmp"):
            _remove(temporary)


def _remove(path):
    with contextlib.suppress(OSError):  # mostly there is nothing; what cannot go away does no harm
        path.unlink()


def _sync_folder(folder):
    if os.name != "posix":
        return  # only POSIX lets a folder be opened, and needs it
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
