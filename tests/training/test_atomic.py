"""Files are whole or absent, and nothing that the user put beside them is touched."""

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


def test_only_own_leftovers_are_swept(tmp_path):
    mine, notes, folder = (tmp_path / name for name in ("last.npz.tmp", "notes.tmp", "best.npz.tmp"))
    mine.touch()
    notes.touch()
    folder.mkdir()
    sweep_temporaries([tmp_path / name for name in ("last.npz", "best.npz", "log.jsonl")])
    assert sorted(tmp_path.iterdir()) == [folder, notes]


def test_a_folder_in_the_way_is_one_line(tmp_path):
    (tmp_path / "a.txt.tmp").mkdir()
    problem = pytest.raises(MinivitError, match=r"cannot write .*a\.txt: Is a directory")
    with problem, atomic_write(tmp_path / "a.txt"):
        pass
