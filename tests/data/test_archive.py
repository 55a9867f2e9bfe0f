"""Archives from elsewhere: what is damaged or malicious is refused in one line, and folders appear whole."""

import io
import os
import stat
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minivit.data import archive
from minivit.data.archive import is_writable, open_zip, read_tar, read_zip_member, write_folder
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


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_files_are_read_and_folders_left_out(tmp_path, mode):
    folder = special(tarfile.DIRTYPE, "folder")
    path = make_tar(tmp_path / "a.tar.gz", folder, ("folder/a", CONTENT), ("folder/b", b""), mode=mode)
    assert read_tar(path) == {"folder/a": CONTENT, "folder/b": b""}


@pytest.mark.parametrize(
    "name", ["../evil", "folder/../../evil", "/etc/evil", "..\\evil", "C:\\evil", "\\evil"]
)
def test_members_that_would_leave_the_folder_are_refused(tmp_path, name):
    path = make_tar(tmp_path / "a.tar.gz", ("folder/fine", b"1"), (name, b"2"))
    with pytest.raises(MinivitError) as error:
        read_tar(path)
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
        read_tar(path)
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
    path = make_tar(tmp_path / "a.tar.gz", ("a", CONTENT), ("b", CONTENT))
    with pytest.raises(MinivitError, match="unpacks to more than"):
        read_tar(path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr("a", CONTENT)
    with open_zip(tmp_path / "a.zip") as opened, pytest.raises(MinivitError, match="refused: 'a' is over"):
        read_zip_member(opened, "a")


@pytest.mark.parametrize("length", [0, 1, 20, 2000, 4900])
def test_a_truncated_tar_is_damaged(tmp_path, length):
    path = make_tar(tmp_path / "a.tar.gz", ("folder/a", CONTENT))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(MinivitError) as error:
        read_tar(path)
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
            read_tar(path)
    except MinivitError as error:
        assert "\n" not in str(error)


def test_an_archive_that_is_not_there(tmp_path):
    for read in (read_tar, open_zip):
        with pytest.raises(MinivitError, match="cannot be read"):
            read(tmp_path / "none")


def test_a_folder_is_written_whole(tmp_path):
    write_folder({"a": CONTENT, "deep/b": b"2"}, tmp_path / "new")
    assert (tmp_path / "new" / "a").read_bytes() == CONTENT
    assert (tmp_path / "new" / "deep" / "b").read_bytes() == b"2"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o755


def test_a_folder_that_fails_half_way_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_folder({"a": CONTENT, "b": None}, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_kept(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").write_bytes(b"1")
    with pytest.raises(OSError):
        write_folder({"a": CONTENT}, tmp_path / "new")
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "mine"]


def test_a_folder_without_write_bits_is_left_alone(tmp_path):
    assert is_writable(tmp_path)
    assert not is_writable(tmp_path / "none")
    tmp_path.chmod(0o555)
    assert not is_writable(tmp_path)
    tmp_path.chmod(0o755)
