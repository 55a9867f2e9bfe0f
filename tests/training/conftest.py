"""Runs on the blobs, for all tests of training."""

import pytest
from blobs import SETTINGS, make_blobs

from minivit.training import checkpoint, loop, trainer
from minivit.training.config import resolve
from minivit.training.run_folder import RunFolder


@pytest.fixture(autouse=True)
def blobs(monkeypatch):
    monkeypatch.setattr(loop, "load_dataset", lambda *args, **kwargs: make_blobs())


@pytest.fixture(autouse=True)
def no_pictures(request, monkeypatch):
    """Drawing takes longer than these runs; tests marked by the fixture ``pictures`` do it."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(trainer, "save_curves", lambda *args: None)


@pytest.fixture
def pictures():
    pass


@pytest.fixture
def start(tmp_path):
    """``start(**settings)``: train in a folder of its own, return (folder, result)."""

    def run(name="run", time_budget=None, **settings):
        config = resolve(SETTINGS | settings)
        folder = RunFolder.create(tmp_path / name, config.model, config.data)
        return folder, loop.train(config, folder, time_budget=time_budget)

    return run


@pytest.fixture
def whole(start):
    """The end of a run that nothing interrupted."""
    folder, _ = start("whole")
    return checkpoint.read(folder.last)
