"""Solutions of lesson 12."""

import numpy as np


def binarize(weight):
    scale = np.abs(weight).mean(axis=1, keepdims=True)
    centred = weight - weight.mean(axis=1, keepdims=True)
    return np.where(centred >= 0, scale, -scale)


def sign_backward(cotangent, x):
    return cotangent * np.where(np.abs(x) <= 1, 2 - 2 * np.abs(x), 0)


def train_bit(gradients, latent, rate):
    signs = []
    for gradient in gradients:
        if abs(latent) <= 1:
            latent = latent - rate * gradient
        signs.append(1 if latent >= 0 else -1)
    return np.array(signs)
