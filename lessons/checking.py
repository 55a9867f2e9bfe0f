"""How exercises are checked: what the reader wrote is called beside a solution, and beside typical mistakes.

For lesson NN there are ``exercises/NN.py``, the stubs; ``solutions/NN.py``, the same functions written; and
``checks/NN.py``, a dictionary ``EXERCISES``: name of a function -> :class:`Exercise`.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
STOPPED = "stopped by Ctrl-C: does a loop in it never end?"


@dataclass(frozen=True)
class Exercise:
    """How one function is checked.

    Args:
        cases: function of an ``np.random.Generator`` that returns a list of argument tuples.
        hint: what to think of where the result is wrong in no way that is known.
        mistakes: hint -> a function that makes that typical mistake.
        tolerance: by how much numbers may differ from the solution's, relative to the largest.
        accepts: where more than one result is right: function of the result and the arguments.
    """

    cases: Callable
    hint: str
    mistakes: dict = field(default_factory=dict)
    tolerance: float = 1e-6
    accepts: Callable | None = None


def numbers():
    """Numbers of the lessons that have exercises, sorted, as "07"."""
    return sorted(path.stem for path in (HERE / "checks").glob("[0-9][0-9].py"))


def solution(number):
    """Path of the file with solutions."""
    return HERE / "solutions" / f"{number}.py"


def check(number, file=None):
    """Check what the reader has written.

    Args:
        number: of the lesson, as "07". file: another file than ``exercises/NN.py``.

    Returns:
        name of the exercise -> None where it is right, else a hint.
    """
    exercises = load(HERE / "checks" / f"{number}.py").EXERCISES
    right = load(solution(number))
    try:
        written = load(file or HERE / "exercises" / f"{number}.py")
    except KeyboardInterrupt:
        return dict.fromkeys(exercises, STOPPED)
    except (Exception, SystemExit) as error:  # whatever readers write
        return dict.fromkeys(exercises, f"the file cannot be read: {describe(error)}")
    return {
        name: judge(exercise, getattr(written, name, None), getattr(right, name))
        for name, exercise in exercises.items()
    }


def judge(exercise, written, right):
    """Return None if the function ``written`` does on all cases what ``right`` does, else a hint."""
    if not callable(written):
        return "the function is gone: its name and its arguments must stay"
    for number, expected_arguments in enumerate(exercise.cases(np.random.default_rng(0))):
        fresh = exercise.cases(np.random.default_rng(0))[number]
        try:
            result = written(*fresh)
        except NotImplementedError:
            return "not written yet"
        except KeyboardInterrupt:
            return STOPPED
        except (Exception, SystemExit) as error:  # whatever readers write
            return f"it stops: {describe(error)}"
        changed = any(map(differ, fresh, expected_arguments))
        expected = right(*expected_arguments)
        accepted = exercise.accepts is not None and exercise.accepts(result, *expected_arguments)
        if accepted or agree(result, expected, exercise.tolerance):
            if changed:
                return "it changes what it is given: work on a copy"
            continue
        for hint, mistake in exercise.mistakes.items():
            if agree(result, mistake(*exercise.cases(np.random.default_rng(0))[number]), exercise.tolerance):
                return hint
        return f"{exercise.hint} ({difference(result, expected, exercise.tolerance)})"
    return None


def agree(a, b, tolerance):
    """Whether two results are equal: numbers within the tolerance, shapes and the rest exactly."""
    if isinstance(b, tuple | list):
        return is_sequence(a) and len(a) == len(b) and all(map(agree, a, b, [tolerance] * len(b)))
    if b is None or isinstance(b, str | bool):
        return np.array_equal(a, b)  # never an array, whatever a is
    try:
        if np.iscomplexobj(a):
            return False
        a, b = np.asarray(a, float), np.asarray(b, float)
    except (TypeError, ValueError, OverflowError):
        return False
    return a.shape == b.shape and not wrong(a, b, tolerance).any()


def wrong(numbers, expected, tolerance):
    """Which numbers of an array differ by more than the tolerance, relative to the largest (or to 1)."""
    return ~np.isclose(numbers, expected, rtol=0, atol=tolerance * max(1.0, np.abs(expected).max(initial=0)))


def differ(now, before):
    """Whether an argument, or a part of it, has changed; what is no array and has no parts is taken as it is."""
    if isinstance(before, dict):
        return list(now) != list(before) or any(differ(now[key], before[key]) for key in before)
    if isinstance(before, tuple | list):
        return len(now) != len(before) or any(map(differ, now, before))
    return isinstance(before, np.ndarray) and not np.array_equal(now, before, equal_nan=True)


def is_sequence(value):
    """Whether a value has parts: a tuple, a list, or an array of at least one axis."""
    return isinstance(value, tuple | list) or (isinstance(value, np.ndarray) and value.ndim > 0)


def difference(result, expected, tolerance):
    """In a few words, how a result differs from the one that is right."""
    if isinstance(expected, tuple | list):
        if not is_sequence(result):
            return f"it gives {type(result).__name__}, and should give a {type(expected).__name__}"
        if len(result) != len(expected):
            return f"it gives {len(result)} values, and should give {len(expected)}"
    if isinstance(expected, np.ndarray):
        try:
            shape = np.shape(result)
        except ValueError:
            return "its rows are not of equal length"
        if shape != expected.shape:
            return f"its shape is {shape}, and should be {expected.shape}"
        count = np.count_nonzero(wrong(result, expected.astype(float), tolerance))
        return f"{count} of {expected.size} numbers are wrong"
    return f"it gives {' '.join(str(result).split())[:60]}"


def describe(error):
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def load(path):
    """Return a file as a module, under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"lessons_{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
