"""Errors that a user can cause, and the near names that help to mend them.

Library code raises these; the commands turn them into one line and an exit code.
"""

import difflib


class MinivitError(Exception):
    """Something failed that the user can put right: a missing file, a corrupt checkpoint, a NaN loss. Exit code 1."""


class UsageError(MinivitError):
    """The request itself makes no sense: an unknown name, a negative batch size. Exit code 2."""


def suggest(name, known):
    """Return ``"; did you mean 'sl_vit' or 's_vit'?"`` for the names in ``known`` nearest to ``name``, or ``""``."""
    near = difflib.get_close_matches(str(name), [str(k) for k in known], n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


class StateDictError(MinivitError, ValueError):
    """Arrays that do not fit a model: missing, unexpected or of the wrong shape, all listed at once."""
