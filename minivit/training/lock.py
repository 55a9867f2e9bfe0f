"""A file that one process holds: two that wrote to the same run would destroy it."""

import contextlib
import os

from minivit.errors import MinivitError

try:
    import fcntl
except ImportError:  # not POSIX: no locks there
    fcntl = None


class HeldError(MinivitError):
    """Another process holds the file."""


@contextlib.contextmanager
def hold(path, what):
    """Hold the file ``path`` locked inside the block, and remove it afterwards.

    The kernel gives the lock up when the process ends, by SIGKILL too: a file that is left over means nothing. Where
    the file system knows no locks, none is held.

    Args:
        path: the lock file; it holds the number of the process.
        what: what is locked, for the message.

    Raises:
        HeldError: another process holds it.
        MinivitError: the file cannot be written.
    """
    if fcntl is None:
        yield
        return
    try:
        handle = _lock(path, what)
    except OSError as error:
        raise MinivitError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)  # while it is still locked, so that nobody else's file is removed
        os.close(handle)


def _lock(path, what):
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        with contextlib.ExitStack() as unless_ours:
            unless_ours.callback(os.close, handle)
            if _claim(handle, path, what):
                unless_ours.pop_all()
                return handle


def _claim(handle, path, what):
    """Lock the open file. Returns False if its owner removed it between our opening and our locking it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(handle, 20).decode(errors="replace").strip() or "unknown"
        raise HeldError(f"{what} is still going (pid {owner}): wait for it, or stop it") from None
    except OSError:
        return True  # a file system without locks
    if not _is_still(path, handle):
        return False
    os.ftruncate(handle, 0)
    os.write(handle, b"%d\n" % os.getpid())
    return True


def _is_still(path, handle):
    """Whether ``path`` names the open file ``handle``."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
