"""The folder of a run, and the signals that stop one."""

import os
import signal

import pytest
from blobs import SETTINGS

from minivit.errors import MinivitError, UsageError
from minivit.training import loop
from minivit.training.config import resolve
from minivit.training.run_folder import RunFolder
from minivit.training.signals import HANG_UP, StopRequest


class TestSignals:
    def test_the_first_asks_and_the_second_kills(self, capfd):
        before = signal.getsignal(signal.SIGINT)
        with StopRequest() as stop:
            assert not stop.requested
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.requested
            assert signal.getsignal(signal.SIGINT) == signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is before
        assert "once more stops at once" in capfd.readouterr().err

    @pytest.mark.skipif(HANG_UP is None, reason="no SIGHUP here")
    def test_a_closed_terminal_asks_and_never_kills(self):
        before = signal.signal(HANG_UP, signal.SIG_DFL)
        try:
            with StopRequest() as stop:
                for _ in range(3):
                    os.kill(os.getpid(), HANG_UP)
                assert stop.requested
            assert signal.getsignal(HANG_UP) is signal.SIG_DFL
            signal.signal(HANG_UP, signal.SIG_IGN)  # as nohup does
            with StopRequest() as stop:
                os.kill(os.getpid(), HANG_UP)
                assert not stop.requested
        finally:
            signal.signal(HANG_UP, before)


class TestRunFolder:
    def test_default_folders_are_numbered(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        made = [str(RunFolder.create(None, "vit", "folder:/my pets").path) for _ in range(3)]
        assert made == ["runs/vit-folder-my-pets", "runs/vit-folder-my-pets-2", "runs/vit-folder-my-pets-3"]

    def test_a_folder_with_a_run_is_refused(self, start, tmp_path):
        start()
        with pytest.raises(UsageError, match="holds a run already: go on with it by --resume"):
            RunFolder.create(tmp_path / "run", "sl_vit", "blobs")

    def test_newest(self, start, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ("runs/a", "runs/b", "runs/c"):
            start(name, epochs=1, model={"runs/a": "vit"}.get(name, "sl_vit"))
        os.utime("runs/b/last.npz", (2e9, 2e9))
        assert str(RunFolder.newest().path) == str(RunFolder.newest("sl_vit", "blobs").path) == "runs/b"
        assert str(RunFolder.newest("vit").path) == "runs/a"
        with pytest.raises(MinivitError, match="no run of vit of shapes10 below runs/"):
            RunFolder.newest("vit", "shapes10")

    @pytest.mark.parametrize("damaged", [b"{", b"[]", b"{}", b"\xff", None])
    def test_newest_with_a_damaged_config(self, start, tmp_path, monkeypatch, capsys, damaged):
        monkeypatch.chdir(tmp_path)
        for name in ("runs/a", "runs/b"):
            start(name, epochs=1)
        os.utime("runs/b/last.npz", (2e9, 2e9))
        folder = RunFolder("runs/b")
        folder.config.write_bytes(damaged) if damaged else folder.config.unlink()
        capsys.readouterr()
        assert str(RunFolder.newest().path) == "runs/b"  # last.npz says all that is needed
        assert capsys.readouterr().err == ""
        assert str(RunFolder.newest("sl_vit").path) == "runs/a"
        assert "passing over runs/b, whose config.json is missing or damaged" in capsys.readouterr().err
        assert folder.threads() is None

    def test_the_user_s_own_files_stay(self, start, tmp_path):
        (tmp_path / "run").mkdir()
        mine = {tmp_path / "run" / name for name in ("notes.tmp", ".lock", "probe.tmp")}
        for file in mine:
            file.write_text("mine")
        folder, _ = start(time_budget=1e-9)
        loop.resume(folder)
        assert {file.read_text() for file in mine} == {"mine"}

    @pytest.mark.parametrize("model", ["sl_vit", "sl_vitt"])
    def test_a_folder_of_the_user_is_never_removed(self, start, tmp_path, model):
        (tmp_path / "own").mkdir()
        for name in ("own", "own/a/b"):
            with pytest.raises(UsageError):
                start(name, model=model, batch_size=1000)
        assert list(tmp_path.rglob("*")) == [tmp_path / "own"]

    def test_a_run_that_is_going(self, start, monkeypatch):
        folder, _ = start(time_budget=1e-9)
        before = folder.last.read_bytes()
        with folder.locked(), pytest.raises(MinivitError, match=r"this run is still going \(pid \d+\)"):
            loop.resume(RunFolder.existing(folder.path))
        assert folder.last.read_bytes() == before

    def test_a_run_that_another_process_began_meanwhile(self, start, tmp_path):
        config = resolve(SETTINGS)
        late = RunFolder.create(tmp_path / "run", config.model, config.data)
        folder, _ = start()
        before = folder.last.read_bytes()
        with pytest.raises(UsageError, match="holds a run already"):
            loop.train(config, late)
        assert folder.last.read_bytes() == before

    def test_long_names(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        made = [RunFolder.create(None, "vit", "folder:" + "\u732b" * 300).path for _ in range(2)]
        assert [path.is_dir() for path in made] == [True, True]
        for name in ("x" * 300, "a/b/" + "x" * 300):
            with pytest.raises(MinivitError, match="cannot write to the folder .*File name too long"):
                RunFolder.create(name, "vit", "blobs")
        with pytest.raises(MinivitError, match="cannot read .*File name too long"):
            RunFolder.existing("x" * 300)
        assert not (tmp_path / "a").exists()

    def test_nothing_to_resume(self, tmp_path):
        with pytest.raises(MinivitError, match="nothing to resume: there is no"):
            RunFolder.existing(tmp_path)

    def test_folders_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(MinivitError, match="cannot write to the folder"):
            RunFolder.create(tmp_path / "file" / "run", "vit", "blobs")
        with pytest.raises(MinivitError, match="cannot write to the folder"):
            RunFolder.create(tmp_path / "file", "vit", "blobs")


def test_a_parent_that_leads_nowhere_is_an_error(tmp_path, monkeypatch):
    """As when the disk that ``runs`` points to is not mounted."""
    monkeypatch.chdir(tmp_path)
    os.symlink(tmp_path / "gone" / "deep", tmp_path / "runs")
    with pytest.raises(MinivitError, match="cannot write to the folder runs"):
        RunFolder.create(None, "sl_vit", "shapes10")
