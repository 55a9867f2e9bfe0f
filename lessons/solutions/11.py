"""Solutions of lesson 11."""

import numpy as np


def cutmix(images, partners, labels, partner_labels, classes, box):
    top, left, height, width = box
    mixed = images.copy()
    inside = np.s_[:, :, top : top + height, left : left + width]
    mixed[inside] = partners[inside]
    share = height * width / (images.shape[2] * images.shape[3])  # of the partners
    one_hot = np.eye(classes)
    return mixed, (1 - share) * one_hot[labels] + share * one_hot[partner_labels]


def drop_path(x, keep, rate):
    return x * keep[:, None, None] / (1 - rate)


def surviving_branches(rate, depth):
    return 2 * np.sum(1 - np.linspace(0, rate, depth))
