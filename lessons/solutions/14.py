"""Solutions of lesson 14."""

import numpy as np


def mean_of_three(x):
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    return (padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]) / 3


def shortcut(x, width):
    rows, channels = x.shape
    if width >= channels:
        return np.tile(x, width // channels)
    return x.reshape(rows, width, channels // width).mean(axis=2)


def attention_bops(tokens, width, reduction):
    keys = tokens // reduction**2
    units = tokens + 2 * keys + (keys if reduction > 1 else 0)
    return units * width**2 + 2 * tokens * keys * width
