"""One pool of threads for every kernel.

Numba kernels and single-threaded BLAS release the GIL; ``parallel_for`` runs them on ranges of rows. The calling
thread takes pieces like all others, so that nothing is lost when they are slow to wake up, and never
competes with a second pool of Numba's own. The pieces depend only on the sizes and the number of threads, so that
results repeat bit for bit.
"""

import math
import os
import queue
import threading

import numpy as np

from minivit.errors import UsageError

CHUNK_BYTES = 1 << 19  # intermediate results that a thread handles at a time: half a typical L2 cache
_PIECES = 2  # for each thread
_threads = None
_workers = 0
_jobs = queue.SimpleQueue()
_starting = threading.Lock()


def num_threads():
    """Return how many threads the kernels use: ``set_num_threads``, else MINIVIT_THREADS, else the cores allowed."""
    global _threads
    if _threads is None:
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        set_num_threads(os.environ.get("MINIVIT_THREADS", available))
    return _threads


def set_num_threads(count):
    """Use ``count`` threads from now on. Raises UsageError unless it is a whole number of at least 1."""
    global _threads, _workers
    if not str(count).isdecimal() or int(count) < 1:
        raise UsageError(f"the number of threads must be a whole number of at least 1, got {count!r}")
    _threads = int(count)
    for _ in range(_workers):
        _jobs.put(None)  # the old ones end; the next job starts new ones
    _workers = 0


def row_grain(x, elements=1 << 16):
    """The ``grain`` of ``parallel_for`` over the rows of ``x``, its first axis.

    Args:
        elements: how many take about 50 microseconds; by default, of a loop that is bound by memory.
    """
    return elements // max(1, math.prod(x.shape[1:]))


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
        _run(body, list(zip(bounds[:-1], bounds[1:], strict=True)))


def partial_sums(body, n, grain, shape, dtype):
    """Like ``parallel_for`` with ``body(start, stop, total)``, each range adding into zeros of ``shape`` of its own.

    Returns the sum of those totals, in the order of the ranges.
    """
    bounds = _bounds(n, grain)
    totals = np.zeros((len(bounds) - 1, *shape), dtype)
    if len(totals) == 1:
        body(0, n, totals[0])
        return totals[0]
    _run(body, list(zip(bounds[:-1], bounds[1:], totals, strict=True)))
    return totals.sum(axis=0)


def _bounds(n, grain):
    """Where to cut ``range(n)``: pieces of at least ``grain``, several for each thread, so that a thread which is
    held up leaves its share to the others. One piece if there is only one thread."""
    pieces = 1 if num_threads() == 1 else max(1, min(_PIECES * num_threads(), n // max(1, grain)))
    return [n * i // pieces for i in range(pieces + 1)]


class _Job:
    """Calls of one function with several tuples of arguments, which any number of threads work off together."""

    def __init__(self, body, pieces):
        self.body, self.pieces = body, pieces
        self.lock, self.done = threading.Lock(), threading.Event()
        self.taken = self.finished = 0
        self.error = None

    def work(self):
        """Take pieces until none is left."""
        while True:
            with self.lock:
                number, self.taken = self.taken, self.taken + 1
            if number >= len(self.pieces):
                return
            try:
                self.body(*self.pieces[number])
            except BaseException as error:
                self.error = error
            with self.lock:
                self.finished += 1
                last = self.finished == len(self.pieces)
            if last:
                self.done.set()


def _run(body, pieces):
    global _workers
    with _starting:
        while _workers < num_threads() - 1:  # the calling thread is one more
            threading.Thread(target=_serve, name=f"minivit-kernel-{_workers}", daemon=True).start()
            _workers += 1
    job = _Job(body, pieces)
    for _ in range(_workers):
        _jobs.put(job)
    job.work()
    job.done.wait()
    if job.error is not None:
        raise job.error


def _serve():
    while (job := _jobs.get()) is not None:
        job.work()


def _forget_threads():
    """After a fork the child has none of them, and must not share a queue with the parent's."""
    global _jobs, _starting, _workers
    _jobs, _starting, _workers = queue.SimpleQueue(), threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
