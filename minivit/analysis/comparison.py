"""Runs beside each other: those that differ in nothing but the seed form a group with a mean and an interval."""

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from minivit.analysis.figure import new_figure, plain, save_figure
from minivit.analysis.table import text_table
from minivit.errors import UsageError, suggest
from minivit.training.config import TEACHING
from minivit.training.results import FINISHED

CONFIDENCE = 0.95
FIRST = ("model", "data", "recipe", "optimizer", "init_from", "teacher", "distill")
"""The settings that name a group best, where they tell groups apart."""

FILES = ("teacher", "init_from")
"""Settings that are paths of checkpoints. Runs that differ in the path alone do not differ: there are checksums too."""

METRICS = {
    "final_top1": lambda rows: rows[-1]["test_top1"],
    "best_top1": lambda rows: max(row["test_top1"] for row in rows),
    "ema_top1": lambda rows: rows[-1].get("ema_top1"),
    "train_loss": lambda rows: rows[-1]["train_loss"],
    "seconds": lambda rows: sum(row["seconds"] for row in rows),
}
"""What is measured of a finished run; accuracies in percent of the test images, None where it was not measured."""


@dataclass(frozen=True)
class Estimate:
    """A mean, and half the width of its interval of confidence; None for a single value."""

    mean: float
    half_width: float | None = None

    def as_dict(self):
        """Return both numbers as JSON shows them."""
        return {"mean": round(self.mean, 4), "half_width": self.half_width and round(self.half_width, 4)}

    def __format__(self, style):
        return f"{self.mean:{style}}" + ("" if self.half_width is None else f" ± {self.half_width:{style}}")


def estimate(values):
    """Return the mean of ``values`` with its 95 % interval by Student's t: t s / sqrt(n), n - 1 degrees of freedom.

    It holds for independent values with normal errors; runs with different seeds are near enough to that.
    """
    n = len(values)
    if n < 2:
        return Estimate(float(values[0]))
    half_width = stdtrit(n - 1, (1 + CONFIDENCE) / 2) * np.std(values, ddof=1) / math.sqrt(n)
    return Estimate(float(np.mean(values)), float(half_width))


@dataclass
class Group:
    """Runs of the same settings.

    Args:
        settings: those that tell this group from the others.
        runs: the finished ones, ``Outcome``s.
        unfinished: the others.
    """

    settings: dict
    runs: list = field(default_factory=list)
    unfinished: list = field(default_factory=list)

    @property
    def label(self):
        """The settings as a phrase: ``sl_vit, lr=0.001``."""
        return ", ".join(
            _text(value) if key in FIRST and key not in FILES else f"{key}={_text(value)}"
            for key, value in self.settings.items()
            if value is not None
        )

    @property
    def epochs(self):
        """The epochs of its runs, in rising order, each once."""
        return sorted({len(run.rows) for run in self.runs})

    def measure(self, metric):
        """Return the Estimate of one of ``METRICS`` over the finished runs; None where there is nothing to measure."""
        values = [METRICS[metric](run.rows) for run in self.runs]
        return None if not values or None in values else estimate(values)

    def repeated_seeds(self):
        """Return pairs (seed, runs) where several finished runs differ neither in the seed nor in any setting.

        They are no independent values, and an interval that counts each of them is too narrow.
        """
        settings = [settings_of(run.config) for run in self.runs]
        names = sorted({name for one in settings for name in one if name not in FILES})
        counts = Counter((one["seed"], _values(one, names)) for one in settings)
        return [(seed, runs) for (seed, _), runs in counts.items() if runs > 1]

    def as_dict(self):
        """Return what a comparison reports of the group, a dict that JSON can hold; None where nothing was measured."""
        measured = {name: self.measure(name) for name in METRICS}
        return {
            "settings": self.settings,
            "n": len(self.runs),
            "runs": [run.name for run in self.runs],
            "seeds": [run.config["seed"] for run in self.runs],
            "unfinished": [run.name for run in self.unfinished],
            "epochs": self.epochs,
            **{name: value and value.as_dict() for name, value in measured.items()},
        }


def settings_of(config):
    """Return the settings of a run as name -> value, one for each model argument.

    Those of distillation stay out where there is no teacher: they have no effect. A checkpoint is called by its run.
    """
    unused = {"model_args", *(TEACHING if config["teacher"] is None else ())}
    settings = {key: value for key, value in config.items() if key not in unused}
    for key in FILES:
        if settings[key] is not None:
            path = Path(settings[key])
            settings[key] = path.parent.name if path.stem in ("best", "last") and path.parent.name else path.name
    for key, value in config["model_args"].items():
        settings[f"model_args.{key}" if key in settings else key] = value
    return settings


def group(outcomes, by=None):
    """Sort runs into groups.

    Args:
        outcomes: ``Outcome``s whose settings are known.
        by: names of settings; runs with equal values of these are one group, whatever the others are. By default
            runs that differ in nothing but the seed are, and ``settings`` are the few that tell the groups apart.

    Returns:
        Groups, the highest final accuracy first, those without a finished run last.

    Raises:
        UsageError: no run has such a setting.
    """
    settings = [settings_of(outcome.config) for outcome in outcomes]
    known = list(dict.fromkeys(key for one in settings for key in one))
    for name in by or ():
        if name not in known:
            raise UsageError(f"no run has a setting {name!r}{suggest(name, known)}")
    keys = [name for name in known if name not in ("seed", *FILES)] if by is None else list(by)
    members = {}
    for outcome, one in zip(outcomes, settings):
        members.setdefault(_values(one, keys), []).append((outcome, one))
    firsts = [members[key][0][1] for key in members]
    names = by or _telling([*FIRST, *(name for name in known if name != "seed")], firsts)
    groups = []
    for runs, first in zip(members.values(), firsts):
        groups.append(Group({name: first.get(name) for name in names}))
        for outcome, _ in runs:
            (groups[-1].runs if outcome.status == FINISHED else groups[-1].unfinished).append(outcome)
    return sorted(groups, key=lambda g: -g.measure("final_top1").mean if g.runs else 0)


def mixed_settings(groups):
    """Return the names of the settings other than the seed that differ inside a group."""
    mixed = {}
    for one in groups:
        settings = [settings_of(run.config) for run in one.runs + one.unfinished]
        names = dict.fromkeys(key for each in settings for key in each if key not in ("seed", *FILES))
        mixed |= {name: None for name in names if len({_values(each, [name]) for each in settings}) > 1}
    return [name.removesuffix("_sha256") for name in mixed]


def table(groups, printable=str):
    """Return a table of the groups with finished runs, as text, with notes on what it counts twice.

    Args:
        groups: of :func:`group`.
        printable: function that makes the names and values of settings, which may be foreign, fit for a terminal.
    """
    groups = [g for g in groups if g.runs]
    columns = {
        "runs": lambda g: str(len(g.runs)),
        "final top-1 %": lambda g: f"{g.measure('final_top1'):.2f}",
        "EMA top-1 %": lambda g: f"{g.measure('ema_top1'):.2f}" if g.measure("ema_top1") else "-",
        "best top-1 %": lambda g: f"{g.measure('best_top1'):.2f}",
        "train loss": lambda g: f"{g.measure('train_loss'):.4f}",
        "epochs": lambda g: "-".join(map(str, sorted({g.epochs[0], g.epochs[-1]}))),
        "minutes": lambda g: f"{g.measure('seconds').mean / 60:.1f}",
    }
    if not any(g.measure("ema_top1") for g in groups):
        del columns["EMA top-1 %"]
    names = [printable(name) for name in groups[0].settings]
    rows = [
        [*(printable(_text(value)) for value in g.settings.values()), *(cell(g) for cell in columns.values())]
        for g in groups
    ]
    notes = [
        f"note: {printable(g.label)}: {runs} runs are equal in all settings and in the seed, {seed}; "
        "mean and interval take them for different seeds"
        for g in groups
        for seed, runs in g.repeated_seeds()
    ]
    return "\n".join([text_table([*names, *columns], rows, left=range(len(names))), *notes])


def save_comparison(path, groups):
    """Draw test accuracy and training loss over the epochs, a line for each group.

    A line is the mean of a group's finished runs, in a band from the lowest to the highest of them; runs that are not
    finished are dashed lines of their own.

    Args:
        path: the PNG file.
        groups: of :func:`group`.

    Raises:
        MinivitError: Matplotlib is not installed, or the file cannot be written.
    """
    groups = [g for g in groups if any(run.rows for run in g.runs + g.unfinished)]
    columns = max(1, 150 // (12 + max(len(g.label) for g in groups)))  # of the legend
    figure = new_figure(13, 4.8 + 0.25 * len(groups) / columns)
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    few, many = colormaps["tab10"].colors, colormaps["turbo"](np.linspace(0.05, 0.95, len(groups)))
    palette = few if len(groups) <= len(few) else many
    panels = figure.subplots(1, 2)
    for axes, key, title in zip(panels, ("test_top1", "train_loss"), ("test accuracy, top-1 (%)", "training loss")):
        for g, colour in zip(groups, palette):
            _draw_group(axes, g, key, colour)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    title = "mean; band: lowest to highest run" if any(len(g.runs) > 1 for g in groups) else None
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, title=title, frameon=False)
    save_figure(figure, path)


def _draw_group(axes, one, key, colour):
    if one.runs:
        length = one.epochs[0]  # of the shortest, if --by has put runs of different lengths together
        values = np.array([[row[key] for row in run.rows[:length]] for run in one.runs])
        epochs = np.arange(1, length + 1)
        label = plain(f"{one.label} (n={len(one.runs)})")
        axes.plot(epochs, values.mean(axis=0), color=colour, label=label, marker="o" if length == 1 else None)
        if len(one.runs) > 1:
            axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0)
    for number, run in enumerate(one.unfinished):
        label = plain(f"{one.label}, unfinished") if number == 0 else None
        epochs = [row["epoch"] for row in run.rows]
        axes.plot(epochs, [row[key] for row in run.rows], "--", color=colour, linewidth=1, label=label)


def _telling(names, settings):
    """The model, and of ``names``, in their order, those that tell apart what those before do not."""
    chosen, parts = ["model"], len({_values(one, ["model"]) for one in settings})
    for name in names:
        finer = len({_values(one, [*chosen, name]) for one in settings})
        if finer > parts:
            chosen, parts = [*chosen, name], finer
    return chosen


def _values(settings, names):
    """The values of these settings, as something that can be a key: the same for 1 and 1.0, but not for true."""
    values = json.dumps([settings.get(name) for name in names])
    return json.dumps(json.loads(values, parse_float=_number), sort_keys=True)


def _number(text):
    value = float(text)
    return int(value) if value.is_integer() else value


def _text(value):
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
