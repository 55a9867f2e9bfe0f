"""The machine and the software under a run: what one must know to repeat it bit for bit."""

import os
import platform
from importlib import metadata

from minivit import __version__
from minivit.blas import describe_blas
from minivit.kernels.backend import get_backend
from minivit.kernels.threads import num_threads


def describe_environment():
    """Return a dict of JSON values: versions, processor, threads, BLAS, kernels."""
    return {
        "python": platform.python_version(),
        "minivit": __version__,
        **{name: metadata.version(name) for name in ("numpy", "numba", "scipy")},
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": num_threads(),
        "blas": describe_blas(),
        "kernels": get_backend(),
    }


def cpu_name():
    """Return the processor's own name where the system tells it."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
