"""One process holds a lock; the kernel takes it from a dead one."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minivit.errors import MinivitError
from minivit.training import lock

pytest.importorskip("fcntl")
ROOT = Path(__file__).parents[2]
HOLD = "import sys; from pathlib import Path; from minivit.training.lock import hold\n"
HOLD += "with hold(Path(sys.argv[1]), 'it'): print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")],
        cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_refused_until_the_first_has_gone(tmp_path, other):
    refused = pytest.raises(MinivitError, match=rf"^it is still going \(pid {other.pid}\)")
    with refused, lock.hold(tmp_path / "lock", "it"):
        pass
    other.communicate("")
    assert not (tmp_path / "lock").exists()
    with lock.hold(tmp_path / "lock", "it"):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    assert not (tmp_path / "lock").exists()


def test_a_killed_process_holds_nothing(tmp_path, other):
    other.kill()
    other.wait()
    assert (tmp_path / "lock").exists()
    with lock.hold(tmp_path / "lock", "it"):
        pass
    assert not (tmp_path / "lock").exists()


def test_a_file_that_was_removed_meanwhile_counts_for_nothing(tmp_path, monkeypatch):
    """Its owner removed it after we opened it: a third process would make a new one, and hold that."""
    path, flock, removed = tmp_path / "lock", lock.fcntl.flock, []

    def remove_first(handle, operation):
        if not removed:
            removed.append(path.unlink())
        flock(handle, operation)

    monkeypatch.setattr(lock.fcntl, "flock", remove_first)
    with lock.hold(path, "it"):
        assert path.read_text() == f"{os.getpid()}\n"


def test_only_one_that_is_held_counts_as_held(tmp_path, other):
    with pytest.raises(lock.HeldError), lock.hold(tmp_path / "lock", "it"):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(MinivitError, match="cannot write .*: Is a directory") as error:
        lock.hold(tmp_path / "folder", "it").__enter__()
    assert not isinstance(error.value, lock.HeldError)


def test_a_full_disk_leaves_no_open_file(tmp_path, monkeypatch):
    def fail(handle, content):
        handles.append(handle)
        raise OSError(errno.ENOSPC, "No space left on device")

    handles = []
    monkeypatch.setattr(lock.os, "write", fail)
    with pytest.raises(MinivitError, match="cannot write .*: No space left"), lock.hold(tmp_path / "lock", "it"):
        pass
    monkeypatch.undo()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handles[0])
    with lock.hold(tmp_path / "lock", "it"):  # nobody holds it
        pass


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(MinivitError, match="cannot write .*No such file"), lock.hold(tmp_path / "no" / "lock", "it"):
        pass
