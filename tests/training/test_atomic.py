"""Files are whole or absent, and nothing that the user put beside them is touched."""

import contextlib
import os

import pytest

from minivit.errors import MinivitError
from minivit.training.atomic import atomic_write, sweep_temporaries


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_write(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_fails_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), atomic_write(path) as file:
        file.write(b"new")
        raise KeyError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_check_sees_the_whole_file_before_it_gets_its_name(tmp_path):
    def check(temporary):
        assert temporary.read_bytes() == b"new" and path.read_bytes() == b"old"
        raise KeyError

    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), atomic_write(path, check) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_do_not_meet(tmp_path):
    path, others = tmp_path / "a.txt", tmp_path / "a.txt.tmp"
    others.write_bytes(b"another's")
    with atomic_write(path) as first, atomic_write(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"  # renamed last
    assert others.read_bytes() == b"another's" and len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_a_file_has_the_permissions_of_any_new_file(tmp_path):
    with atomic_write(tmp_path / "a.txt"):
        pass
    (tmp_path / "b.txt").touch()
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_only_own_leftovers_are_swept(tmp_path, monkeypatch):
    with monkeypatch.context() as killed, contextlib.suppress(KeyError), atomic_write(tmp_path / "[1].npz"):
        killed.setattr("minivit.training.atomic._remove", lambda path: None)
        raise KeyError
    (left,) = tmp_path.iterdir()
    notes = tmp_path / "[1].npz.tmp", tmp_path / ".1.npz.minivit-01234567.tmp", tmp_path / ".minivit-notes.tmp"
    for path in notes:
        path.touch()
    folder = tmp_path / ".log.jsonl.minivit-01234567.tmp"
    folder.mkdir()
    sweep_temporaries([tmp_path / name for name in ("1.npz.not", "log.jsonl")])
    assert set(tmp_path.iterdir()) == {left, folder, *notes}
    sweep_temporaries([tmp_path / "[1].npz", tmp_path / "absent" / "a.npz"])
    assert set(tmp_path.iterdir()) == {folder, *notes}


@pytest.mark.parametrize("name", ["folder", ".", "absent/a.txt"])
def test_a_path_that_cannot_be_written_is_one_line(name, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(MinivitError, match="^cannot write .*: [^\n]+$"), atomic_write(tmp_path / name):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
