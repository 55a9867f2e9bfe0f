"""Training runs: begin one, or go on with one.

Everything that comes after a step follows from the settings, the position ``(epoch, batch)`` and the arrays
in ``last.npz``. So a run that was stopped anywhere, and is resumed, ends with the same bits as one that was
not, on the same machine with the same number of threads.
"""

import math
from dataclasses import dataclass, replace

from minivit.data import load_dataset
from minivit.errors import MinivitError, UsageError
from minivit.training import checkpoint, report
from minivit.training.config import differences
from minivit.training.run_state import RunRecord
from minivit.training.teacher import fingerprint
from minivit.training.trainer import Trainer, draw_curves


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
    with folder.locked():
        folder.refuse_run()  # another process may have had this folder since it was made
        normalisation = checkpoint.read(config.init_from) if config.init_from else None
        trainer = Trainer(config, folder, _load(config, data_dir, offline, normalisation))
        if config.init_from:
            trainer.load_initial_weights()
        elif config.recipe == "augreg_transfer":
            report.note(f"note: recipe {config.recipe} is for weights that have learned; without --init-from none have")
        folder.write_config(config.as_dict(), trainer.environment)
        trainer.save_last()  # from here on there is something to resume
        try:
            stopped_by = trainer.run(time_budget)
        except UsageError:
            if trainer.step == 0:  # nothing is lost, and the corrected command may want this folder
                folder.config.unlink(missing_ok=True)
                folder.last.unlink(missing_ok=True)
            raise
        return _result(config, folder, trainer.state, trainer.model.num_parameters(), stopped_by)


def resume(folder, overrides=None, *, data_dir=None, offline=False, time_budget=None):
    """Go on with the run in ``folder``; of a finished one, report the result. Otherwise like :func:`train`.

    Args:
        overrides: settings that the user repeated, field name -> value.

    Raises:
        UsageError: an override is not what the run was started with.
    """
    with folder.locked():
        saved = checkpoint.read(folder.last)
        record = RunRecord.of(saved)
        config, state, said = record.config, record.state, dict(overrides or {})
        weights = said.pop("init_from", config.init_from)
        if weights != config.init_from and (
            None in (weights, config.init_from) or fingerprint(weights, "checkpoint") != config.init_sha256
        ):
            raise UsageError(f"a resumed run started from other weights than {weights}: drop --init-from")
        teacher = said.pop("teacher", config.teacher)
        if teacher != config.teacher:  # the same file may lie elsewhere now
            if None in (teacher, config.teacher) or fingerprint(teacher) != config.teacher_sha256:
                raise UsageError(f"a resumed run keeps its teacher, and {teacher} is another file: drop --teacher")
            config = record.config = replace(config, teacher=teacher)
        changed = differences(config, said)
        if changed:
            raise UsageError(
                f"a resumed run keeps its settings, but {', '.join(changed)}: drop that, or start a new run"
            )
        saved.check_sizes()
        _check_sizes(config, saved)
        if state.epoch == config.epochs:
            return _report_finished(folder, record)
        if config.teacher and fingerprint(config.teacher) != config.teacher_sha256:
            raise MinivitError(f"the teacher {config.teacher} is not the file that the run was started with")
        trainer = Trainer(config, folder, _load(config, data_dir, offline, saved))
        trainer.restore(saved, record)
        stopped_by = trainer.run(time_budget)
        return _result(config, folder, trainer.state, trainer.model.num_parameters(), stopped_by)


def _check_sizes(config, saved):
    """Find settings that are not those of the saved network before memory is taken for another one."""
    for name, value in {**config.model_args, "img_size": config.img_size}.items():
        own = saved.arguments.get(name)
        if value and own != value and [own, own] != value:  # None leaves the choice to others; [7, 7] is 7
            raise MinivitError(
                f"{saved.path} holds another network than its settings ask for: {name} is {own}, not {value}"
            )


def _report_finished(folder, record):
    """Result of a run that had ended. It may have been killed after its last save: what came next is done here."""
    if not folder.best.is_file():
        raise MinivitError(f"the run in {folder.path} is finished, but its {folder.best.name} is gone")
    folder.write_log(record.state.rows)
    draw_curves(folder, record.config, record.state.rows)
    return _result(record.config, folder, record.state, record.parameters, stopped_by=None)


def _load(config, data_dir, offline, saved=None):
    """The data set, normalised as the images were that the weights in the checkpoint ``saved`` have learned from."""
    dataset = load_dataset(
        config.data,
        data_dir,
        limit_train=config.limit_train,
        limit_test=config.limit_test,
        offline=offline,
        img_size=config.img_size,
    )
    if saved is None or saved.mean is None or saved.std is None:
        return dataset
    return replace(dataset, mean=saved.mean, std=saved.std)


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
