"""The file that describes a sweep: which runs, and what each is called.

    [settings]                    # those of all runs: the options of minivit.train, with underscores
    data = "cifar100"
    epochs = 10

    [grid]                        # every combination is a run: here vit-seed=0, vit-seed=1, sl_vit-seed=0 ...
    model = ["vit", "sl_vit"]
    seed = [0, 1]

    [[runs]]                      # one more, with settings of its own
    name = "teacher"
    model = "resnet20"

    [[runs]]                      # and with a grid of its own: student-seed=0, student-seed=1
    name = "student"
    model = "deit_tiny_distilled_patch16_224"
    model_args = { patch_size = 4 }
    teacher = "@teacher"          # best.npz of the run of that name, which comes first
    grid = { seed = [0, 1] }

Only ``teacher`` and ``init_from`` can name a run; a file that is called so is ``./@teacher``. A ``.json`` file holds
the same as JSON: objects for tables, a list of objects for the blocks of ``[[runs]]``.
"""

import graphlib
import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path

from minivit.errors import MinivitError, UsageError, suggest
from minivit.training.config import TrainConfig
from minivit.training.results import RESULTS

SETTINGS = tuple(name for name in TrainConfig.__dataclass_fields__ if not name.endswith("_sha256"))
ELSEWHERE = ("threads", "data_dir", "offline", "out")
"""Options of minivit.train that minivit.sweep has too."""

REFERRING = ("teacher", "init_from")
"""Settings that can name another run: those that are checkpoints."""

SPEAKING = ("model", "data", "recipe", "optimizer", "teacher", "distill")
"""Settings whose values stand without their names in the name of a run."""

LONGEST_NAME = 200
"""Bytes of a run's name in UTF-8. File systems take 255."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Args:
        name: of the run and its folder.
        settings: field of ``TrainConfig`` -> value, those that the file names; in ``REFERRING``, ``"@name"`` is the
            best checkpoint of another run.
    """

    name: str
    settings: dict

    @property
    def needs(self):
        """Return a dict of the settings that name another run, and the names of those runs."""
        return {key: value[1:] for key, value in self.settings.items() if key in REFERRING and _is_reference(value)}


def read(path):
    """Return the PlannedRuns of the sweep file ``path``, in its order.

    Raises:
        UsageError: the file makes no sense.
        MinivitError: it cannot be read, or is TOML and this Python cannot read that.
    """
    try:
        return plan(_load(Path(path)))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def plan(content):
    """Return the PlannedRuns that ``content`` describes, the dict of a sweep file.

    Raises:
        UsageError: it makes no sense.
    """
    _refuse_others(content, ("settings", "grid", "runs"), "what a sweep has")
    shared = _settings(content.get("settings", {}), "[settings]")
    blocks = content.get("runs", [])
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise UsageError("runs are blocks that begin with [[runs]], in JSON a list of objects")
    runs = _expand(shared, {"grid": content["grid"]}, "") if "grid" in content else []
    for number, block in enumerate(blocks, 1):
        runs += _expand(shared, block, f"block {number} of [[runs]]")
    if not runs:
        raise UsageError("no runs: a sweep has a [grid] or [[runs]]")
    _check_names(runs)
    _check_needs(runs)
    return runs


def _load(path):
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else _toml().loads(text)
    except OSError as error:
        raise MinivitError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # the errors of both languages, and bytes that are no text
        raise UsageError(" ".join(str(error).split())) from error


def _toml():
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        try:
            import tomli as tomllib
        except ModuleNotFoundError:
            raise MinivitError(
                "TOML needs Python 3.11 or newer, or the package tomli; a file FILE.json with the same content does not"
            ) from None
    return tomllib


def _expand(shared, block, where):
    """The runs of one block: all combinations of its grid."""
    own = dict(block)
    name, grid = own.pop("name", None), _axes(own.pop("grid", {}), f"the grid of {where}" if where else "[grid]")
    own = _settings(own, where)
    if name is not None and not isinstance(name, str):
        raise UsageError(f"the name in {where} must be a string, not {name!r}")
    first = [_label(key, value) for key, value in _flat(own)] if name is None else [name]
    if not first and not grid:
        raise UsageError(f"{where or '[grid]'} is empty: give it settings, or leave it out")
    runs = []
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        label = "-".join([*first, *(_label(key, value) for key, value in point.items())])
        label = label.encode(errors="replace")[:LONGEST_NAME].decode(errors="ignore")
        runs.append(PlannedRun(label, _merge(_merge(shared, own), point)))
    return runs


def _settings(values, where):
    """Check the names and kinds of a table of settings; return it."""
    if not isinstance(values, dict):
        raise UsageError(f"{where} must be a table of settings, not {values!r}")
    _refuse_others(values, SETTINGS, f"a setting of a run, in {where}")
    for key, value in values.items():
        if key == "model_args" and not isinstance(value, dict):
            raise UsageError(f"model_args in {where} must be a table such as {{ depth = 4 }}, not {value!r}")
        if key != "model_args" and isinstance(value, list | dict):
            raise UsageError(f"{key} in {where} is no single value; a list of values belongs into a grid")
        _refuse_strange(key, value, where)
    return values


def _axes(grid, where):
    """Axis -> its values; those of model_args are called model_args.depth and so on."""
    if not isinstance(grid, dict):
        raise UsageError(f"{where} must be a table of lists, not {grid!r}")
    _refuse_others(grid, SETTINGS, f"a setting of a run, in {where}")
    axes = dict(_flat(grid))
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise UsageError(f"{key} in {where} must be a list of values, not {values!r}")
        if key == "model_args" and not all(isinstance(value, dict) for value in values):
            raise UsageError(f"model_args in {where} must be a table of lists, or a list of tables")
        _refuse_strange(key, values, where)
    return axes


def _flat(settings):
    """Pairs (name, value), with model_args.depth and so on for model_args."""
    for key, value in settings.items():
        if key == "model_args" and isinstance(value, dict):
            yield from ((f"model_args.{name}", inner) for name, inner in value.items())
        else:
            yield key, value


def _merge(settings, changes):
    """Settings with ``changes`` to them, each as :func:`_flat` names it."""
    merged = dict(_flat(settings)) | dict(_flat(changes))
    prefix = "model_args."
    model_args = {key.removeprefix(prefix): value for key, value in merged.items() if key.startswith(prefix)}
    merged = {key: value for key, value in merged.items() if not key.startswith(prefix)}
    return merged | ({"model_args": model_args} if model_args else {})


def _label(key, value):
    """A setting in the name of a run: ``sl_vit``, ``seed=0``, ``depths=1x2x1``."""
    if isinstance(value, dict):
        return "-".join(itertools.starmap(_label, value.items()))
    if isinstance(value, list):
        text = "x".join(map(str, value))
    else:
        text = value if isinstance(value, str) else json.dumps(value)
    text = re.sub(r"[^\w.=-]+", "-", text).strip("-.")
    return text if key in SPEAKING else f"{key.removeprefix('model_args.')}={text}"


def _refuse_others(table, known, what):
    if not isinstance(table, dict):
        raise UsageError(f"must be a table with {', '.join(known)}")
    for name in table:
        if name in ELSEWHERE:
            raise UsageError(f"{name} is not {what}, but an option of minivit.sweep")
        if name not in known:
            raise UsageError(f"{name!r} is not {what}{suggest(name, known)}")


def _refuse_strange(key, value, where):
    if None in (value if isinstance(value, list) else [value]) and not key.startswith("model_args"):
        raise UsageError(f"{key} in {where} cannot be null: leave it out")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):  # dates, infinities
        raise UsageError(f"{key} in {where} must be made of strings, finite numbers and booleans") from None


def _is_reference(value):
    return isinstance(value, str) and value.startswith("@")


def _check_names(runs):
    taken = {}
    for run in runs:
        if not re.fullmatch(r"\w[\w.=-]*", run.name) or run.name == RESULTS:
            raise UsageError(f"a run cannot be called {run.name!r}: give it a name of letters, digits and . _ - =")
        if taken.setdefault(run.name.casefold(), run) is not run:
            raise UsageError(f"two runs are called {run.name!r}: leave one out, or give them names")


def _check_needs(runs):
    names = [run.name for run in runs]
    for run in runs:
        for key, value in run.settings.items():
            if _is_reference(value) and key not in REFERRING:
                raise UsageError(f"{key} of {run.name} is {value}, but only {' and '.join(REFERRING)} can name a run")
        for key, name in run.needs.items():
            if name not in names:
                family = [other for other in names if other.startswith(f"{name}-")]
                near = f"; it has a grid: name one run, such as {family[0]!r}" if family else suggest(name, names)
                raise UsageError(f"{key} of {run.name} is @{name}, but no run is called {name!r}{near}")
    try:
        graphlib.TopologicalSorter({run.name: run.needs.values() for run in runs}).prepare()
    except graphlib.CycleError as error:
        raise UsageError(f"runs wait for each other: {' for '.join(error.args[1])}") from error
