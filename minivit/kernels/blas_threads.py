"""Run BLAS on one thread while minivit's own pool shares out the rows.

OpenBLAS splits each product among threads that wait for one another several times within it. When anything else
wants a core, all of them wait for the slowest: on two cores beside one busy process products took 4.9 times as
long as on an idle machine, and 1.8 times when the pool had cut them into independent blocks of rows.
"""

import contextlib
import ctypes
import functools
import threading

_SUFFIXES = ("64_", "")
_PREFIXES = ("scipy_", "")
_lock = threading.Lock()
_depth = 0
_outer = []


@functools.cache
def _libraries():
    """(get, set) functions of the number of threads, for every OpenBLAS that this process has loaded."""
    try:
        with open("/proc/self/maps") as maps:
            paths = {line.split(maxsplit=5)[-1].strip() for line in maps if "openblas" in line}
    except OSError:
        return []
    found = []
    for path in sorted(paths):
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        for name in (f"{p}openblas_{{}}_num_threads{s}" for p in _PREFIXES for s in _SUFFIXES):
            if hasattr(library, name.format("set")):
                found.append((getattr(library, name.format("get")), getattr(library, name.format("set"))))
                break
    return found


def controllable():
    """Return whether the number of BLAS threads can be set here (OpenBLAS, on Linux)."""
    return bool(_libraries())


@contextlib.contextmanager
def single_threaded_blas():
    """Let BLAS use one thread inside the block; the last block to end restores what was set before the first."""
    global _depth, _outer
    with _lock:
        if _depth == 0:
            _outer = [get() for get, _ in _libraries()]
            for _, set_threads in _libraries():
                set_threads(1)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                for (_, set_threads), count in zip(_libraries(), _outer, strict=True):
                    set_threads(count)
