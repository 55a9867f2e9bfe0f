"""Solutions of lesson 13."""

import numpy as np


def pack(x):
    rows, k = x.shape
    bits = np.zeros((rows, -(-k // 32) * 32), bool)
    bits[:, :k] = x >= 0
    return np.packbits(bits, axis=1, bitorder="little").view("<u4")


def sign_products(a, b, k):
    differ = np.bitwise_count(a[:, None, :] ^ b[None, :, :]).sum(axis=-1, dtype=int)
    return k - 2 * differ


def masked_products(mask, values):
    plus = np.bitwise_count(mask[:, None, :] & values[None, :, :]).sum(axis=-1, dtype=int)
    return 2 * plus - np.bitwise_count(mask).sum(axis=-1, dtype=int)[:, None]
