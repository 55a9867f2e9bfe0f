"""One pool of threads for every kernel.

Numba kernels here are serial and release the GIL; ``parallel_for`` runs them on ranges of rows, one Python thread
for each core. That is all that these loops need, it costs some 20 microseconds a call, it never competes with
a second thread pool of Numba's own, and the ranges depend on the number of threads alone, so that results
repeat bit for bit.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from minivit.errors import UsageError

_PIECES = 2  # for each thread
_pool = None
_threads = None


def num_threads():
    """Return how many threads the kernels use: ``set_num_threads``, else MINIVIT_THREADS, else the cores allowed."""
    global _threads
    if _threads is None:
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        set_num_threads(os.environ.get("MINIVIT_THREADS", available))
    return _threads


def set_num_threads(count):
    """Use ``count`` threads from now on. Raises UsageError unless it is a whole number of at least 1."""
    global _pool, _threads
    if not str(count).isdigit() or int(count) < 1:
        raise UsageError(f"the number of threads must be a whole number of at least 1, got {count!r}")
    if _pool is not None:
        _pool.shutdown()
        _pool = None
    _threads = int(count)


def parallel_for(body, n, grain):
    """Call ``body(start, stop)`` on ranges that cover ``range(n)``, on all threads when there is work enough.

    Args:
        body: the work on one range. Calls for different ranges run at the same time.
        n: number of rows.
        grain: fewest rows worth a thread of their own; choose it so that they take about 50 microseconds.
    """
    bounds = _bounds(n, grain)
    if len(bounds) == 2:
        body(0, n)
    else:
        list(_get_pool().map(body, bounds[:-1], bounds[1:]))


def partial_sums(body, n, grain, shape, dtype):
    """Like ``parallel_for`` with ``body(start, stop, total)``, each range adding into zeros of ``shape`` of its own.

    Returns the sum of those totals, in the order of the ranges.
    """
    bounds = _bounds(n, grain)
    totals = np.zeros((len(bounds) - 1, *shape), dtype)
    if len(totals) == 1:
        body(0, n, totals[0])
        return totals[0]
    list(_get_pool().map(body, bounds[:-1], bounds[1:], totals))
    return totals.sum(axis=0)


def _bounds(n, grain):
    """Where to cut ``range(n)``: pieces of at least ``grain``, several for each thread, so that a thread which is
    held up leaves its share to the others. One piece if there is only one thread."""
    pieces = 1 if num_threads() == 1 else max(1, min(_PIECES * num_threads(), n // max(1, grain)))
    return [n * i // pieces for i in range(pieces + 1)]


def _get_pool():
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(num_threads(), thread_name_prefix="minivit-kernel")
    return _pool
