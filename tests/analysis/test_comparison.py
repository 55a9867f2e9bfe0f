"""Grouping runs, and what is said of a group."""

import math

import numpy as np
import pytest

from minivit.analysis.comparison import Estimate, estimate, group, mixed_settings, save_comparison, settings_of, table
from minivit.command import printable
from minivit.errors import UsageError
from minivit.training.config import resolve
from minivit.training.results import Outcome

EPOCHS = 3


def outcome(accuracy=50.0, status="finished", epochs=EPOCHS, teacher=None, distill="hard", model_args=None, **settings):
    config = resolve({"data": "cifar100", "recipe": "quick", "epochs": EPOCHS} | settings).as_dict()
    config |= {"teacher": teacher, "teacher_sha256": teacher and teacher.split("/")[0], "distill": distill}
    config["model_args"] |= model_args or {}  # as a file may have them: no model knows them all
    rows = [
        {"epoch": i, "train_loss": 3.0 / i, "test_loss": 1.0, "test_top1": accuracy - EPOCHS + i, "test_top5": 90.0,
         "lr": 1e-3, "seconds": 20.0}
        for i in range(1, epochs + 1)
    ]  # fmt: skip
    return Outcome("run", status, config, rows)


@pytest.mark.parametrize(
    "n, quantile",  # of Student's t, two-sided 95 %, from printed tables
    [(2, 12.7062), (3, 4.3027), (4, 3.1824), (5, 2.7764), (6, 2.5706), (10, 2.2622), (21, 2.0860), (31, 2.0423)],
)
def test_the_interval_is_students(n, quantile):
    values = np.random.default_rng(n).normal(50, 2, n)
    found = estimate(list(values))
    assert found.mean == pytest.approx(values.mean(), abs=1e-12)
    spread = math.sqrt(((values - values.mean()) ** 2).sum() / (n - 1))
    assert found.half_width == pytest.approx(quantile * spread / math.sqrt(n), rel=2e-5)


def test_the_interval_holds_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(0, 1, (4000, 3))
    held = np.mean([abs(found.mean) <= found.half_width for found in map(estimate, draws)])
    assert abs(held - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 4000)


def test_one_run_has_no_interval():
    assert estimate([50.0]) == Estimate(50.0, None)
    assert f"{estimate([50.0]):.2f}" == "50.00"
    assert f"{Estimate(50.0, 1.234):.2f}" == "50.00 ± 1.23"


def test_runs_that_differ_in_the_seed_are_one_group():
    groups = group([outcome(40 + seed, model=model, seed=seed) for model in ("vit", "sl_vit") for seed in range(3)])
    assert [(g.settings, len(g.runs)) for g in groups] == [({"model": "vit"}, 3), ({"model": "sl_vit"}, 3)]
    assert groups[0].measure("final_top1").mean == 41
    assert groups[0].as_dict()["seeds"] == [0, 1, 2]
    assert groups[0].measure("seconds") == Estimate(60.0, 0.0)


def test_the_highest_accuracy_is_first_and_the_unfinished_are_last():
    groups = group(
        [outcome(99, "unfinished", 2, model="swin"), outcome(40, model="vit"), outcome(41, model="vit", seed=1),
         outcome(60, model="pit"), outcome(70, "failed", 1, model="vit", seed=2)]
    )  # fmt: skip
    assert [g.label for g in groups] == ["pit", "vit", "swin"]
    assert [(len(g.runs), len(g.unfinished)) for g in groups] == [(1, 0), (2, 1), (0, 1)]
    assert groups[2].as_dict()["final_top1"] is None


def test_best_is_the_best_epoch_and_final_the_last():
    run = outcome(50)
    run.rows[0]["test_top1"] = 77.0
    (one,) = group([run])
    assert (one.measure("final_top1").mean, one.measure("best_top1").mean) == (50, 77)


@pytest.mark.parametrize(
    "settings, expected",
    [
        ([{}, {"seed": 1}], [{"model": "sl_vit"}]),
        ([{"lr": 0.1}, {"lr": 0.2}], [{"model": "sl_vit", "lr": 0.1}, {"model": "sl_vit", "lr": 0.2}]),
        # a recipe changes much else: its name says enough
        ([{"recipe": "quick"}, {"recipe": "small_data"}],
         [{"model": "sl_vit", "recipe": "quick"}, {"model": "sl_vit", "recipe": "small_data"}]),
        # so does an optimiser
        ([{"optimizer": "adamw"}, {"optimizer": "sgd"}],
         [{"model": "sl_vit", "optimizer": "adamw"}, {"model": "sl_vit", "optimizer": "sgd"}]),
        ([{"model_args": {"depth": 4}}, {"model_args": {"depth": 5}}],
         [{"model": "sl_vit", "depth": 4}, {"model": "sl_vit", "depth": 5}]),
        ([{"model_args": {"qkv_bias": True}}, {}],
         [{"model": "sl_vit", "qkv_bias": True}, {"model": "sl_vit", "qkv_bias": None}]),
        ([{"teacher": "a/best.npz"}, {}], [{"model": "sl_vit", "teacher": "a"}, {"model": "sl_vit", "teacher": None}]),
        ([{"teacher": "a/best.npz", "distill": "soft"}, {"teacher": "a/best.npz", "distill": "hard"}],
         [{"model": "sl_vit", "distill": "soft"}, {"model": "sl_vit", "distill": "hard"}]),
        # numbers, however they are written; but true is no number
        ([{"clip": 1}, {"clip": 1.0, "model_args": {}}], [{"model": "sl_vit"}]),
        ([{"model_args": {"mlp_ratio": 2, "depths": [1, 2]}}, {"model_args": {"depths": [1, 2.0], "mlp_ratio": 2.0}}],
         [{"model": "sl_vit"}]),
        ([{"model_args": {"qkv_bias": True}}, {"model_args": {"qkv_bias": 1}}],
         [{"model": "sl_vit", "qkv_bias": True}, {"model": "sl_vit", "qkv_bias": 1}]),
        # one teacher from two places
        ([{"teacher": "a/best.npz"}, {"teacher": "a/b/c.npz"}], [{"model": "sl_vit"}]),
    ],
)  # fmt: skip
def test_groups_are_named_by_what_tells_them_apart(settings, expected):
    assert [g.settings for g in group([outcome(**one) for one in settings])] == expected


def test_distillation_has_no_settings_without_a_teacher():
    assert "distill" not in settings_of(outcome().config)
    assert settings_of(outcome(teacher="runs/a/best.npz").config)["teacher"] == "a"
    assert settings_of(outcome(teacher="big.npz").config)["teacher"] == "big.npz"


def test_labels_are_short():
    one, other = group([outcome(model="vit", lr=0.001, teacher="a/best.npz"), outcome(49, model="vit")])
    assert one.label == "vit, teacher=a" and other.label == "vit"
    lr = group([outcome(model="vit", lr=1e-5), outcome(49, model="vit", model_args={"depth": 3})])
    assert [g.label for g in lr] == ["vit, lr=1e-05", "vit, lr=0.002"]


def test_by_pools_what_is_not_named():
    runs = [outcome(40, model="vit", lr=0.1), outcome(42, model="vit", lr=0.2), outcome(50, model="pit", lr=0.1)]
    groups = group(runs, by=["model"])
    assert [(g.settings, len(g.runs)) for g in groups] == [({"model": "pit"}, 1), ({"model": "vit"}, 2)]
    assert mixed_settings(groups) == ["lr"]
    assert mixed_settings(group(runs)) == []
    by_seed = group([outcome(40), outcome(41, seed=1)], by=["seed"])
    assert [g.settings for g in by_seed] == [{"seed": 1}, {"seed": 0}]


def test_by_must_be_a_setting():
    with pytest.raises(UsageError, match="no run has a setting 'modle'; did you mean 'model'"):
        group([outcome()], by=["modle"])


def test_the_table_leaves_out_what_is_not_finished():
    runs = [outcome(40, model="vit"), outcome(42, model="vit", seed=1), outcome(1, "going", 1, model="pit")]
    head, rule, line = table(group(runs)).splitlines()
    assert set(rule) == {"-"} and len(rule) == len(head)
    assert " ".join(line.split()) == "vit 2 41.00 ± 12.71 41.00 ± 12.71 1.0000 ± 0.0000 3 1.0"


def test_averaged_weights_have_a_column_where_there_are_any():
    runs = [outcome(40, model="vit"), outcome(42, model="pit")]
    assert "EMA" not in table(group(runs)) and group(runs)[0].as_dict()["ema_top1"] is None
    runs[1].rows[-1]["ema_top1"] = 44.0
    assert [line.split()[-5] for line in table(group(runs)).splitlines()[2:]] == ["44.00", "-"]
    assert group(runs)[0].as_dict()["ema_top1"] == {"mean": 44.0, "half_width": None}


def test_the_table_says_which_epochs_were_pooled():
    runs = [outcome(40, model="vit"), outcome(42, model="vit", epochs=5)]
    runs[1].config["epochs"] = 5
    assert "3-5" in table(group(runs, by=["model"])).splitlines()[2].split()


def test_a_seed_that_counts_twice_is_said():
    runs = [outcome(40, model="vit"), outcome(42, model="vit"), outcome(43, model="vit", seed=1)]
    vit, pit = group([*runs, outcome(1, model="pit")])
    assert (vit.repeated_seeds(), pit.repeated_seeds()) == ([(0, 2)], [])
    head, rule, *_, last, note = table([vit, pit]).splitlines()
    assert last.split()[0] == "pit"
    assert note.startswith("note: vit: 2 runs are equal in all settings and in the seed, 0; ")
    pooled = group([outcome(40, lr=0.1), outcome(42, lr=0.2)], by=["model"])
    assert "note" not in table(pooled)


def test_what_files_say_is_made_printable():
    runs = [outcome(40, data="folder:\x1b[31m", model_args={"a\x1b[2J": value}) for value in (1, 2, 2)]
    shown = table(group([*runs, outcome(42)]), printable)
    assert all(line.isprintable() for line in shown.split("\n"))
    assert "a\\x1b[2J" in shown and shown.count("folder:\\x1b[31m") == 3  # two rows and a note


@pytest.mark.parametrize("models, seeds", [(3, 3), (12, 1)])
def test_curves_are_a_picture(tmp_path, models, seeds):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    runs = [
        outcome(40 + seed + lr, lr=1e-3 * (1 + lr), seed=seed) for lr in range(models) for seed in range(seeds)
    ] + [outcome(30, "going", 2, data="folder:$a$")]  # fmt: skip
    save_comparison(tmp_path / "a.png", group(runs))
    with image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"
        assert picture.size[0] > 1200 and picture.size[1] > 500
        assert len(picture.convert("RGB").getcolors(maxcolors=1 << 20)) > 100
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
