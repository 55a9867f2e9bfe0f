"""Reading archives that come from elsewhere, and writing folders in one step.

Nothing is ever extracted by name: members are read into memory, only plain files are accepted, and a member
whose path would leave the folder, or that is a link or a device, condemns the whole archive.
"""

import gzip
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from minivit.errors import MinivitError

MAX_TAR = 1 << 30  # bytes unpacked, against archives made to fill the memory
MAX_ZIP_MEMBER = 1 << 26

# What the standard library raises when it reads a damaged archive, beside OSError.
DAMAGED = (
    tarfile.TarError,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    OverflowError,
    RuntimeError,  # an encrypted zip; as NotImplementedError, an unknown compression
)


def read_tar(archive):
    """Read every file of a tar archive, compressed or not: ``{name: bytes}``, folders left out.

    Raises:
        MinivitError: the file is truncated, corrupt, too large when unpacked, or has a member that no data
            set needs: an absolute or ``..`` path, a link, a device.
    """
    members, total = {}, 0
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                _check_path(archive, member.name)
                if member.isdir():
                    continue
                if not member.isfile():
                    raise MinivitError(f"{archive} refused: its member {member.name!r} is a link or a device")
                total += member.size
                if total > MAX_TAR:
                    raise MinivitError(f"{archive} refused: it unpacks to more than {MAX_TAR >> 20} MiB")
                members[member.name] = tar.extractfile(member).read()
    except (*DAMAGED, OSError) as error:
        raise _unreadable(archive, error) from error
    return members


def open_zip(archive):
    """Open a zip file after checking its members, and return the ``zipfile.ZipFile``: close it when done.

    Raises:
        MinivitError: the file is truncated, corrupt, or has a member with an absolute or ``..`` path, or a
            link.
    """
    try:
        opened = zipfile.ZipFile(archive)
    except (*DAMAGED, OSError) as error:
        raise _unreadable(archive, error) from error
    try:
        for member in opened.infolist():
            _check_path(archive, member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise MinivitError(f"{archive} refused: its member {member.filename!r} is a link")
    except MinivitError:
        opened.close()
        raise
    return opened


def read_zip_member(opened, name):
    """Return the bytes of one member of an open zip file.

    Raises:
        MinivitError: the member is damaged or too large.
    """
    if opened.getinfo(name).file_size > MAX_ZIP_MEMBER:
        raise MinivitError(f"{opened.filename} refused: {name!r} is over {MAX_ZIP_MEMBER >> 20} MiB")
    try:
        return opened.read(name)
    except (*DAMAGED, OSError) as error:
        raise _unreadable(f"{opened.filename} (member {name})", error) from error


def _check_path(archive, name):
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name:
        raise MinivitError(f"{archive} refused: its member {name!r} would be written outside the folder")


def _unreadable(archive, error):
    if not isinstance(error, DAMAGED):
        return MinivitError(f"{archive} cannot be read ({error.strerror})")
    reason = str(error).partition("\n")[0].rstrip(":") or "no content"  # tarfile lists its tries line by line
    return MinivitError(f"{archive} is truncated or corrupt ({reason}): delete it to download it again")


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
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for name, content in files.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        move_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def move_folder(temporary, target):
    """Rename a finished temporary folder to ``target`` on the same disk, durably and readable by all."""
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
