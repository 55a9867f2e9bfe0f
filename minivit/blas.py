"""Settings that make BLAS fast, and a report of what is in force. Floor 0: only the standard library at import.

OpenBLAS, inside NumPy, reads its settings once, when NumPy is first imported. So ``import minivit`` calls
``prefer_fast_blas`` before that, and never overrides what the user has set.
"""

import os
import sys

_AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"}


def prefer_fast_blas():
    """Set OpenBLAS's environment, unless NumPy is loaded or the user has chosen.

    ``OPENBLAS_CORETYPE=SKYLAKEX``: kernels for AVX-512, where the processor has it; OpenBLAS does not know some
    recent processors and would run its AVX2 kernels. ``OPENBLAS_THREAD_TIMEOUT=4``: idle threads go to sleep at
    once, where they would otherwise spin on the cores that minivit's own kernels want next.
    """
    if "numpy" in sys.modules:
        return
    if _AVX512 <= cpu_flags():
        os.environ.setdefault("OPENBLAS_CORETYPE", "SKYLAKEX")
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")


def cpu_flags():
    """Return the processor's feature flags as Linux names them; empty elsewhere."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("flags"):
                    return set(line.split(":")[1].split())
    except OSError:
        pass
    return set()


def describe_blas():
    """Return one line on the BLAS that NumPy uses and the settings that it found when it was loaded."""
    import numpy as np

    info = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    core = os.environ.get("OPENBLAS_CORETYPE", "its own choice")
    return f"{info.get('name', 'unknown')} {info.get('version', '')}, core type {core}".replace(" ,", ",")
