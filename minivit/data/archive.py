"""Reading archives that come from elsewhere.

Nothing is ever extracted by name: members are read into memory, only plain files are accepted, and a member
whose path would leave the folder, or that is a link or a device, condemns the whole archive.
"""

import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from pathlib import PurePosixPath

from minivit.errors import MinivitError

# Against archives made to fill the memory.
MAX_TAR = 1 << 28  # bytes unpacked; both CIFARs have 176 MiB
MAX_TAR_HEADERS = 1 << 17  # bytes of it that are not files: their names and sizes
MAX_ZIP_MEMBER = 1 << 26
SKIP = 1 << 20  # bytes read at once to pass over a member

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


def read_tar(archive, wanted):
    """Read the files named in ``wanted`` from a tar archive, gzipped or not: ``{name: bytes}``.

    Names are compared in their shortest form, so ``./a/b`` is ``a/b``. A file that is not there is left out;
    other members are checked, but not kept.

    Raises:
        MinivitError: the archive is truncated, corrupt, too large when unpacked, has a wanted file twice, or has
            a member that no data set needs: an absolute or ``..`` path, a link, a device, a sparse file, a
            negative size.
    """
    files = {}
    try:
        with _open_gzipped_or_plain(archive) as file:
            stream = _TarStream(archive, file)
            with tarfile.TarFile(fileobj=stream) as tar:
                for member in tar:
                    name = _shortest_path(archive, member.name)
                    if member.size < 0:
                        raise MinivitError(f"{archive} refused: its member {member.name!r} has a negative size")
                    if member.isdir():
                        continue
                    if not member.isfile() or member.issparse():
                        raise MinivitError(
                            f"{archive} refused: its member {member.name!r} is a link or a device, not a plain file"
                        )
                    if name not in wanted:
                        continue
                    if name in files:
                        raise MinivitError(f"{archive} refused: it has {name!r} twice")
                    files[name] = stream.content(member.size)
                    if len(files[name]) < member.size:
                        raise tarfile.ReadError("unexpected end of data")
    except (*DAMAGED, OSError) as error:
        raise _unreadable(archive, error) from error
    return files


def _open_gzipped_or_plain(archive):
    with open(archive, "rb") as file:
        magic = file.read(2)
    return gzip.open(archive) if magic == b"\x1f\x8b" else open(archive, "rb")


class _TarStream:
    """The bytes of a tar archive, forwards only, with one limit on all of them and one on the headers.

    ``tarfile`` reads a long name or extended header of any size into memory before it shows the member that it
    belongs to. What it asks for by ``read`` is therefore counted as headers; the files themselves are read by
    ``content``.
    """

    def __init__(self, archive, file):
        self.archive = archive
        self.file = file
        self.position = 0
        self.headers = 0

    def tell(self):
        return self.position

    def read(self, size):
        if size < 0:
            raise tarfile.ReadError("a header has a negative size")
        self.headers += size
        if self.headers > MAX_TAR_HEADERS:
            raise MinivitError(
                f"{self.archive} refused: its list of members takes more than {MAX_TAR_HEADERS >> 10} KiB"
            )
        return self.content(size)

    def content(self, size):
        """Read ``size`` bytes of a file, fewer only at the end of the archive."""
        if self.position + size > MAX_TAR:
            raise MinivitError(f"{self.archive} refused: it unpacks to more than {MAX_TAR >> 20} MiB")
        content = self.file.read(size)
        self.position += len(content)
        return content

    def seek(self, position):
        if position < self.position:
            raise tarfile.ReadError("a header points backwards")
        while self.position < position and self.content(min(SKIP, position - self.position)):
            pass


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
            _shortest_path(archive, member.filename)
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


def _shortest_path(archive, name):
    """Return a member's path without ``.`` and doubled slashes; one that leaves the folder is refused."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name:
        raise MinivitError(f"{archive} refused: its member {name!r} would be written outside the folder")
    return str(path)


def _unreadable(archive, error):
    if not isinstance(error, DAMAGED):
        return MinivitError(f"{archive} cannot be read ({error.strerror})")
    reason = str(error).partition("\n")[0] or "no content"
    return MinivitError(f"{archive} is truncated or corrupt ({reason}): delete it to download it again")
