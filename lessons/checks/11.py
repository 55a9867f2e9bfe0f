"""How the exercises of lesson 11 are checked."""

import numpy as np

from lessons.checking import Exercise


def cutmix_cases(rng):
    boxes = [(2, 1, 3, 4), (0, 0, 2, 8), (0, 0, 6, 8), (3, 3, 0, 5)]
    images, partners = rng.standard_normal((2, 5, 3, 6, 8))
    images.flags.writeable = partners.flags.writeable = False
    labels, partner_labels = np.array([0, 1, 2, 3, 3]), np.array([3, 2, 1, 0, 3])
    return [(images, partners, labels, partner_labels, 4, box) for box in boxes]


def drop_cases(rng):
    return [
        # B = D: every axis broadcasts
        (rng.standard_normal((4, 3, 4)), np.array([True, False, False, True]), 0.25),
        (rng.standard_normal((2, 5, 3)), np.array([False, True]), 0.9),
        (rng.standard_normal((3, 1, 2)), np.array([True, True, True]), 0.0),
    ]


def depth_cases(rng):
    return [(0.1, 12), (0.5, 2), (0.3, 5), (0.0, 7)]


def paste(images, partners, box):
    top, left, height, width = box
    inside = np.zeros(images.shape[2:], bool)
    inside[top : top + height, left : left + width] = True
    return np.where(inside, partners, images)


def true_share(box, h, w):
    return box[2] * box[3] / (h * w)


def cutmix_by(share_of, pasted=lambda box: box):
    """CutMix with another rule for the share of the partners, or another box."""

    def cutmix(images, partners, labels, partner_labels, classes, box):
        share, one_hot = share_of(box, *images.shape[2:]), np.eye(classes)
        targets = (1 - share) * one_hot[labels] + share * one_hot[partner_labels]
        return paste(images, partners, pasted(box)), targets

    return cutmix


def box_kept(images, partners, labels, partner_labels, classes, box):
    return cutmix_by(true_share)(partners, images, labels, partner_labels, classes, box)


def one_label_for_another(images, partners, labels, partner_labels, classes, box):
    share, one_hot = true_share(box, *images.shape[2:]), np.eye(classes)
    targets = np.where(one_hot[partner_labels] == 1, share, (1 - share) * one_hot[labels])
    return paste(images, partners, box), targets


def not_divided(x, keep, rate):
    return x * keep[:, None, None]


def divided_by_rate(x, keep, rate):
    return x * keep[:, None, None] / rate if rate else x


def channels_dropped(x, keep, rate):
    return x * keep / (1 - rate)


def constant_rate(rate, depth):
    return 2 * depth * (1 - rate)


def one_branch(rate, depth):
    return np.sum(1 - np.linspace(0, rate, depth))


def from_one(rate, depth):
    return 2 * np.sum(1 - rate * np.arange(1, depth + 1) / depth)


def never_at_rate(rate, depth):
    return 2 * np.sum(1 - rate * np.arange(depth) / depth)


def dropped(rate, depth):
    return 2 * np.sum(np.linspace(0, rate, depth))


EXERCISES = {
    "cutmix": Exercise(
        cutmix_cases,
        "inside the box all is the partner's, outside nothing; its share of the area is its share "
        "of the target",
        {
            "the targets: the box is the part that the partner has": cutmix_by(
                lambda box, h, w: 1 - box[2] * box[3] / (h * w)
            ),
            "the share is one of area, so both sides of the box count": cutmix_by(
                lambda box, h, w: box[2] / h
            ),
            "labels change too, in proportion": cutmix_by(lambda box, h, w: 0.0),
            "the partner is pasted into the box, not around it": box_kept,
            "top and height count rows (axis 2), left and width columns (axis 3)": cutmix_by(
                true_share, lambda box: (box[1], box[0], box[3], box[2])
            ),
            "the box has a height and a width; they do not say where it ends": cutmix_by(
                true_share,
                lambda box: (box[0], box[1], max(box[2] - box[0], 0), max(box[3] - box[1], 0)),
            ),
            "where both have the same label, its shares add up": one_label_for_another,
        },
    ),
    "drop_path": Exercise(
        drop_cases,
        "zero the images that skip the branch, and scale the others so that the mean stays x",
        {
            "the expectation is (1 - rate) x: what is kept must make up for what is dropped":
                not_divided,
            "the probability of being kept is 1 - rate": divided_by_rate,
            "keep has one entry for each image, and images are axis 0": channels_dropped,
        },
    ),
    "surviving_branches": Exercise(
        depth_cases,
        "add up the probability of being kept over all branches",
        {
            "the rate is not the same in all blocks": constant_rate,
            "a block has two branches": one_branch,
            "the first block never drops anything": from_one,
            "the last block has the whole rate": never_at_rate,
            "that is how many are dropped": dropped,
        },
    ),
}
