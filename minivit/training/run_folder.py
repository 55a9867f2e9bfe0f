"""The folder of one run: which one, and the files in it.

config.json    the resolved settings and the environment
log.jsonl      one line for each finished epoch
last.npz       the newest state, everything that ``--resume`` needs
best.npz       the weights with the best test accuracy so far
curves.png     loss, accuracy and learning rate over the epochs
"""

import contextlib
import json
import re
from pathlib import Path

from minivit.errors import MinivitError, UsageError
from minivit.training.atomic import atomic_write, sweep_temporaries

RUNS = Path("runs")


class RunFolder:
    """Paths of a run's files, and the writing of the small ones.

    Args:
        path: the folder; see :meth:`create` and :meth:`newest` for choosing it.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.config, self.log, self.last, self.best, self.curves = (
            self.path / name for name in ("config.json", "log.jsonl", "last.npz", "best.npz", "curves.png")
        )

    @classmethod
    def create(cls, path, model, data):
        """Make the folder of a new run.

        Args:
            path: where the user wants it, or None for the first free one of ``runs/MODEL-DATA``, ``-2``,
                ``-3`` ...
            model, data: names, for that default.

        Raises:
            UsageError: ``path`` holds a run already.
            MinivitError: the folder cannot be made or written.
        """
        if path is not None:
            folder = cls(path)
            if any(file.exists() for file in (folder.last, folder.best, folder.log)):
                raise UsageError(
                    f"{path} holds a run already: go on with it by --resume, or choose another --out"
                )
            _make(folder.path, exist_ok=True)
        else:
            folder = cls(_claim_free_folder(_default_name(model, data)))
        sweep_temporaries(folder.path)
        return folder

    @classmethod
    def existing(cls, path):
        """Return the folder of a run that can be resumed.

        Raises:
            MinivitError: ``path`` holds none.
        """
        folder = cls(path)
        if not folder.last.exists():
            raise MinivitError(f"nothing to resume: there is no {folder.last}")
        sweep_temporaries(folder.path)
        return folder

    @classmethod
    def newest(cls, model=None, data=None):
        """Return the run below ``runs/`` that was written last, of this model and data set if they are given.

        Raises:
            MinivitError: there is none.
        """
        runs = [
            folder
            for folder in map(cls, sorted(RUNS.glob("*")))
            if folder.last.exists() and folder.is_of(model, data)
        ]
        if not runs:
            wanted = "".join(f" of {name}" for name in (model, data) if name)
            raise MinivitError(f"nothing to resume: no run{wanted} below {RUNS}/; name its folder with --out")
        return cls.existing(max(runs, key=lambda folder: folder.last.stat().st_mtime_ns).path)

    def is_of(self, model, data):
        """Return whether ``config.json`` names this model and data set; None matches any."""
        try:
            config = json.loads(self.config.read_text())["config"]
            return model in (None, config["model"]) and data in (None, config["data"])
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def remove_if_empty(self):
        """Take back the folder of a run that never began."""
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def write_config(self, config, environment):
        """Write ``config.json``; both arguments are dicts of JSON values."""
        with atomic_write(self.config) as file:
            file.write(json.dumps({"config": config, "environment": environment}, indent=2).encode() + b"\n")

    def write_log(self, rows):
        """Write ``log.jsonl`` anew with exactly these rows, those of the checkpoint that is resumed."""
        with atomic_write(self.log) as file:
            file.writelines(json.dumps(row).encode() + b"\n" for row in rows)

    def append_log(self, row):
        """Add the line of a finished epoch."""
        try:
            with open(self.log, "a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise MinivitError(f"cannot write {self.log}: {error.strerror}") from error


def _default_name(model, data):
    return re.sub(r"[^\w.-]+", "-", f"{model}-{data}").strip("-")


def _claim_free_folder(name):
    """Make the first of NAME, NAME-2, NAME-3 ... that does not exist, which claims it, and return it."""
    _make(RUNS, exist_ok=True)
    number = 1
    while True:
        path = RUNS / (name if number == 1 else f"{name}-{number}")
        if _make(path, exist_ok=False):
            return path
        number += 1


def _make(path, exist_ok):
    """Make a folder that can be written and return True, or False where it exists and should not."""
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
        probe = path / "probe.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        if isinstance(error, FileExistsError) and path.is_dir():
            return False
        raise MinivitError(f"cannot write to the folder {path}: {error.strerror}") from error
    return True
