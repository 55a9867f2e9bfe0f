"""How the exercises of lesson 16 are checked."""

import numpy as np

from lessons.checking import Exercise


def number_cases(rng):
    return [(rng.uniform(-80, 80, 50),), (np.array([0.0, 0.3, -0.3]),)]


def split(x, k):
    return k, x - k * np.log(2)


def rounded_down(x):
    return split(x, np.floor(x / np.log(2)))


def towards_zero(x):
    return split(x, np.trunc(x / np.log(2) + 0.5))


def not_whole(x):
    return split(x, x / np.log(2))


def powers_of_e(x):
    k = np.floor(x + 0.5)
    return k, x - k


def row_cases(rng):
    """Iterators: who wants a second pass finds nothing left."""
    rows = [1.0, 3.0, 2.0, 5.0, -1.0], [-1e4, 1e4, 1e4 - 1], [-3.0]
    return [(iter(row),) for row in rows]


def one_pass(x, rescale, top=-np.inf, total=0.0):
    for value in x:
        new = max(top, value)
        total = total * rescale(top, new) + np.exp(value - new)
        top = new
    return top, total


def sum_left_as_it_was(x):
    return one_pass(x, lambda old, new: 1.0)


def scaled_upwards(x):
    with np.errstate(over="ignore"):
        return one_pass(x, lambda old, new: np.exp(new - old), next(x), 1.0)


def from_zero(x):
    """Wrong only where all entries are negative."""
    return one_pass(x, lambda old, new: np.exp(old - new), 0.0)


def two_passes(x):
    top = max(x)
    return top, sum(np.exp(value - top) for value in x)


def not_shifted(x):
    row = np.array(list(x))
    with np.errstate(over="ignore"):
        return row.max(), np.exp(row).sum()


def worker_cases(rng):
    shapes = ((3, 2), (2,))
    return [([[rng.standard_normal(s) for s in shapes] for _ in sizes], list(sizes))
            for sizes in ((7, 3, 2), (4, 4))]  # fmt: skip


def weighted(gradients, weights):
    return [sum(w * g for w, g in zip(weights, same)) for same in zip(*gradients)]


def all_workers_alike(gradients, sizes):
    return weighted(gradients, [1 / len(sizes)] * len(sizes))


def added_up(gradients, sizes):
    return weighted(gradients, [1] * len(sizes))


def weighted_sum(gradients, sizes):
    return weighted(gradients, sizes)


EXERCISES = {
    "split_exponent": Exercise(
        number_cases,
        "take the k for which k ln 2 is nearest to x; r is what is left",
        {
            "r runs from 0 to ln 2: let k be the nearest whole number, not the next one below":
                rounded_down,
            "negative numbers are rounded the wrong way: floor and trunc differ": towards_zero,
            "k must be whole: it becomes the exponent of a float": not_whole,
            "these are powers of e; a float's exponent is one of 2": powers_of_e,
        },
    ),
    "softmax_in_one_pass": Exercise(
        row_cases,
        "what does the old sum have to be multiplied by, so that it is measured from the new "
        "maximum?",
        {
            "when a new maximum comes, the sum so far must shrink": sum_left_as_it_was,
            "the factor is turned round: from a higher maximum, old terms are smaller":
                scaled_upwards,
            "do not begin with a maximum of 0: all numbers may be negative": from_zero,
            "this passes over the row twice, and the second time nothing is left": two_passes,
            "the sum is over e^(x - m), or it overflows": not_shifted,
        },
    ),
    "average_gradients": Exercise(
        worker_cases,
        "write the mean over all images as a sum over the workers",
        {
            "a worker with more images counts for more": all_workers_alike,
            "each worker's gradient is a mean already: their sum is too large": added_up,
            "the weights are the workers' shares of the images, which add up to 1": weighted_sum,
        },
    ),
}
