"""Solutions of lesson 06."""

import numpy as np


def neighbour_weights(rows, columns, down, right):
    tokens = np.arange(rows * columns).reshape(rows, columns)
    neighbours = np.roll(tokens, (-down, -right), axis=(0, 1))
    weights = np.zeros((tokens.size, tokens.size))
    weights[tokens.ravel(), neighbours.ravel()] = 1
    return weights


def changed_answers(classify, images, pixels):
    before = classify(images).argmax(axis=1)
    after = classify(np.roll(images, pixels, axis=3)).argmax(axis=1)
    return (before != after).mean()


def images_needed(sizes, accuracies, target):
    if target > accuracies[-1]:
        return None
    return float(np.exp(np.interp(target, accuracies, np.log(sizes))))
