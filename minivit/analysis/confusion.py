"""Which classes a network takes for which: the confusion matrix, counted and drawn."""

import numpy as np

from minivit.analysis.figure import new_figure, plain, save_figure

MOST_WITH_NUMBERS = 20
"""So many classes at most have their names at the axes and the counts in the cells."""

PAIRS = 20
"""Confused pairs that are listed beside a larger matrix."""

LONGEST_NAME = 22


def confusion_matrix(labels, predictions, num_classes):
    """Count how often each class is taken for each.

    Args:
        labels, predictions: integer arrays ``(N,)`` with values in ``[0, num_classes)``.

    Returns:
        int64 array ``(num_classes, num_classes)``: row i, column j counts the images of class i that were taken for j.
    """
    rows = np.asarray(labels, np.int64)  # small integers would overflow in the product
    cells = np.bincount(rows * num_classes + predictions, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def most_confused(matrix, count):
    """Return up to ``count`` triples ``(class, taken for, images)`` of different classes, the most images first."""
    errors = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    order = np.argsort(-errors, axis=None, kind="stable")[:count]
    triples = ((*map(int, np.unravel_index(cell, errors.shape)), int(errors.flat[cell])) for cell in order)
    return [triple for triple in triples if triple[2] > 0]


def shares(matrix):
    """Return the rows of a confusion matrix in percent of the images of each class; 0 where there are none."""
    return 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)


def save_confusion(path, matrix, class_names, title):
    """Draw a confusion matrix. Colours show the share of a row, on a scale that keeps rare mistakes visible.

    Few classes have names, and counts in the cells; many have numbers, and a list of the pairs confused most.

    Args:
        path: the PNG file.
        matrix: of :func:`confusion_matrix`.
        class_names: as many names.
        title: what stands above.

    Raises:
        MinivitError: Matplotlib is not installed, or the file cannot be written.
    """
    few = len(matrix) <= MOST_WITH_NUMBERS
    side = max(4.5, 0.62 * len(matrix)) if few else 9.0
    figure = new_figure(side + (2 if few else 5), side)
    from matplotlib.colors import PowerNorm

    figure.suptitle(plain(title))
    axes, *beside = figure.subplots(1, 1 if few else 2, squeeze=False, width_ratios=None if few else (side, 3.6))[0]
    percent = shares(matrix)
    picture = axes.imshow(percent, cmap="Blues", norm=PowerNorm(0.5, 0, 100), interpolation="nearest")
    bar = figure.colorbar(picture, ax=axes, shrink=0.8, pad=0.02, ticks=(0, 1, 5, 10, 25, 50, 75, 100))
    bar.set_label("% of the images of a class")
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    if few:
        _write_counts(axes, matrix, percent, class_names)
    else:
        _write_pairs(*beside, matrix, class_names)
    save_figure(figure, path)


def _write_counts(axes, matrix, percent, class_names):
    names = [_short(name) for name in class_names]
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    for (i, j), images in np.ndenumerate(matrix):
        if images:
            colour = "white" if percent[i, j] > 40 else "black"  # dark blue begins there
            axes.text(j, i, str(images), ha="center", va="center", color=colour, fontsize=9)


def _write_pairs(axes, matrix, class_names):
    pairs = most_confused(matrix, PAIRS)
    lines = [f"{n:>4}  {_short(class_names[i])} ({i})\n      → {_short(class_names[j])} ({j})" for i, j, n in pairs]
    axes.set_axis_off()
    axes.text(0, 1, "images, class → taken for", va="top", fontsize=9, transform=axes.transAxes)
    axes.text(0, 0.965, "\n".join(lines), va="top", family="monospace", fontsize=8.5, linespacing=1.25,
              transform=axes.transAxes)  # fmt: skip


def _short(name):
    return plain(name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…")
