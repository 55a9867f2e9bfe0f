"""What runs have left behind: their settings and a row for each epoch, from their folders or a sweep's results file.

A sweep writes ``results.jsonl`` into its folder, one line for each of its runs. It holds all that a comparison needs,
so that it can be copied elsewhere without the runs.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from minivit.errors import MinivitError
from minivit.training import report
from minivit.training.atomic import atomic_write
from minivit.training.config import TrainConfig
from minivit.training.json_fields import from_json, is_number
from minivit.training.run_folder import RunFolder
from minivit.training.run_state import ROW

RESULTS = "results.jsonl"
WAITING, GOING, UNFINISHED, FINISHED, FAILED = STATUSES = ("waiting", "going", "unfinished", "finished", "failed")


@dataclass
class Outcome:
    """How far one run has come: a line of the results file.

    Args:
        name: of the run, unique in a sweep.
        status: one of ``STATUSES``.
        config: the settings, as in ``config.json``; empty before they are known.
        rows: the lines of ``log.jsonl``.
        error: why it failed.
    """

    name: str
    status: str
    config: dict = field(default_factory=dict)
    rows: list = field(default_factory=list)
    error: str | None = None


def read_config(folder):
    """Return the settings of the run in ``folder`` as a dict with the fields of ``TrainConfig``.

    Raises:
        MinivitError: ``config.json`` is not there, is damaged, or is of another version.
    """
    path = RunFolder(folder).config
    content = _parse(_read(path), path)
    return _settings(content.get("config") if isinstance(content, dict) else None, path)


def read_run(folder, name=None):
    """Return the Outcome of the run in ``folder``, finished or unfinished, called ``name``, else like its folder.

    What follows the last line break of its log was cut off by a kill, and counts for nothing.

    Raises:
        MinivitError: there is no run, or one of its files is damaged.
    """
    folder = RunFolder(folder)
    config = read_config(folder.path)
    try:
        *lines, _ = _read(folder.log).split("\n") if folder.log.exists() else [""]
    except OSError as error:
        raise MinivitError(f"cannot read {folder.log}: {error.strerror}") from error
    rows = [_parse(line, f"{folder.log}, line {number}") for number, line in enumerate(lines, 1)]
    _check_rows(rows, folder.log)
    if len(rows) > config["epochs"]:
        raise MinivitError(f"{folder.log} is damaged: {len(rows)} epochs, where the run has {config['epochs']}")
    return Outcome(name or str(folder.path), FINISHED if len(rows) == config["epochs"] else UNFINISHED, config, rows)


def read_results(path):
    """Return the list of Outcomes in a results file.

    Raises:
        MinivitError: it cannot be read, or is damaged.
    """
    outcomes = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        where = f"{path}, line {number}"
        outcome = from_json(Outcome, _parse(line, where), where)
        if outcome.status not in STATUSES:
            raise MinivitError(f"{where}: no status of a run: {outcome.status!r}")
        if outcome.config:
            outcome.config = _settings(outcome.config, where)
        _check_rows(outcome.rows, where)
        if len(outcome.rows) > outcome.config.get("epochs", 0) or (
            outcome.status == FINISHED and len(outcome.rows) != outcome.config.get("epochs")
        ):
            raise MinivitError(f"{where} is damaged: {len(outcome.rows)} epochs do not fit its settings and status")
        outcomes.append(outcome)
    if not outcomes:
        raise MinivitError(f"{path} is damaged: it holds no runs")
    return outcomes


def write_results(path, outcomes):
    """Write the results file anew with these Outcomes."""
    with atomic_write(path) as file:
        file.writelines(json.dumps(asdict(outcome), allow_nan=False).encode() + b"\n" for outcome in outcomes)


def collect(paths, note=report.note):
    """Return the Outcomes that ``paths`` hold: folders of runs, of sweeps, folders of several runs, results files.

    A run that is there twice, with all its settings and losses, is returned once: it says nothing new. One of several
    in a folder that is damaged is passed over.

    Args:
        paths: of folders and files.
        note: called with one-line remarks for the user.

    Raises:
        MinivitError: there is no run, or something is damaged.
    """
    outcomes, seen = [], set()
    for outcome in (outcome for path in paths for outcome in _collect(Path(path), note)):
        key = json.dumps([outcome.config, [row["train_loss"] for row in outcome.rows]], sort_keys=True)
        if not outcome.rows or key not in seen:
            outcomes.append(outcome)
        seen.add(key)
    return outcomes


def _collect(path, note):
    if not path.is_dir():
        return read_results(path)
    if RunFolder(path).config.exists():
        return [read_run(path)]
    if (path / RESULTS).exists():
        outcomes = read_results(path / RESULTS)
        for i, outcome in enumerate(outcomes):
            folder = path / outcome.name
            if outcome.status in (GOING, UNFINISHED) and RunFolder(folder).config.exists():
                try:
                    outcome = outcomes[i] = read_run(folder)  # it may have come further
                except MinivitError as error:
                    note(f"note: {error}")
            outcome.name = str(folder)
        return outcomes
    configs = sorted(path.glob("*/config.json"))
    if not configs:
        raise MinivitError(f"no runs in {path}: no config.json, no {RESULTS}, and no folders with a config.json")
    runs, errors = [], []
    for config in configs:
        try:
            runs.append(read_run(config.parent))
        except MinivitError as error:
            errors.append(error)
    if not runs:
        raise errors[0]
    for error in errors:
        note(f"note: passing over a run: {error}")
    return runs


def _read(path):
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise MinivitError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise MinivitError(f"{path} is damaged: it is no text") from None


def _parse(text, where):
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise MinivitError(f"{where} is damaged: no JSON") from None


def _settings(values, where):
    """The settings of a run, checked, with the defaults for those that an earlier version did not know."""
    try:
        return TrainConfig.from_dict(values).as_dict()
    except MinivitError as error:
        raise MinivitError(f"{where}: {error}") from error


def _check_rows(rows, where):
    for epoch, row in enumerate(rows, 1):
        numbers = isinstance(row, dict) and [row.get(key) for key in (*ROW, "seconds")] + [row.get("ema_top1", 0)]
        if not numbers or not all(map(is_number, numbers)):
            raise MinivitError(f"{where} is damaged: the row of epoch {epoch}")
        if row["epoch"] != epoch:
            raise MinivitError(f"{where} is damaged: the row of epoch {epoch} is that of epoch {row['epoch']}")
