"""The loop: what a run does in its steps, what it writes, and when it gives up."""

import json
import math
import sys

import numpy as np
import pytest
from blobs import SETTINGS, STEPS, make_blobs

import minivit
from minivit.data import DataLoader
from minivit.data.augmentation import Augmentation
from minivit.errors import MinivitError, UsageError
from minivit.training import build, checkpoint, trainer
from minivit.training.config import resolve
from minivit.training.ema import ModelEma
from minivit.training.evaluation import Evaluation, evaluate
from minivit.training.optimizers import AdamW, clip_grad_norm, decay_all, decay_weights


def test_a_run_learns_and_leaves_its_files(start, pictures, capsys):
    folder, result = start(epochs=8, drop_path=0.0)
    out = capsys.readouterr().out.splitlines()
    rows = [json.loads(line) for line in folder.log.read_text().splitlines()]
    assert {file.name for file in folder.path.iterdir()} == {
        "config.json", "log.jsonl", "last.npz", "best.npz", "curves.png",
    }  # fmt: skip
    assert [row["epoch"] for row in rows] == list(range(1, 9))
    assert rows[-1]["train_loss"] < 0.8 * rows[0]["train_loss"]
    assert result.test_top1 == max(row["test_top1"] for row in rows) == 100
    assert result.test_top5 == 100  # of three classes
    assert (result.epochs, result.stopped_by, result.checkpoint) == (8, None, str(folder.best))
    assert rows[0]["lr"] == pytest.approx(1e-6 + (2e-3 - 1e-6) * 2 / 3)  # the last step of the warm-up
    assert len(out) == 2 + 1 + 8 and "train loss" in out[2]
    settings = json.loads(folder.config.read_text())
    assert settings["config"] == resolve(SETTINGS | {"epochs": 8, "drop_path": 0.0}).as_dict()
    assert settings["environment"]["threads"] >= 1


def test_best_holds_the_weights_of_the_best_epoch(start):
    folder, result = start(epochs=6, lr=0.02)
    best = checkpoint.read(folder.best)
    assert best.class_names == ("red", "green", "blue") and best.data == "blobs"
    assert best.training is None and best.optimizer == {}
    measured = evaluate(best.build(), make_blobs().test, best.mean, best.std)
    assert measured.top1 == pytest.approx(result.test_top1)


def test_sgd_learns_by_its_own_defaults(start):
    folder, result = start(optimizer="sgd", epochs=8, drop_path=0.0)
    rows = [json.loads(line) for line in folder.log.read_text().splitlines()]
    assert rows[-1]["train_loss"] < 0.8 * rows[0]["train_loss"]
    assert result.test_top1 >= 80  # chance is 33


@pytest.mark.parametrize("recipe", ["quick", "small_data"])
def test_a_run_does_what_its_settings_say(start, recipe):
    """The same few steps, written out."""
    settings = {"recipe": recipe, "crop_padding": 1, "flip": True, "repeats": 2, "label_smoothing": 0.2}
    settings |= {"weight_decay": 0.3, "clip": 0.1, "lr": 0.01, "min_lr": 0.002, "warmup_lr": 0.001, "seed": 4}
    settings |= {"auto_augment": "", "erase": 0.0, "mixup": 0.0, "cutmix": 0.0}
    folder, _ = start(epochs=2, **settings)
    config, data = resolve(SETTINGS | settings | {"epochs": 2}), make_blobs()
    assert config.decay_all == (recipe == "small_data")

    keywords = {"num_classes": 3, "img_size": 8, "drop_path_rate": 0.3, **config.model_args}
    model = minivit.create_model("sl_vit", seed=4, **keywords)
    decays = decay_all if recipe == "small_data" else decay_weights
    optimizer = AdamW(model.named_parameters(), weight_decay=0.3, decays=decays)
    loader = DataLoader(
        data.train, 8, mean=data.mean, std=data.std, seed=4, shuffle=True,
        augmentation=Augmentation(crop_padding=1, flip=True), drop_last=True, repeats=2, prefetch=0,
    )  # fmt: skip
    assert len(loader) == 6  # 2 x 26 images
    for step in range(12):
        images, labels = next(iter(loader.epoch(step // 6, start_batch=step % 6)))
        loss = minivit.cross_entropy(model(minivit.Tensor(images)), labels, label_smoothing=0.2)
        loss.backward()
        assert clip_grad_norm(model.parameters(), 0.1) > 0.1
        optimizer.lr = 0.001 + 0.009 * step / 6 if step < 6 else (  # one epoch of warm-up
            0.002 + 0.008 * (1 + math.cos(math.pi * (step - 6) / 6)) / 2
        )  # fmt: skip
        optimizer.step()
        optimizer.zero_grad()
    saved = checkpoint.read(folder.last)
    for name, array in model.state_dict().items():
        np.testing.assert_allclose(saved.weights[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


def test_best_is_the_first_of_equals(start, monkeypatch):
    tops = iter([20.0, 50.0, 50.0, 40.0])
    monkeypatch.setattr(trainer, "evaluate", lambda *a, **k: Evaluation(1.0, next(tops), 90.0, 10, 0.1))
    written = []
    save = checkpoint.save

    def spy(path, *args, **options):
        written.append(path.name)
        save(path, *args, **options)

    monkeypatch.setattr(checkpoint, "save", spy)
    _, result = start(epochs=4)
    assert written == ["last.npz", "best.npz", "last.npz", "best.npz", "last.npz", "last.npz", "last.npz"]
    assert (result.test_top1, result.test_top5) == (50, 90)


class TestDivergence:
    def test_an_infinite_loss_stops_the_run(self, start, tmp_path):
        with pytest.raises(MinivitError) as error:
            start(lr=1e30, clip=0.0, warmup_epochs=0)
        message = str(error.value)
        last = tmp_path / "run" / "last.npz"
        assert "the loss became nan at step 2 (epoch 1, learning rate" in message
        assert "parameter " in message or "gradient of " in message
        assert str(last) in message and "lower --lr" in message and "\n" not in message
        saved = checkpoint.read(last)
        assert saved.training["state"]["batch"] == 0
        assert all(np.isfinite(array).all() for array in saved.weights.values())

    @pytest.mark.parametrize("save_every", [0.0, 300.0])
    def test_weights_that_are_not_finite_are_never_saved(self, start, tmp_path, monkeypatch, save_every):
        def poison(self):
            self.parameters["norm.bias"].data[3] = np.nan

        monkeypatch.setattr(AdamW, "step", poison)
        monkeypatch.setattr(trainer, "SAVE_EVERY", save_every)
        what = "averages are no longer finite" if save_every == 0 else "the test loss became nan"
        with pytest.raises(MinivitError, match=rf"{what} at step 1 \(epoch 1,.*parameter norm.bias"):
            start(batch_size=26)  # one step in an epoch
        assert not (tmp_path / "run" / "best.npz").exists()
        assert np.isfinite(checkpoint.read(tmp_path / "run" / "last.npz").weights["norm.bias"]).all()

    @pytest.mark.parametrize("clip", [0.0, 1.0])
    def test_a_gradient_that_is_not_finite_is_never_applied(self, start, tmp_path, monkeypatch, clip):
        seen = []

        def spoil(parameters, max_norm):
            parameters = list(parameters)
            seen.append(parameters)
            if len(seen) == STEPS + 1:  # the first step of the second epoch
                parameters[-1].grad[0] = np.inf
            return clip_grad_norm(parameters, max_norm)

        monkeypatch.setattr(trainer, "clip_grad_norm", spoil)
        with pytest.raises(
            MinivitError, match=r"gradient became inf at step 4 \(epoch 2,.*finite: gradient of head\.bias\. "
        ):
            start(clip=clip)
        assert all(np.isfinite(p.data).all() for p in seen[-1])
        assert checkpoint.read(tmp_path / "run" / "last.npz").training["state"]["epoch"] == 1

    def test_averages_that_are_not_finite_are_never_saved(self, start, tmp_path, monkeypatch):
        step = AdamW.step

        def poison(self):
            step(self)
            if self.steps == STEPS:
                self.state["exp_avg_sq"]["head.bias"][0] = np.inf

        monkeypatch.setattr(AdamW, "step", poison)
        with pytest.raises(MinivitError, match=r"at step 3 \(epoch 1,.*finite: exp_avg_sq of head\.bias\. "):
            start()
        assert checkpoint.read(tmp_path / "run" / "last.npz").training["state"]["epoch"] == 0

    def test_a_test_loss_that_is_not_finite_stops_the_run(self, start, monkeypatch):
        monkeypatch.setattr(trainer, "evaluate", lambda *a, **k: Evaluation(math.inf, 10.0, 90.0, 10, 0.1))
        with pytest.raises(MinivitError, match=r"the test loss became inf at step 3 \(epoch 1,"):
            start()


def test_without_matplotlib_there_is_a_note_and_no_picture(start, pictures, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    folder, result = start()
    assert result.stopped_by is None and not folder.curves.exists()
    assert 'no curves.png: plots need Matplotlib: pip install "minivit[plots]"' in capsys.readouterr().err


def test_a_run_that_cannot_begin_leaves_no_folder(start, tmp_path):
    for wrong in ({"model": "sl_vitt"}, {"batch_size": 1000}, {"model_args": {"depht": 1}}):
        with pytest.raises(UsageError):
            start(**wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step, files", [(1, []), (2, ["config.json", "last.npz"])])
def test_usage_that_is_refused_at_the_first_step_leaves_no_run(start, tmp_path, monkeypatch, step, files):
    take_step, steps = trainer.Trainer._take_step, []

    def take(self, *batch):
        steps.append(batch)
        if len(steps) == step:
            raise UsageError("such settings make no sense")
        return take_step(self, *batch)

    monkeypatch.setattr(trainer.Trainer, "_take_step", take)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "output.txt").write_text("not of the run")
    with pytest.raises(UsageError, match="make no sense"):
        start()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted([*files, "output.txt"])
    if not files:
        assert start()[1].stopped_by is None


def test_fine_tuning_without_weights_is_noted(start, capsys):
    start(recipe="augreg_transfer", epochs=1)
    note = "note: recipe augreg_transfer is for weights that have learned; without --init-from none have\n"
    assert capsys.readouterr().err.count(note) == 1


def test_options_reach_the_loader():
    config = resolve(SETTINGS | {"recipe": "small_data", "crop_padding": 1, "seed": 5, "repeated_augmentation": 2})
    loader = build.build_loader(config, make_blobs(train_images=300))
    wanted = {"batch_size": 8, "repeats": 3, "drop_last": True, "seed": 5, "shuffle": True, "repeated_augmentation": 2}
    assert {name: getattr(loader, name) for name in wanted} == wanted
    assert loader.augmentation == Augmentation(
        flip=True, crop_padding=1, auto_augment="cifar", erase=0.25, erase_mode="mean", mixup=1.0, cutmix=1.0,
        mix_prob=0.5, mix_partner="shuffled",
    )  # fmt: skip


@pytest.mark.parametrize(
    "schedule, expected",
    [
        ("cosine", lambda k: 0.1 * (1 + math.cos(math.pi * (k - 4) / 16)) / 2),
        ("linear", lambda k: 0.1 * (1 - (k - 4) / 16)),
        ("constant", lambda k: 0.1),
        ("step", lambda k: 0.1 if k < 10 else 0.01 if k < 15 else 0.001),
    ],
)
def test_schedules_by_name(schedule, expected):
    config = resolve(
        SETTINGS | {"schedule": schedule, "epochs": 10, "warmup_epochs": 2, "lr": 0.1, "min_lr": 0.0, "warmup_lr": 0.0}
    )
    rate = build.build_schedule(config, 2)
    for step in range(20):
        assert rate(step) == pytest.approx(0.1 * step / 4 if step < 4 else expected(step)), step


def test_deits_schedule_comes_an_epoch_late():
    config = resolve({"recipe": "deit", "data": "cifar100", "schedule": "deit"})
    rate = build.build_schedule(config, 7)
    official = [1e-6, 1e-6, 2.008e-4]  # epochs 0 and 1 both run at the start of the warm-up
    assert [rate(7 * epoch + 3) for epoch in range(3)] == pytest.approx(official)
    assert rate(7 * 5) == pytest.approx(8.002e-4) and rate(7 * 6) == pytest.approx(9.993e-4, rel=1e-4)


class TestAverage:
    """The moving average of the weights."""

    SETTINGS = {"ema": 0.5, "epochs": 3}

    def test_it_is_the_average(self, start, monkeypatch):
        averages, states = [], []
        take_step = trainer.Trainer._take_step

        def spy(self, *batch):
            if not averages:
                averages.append({name: array.copy() for name, array in self.model.state_dict().items()})
            value = take_step(self, *batch)
            states.append({name: array.copy() for name, array in self.model.state_dict().items()})
            return value

        monkeypatch.setattr(trainer.Trainer, "_take_step", spy)
        folder, _ = start(**self.SETTINGS)
        (average,) = averages
        for state in states:
            average = {name: 0.5 * average[name] + 0.5 * array for name, array in state.items()}
        saved = checkpoint.read(folder.last)
        for name, array in average.items():
            np.testing.assert_allclose(saved.ema[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
        for name, array in states[-1].items():
            np.testing.assert_array_equal(saved.weights[name], array)

    def test_the_warm_up_follows_the_steps(self, start, monkeypatch):
        steps = []
        monkeypatch.setattr(ModelEma, "update", lambda self, step: steps.append(step))
        start(epochs=2, ema=0.9, ema_warmup=True)
        assert steps == [1, 2, 3, 4, 5, 6]

    def test_an_average_that_gets_nothing_right_is_kept_too(self, start, monkeypatch):
        monkeypatch.setattr(trainer, "evaluate", lambda *a, **k: Evaluation(1.0, 0.0, 90.0, 10, 0.1))
        folder, _ = start(**self.SETTINGS)
        assert folder.ema.exists()

    def test_it_is_measured_and_kept(self, start):
        folder, _ = start(**self.SETTINGS)
        rows = [json.loads(line) for line in folder.log.read_text().splitlines()]
        best = max(row["ema_top1"] for row in rows)
        data, kept = make_blobs(), minivit.load(folder.ema)
        assert evaluate(kept, data.test, data.mean, data.std).top1 == pytest.approx(best, abs=0.01)
        assert checkpoint.read(folder.last).training["state"]["best_ema"] == pytest.approx(best, abs=0.01)

    def test_without_it_there_is_none(self, start):
        folder, _ = start(epochs=1, warmup_epochs=0)
        assert not folder.ema.exists() and checkpoint.read(folder.last).ema == {}
