"""Keep freed memory for the next step.

A training step allocates and frees the same large arrays every time. glibc by default gives each one back to
the operating system, and pays for fresh zeroed pages at the next use: steps of SL-ViT took 20 to 45 % longer.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # from malloc.h
_HUGE = 2**31 - 1


def keep_freed_memory():
    """Tell malloc to reuse large blocks rather than return them; for the whole process. Returns whether it could.

    The training commands call it; importing minivit does not. Peak memory stays what it was: only what has been
    freed is kept. Has no effect where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _HUGE) and mallopt(_M_TOP_PAD, 1 << 26))
