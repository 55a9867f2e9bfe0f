"""Solutions of lesson 15."""

import hashlib

import numpy as np


def thresholds(scale, mean, slope, bias):
    # (p scale - mean) slope + bias = 0, solved for p; a negative slope turns the comparison round.
    return (mean - bias / slope) / scale, np.sign(slope)


def byte_planes(x):
    return x.view(np.uint8).reshape(-1, 4).T


def is_whole(content):
    magic, digest, rest = content[:4], content[4:36], content[36:]
    return magic == b"BITS" and digest == hashlib.sha256(rest).digest()
