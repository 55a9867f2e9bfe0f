"""Solutions of lesson 16."""

import math

import numpy as np


def split_exponent(x):
    k = np.floor(x / np.log(2) + 0.5)
    return k, x - k * np.log(2)


def softmax_in_one_pass(x):
    top, total = -math.inf, 0.0
    for value in x:
        if value > top:
            total *= math.exp(top - value)  # all that came before was measured from the old top
            top = value
        total += math.exp(value - top)
    return top, total


def average_gradients(gradients, sizes):
    shares = [size / sum(sizes) for size in sizes]
    return [sum(share * g for share, g in zip(shares, same)) for same in zip(*gradients)]
