"""Exercises of lesson 15, packing. Check them by: python -m lessons check 15"""


def thresholds(scale, mean, slope, bias):
    """Return where the sign of a scaled and normalised product turns over, for each channel.

    For a product p, a whole number, the network computes (p scale - mean) slope + bias, and takes
    the sign of that. In exact arithmetic, the same signs come of comparing p with one number:
    they are direction * sign(p - threshold).

    Args:
        scale: (C,) above 0, of the binary weights.
        mean, slope, bias: (C,) of BatchNorm. Slopes are not 0, and some are negative.

    Returns:
        A pair: thresholds (C,), and directions (C,), each 1 or -1.
    """
    raise NotImplementedError


def byte_planes(x):
    """Return the bytes of floats, sorted by their place in the number.

    Args:
        x: (n,) float32.

    Returns:
        (4, n) of uint8: row i holds byte i of each number, where byte 0 is the lowest. Take for
        granted that this machine stores the lowest byte first; nearly all do.
    """
    raise NotImplementedError


def is_whole(content):
    """Return whether a file is as it was written: True or False.

    Args:
        content: bytes: first 4 bytes b"BITS", then 32 bytes, the SHA-256 of all that follows, then
            the rest. ``hashlib.sha256(b).digest()`` computes one.
    """
    raise NotImplementedError
