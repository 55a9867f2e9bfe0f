"""Exercises of lesson 16, fast NumPy. Check them by: python -m lessons check 16"""


def split_exponent(x):
    """Return what e^x is computed from: k and r with e^x = 2^k e^r.

    Args:
        x: (n,) float64.

    Returns:
        A pair: k (n,), whole numbers, and r (n,) with |r| <= ln(2) / 2.
    """
    raise NotImplementedError


def softmax_in_one_pass(x):
    """Return the two numbers that softmax needs, having read each entry of a row only once.

    A row that does not fit the cache is read from memory for its maximum, and once more for its
    sum. One pass is enough: keep the maximum and the sum of what has come so far. When a new
    maximum comes, the old sum is too large by a factor that you know.

    Args:
        x: an iterator over a row of floats: ``for value in x`` works once, and nothing else does.
            There is at least one, and they may be as large as 1e4, and as low as -1e4.

    Returns:
        A pair: the maximum m, and the sum of e^(x_i - m).
    """
    raise NotImplementedError


def average_gradients(gradients, sizes):
    """Return the gradient of a whole batch, of which each of several workers had a part.

    Args:
        gradients: a list with one entry for each worker: the list of its gradients, arrays, one for
            each parameter of the network. The loss of each worker was the mean over its images.
        sizes: how many images each worker had.

    Returns:
        A list of arrays: the gradients of the mean loss over all images, one for each parameter.
    """
    raise NotImplementedError
