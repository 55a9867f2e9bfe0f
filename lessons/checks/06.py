"""How the exercises of lesson 06 are checked."""

import numpy as np

from lessons.checking import Exercise


def neighbour_cases(rng):
    return [(3, 4, 1, 0), (3, 4, 0, 1), (4, 5, -1, 1), (5, 6, 2, -3), (2, 3, 0, 0)]


def weights_of(rows, columns, place):
    """Weights (N, N), of a function (i, j) -> (row, column) or None."""
    weights = np.zeros((rows * columns, rows * columns))
    for i in range(rows):
        for j in range(columns):
            seen = place(i, j)
            if seen is not None:
                weights[i * columns + j, seen[0] * columns + seen[1]] = 1
    return weights


def other_side(rows, columns, down, right):
    return weights_of(rows, columns, lambda i, j: ((i - down) % rows, (j - right) % columns))


def no_torus(rows, columns, down, right):
    def place(i, j):
        inside = 0 <= i + down < rows and 0 <= j + right < columns
        return (i + down, j + right) if inside else None

    return weights_of(rows, columns, place)


def at_the_border(rows, columns, down, right):
    return weights_of(rows, columns, lambda i, j: (min(max(i + down, 0), rows - 1),
                                                   min(max(j + right, 0), columns - 1)))


def in_the_sequence(rows, columns, down, right):
    """The neighbour's number is right but for the borders, where it slips into another row."""
    n = rows * columns
    return np.roll(np.eye(n), down * columns + right, axis=1)


def turned(rows, columns, down, right):
    return weights_of(rows, columns, lambda i, j: ((i + right) % rows, (j + down) % columns))


def classifier(seed, numbers, classes):
    """Logits that depend on where things are, in rows and in columns."""
    weights = np.random.default_rng(seed).standard_normal((numbers, classes))
    return lambda images: images.reshape(len(images), -1) @ weights


def answer_cases(rng):
    return [(classifier(1, 50, 4), rng.standard_normal((997, 2, 5, 5)), 1),
            (classifier(2, 72, 3), rng.standard_normal((499, 3, 4, 6)), 2)]


def differ(classify, a, b):
    return classify(a).argmax(axis=1) != classify(b).argmax(axis=1)


def moved_left(classify, images, pixels):
    return differ(classify, images, np.roll(images, -pixels, axis=3)).mean()


def moved_down(classify, images, pixels):
    return differ(classify, images, np.roll(images, pixels, axis=2)).mean()


def no_wrap(classify, images, pixels):
    moved = np.zeros_like(images)
    moved[..., pixels:] = images[..., :-pixels]
    return differ(classify, images, moved).mean()


def whole_numbers(classify, images, pixels):
    return differ(classify, images, np.roll(images, pixels, axis=3)).sum()


def unchanged(classify, images, pixels):
    return (~differ(classify, images, np.roll(images, pixels, axis=3))).mean()


def logits_differ(classify, images, pixels):
    return (classify(images) != classify(np.roll(images, pixels, axis=3))).mean()


def curve_cases(rng):
    sizes, accuracies = [150, 500, 1500], [48.0, 56.0, 70.0]
    cases = [(sizes, accuracies, target) for target in (60.0, 50.0, 48.0, 70.0, 75.0)]
    return [*cases, ([100, 200, 900, 1000], [10.0, 35.0, 40.0, 41.0], 40.5)]


def straight_over_images(sizes, accuracies, target):
    return None if target > accuracies[-1] else float(np.interp(target, accuracies, sizes))


def next_measured(sizes, accuracies, target):
    return next((size for size, reached in zip(sizes, accuracies) if reached >= target), None)


def logarithm_left(sizes, accuracies, target):
    if target > accuracies[-1]:
        return None
    return float(np.interp(target, accuracies, np.log(sizes)))


def never_none(sizes, accuracies, target):
    return float(np.exp(np.interp(target, accuracies, np.log(sizes))))


EXERCISES = {
    "neighbour_weights": Exercise(
        neighbour_cases,
        "each row has one 1: in the column of the token that it looks at",
        {
            "that looks at the neighbour on the opposite side": other_side,
            "at the border some tokens look at nothing: there the torus goes on at the other end":
                no_torus,
            "at the border some tokens look at the border: there the torus goes on at the other "
            "end": at_the_border,
            "inside it is right, but at the end of a row the next token lies in the next row":
                in_the_sequence,
            "rows and columns are exchanged": turned,
        },
    ),
    "changed_answers": Exercise(
        answer_cases,
        "an answer is the class with the largest logit; compare those of the images and of the "
        "images that have moved",
        {
            "the images move to the left": moved_left,
            "the images move up or down: which axis is that of the columns?": moved_down,
            "what leaves on the right comes in again on the left": no_wrap,
            "that is their number, not their share": whole_numbers,
            "that is the share of the answers that stay": unchanged,
            "logits change almost always; what counts is which of them is the largest":
                logits_differ,
        },
    ),
    "images_needed": Exercise(
        curve_cases,
        "find the two measured points between which the curve reaches the target, and how far "
        "between them",
        {
            "the lines are straight over the logarithm of the number of images, not over the "
            "number": straight_over_images,
            "the curve reaches the target between two measured points, not only at one of them":
                next_measured,
            "that is the logarithm of the number": logarithm_left,
            "a target above the whole curve is not reached: None": never_none,
        },
    ),
}
