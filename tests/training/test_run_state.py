"""The state of a run is believed only where it makes sense."""

import copy
import json
from pathlib import Path

import pytest

from minivit.errors import MinivitError
from minivit.training.checkpoint import Checkpoint
from minivit.training.config import resolve
from minivit.training.run_state import RunRecord, RunState

ROW = {"epoch": 1, "train_loss": 2.5, "test_loss": 2, "test_top1": 10.0, "test_top5": 50.0, "lr": 1e-3, "seconds": 3.1}


@pytest.fixture
def training():
    state = RunState(1, 2, 7.5, 16, 0.1, [ROW], 100, 3.0, 4.0, {"test_top1": 10.0, "test_top5": 50.0})
    record = RunRecord(resolve({"limit_train": 10}), state, {"any": "thing"}, 10, 26, {"threads": 2})
    return json.loads(json.dumps(record.as_dict()))


def read(training):
    return RunRecord.of(Checkpoint(Path("last.npz"), "vit", {}, {}, training=training))


def test_what_is_written_is_read(training):
    record = read(training)
    assert record.as_dict() == training
    assert record.config == resolve({"limit_train": 10}) and record.state.rows == [ROW]


def test_an_older_run_gets_the_defaults(training):
    del training["config"]["optimizer"]
    assert read(training).config.optimizer == "adamw"


def test_settings_of_a_newer_version_are_named(training):
    training["config"] |= {"puzzlemix": 0.8, "moex": 1.0}
    with pytest.raises(MinivitError, match="^last.npz cannot be resumed: among the settings, moex, puzzlemix: unknown"):
        read(training)


@pytest.mark.parametrize(
    "where, value, words",
    [
        ("", {}, "no JSON object for the settings"),
        ("config", 3, "no JSON object for the settings"),
        ("config", {}, "among the settings, batch_size, .*: missing"),
        ("config.epochs", "many", "among the settings, epochs: not of the right kind"),
        ("config.epochs", True, "epochs: not of the right kind"),
        ("config.epochs", 2.5, "epochs: not of the right kind"),
        ("config.epochs", 0, "epochs: 0 is less than 1"),
        ("config.batch_size", 0, "batch_size: 0 is less than 1"),
        ("config.seed", -1, "seed: not of the right kind"),
        ("config.lr", float("inf"), "lr: not of the right kind"),
        ("config.lr", 10**400, "lr: not of the right kind"),
        ("config.flip", 1, "flip: not of the right kind"),
        ("config.model_args", [], "model_args: not of the right kind"),
        ("config.optimizer", "lion", "unknown optimiser 'lion'"),
        ("state", None, "no JSON object for the run's state"),
        ("state.epoch", 2, "2 of 14 epochs are done, and 1 are logged"),
        ("state.rows", [3], "a line of its log is damaged"),
        ("state.rows", [ROW | {"lr": None}], "a line of its log is damaged"),
        ("state.best", {"test_top1": 3}, "the best epoch is damaged"),
        ("state.best", {"test_top1": 3, "test_top5": "x"}, "the best epoch is damaged"),
        ("generator", None, "generator: not of the right kind"),
        ("parameters", "x", "parameters: not of the right kind"),
        ("environment", [], "environment: not of the right kind"),
        ("extra", 1, "extra: unknown"),
    ],
)
def test_nonsense_is_one_line(training, where, value, words):
    damaged = copy.deepcopy(training)
    *path, last = where.split(".") if where else [None]
    if last is None:
        damaged = value
    else:
        target = damaged[path[0]] if path else damaged
        target[last] = value
    with pytest.raises(MinivitError, match=words) as error:
        read(damaged)
    assert str(error.value).startswith("last.npz cannot be resumed: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["config", "state", "generator", "parameters", "train_images", "environment"])
def test_nothing_may_be_missing(training, name):
    del training[name]
    with pytest.raises(MinivitError, match="cannot be resumed"):
        read(training)


def test_plain_weights():
    with pytest.raises(MinivitError, match="holds weights only"):
        read(None)

