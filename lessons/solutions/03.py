"""Solutions of lesson 03."""

import numpy as np


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def logit_gradient(z, labels):
    gradient = softmax(z)
    gradient[np.arange(len(labels)), labels] -= 1
    return gradient / len(labels)


def hidden_gradients(x, w1, b1, w2, dz):
    dh = (dz @ w2) * (x @ w1.T + b1 > 0)
    return dh.T @ x, dh.sum(axis=0)
