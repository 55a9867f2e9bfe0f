"""Which form of the kernels runs: ``MINIVIT_KERNELS=numba`` (default) or ``numpy`` (the plain twins)."""

import contextlib
import functools
import os

import numba

from minivit.errors import UsageError

BACKENDS = ("numba", "numpy")
_backend = os.environ.get("MINIVIT_KERNELS", "numba")
if _backend not in BACKENDS:
    raise UsageError(f"MINIVIT_KERNELS is {_backend!r}; expected one of {', '.join(BACKENDS)}")

# Reassociation lets loops that add up vectorise; NaN and infinity keep their meaning ("nnan", "ninf" are absent).
_FASTMATH = {"reassoc", "contract", "nsz"}
njit = functools.partial(numba.njit, nogil=True, cache=True, fastmath=_FASTMATH, error_model="numpy")

# Rounds after every operation, as NumPy does: for what must not differ in the last bit, because a sign is taken of it.
# Said in so many words: without, such a function takes over the flags of the fast one that calls it first.
exact_njit = functools.partial(numba.njit, nogil=True, cache=True, fastmath=False, error_model="numpy")


def get_backend():
    """Return the kernels in force, ``"numba"`` or ``"numpy"``."""
    return _backend


def set_backend(name):
    """Switch the kernels to ``name``. Raises UsageError for a name that is not in ``BACKENDS``."""
    global _backend
    if name not in BACKENDS:
        raise UsageError(f"unknown kernels {name!r}; expected one of {', '.join(BACKENDS)}")
    _backend = name


@contextlib.contextmanager
def use_backend(name):
    """Run a block on the kernels ``name``."""
    outer = get_backend()
    set_backend(name)
    try:
        yield
    finally:
        set_backend(outer)
