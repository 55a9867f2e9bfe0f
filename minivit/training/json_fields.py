"""Dataclasses from JSON that nobody vouches for: a file may be damaged, foreign or of another version."""

from dataclasses import MISSING, fields

from minivit.errors import MinivitError

_HUGE = 1e300  # JSON's whole numbers know no bound, floats do


def from_json(kind, values, what):
    """Return the dataclass ``kind`` with the fields ``values``; those that are missing take their defaults.

    Args:
        kind: a dataclass whose annotations are types: bool, int, float, str, list, dict, or one of them or None.
        values: what should be a dict of JSON values of those types; no number may be negative, infinite or NaN.
        what: what ``values`` describe, for the messages.

    Raises:
        MinivitError: unknown or missing fields, or values of another type.
    """
    if not isinstance(values, dict):
        raise MinivitError(f"no JSON object for {what}")
    known = {f.name: f for f in fields(kind)}
    required = [name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    wrong = [name for name, value in values.items() if name in known and not fits(value, known[name].type)]
    for names, problem in (
        (values.keys() - known.keys(), "unknown to this version of minivit"),
        ([name for name in required if name not in values], "missing"),
        (wrong, "not of the right kind"),
    ):
        if names:
            raise MinivitError(f"among {what}, {', '.join(sorted(names))}: {problem}")
    return kind(**values)


def is_number(value):
    """Whether a JSON value is a number, finite and not negative."""
    return type(value) in (int, float) and 0 <= value < _HUGE


def fits(value, kind):
    """Whether a JSON value can stand in a field annotated with ``kind``."""
    if isinstance(value, bool):  # to Python, an int
        return kind is bool
    if isinstance(value, int | float):
        whole = type(value) is int and kind in (int, int | None)
        return is_number(value) and (whole or kind in (float, float | None))
    return isinstance(value, kind)
