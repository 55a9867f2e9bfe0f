"""Floor 0: loops over plain arrays. Every kernel has a Numba form, a NumPy twin that says what it means, and one
public function that picks between them by ``MINIVIT_KERNELS`` (``numba``, the default, or ``numpy``).
"""

from minivit.kernels.backend import get_backend, use_backend

__all__ = ["get_backend", "use_backend"]
