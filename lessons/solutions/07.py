"""Solutions of lesson 07."""

import numpy as np


def shifted(image, up, left):
    c, h, w = image.shape
    border = max(abs(up), abs(left))
    padded = np.pad(image, [(0, 0), (border, border), (border, border)])
    return padded[:, border - up : border - up + h, border - left : border - left + w]


def spt_vectors(image, p):
    s = p // 2
    corners = ((s, s), (s, -s), (-s, s), (-s, -s))
    joined = np.concatenate([image, *(shifted(image, up, left) for up, left in corners)])
    c, h, w = joined.shape
    grid = joined.reshape(c, h // p, p, w // p, p).transpose(1, 3, 2, 4, 0)
    return grid.reshape(-1, p * p * c)


def window(row, column, p, height, width):
    s = p // 2
    top, left = row * p - s, column * p - s
    bottom, right = row * p + p + s, column * p + p + s
    return max(top, 0), min(bottom, height), max(left, 0), min(right, width)
