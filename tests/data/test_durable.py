"""Folders appear whole or not at all, and what killed processes left behind goes."""

import os
import stat
import time

import pytest

from minivit.data import durable
from minivit.data.durable import is_writable, temporary_folder, write_folder


def test_a_folder_is_written_whole(tmp_path):
    write_folder({"a": b"1" * 5000, "deep/b": b"2"}, tmp_path / "new")
    assert (tmp_path / "new" / "a").read_bytes() == b"1" * 5000
    assert (tmp_path / "new" / "deep" / "b").read_bytes() == b"2"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o755


def test_everything_is_on_the_disk_before_the_folder_gets_its_name(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def watched(descriptor):
        synced.append((os.fstat(descriptor).st_ino, (tmp_path / "new").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write_folder({"a": b"1", "deep/b": b"2"}, tmp_path / "new")
    new = tmp_path / "new"
    files = [new / "a", new / "deep" / "b"]
    folders = [new, new / "deep"] if os.name == "posix" else []
    before = {inode for inode, named in synced if not named}
    assert before == {path.stat().st_ino for path in files + folders}
    if os.name == "posix":
        assert synced[-1] == (tmp_path.stat().st_ino, True)


def test_a_folder_that_fails_half_way_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_folder({"a": b"1", "b": None}, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_kept(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").write_bytes(b"1")
    with pytest.raises(OSError):
        write_folder({"a": b"2"}, tmp_path / "new")
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "mine"]


def leave_behind(folder, age):
    """A temporary folder whose process was killed: it and its file were last changed ``age`` seconds ago."""
    folder.mkdir()
    (folder / "half").write_bytes(b"1")
    then = time.time() - age
    os.utime(folder / "half", (then, then))
    os.utime(folder, (then, then))
    return folder


def test_what_killed_processes_left_behind_is_removed(tmp_path):
    old = 2 * durable.ABANDONED
    for name in (".new-abc_1234", ".new-abc_1234-stale"):
        leave_behind(tmp_path / name, old)
    kept = [".new-abc_5678", ".new-64-abc_1234", ".new-mine", ".other-abc_1234", "new-abc_1234"]
    leave_behind(tmp_path / kept[0], durable.ABANDONED / 2)
    for name in kept[1:]:
        leave_behind(tmp_path / name, old)
    write_folder({"a": b"1"}, tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"new", *kept}


def test_a_folder_that_is_being_filled_is_kept(tmp_path):
    """Writing on and on into one file changes the file's time, not the folder's."""
    with temporary_folder(tmp_path / "new") as other:
        (other / "growing").write_bytes(b"1")
        os.utime(other, (0, 0))
        write_folder({"a": b"1"}, tmp_path / "new")
        assert (other / "growing").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_folder_without_write_bits_is_left_alone(tmp_path):
    assert is_writable(tmp_path)
    assert not is_writable(tmp_path / "none")
    tmp_path.chmod(0o555)
    assert not is_writable(tmp_path)
    tmp_path.chmod(0o755)
