"""How the exercises of lesson 15 are checked."""

import hashlib

import numpy as np

from lessons.checking import Exercise


def constant_cases(rng):
    scale = rng.uniform(0.1, 1, 6)
    mean, bias = rng.standard_normal((2, 6))
    slope = rng.uniform(0.2, 2, 6) * [1, -1, 1, 1, -1, 1]
    return [(scale, mean, slope, bias)]


def always_upwards(scale, mean, slope, bias):
    return (mean - bias / slope) / scale, np.ones_like(slope)


def without_scale(scale, mean, slope, bias):
    return mean - bias / slope, np.sign(slope)


def bias_not_divided(scale, mean, slope, bias):
    return (mean - bias) / scale, np.sign(slope)


def bias_added(scale, mean, slope, bias):
    return (mean + bias / slope) / scale, np.sign(slope)


def the_mean_alone(scale, mean, slope, bias):
    return mean / scale, np.sign(slope)


def float_cases(rng):
    return [(rng.standard_normal(5).astype(np.float32),), (np.array([1, 256], np.float32),)]


def number_by_number(x):
    return x.view(np.uint8).reshape(4, -1)


def in_rows(x):
    return x.view(np.uint8).reshape(-1, 4)


def highest_first(x):
    return x.view(np.uint8).reshape(-1, 4).T[::-1]


def rounded(x):
    """The numbers turned to integers in place of looked at as bytes."""
    return np.tile(np.abs(x).astype(np.uint8), (4, 1))


def content(rest):
    return b"BITS" + hashlib.sha256(rest).digest() + rest


def file_cases(rng):
    """Whole files come last: before them, who always says yes is wrong."""
    whole = content(rng.bytes(50))
    swapped = whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]
    digest_changed = whole[:4] + bytes([whole[4] ^ 1]) + whole[5:]
    other_magic = b"BITZ" + whole[4:]
    files = [swapped, other_magic, digest_changed, whole[:-1], whole + b"\0", whole[:10], b""]
    return [(file,) for file in [*files, whole, content(b"")]]


def looks_at_the_beginning(file):
    return file[:4] == b"BITS" and len(file) >= 36


def any_beginning(file):
    return file[4:36] == hashlib.sha256(file[36:]).digest()


def of_everything(file):
    return file[:4] == b"BITS" and file[4:36] == hashlib.sha256(file[4:]).digest()


EXERCISES = {
    "thresholds": Exercise(
        constant_cases,
        "set the expression to 0 and solve for p; then ask on which side of it the sign is +1",
        {
            "where the slope is negative, larger products give the sign -1": always_upwards,
            "this is the threshold of p scale, not of p": without_scale,
            "the bias is added behind the slope, so that before it, it weighs bias / slope":
                bias_not_divided,
            "a bias that helps upwards lets smaller products do": bias_added,
            "BatchNorm's bias moves the threshold, too": the_mean_alone,
        },
    ),
    "byte_planes": Exercise(
        float_cases,
        "look at the floats as bytes, four of them to a number",
        {
            "the shape is right, but a row holds all bytes of a few numbers": number_by_number,
            "one row for each number: it should be one column": in_rows,
            "the lowest bytes belong into the first row": highest_first,
            "do not convert the numbers: look at the bytes that they are stored in (view)": rounded,
        },
    ),
    "is_whole": Exercise(
        file_cases,
        "compute the checksum of the rest anew, and compare",
        {
            "one bit of the rest may be wrong: compute its checksum": looks_at_the_beginning,
            "another kind of file may have a checksum in that place: look at the first 4 bytes":
                any_beginning,
            "a whole file is refused: do you compare 32 bytes with the checksum of all that "
            "follows them, and of nothing else?": of_everything,
        },
    ),
}
