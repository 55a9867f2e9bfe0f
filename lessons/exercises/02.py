"""Exercises of lesson 02, checking gradients. Check them by: python -m lessons check 02"""


def central_difference(f, x, h):
    """Return the derivative of a number by each element of an array, by central differences.

    Args:
        f: function of an array of the shape of ``x``; returns a number.
        x: float array of any shape. It must be the same after the call as before.
        h: the step, the same for all elements.

    Returns:
        An array of the shape of ``x``.
    """
    raise NotImplementedError


def softmax_vjp(p, g):
    """Return the cotangent of x for p = softmax(x) along the rows.

    Args:
        p: (B, C), the softmax.
        g: (B, C), its cotangent.

    Returns:
        (B, C): J^T g for each row. The element of J in row i and column j is p_i (1 - p_i) for
        i = j, and -p_i p_j otherwise.
    """
    raise NotImplementedError


def is_right(f, vjp, x, rng):
    """Return whether a VJP is that of a function, within 1e-5: True or False.

    Args:
        f: function from an array of the shape of ``x`` to an array.
        vjp: function (x, g) -> array of the shape of ``x``, said to be J^T g. ``g`` has the shape
            of ``f(x)``.
        x: float64 array.
        rng: np.random.Generator, should you need one.
    """
    raise NotImplementedError
