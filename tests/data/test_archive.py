"""Archives from elsewhere: what is damaged or malicious is refused in one line."""

import gzip
import io
import stat
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minivit.data import archive
from minivit.data.archive import open_zip, read_tar, read_zip_member
from minivit.errors import MinivitError

CONTENT = np.random.default_rng(0).bytes(5000)


def make_tar(path, *members, mode="w:gz"):
    """Write a tar of ``(name, content)`` or ready ``TarInfo`` members."""
    with tarfile.open(path, mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                name, content = member
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def special(kind, name="folder/thing", target="/etc/passwd"):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


def assert_one_line(error, *parts):
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


WANTED = {"folder/a", "folder/b"}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_only_what_is_wanted_is_kept(tmp_path, mode, format, monkeypatch):
    monkeypatch.setattr(tarfile.TarFile, "format", format)
    members = [special(tarfile.DIRTYPE, "folder"), ("folder/other", CONTENT), ("folder/a", CONTENT), ("a", b"1")]
    path = make_tar(tmp_path / "a.tar.gz", *members, ("folder/b", b""), mode=mode)
    assert read_tar(path, WANTED) == {"folder/a": CONTENT, "folder/b": b""}
    assert read_tar(path, {"folder/a", "folder/c"}) == {"folder/a": CONTENT}


@pytest.mark.parametrize("name", ["./folder/a", "folder/./a", "folder//a", "folder\\a"])
def test_names_are_compared_in_their_shortest_form(tmp_path, name):
    path = make_tar(tmp_path / "a.tar.gz", special(tarfile.DIRTYPE, "./"), (name, CONTENT))
    assert read_tar(path, WANTED) == {"folder/a": CONTENT}


@pytest.mark.parametrize("name", ["folder/a", "./folder/a"])
def test_a_file_that_comes_twice_is_refused(tmp_path, name):
    path = make_tar(tmp_path / "a.tar.gz", ("folder/a", b"1"), (name, b"2"))
    with pytest.raises(MinivitError) as error:
        read_tar(path, WANTED)
    assert_one_line(error, "a.tar.gz refused", "'folder/a' twice")


def test_an_unwanted_name_with_a_nul_does_no_harm(tmp_path):
    odd = tarfile.TarInfo("odd")
    odd.pax_headers = {"path": "folder/a\0b"}
    path = make_tar(tmp_path / "a.tar.gz", odd, ("folder/a", CONTENT))
    with tarfile.open(path) as tar:
        assert "folder/a\0b" in tar.getnames()  # else this shows nothing
    assert read_tar(path, WANTED) == {"folder/a": CONTENT}


def with_size(size, kind=tarfile.REGTYPE, name="folder/a"):
    """A header that claims ``size``, whatever follows it."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("size", [-1, -512, -5000])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("first", [b"", with_size(0, name="folder/other")], ids=["first", "second"])
def test_negative_sizes_give_no_file_and_no_endless_loop(tmp_path, size, kind, first):
    path = tmp_path / "a.tar"
    path.write_bytes(first + with_size(size, kind) + bytes(2048))
    try:
        assert read_tar(path, WANTED) == {}  # newer Pythons take such a header for the end of the archive
    except MinivitError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)


def test_a_negative_size_in_an_extended_header_gives_no_file(tmp_path):
    odd = tarfile.TarInfo("folder/a")
    odd.pax_headers = {"size": "-512"}
    try:
        assert read_tar(make_tar(tmp_path / "a.tar.gz", odd), WANTED) == {}
    except MinivitError as error:
        assert "negative size" in str(error)


def test_the_stream_of_a_tar_does_not_go_back():
    stream = archive._TarStream("a.tar", io.BytesIO(CONTENT))
    stream.seek(1000)
    assert stream.read(10) == CONTENT[1000:1010] and stream.tell() == 1010
    with pytest.raises(tarfile.ReadError):
        stream.seek(1009)


def test_a_sparse_file_is_refused(tmp_path):
    """Its few bytes would become as many as it claims."""
    path = tmp_path / "a.tar"
    path.write_bytes(with_size(0, tarfile.GNUTYPE_SPARSE) + bytes(1024))
    with pytest.raises(MinivitError) as error:
        read_tar(path, WANTED)
    assert_one_line(error, "refused", "not a plain file")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_long_header_does_not_fill_the_memory(tmp_path, kind):
    size = 100 << 20
    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(with_size(size, kind))
        file.write(bytes(1 << 20))  # the rest may be missing: it must not even be asked for
    tracemalloc.start()
    try:
        with pytest.raises(MinivitError) as error:
            read_tar(path, WANTED)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert_one_line(error, "refused", "list of members takes more than 128 KiB")


def test_a_long_list_of_members_is_refused(tmp_path):
    path = make_tar(tmp_path / "a.tar.gz", *((f"folder/{index}", b"") for index in range(300)))
    with pytest.raises(MinivitError, match="list of members takes more than 128 KiB"):
        read_tar(path, WANTED)


@pytest.mark.parametrize("name", ["../evil", "folder/../../evil", "/etc/evil", "..\\evil", "C:\\evil", "\\evil"])
def test_members_that_would_leave_the_folder_are_refused(tmp_path, name):
    path = make_tar(tmp_path / "a.tar.gz", ("folder/fine", b"1"), (name, b"2"))
    with pytest.raises(MinivitError) as error:
        read_tar(path, WANTED)
    assert_one_line(error, "a.tar.gz refused", "outside the folder")
    zipped = tmp_path / "a.zip"
    with zipfile.ZipFile(zipped, "w") as opened:
        opened.writestr(name, b"2")
    with pytest.raises(MinivitError) as error:
        open_zip(zipped)
    assert_one_line(error, "a.zip refused", "outside the folder")
    assert {file.name for file in tmp_path.iterdir()} == {"a.tar.gz", "a.zip"}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path, kind):
    path = make_tar(tmp_path / "a.tar.gz", special(kind))
    with pytest.raises(MinivitError) as error:
        read_tar(path, WANTED)
    assert_one_line(error, "refused", "'folder/thing' is a link or a device")


def test_links_in_a_zip_are_refused(tmp_path):
    info = zipfile.ZipInfo("folder/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(info, "/etc/passwd")
    with pytest.raises(MinivitError) as error:
        open_zip(tmp_path / "a.zip")
    assert_one_line(error, "refused", "is a link")


def test_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_TAR", 8000)
    monkeypatch.setattr(archive, "MAX_ZIP_MEMBER", 4000)
    path = make_tar(tmp_path / "a.tar.gz", ("a", CONTENT), ("b", CONTENT), ("c", CONTENT))
    for wanted in ({"a", "b"}, {"c"}):  # read, and passed over
        with pytest.raises(MinivitError, match="unpacks to more than"):
            read_tar(path, wanted)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr("a", CONTENT)
    with open_zip(tmp_path / "a.zip") as opened, pytest.raises(MinivitError, match="refused: 'a' is over"):
        read_zip_member(opened, "a")


@pytest.mark.parametrize("length", [0, 1, 20, 2000, 4900])
def test_a_truncated_tar_is_damaged(tmp_path, length):
    path = make_tar(tmp_path / "a.tar.gz", ("folder/a", CONTENT))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(MinivitError) as error:
        read_tar(path, WANTED)
    assert_one_line(error, "a.tar.gz is truncated or corrupt", "delete it")


def test_a_truncated_zip_is_damaged(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("a", CONTENT)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(MinivitError) as error:
        open_zip(path)
    assert_one_line(error, "a.zip is truncated or corrupt")


def test_a_changed_byte_in_a_zip_is_noticed(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("folder/a", CONTENT)
    damaged = bytearray(path.read_bytes())
    damaged[1000] ^= 1
    path.write_bytes(damaged)
    with open_zip(path) as opened, pytest.raises(MinivitError) as error:
        read_zip_member(opened, "folder/a")
    assert_one_line(error, "a.zip (member folder/a) is truncated or corrupt")


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_gets_past_the_reader(tmp_path, data):
    """Whatever bytes are changed: the content, or a MinivitError, and nothing else."""
    path = tmp_path / "a"
    kind = data.draw(st.sampled_from(["w", "w:gz", "zip"]))
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
            opened.writestr("folder/a", CONTENT[:600])
    else:
        make_tar(path, ("folder/a", CONTENT[:600]), mode=kind)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        if kind == "zip":
            with open_zip(path) as opened:
                for name in opened.namelist():
                    read_zip_member(opened, name)
        else:
            read_tar(path, WANTED)
    except MinivitError as error:
        assert "\n" not in str(error)


def test_an_archive_that_is_not_there(tmp_path):
    with pytest.raises(MinivitError, match="cannot be read"):
        read_tar(tmp_path / "none", WANTED)
    with pytest.raises(MinivitError, match="cannot be read"):
        open_zip(tmp_path / "none")
