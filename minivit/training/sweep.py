"""Sweeps: many runs, one after another or some at once, each a process of its own.

The truth about a run is in its folder; ``results.jsonl`` beside the folders is written anew, in one step, whenever a
run begins or ends. So a sweep can be killed at any moment: the next one keeps what is finished, resumes what was
begun, and tries again what failed. Lines of runs that are not of this sweep, but of an earlier one, stay.
"""

import contextlib
import signal
import subprocess
import time
from dataclasses import dataclass

from minivit.data import DATASETS
from minivit.errors import MinivitError, UsageError, suggest
from minivit.training import lock, report
from minivit.training.config import DEFAULT_DATA, TrainConfig, resolve
from minivit.training.json_fields import from_json
from minivit.training.results import (
    FAILED,
    FINISHED,
    GOING,
    RESULTS,
    UNFINISHED,
    WAITING,
    Outcome,
    read_config,
    read_results,
    read_run,
    write_results,
)
from minivit.training.run_folder import RunFolder
from minivit.training.signals import StopRequest

OUTPUT = "output.txt"
"""File in a run's folder with all that its processes have printed."""

LOCK = ".minivit.lock"
POLL = 0.05
"""Seconds between looks at the processes."""


@dataclass
class _Going:
    """A run that is going.

    Args:
        process: it is None for one that a killed sweep has left behind: it works on, and is only waited for.
        resumed: whether it goes on with a run.
        offset: where its part of the output begins.
    """

    process: subprocess.Popen | None
    resumed: bool = False
    offset: int = 0


class Sweep:
    """The runs of a sweep, and how far each has come.

    Args:
        runs: ``PlannedRun``s, see ``minivit.training.sweep_file``.
        out: the folder, a ``Path``.
        command: function of (settings, folder, whether to resume) that returns the words of a command line.
        note: called with one-line remarks for the user.

    Attributes:
        outcomes: name -> ``Outcome``, in the order of ``runs``.
    """

    def __init__(self, runs, out, command, note=report.note):
        self.runs = {run.name: run for run in runs}
        self.out, self.command, self.note = out, command, note
        self.folders = {name: RunFolder(out / name) for name in self.runs}
        self.outcomes = {name: Outcome(name, WAITING) for name in self.runs}
        self.going = {}
        self.earlier = []  # Outcomes of runs that are not of this sweep

    def check(self):
        """Look at everything before anything is begun, and learn what is finished.

        Raises:
            UsageError: settings that make no sense, or that are not those of the run in the folder.
            MinivitError: the results file or the ``config.json`` of a run is damaged.
        """
        if RunFolder(self.out).config.exists():
            raise UsageError(f"{self.out} is the folder of a run, not of a sweep: choose another --out")
        known = {outcome.name: outcome.status for outcome in self._stored()}
        for name in self.runs:
            self.outcomes[name].config = self._checked_config(name)
            if known.get(name) == FINISHED and self.folders[name].best.is_file():
                outcome = self._read(name)
                if outcome.status == FINISHED:  # else something was removed: resuming may put it right
                    self.outcomes[name] = outcome

    def settings(self, name):
        """Return the settings of a run, with paths for the names of other runs."""
        run = self.runs[name]
        return run.settings | {key: str(self.folders[other].best) for key, other in run.needs.items()}

    def can_resume(self, name):
        """Return whether there is a state of that run to go on with."""
        return self.folders[name].last.is_file()

    def run(self, jobs=1):
        """Do all that is not finished, ``jobs`` runs at once.

        Returns:
            True at the end, False if a signal stopped it before; then the runs that were going have saved their state.

        Raises:
            MinivitError: another process is at this sweep, or files cannot be written.
        """
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MinivitError(f"cannot write to the folder {self.out}: {error.strerror}") from error
        with lock.hold(self.out / LOCK, f"{self.out}: this sweep"), StopRequest() as stop:
            self.earlier = [outcome for outcome in self._stored() if outcome.name not in self.runs]
            if self.earlier:
                self.note(f"note: {self.out / RESULTS} keeps the runs of an earlier sweep: {len(self.earlier)}")
            try:
                while not stop.requested and (self._begin(jobs) or self.going):
                    time.sleep(POLL)
                    self._end()
            finally:  # whatever happens, no process is left alone
                self._stop()
        return not stop.requested

    def _stored(self):
        """The Outcomes in the results file."""
        path = self.out / RESULTS
        return read_results(path) if path.exists() else []

    def _checked_config(self, name):
        """The settings of a run, resolved, as a dict; an empty one as long as its network comes from another run.

        As long as its teacher does, there is no checksum.

        Raises:
            UsageError: they make no sense, or its folder holds a run with others.
        """
        settings, needs = self.settings(name), self.runs[name].needs
        pending = [key for key, other in needs.items() if not self.folders[other].best.is_file()]
        try:
            from_json(TrainConfig, resolve({}).as_dict() | settings, "the settings")  # are all of the right kind?
            _check_data(settings.get("data", DEFAULT_DATA))
            if "init_from" in pending:
                return {}
            stand_in = dict.fromkeys(pending, __file__)  # of a teacher only the sum is read: any file will do
            config = resolve(settings | stand_in)
            config = TrainConfig.from_dict(config.as_dict()).as_dict()
            if pending:
                config |= {"teacher": settings["teacher"], "teacher_sha256": None}
        except MinivitError as error:
            raise UsageError(f"run {name}: {error}") from error
        if self.can_resume(name) or self.folders[name].best.is_file():
            self._refuse_change(name, config, pending)
        return config

    def _refuse_change(self, name, config, pending):
        """Raise UsageError if the run in the folder has other settings than ``config``."""
        stored = read_config(self.folders[name].path)
        free = {"teacher", "init_from", *(f"{key}_sha256" for key in pending)}  # files are known by their sums
        changed = [
            f"{key} {stored[key]} (now {value})"
            for key, value in config.items()
            if key not in free and stored[key] != value
        ]
        if changed:
            raise UsageError(
                f"{self.folders[name].path} holds a run with other settings: {', '.join(changed)}. "
                "Undo the change, remove that folder, or choose another --out"
            )

    def _begin(self, jobs):
        """Start what can be started. Returns whether anything has changed."""
        begun = False
        for name, run in self.runs.items():
            if len(self.going) >= jobs:
                break
            if self.outcomes[name].status != WAITING:
                continue
            needed = {other: self.outcomes[other].status for other in run.needs.values()}
            lost = [other for other, status in needed.items() if status == FAILED]
            if lost:
                self._fail(name, f"it needs {lost[0]}, which failed")
                begun = True
            elif all(status == FINISHED for status in needed.values()):
                self._start(name)
                begun = True
        if begun:
            self._write()
        return begun

    def _start(self, name):
        folder = self.folders[name]
        if _is_held(folder):
            self._say(name, "still going, since a sweep that was killed: waiting for it")
            self._set(name, GOING)
            self.going[name] = _Going(None)
            return
        try:
            self.outcomes[name].config = self._checked_config(name)  # what it needs is there now
        except MinivitError as error:
            self._fail(name, str(error))
            return
        resume = self.can_resume(name)
        words = self.command(self.settings(name), folder.path, resume)
        try:
            folder.path.mkdir(exist_ok=True)
            with open(folder.path / OUTPUT, "ab") as output:
                offset = output.tell()
                # A session of its own: Ctrl-C reaches this process alone, which then asks the others once.
                process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
                )
        except OSError as error:
            self._fail(name, f"cannot start: {error}")
            return
        self.going[name] = _Going(process, resume, offset)
        self._set(name, GOING)
        self._say(name, "resumed" if resume else "begun")

    def _end(self):
        """See which runs have ended, and how."""
        for name, going in list(self.going.items()):
            if going.process is None:
                if not _is_held(self.folders[name]):
                    self._set(name, WAITING)  # resuming tells how it ended
                    del self.going[name]
            elif going.process.poll() is not None:
                del self.going[name]
                self._judge(name, going)
                self._write()

    def _judge(self, name, going):
        folder, code = self.folders[name], going.process.returncode
        outcome = self._read(name)
        if code == 0 and outcome.status == FINISHED:
            self.outcomes[name] = outcome
            row = outcome.rows[-1]
            self._say(name, f"finished: {row['test_top1']:.2f} % after {row['epoch']} epochs")
            for other, run in self.runs.items():
                if name in run.needs.values() and self.outcomes[other].status == WAITING:
                    with contextlib.suppress(MinivitError):  # starting it will tell
                        self.outcomes[other].config = self._checked_config(other)  # with the checksum
        elif code != 0 and (_is_held(folder) or (code == 2 and not going.resumed and self.can_resume(name))):
            self._set(name, WAITING)  # one that a killed sweep had left behind has been quicker
        else:
            self._fail(name, _error(folder.path / OUTPUT, going.offset, code))

    def _stop(self):
        """Ask all runs that are going to save and end, and wait for that."""
        ours = {name: going for name, going in self.going.items() if going.process is not None}
        for going in ours.values():
            going.process.terminate()
        for name, going in ours.items():
            if going.process.wait() == 0:
                self._judge(name, going)
            else:
                self.outcomes[name] = self._read(name)
                self._set(name, UNFINISHED)  # even if it was stopped after its last epoch: it may lack its curves
        for name in self.going.keys() - ours.keys():
            self._say(name, "was left going; it ends by itself")
        if self.going:
            self.going = {}
            self._write()

    def _read(self, name):
        """What the folder of a run tells, as far as it can be read."""
        try:
            return read_run(self.folders[name].path, name)
        except MinivitError:
            return Outcome(name, UNFINISHED, self.outcomes[name].config)

    def _set(self, name, status):
        self.outcomes[name].status = status

    def _fail(self, name, error):
        outcome = self.outcomes[name] = self._read(name)
        outcome.status, outcome.error = FAILED, error
        self._say(name, f"failed: {error}")

    def _say(self, name, text):
        number = list(self.runs).index(name) + 1
        self.note(f"[{number}/{len(self.runs)}] {name}: {text}")

    def _write(self):
        write_results(self.out / RESULTS, [*self.outcomes.values(), *self.earlier])


def _check_data(name):
    """Raise UsageError if no data set is called so. Whether its files are there shows when they are read."""
    if name not in DATASETS and not name.startswith("folder:"):
        raise UsageError(f"no data set {name!r}{suggest(name, DATASETS)} (known: {', '.join(DATASETS)})")


def _is_held(folder):
    """Whether another process is at the run in ``folder``."""
    try:
        with folder.locked():
            return False
    except lock.HeldError:
        return True
    except MinivitError:  # no such folder, or a lock that cannot be opened: the run itself will say so
        return False


def _error(output, offset, code):
    """In one line, why a process ended with that code: the last line it has printed."""
    if code < 0:
        return f"ended by signal {-code} ({signal.strsignal(-code)})"
    try:
        with open(output, "rb") as file:
            file.seek(offset)
            lines = file.read().decode(errors="replace").split("\n")
    except OSError as error:
        lines = [f"cannot read {output}: {error.strerror}"]
    said = [line.strip() for line in lines if line.strip()]
    return said[-1].removeprefix("minivit.train: error: ") if said else f"ended with code {code}"
