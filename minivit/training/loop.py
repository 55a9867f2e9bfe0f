"""Training runs: begin one, or go on with one.

Everything that comes after a step follows from the settings, the position ``(epoch, batch)`` and the arrays
in ``last.npz``. So a run that was stopped anywhere, and is resumed, ends with the same bits as one that was
not, on the same machine with the same number of threads.
"""

import math
from dataclasses import dataclass

from minivit.data import load_dataset
from minivit.errors import MinivitError, UsageError
from minivit.models import create_model
from minivit.training import checkpoint
from minivit.training.config import TrainConfig, differences
from minivit.training.trainer import RunState, Trainer


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Args:
        model, data: names.
        parameters: how many trainable numbers the network has.
        epochs: finished epochs.
        test_top1, test_top5: percent, of the weights in ``checkpoint``; nan before the first evaluation.
        seconds: time spent in training steps and evaluation, of all sessions together.
        images_per_second: training images, over the time in training steps alone.
        checkpoint: path of best.npz.
        stopped_by: None for a finished run, else "time budget" or "interrupt".
    """

    model: str
    data: str
    parameters: int
    epochs: int
    test_top1: float
    test_top5: float
    seconds: float
    images_per_second: float
    checkpoint: str
    stopped_by: str | None = None


def train(config, folder, *, data_dir=None, offline=False, time_budget=None):
    """Train a new network as ``config`` says.

    Args:
        config: a ``TrainConfig``.
        folder: a new ``RunFolder``.
        data_dir, offline: see ``minivit.data.load_dataset``.
        time_budget: minutes after which training stops, evaluates and saves; None for no limit. The
            schedule stays that of the whole run, which can be resumed.

    Returns:
        Result.

    Raises:
        MinivitError: the data cannot be had, files cannot be written, or the loss is no longer finite.
    """
    try:
        _try_model(config)
        trainer = Trainer(config, folder, _load(config, data_dir, offline))
    except BaseException:
        folder.remove_if_empty()
        raise
    folder.write_config(config.as_dict(), trainer.environment)
    trainer.save_last()  # from here on there is something to resume
    stopped_by = trainer.run(time_budget)
    return _result(config, folder, trainer.state, trainer.model.num_parameters(), stopped_by)


def resume(folder, overrides=None, *, data_dir=None, offline=False, time_budget=None):
    """Go on with the run in ``folder``; of a finished one, report the result. Otherwise like :func:`train`.

    Args:
        overrides: settings that the user repeated, field name -> value.

    Raises:
        UsageError: an override is not what the run was started with.
    """
    saved = checkpoint.read(folder.last)
    if saved.training is None:
        raise MinivitError(f"{folder.last} holds weights only, not the state of a run: it cannot be resumed")
    config, state = TrainConfig(**saved.training["config"]), RunState(**saved.training["state"])
    changed = differences(config, overrides or {})
    if changed:
        raise UsageError(
            f"a resumed run keeps its settings, but {', '.join(changed)}: drop that, or start a new run"
        )
    if state.epoch == config.epochs:
        return _result(config, folder, state, saved.training["parameters"], stopped_by=None)
    trainer = Trainer(config, folder, _load(config, data_dir, offline))
    trainer.restore(saved)
    stopped_by = trainer.run(time_budget)
    return _result(config, folder, trainer.state, trainer.model.num_parameters(), stopped_by)


def _try_model(config):
    """Find misspelt names before a download. The patch size has to wait for the size of the images."""
    create_model(config.model, **{key: v for key, v in config.model_args.items() if key != "patch_size"})


def _load(config, data_dir, offline):
    return load_dataset(
        config.data,
        data_dir,
        limit_train=config.limit_train,
        limit_test=config.limit_test,
        offline=offline,
        img_size=config.img_size,
    )


def _result(config, folder, state, parameters, stopped_by):
    best = state.best or {"test_top1": math.nan, "test_top5": math.nan}
    return Result(
        model=config.model,
        data=config.data,
        parameters=parameters,
        epochs=state.epoch,
        **best,
        seconds=state.all_seconds,
        images_per_second=state.all_images / state.all_train_seconds if state.all_images else 0.0,
        checkpoint=str(folder.best),
        stopped_by=stopped_by,
    )
