"""Sweep files: what they mean, and what is wrong with them."""

import json
import sys

import pytest

from minivit import sweep
from minivit.errors import MinivitError, UsageError
from minivit.training import sweep_file
from minivit.training.sweep_file import PlannedRun, plan

TOML = """
[settings]
data = "cifar100"
epochs = 10

[grid]
model = ["vit", "sl_vit"]
seed = [0, 1]

[[runs]]
name = "teacher"
model = "resnet20"
epochs = 30

[[runs]]
name = "student"
teacher = "@teacher"
model_args = { patch_size = 4 }
grid = { distill = ["hard", "soft"], model_args.depth = [4, 6] }
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="study.toml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_all_combinations_in_order(write):
    pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    shared = {"data": "cifar100", "epochs": 10}
    student = shared | {"teacher": "@teacher"}
    runs = sweep_file.read(write(TOML))
    assert runs == [
        PlannedRun("vit-seed=0", shared | {"model": "vit", "seed": 0}),
        PlannedRun("vit-seed=1", shared | {"model": "vit", "seed": 1}),
        PlannedRun("sl_vit-seed=0", shared | {"model": "sl_vit", "seed": 0}),
        PlannedRun("sl_vit-seed=1", shared | {"model": "sl_vit", "seed": 1}),
        PlannedRun("teacher", shared | {"model": "resnet20", "epochs": 30}),
        PlannedRun("student-hard-depth=4", student | {"distill": "hard", "model_args": {"patch_size": 4, "depth": 4}}),
        PlannedRun("student-hard-depth=6", student | {"distill": "hard", "model_args": {"patch_size": 4, "depth": 6}}),
        PlannedRun("student-soft-depth=4", student | {"distill": "soft", "model_args": {"patch_size": 4, "depth": 4}}),
        PlannedRun("student-soft-depth=6", student | {"distill": "soft", "model_args": {"patch_size": 4, "depth": 6}}),
    ]
    assert [run.needs for run in runs[4:6]] == [{}, {"teacher": "teacher"}]


def test_json_says_the_same(write):
    content = {"settings": {"data": "cifar100"}, "grid": {"lr": [0.1, 1e-5]}, "runs": [{"model": "vit", "seed": 3}]}
    assert [(run.name, run.settings) for run in sweep_file.read(write(json.dumps(content), "study.json"))] == [
        ("lr=0.1", {"data": "cifar100", "lr": 0.1}),
        ("lr=1e-05", {"data": "cifar100", "lr": 1e-5}),
        ("vit-seed=3", {"data": "cifar100", "model": "vit", "seed": 3}),
    ]


def test_the_example_of_the_help_is_a_sweep(write):
    pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    assert len(sweep_file.read(write(sweep.EXAMPLE))) == 2 * 3 + 1 + 2 * 3


def test_python_3_10_is_told_of_json(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "tomllib", None)
    monkeypatch.setitem(sys.modules, "tomli", None)
    with pytest.raises(MinivitError, match=r"TOML needs Python 3.11 or newer, or the package tomli; a file FILE.json"):
        sweep_file.read(write(TOML))


def test_tomli_serves_where_it_is_installed(write, monkeypatch):
    tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    monkeypatch.setitem(sys.modules, "tomllib", None)
    monkeypatch.setitem(sys.modules, "tomli", tomllib)
    assert len(sweep_file.read(write(TOML))) == 9


@pytest.mark.parametrize(
    "settings, name",
    [
        ({"data": "folder:../my pets/"}, "folder-..-my-pets"),
        ({"teacher": "@a"}, "a"),
        ({"model_args": {"depths": [1, 2, 1], "qkv_bias": False}}, "depths=1x2x1-qkv_bias=false"),
        ({"drop_path": 0.1, "flip": True}, "drop_path=0.1-flip=true"),
        ({"data": "x" * 300}, "x" * 200),
        ({"data": "x" + "猫" * 300}, "x" + "猫" * 66),  # three bytes each
        ({"auto_augment": "none", "model_args": {"gelu": "tanh"}}, "auto_augment=none-gelu=tanh"),
    ],
)
def test_names_are_fit_for_folders(settings, name):
    other = {"name": "a"} if name != "a" else {"name": "b"}
    if name == "a":
        with pytest.raises(UsageError, match="runs wait for each other: a for a"):
            plan({"runs": [settings, other]})
        return
    assert plan({"runs": [settings, other]})[0].name == name


def test_tables_of_model_arguments_may_be_points_of_a_grid():
    runs = plan({"grid": {"model_args": [{"depth": 4, "embed_dim": 96}, {"depth": 6}]}})
    assert [run.name for run in runs] == ["depth=4-embed_dim=96", "depth=6"]
    assert runs[0].settings == {"model_args": {"depth": 4, "embed_dim": 96}}
    derived = plan({"settings": {"model_args": {"patch_size": None}}, "grid": {"model_args": {"head_dim": [None, 8]}}})
    assert derived[0].settings == {"model_args": {"patch_size": None, "head_dim": None}}


GOOD = {"grid": {"seed": [0]}}


@pytest.mark.parametrize(
    "content, words",
    [
        ({}, ["no runs: a sweep has a [grid] or [[runs]]"]),
        ({"settings": {"lr": 1}}, ["no runs"]),
        ([], ["must be a table with settings, grid, runs"]),
        ({"gird": {}}, ["'gird' is not what a sweep has; did you mean 'grid'?"]),
        (GOOD | {"settings": {"batch-size": 3}}, ["'batch-size' is not a setting of a run, in [settings]; did you mean "
                                                 "'batch_size'"]),  # fmt: skip
        (GOOD | {"settings": {"teacher_sha256": "0"}}, ["'teacher_sha256' is not a setting"]),
        (GOOD | {"settings": {"threads": 2}}, ["threads is not a setting of a run, in [settings], but an option of"]),
        (GOOD | {"settings": {"seed": [0, 1]}}, ["seed in [settings] is no single value; a list of values belongs"]),
        (GOOD | {"settings": {"model_args": 4}}, ["model_args in [settings] must be a table such as { depth = 4 }"]),
        (GOOD | {"settings": 3}, ["[settings] must be a table of settings, not 3"]),
        (GOOD | {"settings": {"lr": float("nan")}}, ["lr in [settings] must be made of strings, finite numbers"]),
        (GOOD | {"settings": {"model_args": {"a": {1}}}}, ["model_args in [settings] must be made of strings"]),
        (GOOD | {"settings": {"teacher": None}}, ["teacher in [settings] cannot be null: leave it out"]),
        ({"grid": {"limit_train": [64, None]}}, ["limit_train in [grid] cannot be null: leave it out"]),
        ({"grid": {"sed": [0]}}, ["'sed' is not a setting of a run, in [grid]; did you mean 'seed'"]),
        ({"grid": {"seed": 0}}, ["seed in [grid] must be a list of values, not 0"]),
        ({"grid": {"seed": []}}, ["seed in [grid] must be a list of values, not []"]),
        ({"grid": {"model_args": {"depth": 4}}}, ["model_args.depth in [grid] must be a list of values, not 4"]),
        ({"grid": {"model_args": [4]}}, ["model_args in [grid] must be a table of lists, or a list of tables"]),
        ({"grid": [0]}, ["[grid] must be a table of lists, not [0]"]),
        ({"runs": {"seed": 0}}, ["runs are blocks that begin with [[runs]]"]),
        ({"runs": [3]}, ["runs are blocks that begin with [[runs]]"]),
        ({"runs": [{"seed": 0}, {"sed": 1}]}, ["'sed' is not a setting of a run, in block 2 of [[runs]]"]),
        ({"runs": [{"name": "a", "grid": {"seed": 0}}]}, ["seed in the grid of block 1 of [[runs]] must be a list"]),
        ({"runs": [{"name": 3}]}, ["the name in block 1 of [[runs]] must be a string, not 3"]),
        ({"runs": [{"name": "../a"}]}, ["a run cannot be called '../a'"]),
        ({"runs": [{"name": ""}]}, ["a run cannot be called ''"]),
        ({"runs": [{}]}, ["block 1 of [[runs]] is empty: give it settings, or leave it out"]),
        ({"grid": {}}, ["[grid] is empty: give it settings, or leave it out"]),
        ({"grid": {"model_args": {}}, "runs": [{"name": "a"}]}, ["[grid] is empty"]),
        ({"runs": [{"name": "\ud800"}]}, ["a run cannot be called '?'"]),
        ({"runs": [{"name": "a", "data": "@b"}, {"name": "b"}]},
         ["data of a is @b, but only teacher and init_from can name a run"]),
        ({"grid": {"model": ["@vit"]}}, ["model of vit is @vit, but only teacher and init_from can"]),
        ({"runs": [{"name": "results.jsonl"}]}, ["a run cannot be called 'results.jsonl'"]),
        ({"runs": [{"seed": 0}, {"seed": 0}]}, ["two runs are called 'seed=0': leave one out, or give them names"]),
        ({"runs": [{"name": "A"}, {"name": "a"}]}, ["two runs are called 'a'"]),
        ({"runs": [{"name": "a", "teacher": "@teahcer"}, {"name": "teacher"}]},
         ["teacher of a is @teahcer, but no run is called 'teahcer'; did you mean 'teacher'"]),
        ({"runs": [{"name": "a", "teacher": "@old"}, {"name": "old", "grid": {"seed": [0]}}]},
         ["no run is called 'old'; it has a grid: name one run, such as 'old-seed=0'"]),
        ({"runs": [{"name": "a", "teacher": "@b"}, {"name": "b", "teacher": "@a"}]}, ["runs wait for each other: "]),
    ],
)  # fmt: skip
def test_mistakes_are_named(content, words):
    with pytest.raises(UsageError) as error:
        plan(content)
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


def test_a_file_may_be_called_like_a_run():
    (run, _) = plan({"runs": [{"name": "a", "teacher": "./@b"}, {"name": "b"}]})
    assert run.needs == {} and run.settings["teacher"] == "./@b"


@pytest.mark.parametrize(
    "name, content, error, words",
    [
        ("a.json", b"{", UsageError, "a.json: "),
        ("a.json", b"\xff", UsageError, "a.json: "),
        ("a.json", b"[" * 100_000, UsageError, "a.json: "),
        ("a.toml", b"seed = ", UsageError, "a.toml: Invalid value"),
        ("a.toml", b"[grid]\nseed = [0]\n[grid]\n", UsageError, "a.toml: "),
        ("a.toml", b"[settings]\nlr = 2020-01-01\n[grid]\nseed = [0]", UsageError, "lr in .settings. must be made of"),
        ("b/a.toml", None, MinivitError, "cannot read .*a.toml: No such file"),
        (".", None, MinivitError, "cannot read .*Is a directory"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, error, words):
    if name == "a.toml":
        pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=words) as caught:
        sweep_file.read(tmp_path / name)
    assert "\n" not in str(caught.value)
