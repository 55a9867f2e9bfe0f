"""Sweeps of processes that only pretend to train: order, failures, going on, locks and signals."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sweep_parts

from minivit import create_model
from minivit.errors import MinivitError, UsageError
from minivit.training import checkpoint, lock
from minivit.training.config import resolve
from minivit.training.results import read_results
from minivit.training.run_folder import RunFolder
from minivit.training.sweep import Sweep
from minivit.training.sweep_file import plan

SETTINGS = {"model": "vit", "data": "shapes10", "recipe": "quick", "epochs": 2}


class Stand:
    """A sweep folder, and what its processes are told to do."""

    def __init__(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PYTHONPATH", str(sweep_parts.ROOT))
        monkeypatch.setattr("minivit.training.sweep.POLL", 0.01)
        self.out = tmp_path / "study"
        self.modes, self.started = {}, []

    def command(self, settings, folder, resume):
        name = Path(folder).name
        self.started.append((name, resume))
        arguments = [resolve(settings).as_dict(), str(folder), resume, self.modes.get(name, {})]
        return [sys.executable, "-W", "error", sweep_parts.__file__, json.dumps(arguments)]

    def sweep(self, content):
        """A checked sweep over the content of a sweep file."""
        content = content | {"settings": SETTINGS | content.get("settings", {})}
        sweep = Sweep(plan(content), self.out, self.command)
        self.started.clear()
        sweep.check()
        return sweep

    def results(self):
        return {outcome.name: outcome for outcome in read_results(self.out / "results.jsonl")}

    def statuses(self):
        return {name: outcome.status for name, outcome in self.results().items()}


@pytest.fixture
def stand(tmp_path, monkeypatch):
    return Stand(tmp_path, monkeypatch)


SEEDS = {"grid": {"seed": [0, 1]}}
ONE = {"grid": {"seed": [0]}}
STUDY = {
    "runs": [
        {"name": "student", "teacher": "@teacher", "distill": "soft"},
        {"name": "alone"},
        {"name": "teacher", "seed": 3},
    ]
}


def test_a_sweep_leaves_results_and_output(stand, capsys):
    assert stand.sweep(SEEDS).run() is True
    results = stand.results()
    assert stand.statuses() == {"seed=0": "finished", "seed=1": "finished"}
    assert results["seed=1"].rows == [sweep_parts.row(1, 1), sweep_parts.row(2, 1)]
    assert results["seed=1"].config == resolve(SETTINGS | {"seed": 1}).as_dict()
    assert (stand.out / "seed=0" / "output.txt").read_text().splitlines()[-1] == "done"
    assert capsys.readouterr().err.splitlines() == [
        "[1/2] seed=0: begun",
        "[1/2] seed=0: finished: 20.00 % after 2 epochs",
        "[2/2] seed=1: begun",
        "[2/2] seed=1: finished: 21.00 % after 2 epochs",
    ]
    assert sorted(path.name for path in stand.out.iterdir()) == ["results.jsonl", "seed=0", "seed=1"]


def test_a_teacher_is_trained_first(stand):
    assert stand.sweep(STUDY).run()
    assert stand.started == [("alone", False), ("teacher", False), ("student", False)]
    config = stand.results()["student"].config
    assert config["teacher"] == str(stand.out / "teacher" / "best.npz") and len(config["teacher_sha256"]) == 64
    assert list(stand.results()) == ["student", "alone", "teacher"]  # the order of the file


def test_a_failure_is_recorded_and_the_others_go_on(stand, capsys):
    stand.modes["teacher"] = {"error": "the loss became nan"}
    assert stand.sweep(STUDY).run()
    assert stand.statuses() == {"student": "failed", "alone": "finished", "teacher": "failed"}
    assert stand.results()["teacher"].error == "the loss became nan"
    assert stand.results()["student"].error == "it needs teacher, which failed"
    assert "[3/3] teacher: failed: the loss became nan\n" in capsys.readouterr().err
    stand.modes.clear()  # what was wrong has been put right
    assert stand.sweep(STUDY).run()
    assert stand.started == [("teacher", True), ("student", False)]
    assert set(stand.statuses().values()) == {"finished"}
    assert stand.results()["student"].error is None


def test_a_process_that_is_killed(stand):
    stand.modes["seed=0"] = {"seconds": 30}
    sweep = stand.sweep(SEEDS)
    threading.Thread(target=kill_when_going, args=[sweep, "seed=0"]).start()
    assert sweep.run()
    assert stand.statuses() == {"seed=0": "failed", "seed=1": "finished"}
    assert stand.results()["seed=0"].error == "ended by signal 9 (Killed)"


def kill_when_going(sweep, name):
    while name not in sweep.going or not sweep.can_resume(name):
        time.sleep(0.01)
    sweep.going[name].process.kill()


def test_runs_at_once(stand):
    stand.modes |= {f"seed={seed}": {"seconds": 0.2} for seed in range(3)}
    sweep = stand.sweep({"grid": {"seed": [0, 1, 2]}})
    seen = []
    begin = sweep._begin
    sweep._begin = lambda jobs: (begin(jobs), seen.append(len(sweep.going)))[0]
    assert sweep.run(jobs=2)
    assert max(seen) == 2
    assert set(stand.statuses().values()) == {"finished"}


def test_finished_runs_are_kept_and_begun_ones_resumed(stand):
    assert stand.sweep(SEEDS).run()
    kept = (stand.out / "seed=0" / "last.npz").stat().st_mtime_ns
    (stand.out / "seed=1" / "last.npz").write_text("1")  # as if it had been killed in its second epoch
    (stand.out / "seed=1" / "best.npz").unlink()
    assert stand.sweep({"grid": {"seed": [0, 1, 2]}}).run()
    assert stand.started == [("seed=1", True), ("seed=2", False)]
    assert (stand.out / "seed=0" / "last.npz").stat().st_mtime_ns == kept
    assert set(stand.statuses().values()) == {"finished"}


@pytest.mark.parametrize("damage", ["no results", "cut log", "no log"])
def test_what_was_lost_is_made_again_from_the_runs(stand, damage):
    assert stand.sweep(ONE).run()
    before = stand.results()
    if damage == "no results":
        (stand.out / "results.jsonl").unlink()
    elif damage == "cut log":
        log = stand.out / "seed=0" / "log.jsonl"
        log.write_bytes(log.read_bytes()[:-20])
    else:
        (stand.out / "seed=0" / "log.jsonl").unlink()
    assert stand.sweep(ONE).run()
    assert stand.results() == before
    assert stand.started == [("seed=0", True)]


def test_damaged_results_are_one_error(stand):
    assert stand.sweep(ONE).run()
    (stand.out / "results.jsonl").write_text("{")
    with pytest.raises(MinivitError, match=r"results\.jsonl, line 1 is damaged"):
        stand.sweep(ONE)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"lr": 0.5}, ["lr 0.002 (now 0.5)"]),
        ({"epochs": 3, "warmup_epochs": 1}, ["epochs 2 (now 3)"]),
        ({"model_args": {"depth": 2}}, ["'depth': 6", "'depth': 2"]),
    ],
)
def test_changed_settings_are_refused(stand, settings, words):
    assert stand.sweep(ONE).run()
    with pytest.raises(UsageError) as error:
        stand.sweep(ONE | {"settings": settings})
    assert f"{stand.out}/seed=0 holds a run with other settings: " in str(error.value)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


def test_a_setting_that_was_taken_out_is_a_change_too(stand):
    assert stand.sweep(ONE | {"settings": {"lr": 0.5}}).run()
    with pytest.raises(UsageError, match=r"lr 0.5 \(now 0.002\)"):
        stand.sweep(ONE)


def test_another_teacher_is_a_change(stand, tmp_path):
    teacher = tmp_path / "teacher.npz"
    teacher.write_bytes(b"one")
    content = {"settings": {"teacher": str(teacher)}} | ONE
    assert stand.sweep(content).run()
    moved = teacher.rename(tmp_path / "moved.npz")
    stand.sweep(content | {"settings": {"teacher": str(moved)}})  # the same file elsewhere
    moved.write_bytes(b"two")
    with pytest.raises(UsageError, match="teacher_sha256"):
        stand.sweep(content | {"settings": {"teacher": str(moved)}})


def test_a_teacher_that_was_trained_anew_with_other_settings_fails_its_student(stand):
    assert stand.sweep(STUDY).run()
    changed = json.loads(json.dumps(STUDY))
    changed["runs"][2]["lr"] = 0.5
    for file in (stand.out / "teacher").iterdir():
        file.unlink()
    (stand.out / "student" / "best.npz").unlink()
    assert stand.sweep(changed).run()
    assert stand.statuses() == {"student": "failed", "alone": "finished", "teacher": "finished"}
    assert "other settings: teacher_sha256" in stand.results()["student"].error


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"model": "vitt"}, ["run seed=0: unknown model 'vitt'"]),
        ({"data": "shapes1"}, ["run seed=0: no data set 'shapes1'; did you mean 'shapes10'"]),
        ({"recipe": "quik"}, ["run seed=0: unknown recipe 'quik'"]),
        ({"model_args": {"dpth": 4}}, ["run seed=0: ", "dpth", "depth"]),
        ({"distill": "soft"}, ["run seed=0: distillation needs a teacher"]),
        ({"epochs": "2"}, ["run seed=0: ", "epochs: not of the right kind"]),
        ({"repeats": 0}, ["run seed=0: ", "repeats: 0 is less than 1"]),
        ({"clip": -1}, ["run seed=0: ", "clip: not of the right kind"]),
        ({"teacher": "absent.npz"}, ["run seed=0: cannot read the teacher absent.npz"]),
    ],
)
def test_nonsense_is_found_before_anything_begins(stand, settings, words):
    with pytest.raises(UsageError) as error:
        stand.sweep(ONE | {"settings": settings})
    assert all(word in str(error.value) for word in words), error.value
    assert not stand.out.exists()


def test_settings_of_a_student_are_checked_before_its_teacher_is_there(stand):
    content = {"runs": [STUDY["runs"][0] | {"distill": "sotf"}, *STUDY["runs"][1:]]}
    with pytest.raises(UsageError, match="run student: unknown way of distillation 'sotf'"):
        stand.sweep(content)


def test_a_teacher_that_is_not_there_yet_has_a_path_and_no_checksum(stand):
    stand.modes["teacher"] = {"error": "the loss became nan"}
    sweep = stand.sweep(STUDY)
    expected = (str(stand.out / "teacher" / "best.npz"), None)
    assert (sweep.outcomes["student"].config["teacher"], sweep.outcomes["student"].config["teacher_sha256"]) == expected
    assert sweep.run()
    config = stand.results()["student"].config
    assert (config["teacher"], config["teacher_sha256"]) == expected


def test_the_checksum_of_a_teacher_is_known_to_all_its_students_at_once(stand):
    sweep = stand.sweep({"runs": [STUDY["runs"][0] | {"grid": {"seed": [0, 1]}}, STUDY["runs"][2]]})
    command, known = sweep.command, []

    def look(*run):
        known.append(sweep.outcomes["student-seed=1"].config["teacher_sha256"])
        return command(*run)

    sweep.command = look
    assert sweep.run()
    before, after, _ = known
    assert before is None and after == stand.results()["student-seed=0"].config["teacher_sha256"]


def test_a_network_that_comes_from_another_run_waits_for_it(stand, tmp_path):
    (tmp_path / "pretrained").mkdir()
    checkpoint.save(tmp_path / "pretrained" / "a.npz", create_model("vit", depth=1, embed_dim=16, num_heads=2))
    fine = {"name": "fine", "init_from": "@first"}
    sweep = stand.sweep({"runs": [fine, {"name": "first"}]})
    assert sweep.outcomes["fine"].config == {}
    stand.modes["first"] = {"checkpoint": str(tmp_path / "pretrained" / "a.npz")}
    assert sweep.run()
    config = stand.results()["fine"].config
    assert config["init_from"] == str(stand.out / "first" / "best.npz") and config["model_args"]["depth"] == 1
    assert stand.sweep({"runs": [fine, {"name": "first"}]}).run() and stand.started == []


def test_no_augmentation_is_written_as_on_the_command_line(stand):
    assert stand.sweep(ONE | {"settings": {"auto_augment": "none"}}).outcomes["seed=0"].config["auto_augment"] == ""


def test_another_sweep_into_the_same_folder_loses_nothing(stand, capsys):
    assert stand.sweep(SEEDS).run()
    before = stand.results()
    capsys.readouterr()
    assert stand.sweep({"grid": {"seed": [1, 2]}}).run()
    assert stand.started == [("seed=2", False)]
    note = f"note: {stand.out}/results.jsonl keeps the runs of an earlier sweep: 1\n"
    assert capsys.readouterr().err.startswith(note)
    assert list(stand.results()) == ["seed=1", "seed=2", "seed=0"]
    assert all(stand.results()[name] == outcome for name, outcome in before.items())


def test_a_lock_that_cannot_be_opened_fails_its_run_only(stand):
    (stand.out / "seed=0" / ".minivit.lock").mkdir(parents=True)
    assert stand.sweep(SEEDS).run()
    assert stand.statuses() == {"seed=0": "failed", "seed=1": "finished"}
    assert stand.results()["seed=0"].error.endswith(".minivit.lock: Is a directory")


def test_a_run_that_cannot_be_started_does_not_stop_the_others(stand):
    (stand.out / "seed=0" / "output.txt").mkdir(parents=True)
    assert stand.sweep(SEEDS).run()
    assert stand.statuses() == {"seed=0": "failed", "seed=1": "finished"}
    assert "cannot start: " in stand.results()["seed=0"].error


def test_the_folder_of_a_run_is_refused(stand):
    assert stand.sweep(ONE).run()
    stand.out /= "seed=0"
    with pytest.raises(UsageError, match="is the folder of a run, not of a sweep"):
        stand.sweep(ONE)


def test_a_folder_that_cannot_be_made(stand, tmp_path):
    (tmp_path / "file").touch()
    stand.out = tmp_path / "file" / "study"
    with pytest.raises(MinivitError, match="cannot write to the folder"):
        stand.sweep(SEEDS).run()


def test_two_sweeps_do_not_share_a_folder(stand):
    stand.out.mkdir()
    sweep = stand.sweep(SEEDS)
    with (
        lock.hold(stand.out / ".minivit.lock", "it"),
        pytest.raises(MinivitError, match=f"study: this sweep is still going .pid {os.getpid()}"),
    ):
        sweep.run()
    assert stand.started == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_runs_which_save(stand, number, capsys):
    before = signal.getsignal(number)
    stand.modes["seed=0"] = {"seconds": 30}
    sweep = stand.sweep(SEEDS)
    thread = threading.Thread(target=signal_when_going, args=[sweep, "seed=0", number])
    thread.start()
    assert sweep.run() is False
    thread.join()
    assert stand.statuses() == {"seed=0": "unfinished", "seed=1": "waiting"}
    assert signal.getsignal(number) == before
    with RunFolder(stand.out / "seed=0").locked():  # its process has ended
        pass
    stand.modes.clear()
    assert stand.sweep(SEEDS).run()
    assert stand.started == [("seed=0", True), ("seed=1", False)]
    assert set(stand.statuses().values()) == {"finished"}


def test_a_run_that_is_killed_after_its_last_epoch_is_not_finished(stand):
    stand.modes["seed=0"] = {"at the end": 30}
    sweep = stand.sweep(ONE)

    def kill_twice():
        while not sweep.folders["seed=0"].best.exists():
            time.sleep(0.01)
        process = sweep.going["seed=0"].process
        os.kill(os.getpid(), signal.SIGTERM)
        while process.returncode is None:
            process.terminate()  # the second signal ends it at once
            time.sleep(0.01)

    thread = threading.Thread(target=kill_twice)
    thread.start()
    assert sweep.run() is False
    thread.join()
    assert stand.statuses() == {"seed=0": "unfinished"}
    stand.modes.clear()
    assert stand.sweep(ONE).run() and stand.started == [("seed=0", True)]


def signal_when_going(sweep, name, number):
    while name not in sweep.going or not sweep.can_resume(name):
        time.sleep(0.01)
    os.kill(os.getpid(), number)


def test_an_error_of_the_sweep_leaves_no_process(stand, monkeypatch):
    stand.modes["seed=0"] = {"seconds": 30}
    sweep = stand.sweep(SEEDS)
    processes = []

    def fail():
        processes.append(sweep.going["seed=0"].process)
        monkeypatch.setattr(sweep, "_end", lambda: None)
        raise MinivitError("the disk is full")

    monkeypatch.setattr(sweep, "_end", fail)
    with pytest.raises(MinivitError, match="the disk is full"):
        sweep.run()
    assert processes[0].returncode is not None


def test_a_run_that_a_killed_sweep_left_behind_is_waited_for(stand, capsys):
    stand.modes["seed=0"] = {"seconds": 0.4}
    words = stand.command(SETTINGS, stand.out / "seed=0", False)
    sweep = stand.sweep(SEEDS)
    with subprocess.Popen(words, stdout=subprocess.PIPE) as left:
        while not (stand.out / "seed=0" / "last.npz").exists():
            time.sleep(0.01)
        assert sweep.run()
        assert left.wait() == 0
    assert stand.started == [("seed=0", True), ("seed=1", False)]
    assert set(stand.statuses().values()) == {"finished"}
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [
        "[1/2] seed=0: still going, since a sweep that was killed: waiting for it", "[1/2] seed=0: resumed"
    ]  # fmt: skip


def test_a_run_that_a_killed_sweep_had_just_started_may_be_quicker(stand):
    """It is not there when the sweep looks, and its folder holds a run when the new process begins."""
    sweep = stand.sweep(SEEDS)
    command = sweep.command

    def late(settings, folder, resume):
        if not stand.started:
            subprocess.run(stand.command(settings, folder, False), check=True, stdout=subprocess.DEVNULL)
        return command(settings, folder, resume)

    sweep.command = late
    assert sweep.run()
    assert stand.started == [("seed=0", False), ("seed=0", False), ("seed=0", True), ("seed=1", False)]
    assert set(stand.statuses().values()) == {"finished"}
