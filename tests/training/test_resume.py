"""Runs that are left and taken up again: a resumed run ends with the same bits."""

import json
import os

import numpy as np
import pytest
from blobs import STEPS, make_blobs

import minivit
from minivit.errors import MinivitError, UsageError
from minivit.training import checkpoint, loop, trainer
from minivit.training.evaluation import evaluate
from minivit.training.run_folder import RunFolder
from minivit.training.signals import StopRequest


class StopAfter(StopRequest):
    """Pretends that Ctrl-C came when the loop asked for the nth time."""

    times = 0

    @property
    def requested(self):
        StopAfter.times -= 1
        return StopAfter.times == 0

    @requested.setter
    def requested(self, value):
        pass


def deterministic(state):
    """The state of a run without the times that it took."""
    state = {k: v for k, v in state.items() if not k.endswith("seconds")}
    state["rows"] = [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in state["rows"]
    ]
    return state


def assert_same_end(a, b):
    """Two checkpoints hold the same bits: weights, optimiser, generator, log."""
    for mine, other in ((a.weights, b.weights), (a.optimizer, b.optimizer)):
        assert mine.keys() == other.keys()
        for name in mine:
            np.testing.assert_array_equal(mine[name], other[name], err_msg=name, strict=True)
    assert a.training["generator"] == b.training["generator"]
    assert deterministic(a.training["state"]) == deterministic(b.training["state"])


def test_sgd_trains_and_resumes_exactly(start):
    """One momentum buffer for each parameter, and the same end after a stop."""
    settings = {"optimizer": "sgd", "lr": 0.05, "epochs": 2}
    folder, result = start("sgd", **settings)
    end = checkpoint.read(folder.last)
    assert {name.split(".")[0] for name in end.optimizer} == {"steps", "momentum_buffer"}
    part, stopped = start("part", time_budget=1e-9, **settings)
    assert stopped.stopped_by == "time budget"
    loop.resume(part)
    assert_same_end(checkpoint.read(part.last), end)


def test_two_runs_are_alike_and_another_seed_is_not(start, whole):
    again, _ = start("again")
    other, _ = start("other", seed=1)
    assert_same_end(checkpoint.read(again.last), whole)
    assert not np.array_equal(checkpoint.read(other.last).weights["head.weight"], whole.weights["head.weight"])


# With three steps and one evaluation of one batch in an epoch, the loop asks four times in each.
@pytest.mark.parametrize("asked", [1, 2, 3, 4, 6, 8, 11, 12])
def test_an_interrupted_run_resumes_exactly(start, whole, monkeypatch, asked):
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "StopRequest", StopAfter)
        StopAfter.times = asked
        folder, result = start()
    assert result.stopped_by == "interrupt"
    assert len(RunFolder.existing(folder.path).log.read_text().splitlines() if folder.log.exists() else []) == (
        (asked - 1) // 4
    )
    result = loop.resume(folder)
    assert result.stopped_by is None
    assert_same_end(checkpoint.read(folder.last), whole)
    rows = [json.loads(line) for line in folder.log.read_text().splitlines()]
    assert rows == checkpoint.read(folder.last).training["state"]["rows"]


@pytest.mark.parametrize("steps", [1, 4, 6, 8])
def test_a_killed_run_resumes_from_its_last_save(start, tmp_path, whole, monkeypatch, steps):
    """Killed between saves: what came after the last one is done again, and the log forgets it."""

    class Killed(BaseException):
        pass

    taken = []

    def step_or_die(self, images, labels, take_step=trainer.Trainer._take_step):
        if len(taken) == steps:
            raise Killed
        taken.append(1)
        return take_step(self, images, labels)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_take_step", step_or_die)
        with pytest.raises(Killed):
            start()
    folder = RunFolder.existing(tmp_path / "run")
    with open(folder.log, "a") as log:
        log.write('{"epoch": 99}\n{"half a li')
    (folder.path / ".best.npz.minivit-0123abcd.tmp").write_bytes(b"half a file")
    loop.resume(RunFolder.existing(folder.path))
    assert_same_end(checkpoint.read(folder.last), whole)
    assert len(folder.log.read_text().splitlines()) == 3
    assert not list(folder.path.glob("*.tmp"))


def test_long_epochs_are_saved_inside(start, tmp_path, whole, monkeypatch):
    saved = []
    save_last = trainer.Trainer.save_last

    def remember(self):
        saved.append(self.step)
        save_last(self)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "SAVE_EVERY", 0.0)
        patch.setattr(trainer.Trainer, "save_last", remember)
        folder, _ = start()
    assert saved == [0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9]
    assert_same_end(checkpoint.read(folder.last), whole)


def test_time_budget_stops_tests_and_saves(start, whole):
    folder, result = start(time_budget=1e-9)
    state = checkpoint.read(folder.last).training["state"]
    assert (result.stopped_by, state["epoch"], state["batch"]) == ("time budget", 0, 1)
    assert 0 <= result.test_top1 <= 100 and folder.best.exists()
    for _ in range(3 * STEPS):
        result = loop.resume(folder, time_budget=1e-9)
    assert result.stopped_by is None
    ended = checkpoint.read(folder.last)
    ended.training["state"]["best"] = whole.training["state"]["best"]  # it was tested more often
    assert_same_end(ended, whole)


def test_resuming_a_finished_run_reports_it(start, monkeypatch):
    folder, result = start()
    before = folder.last.read_bytes()
    monkeypatch.setattr(loop, "load_dataset", None)  # not needed any more
    again = loop.resume(folder)
    assert again == result
    assert folder.last.read_bytes() == before


def test_a_run_that_was_killed_after_its_last_save(start, tmp_path, monkeypatch):
    """All steps are done and saved: the log and the picture are not."""

    class Killed(BaseException):
        pass

    def die(self, row, append_log=RunFolder.append_log):
        if row["epoch"] == 3:
            raise Killed
        append_log(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append_log", die)
        with pytest.raises(Killed):
            start()
    folder, drawn = RunFolder.existing(tmp_path / "run"), []
    assert len(folder.log.read_text().splitlines()) == 2
    monkeypatch.setattr(trainer, "save_curves", lambda path, rows, title: drawn.append((path, rows)))
    result = loop.resume(folder)
    rows = checkpoint.read(folder.last).training["state"]["rows"]
    assert [json.loads(line) for line in folder.log.read_text().splitlines()] == rows and len(rows) == 3
    assert drawn == [(folder.curves, rows)]
    assert (result.epochs, result.stopped_by) == (3, None)
    folder.best.unlink()
    with pytest.raises(MinivitError, match=r"is finished, but its best\.npz is gone"):
        loop.resume(folder)


def test_best_that_is_gone_is_written_anew(start, capsys):
    folder, _ = start(time_budget=1e-9)
    folder.best.unlink()
    result = loop.resume(folder)
    assert "best.npz is gone" in capsys.readouterr().err
    best = checkpoint.read(folder.best)
    measured = evaluate(best.build(), make_blobs().test, best.mean, best.std)
    assert measured.top1 == pytest.approx(result.test_top1)


def test_settings_may_be_repeated_but_not_changed(start):
    folder, _ = start()
    loop.resume(folder, {"epochs": 3, "model": "sl_vit"})
    with pytest.raises(UsageError, match=r"keeps its settings, but --epochs 9 \(the run has 3\), --model vit"):
        loop.resume(folder, {"epochs": 9, "model": "vit"})
    loop.resume(folder, {"teacher": None, "init_from": None, "auto_augment": "none"})


@pytest.mark.parametrize("name", ["teacher", "init_from"])
def test_a_file_is_kept_too(start, whole, tmp_path, name):
    folder, _ = start(**{name: str(tmp_path / "whole" / "best.npz")}, time_budget=1e-9)
    with pytest.raises(UsageError, match=f"drop --{name.replace('_', '-')}"):
        loop.resume(folder, {name: None})


class TestForeignCheckpoints:
    @pytest.fixture
    def folder(self, start):
        folder, _ = start(time_budget=1e-9)
        return folder

    def test_plain_weights_cannot_be_resumed(self, folder):
        os.replace(folder.best, folder.last)
        with pytest.raises(MinivitError, match="holds weights only"):
            loop.resume(folder)

    def test_a_run_of_an_earlier_version_goes_on(self, folder, whole):
        """Its file does not name the keywords that have come since."""
        saved = checkpoint.read(folder.last)
        model = saved.build()
        newer = ("init_values", "distilled", "eval_heads", "small_data")
        model.arguments = {key: value for key, value in saved.arguments.items() if key not in newer}
        assert len(model.arguments) == len(saved.arguments) - 4
        about = {"data": saved.data, "class_names": saved.class_names, "mean": saved.mean, "std": saved.std}
        checkpoint.save(folder.last, model, training=saved.training, optimizer=saved.optimizer, **about)
        loop.resume(folder)
        assert_same_end(whole, checkpoint.read(folder.last))

    def test_another_network(self, folder):
        saved = checkpoint.read(folder.last)
        other = minivit.create_model("vit", **saved.arguments | {"spt": False})
        checkpoint.save(folder.last, other, training=saved.training, optimizer=saved.optimizer)
        with pytest.raises(MinivitError, match="holds another network, vit"):
            loop.resume(folder)

    def test_a_changed_data_set(self, folder, monkeypatch):
        monkeypatch.setattr(loop, "load_dataset", lambda *args, **kwargs: make_blobs(34))
        with pytest.raises(MinivitError, match="the data set has changed: 34 training images.* 26"):
            loop.resume(folder)

    def test_another_environment_is_noted_each_time(self, folder, capsys, monkeypatch):
        first = checkpoint.read(folder.last).training["environment"]
        with monkeypatch.context() as patch:
            patch.setattr(trainer, "describe_environment", lambda: {"threads": 77})
            for _ in range(2):
                loop.resume(folder, time_budget=1e-9)
                assert f"the last bits may differ: threads {first['threads']} -> 77\n" in capsys.readouterr().err
        assert checkpoint.read(folder.last).training["environment"] == first
        loop.resume(folder)
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize(
        "change, words",
        [
            (lambda t: t["config"]["model_args"].update(depth=10**9), "depth is 2, not 1000000000"),
            (lambda t: t["config"].update(img_size=10**6), "img_size is 8, not 1000000"),
            (lambda t: t["generator"].update(bit_generator="MT19937"), "its state is damaged"),
            (lambda t: t.update(generator={}), "its state is damaged"),
            (lambda t: t["generator"]["state"].update(state="x"), "its state is damaged"),
            (lambda t: t["state"].update(batch=2), "1 steps were taken, but it stands after step 2"),
            (lambda t: t.clear(), "no JSON object for the settings"),
        ],
    )
    def test_a_damaged_state(self, folder, change, words):
        saved = checkpoint.read(folder.last)
        change(saved.training)
        checkpoint.save(folder.last, saved.build(), training=saved.training, optimizer=saved.optimizer)
        with pytest.raises(MinivitError, match=words) as error:
            loop.resume(folder)
        assert str(folder.last) in str(error.value) and "\n" not in str(error.value)

    @pytest.mark.parametrize("steps", [np.array([1]), np.array(7)])
    def test_a_damaged_optimiser(self, folder, steps):
        saved = checkpoint.read(folder.last)
        optimizer = saved.optimizer | {"steps": steps}
        checkpoint.save(folder.last, saved.build(), training=saved.training, optimizer=optimizer)
        with pytest.raises(MinivitError, match="its state is damaged"):
            loop.resume(folder)


EVERYTHING = {
    "recipe": "deit", "epochs": 3, "batch_size": 8, "lr": 0.01, "ema": 0.9, "ema_warmup": True, "mix_mode": "elem",
    "repeated_augmentation": 2, "auto_augment": "rand-m9-mstd0.5-inc1", "drop_rate": 0.2, "schedule": "deit",
}  # fmt: skip


@pytest.mark.parametrize("settings", [EVERYTHING, {"recipe": "small_data", "erase": 0.5, "mix_prob": 1.0}])
def test_a_run_with_all_methods_resumes_exactly(start, settings):
    whole, _ = start("whole", **settings)
    part, stopped = start("part", time_budget=1e-9, **settings)
    while stopped.stopped_by is not None:
        stopped = loop.resume(part, time_budget=1e-9)
    end, again = checkpoint.read(whole.last), checkpoint.read(part.last)
    for group in ("weights", "optimizer", "ema"):
        for name, array in getattr(end, group).items():
            np.testing.assert_array_equal(getattr(again, group)[name], array, err_msg=name, strict=True)
    assert bool(end.ema) == ("ema" in settings)
