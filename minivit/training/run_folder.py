"""The folder of one run: which one, and the files in it.

config.json    the resolved settings and the environment
log.jsonl      one line for each finished epoch
last.npz       the newest state, everything that ``--resume`` needs
best.npz       the weights with the best test accuracy so far
ema.npz        the averaged weights with the best, where the settings ask for an average
curves.png     loss, accuracy and learning rate over the epochs

While a run is going, ``.minivit.lock`` is there too.
"""

import contextlib
import json
import os
import re
import tempfile
from pathlib import Path

from minivit.errors import MinivitError, UsageError
from minivit.training import lock, report
from minivit.training.atomic import atomic_write, sweep_temporaries
from minivit.training.config import TrainConfig

RUNS = Path("runs")
LONGEST_NAME = 60
"""Characters of a default folder name: at four bytes each, and with a number, a file system takes them."""


class RunFolder:
    """Paths of a run's files, and the writing of the small ones.

    Args:
        path: the folder; see :meth:`create` and :meth:`newest` for choosing it.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.config, self.log, self.last, self.best, self.ema, self.curves = self.files = [
            self.path / name
            for name in ("config.json", "log.jsonl", "last.npz", "best.npz", "ema.npz", "curves.png")
        ]
        self._made = []  # folders that were not there before, the innermost first

    @classmethod
    def create(cls, path, model, data):
        """Make the folder of a new run.

        Args:
            path: where the user wants it, or None for the first free one of ``runs/MODEL-DATA``, ``-2``, ``-3`` ...
            model, data: names, for that default.

        Raises:
            UsageError: ``path`` holds a run already.
            MinivitError: the folder cannot be made or written.
        """
        if path is not None:
            folder = cls(path)
            folder.refuse_run()
            folder._make(exist_ok=True)
            return folder
        name, number = _default_name(model, data), 1
        while True:
            folder = cls(RUNS / (name if number == 1 else f"{name}-{number}"))
            if folder._make(exist_ok=False):  # making it claims it
                return folder
            number += 1

    @classmethod
    def existing(cls, path):
        """Return the folder of a run that can be resumed.

        Raises:
            MinivitError: ``path`` holds none.
        """
        folder = cls(path)
        try:
            os.stat(folder.last)
        except (FileNotFoundError, NotADirectoryError):
            raise MinivitError(f"nothing to resume: there is no {folder.last}") from None
        except OSError as error:
            raise MinivitError(f"cannot read {folder.last}: {error.strerror}") from error
        return folder

    @classmethod
    def newest(cls, model=None, data=None):
        """Return the run below ``runs/`` that was written last, of this model and data set if they are given.

        Raises:
            MinivitError: there is none.
        """
        try:
            written = {folder: os.stat(folder.last).st_mtime_ns for folder in map(cls, _runs())}
        except OSError as error:
            raise MinivitError(f"cannot look for runs below {RUNS}/: {error.strerror}") from error
        runs = [folder for folder in written if folder.is_of(model, data)]
        if not runs:
            wanted = "".join(f" of {name}" for name in (model, data) if name)
            raise MinivitError(f"nothing to resume: no run{wanted} below {RUNS}/; name its folder with --out")
        return max(runs, key=written.get)

    def is_of(self, model, data):
        """Return whether ``config.json`` names this model and data set; None matches any. Says so if it cannot."""
        if model is None and data is None:
            return True
        config = self._read_config().get("config")
        if not isinstance(config, dict):
            report.note(f"note: passing over {self.path}, whose {self.config.name} is missing or damaged")
            return False
        return model in (None, config.get("model")) and data in (None, config.get("data"))

    @staticmethod
    def read_settings(path):
        """Return the ``TrainConfig`` in a ``config.json``.

        Raises:
            MinivitError: the file cannot be read, or holds none.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise MinivitError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise MinivitError(f"{path} is no config.json of a run: {error}") from error
        try:
            return TrainConfig.from_dict(content.get("config") if isinstance(content, dict) else None)
        except MinivitError as error:
            raise MinivitError(f"{path} is no config.json of a run: {error}") from error

    def threads(self):
        """Return the number of threads that the run was started with, or None where ``config.json`` does not say."""
        environment = self._read_config().get("environment")
        threads = environment.get("threads") if isinstance(environment, dict) else None
        return threads if type(threads) is int and threads > 0 else None

    def refuse_run(self):
        """Raise UsageError if a run was begun here."""
        if any(map(os.path.exists, (self.last, self.best, self.log))):
            raise UsageError(f"{self.path} holds a run already: go on with it by --resume, or choose another --out")

    @contextlib.contextmanager
    def locked(self):
        """Keep all other processes from this run inside the block. A folder that was made for nothing goes away.

        Raises:
            MinivitError: another process is at it.
        """
        try:
            with lock.hold(self.path / ".minivit.lock", f"{self.path}: this run"):
                sweep_temporaries(self.files)
                yield
        finally:
            self._unmake()

    def write_config(self, config, environment):
        """Write ``config.json``; both arguments are dicts of JSON values."""
        with atomic_write(self.config) as file:
            file.write(_json({"config": config, "environment": environment}, indent=2))

    def write_log(self, rows):
        """Write ``log.jsonl`` anew with exactly these rows, those of the checkpoint that is resumed."""
        with atomic_write(self.log) as file:
            file.writelines(map(_json, rows))

    def append_log(self, row):
        """Add the line of a finished epoch."""
        try:
            with open(self.log, "ab") as file:
                file.write(_json(row))
        except OSError as error:
            raise MinivitError(f"cannot write {self.log}: {error.strerror}") from error

    def _read_config(self):
        """``config.json`` as a dict, an empty one where it cannot be read."""
        try:
            content = json.loads(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    def _make(self, exist_ok):
        """Make the folder, check that it can be written, return True; False where it exists and should not."""
        try:
            self._made = [path for path in (self.path, *self.path.parents) if not os.path.exists(path)]
            self.path.mkdir(parents=True, exist_ok=exist_ok)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            if isinstance(error, FileExistsError) and not exist_ok and os.path.lexists(self.path):
                return False  # else a parent is in the way: a file, or a link that leads nowhere
            self._unmake()
            raise MinivitError(f"cannot write to the folder {self.path}: {error.strerror}") from error
        return True

    def _unmake(self):
        """Remove what :meth:`_make` made and nobody filled."""
        for path in self._made:
            with contextlib.suppress(OSError):  # not empty: the usual case
                path.rmdir()


def _runs():
    """Folders below ``runs/`` with something to resume, in alphabetical order."""
    return sorted(path.parent for path in RUNS.glob("*/last.npz"))


def _default_name(model, data):
    return re.sub(r"[^\w.-]+", "-", f"{model}-{data}")[:LONGEST_NAME].strip("-")


def _json(value, indent=None):
    """A line of JSON, as bytes."""
    return json.dumps(value, indent=indent, allow_nan=False).encode() + b"\n"
