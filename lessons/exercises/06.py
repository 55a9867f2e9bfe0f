"""Exercises of lesson 06, why ViTs starve on small data. Check them: python -m lessons check 06"""


def neighbour_weights(rows, columns, down, right):
    """Return the attention weights by which every pixel looks at one neighbour.

    Args:
        rows, columns: size of the image; pixel (i, j) is token number i columns + j.
        down, right: where the neighbour lies, so many pixels below and to the right. The image is a
            torus: below the last row comes the first, right of the last column the first.

    Returns:
        (N, N), N = rows * columns: 1 where the token of the row looks at that of the column, and 0
        elsewhere.
    """
    raise NotImplementedError


def changed_answers(classify, images, pixels):
    """Return how many answers change when the images move to the right.

    Args:
        classify: function from images (B, C, H, W) to logits (B, K).
        images: (B, C, H, W) array.
        pixels: how far they move; what leaves on the right comes in again on the left.

    Returns:
        The share of the images whose likeliest class is another one than before, 0 to 1.
    """
    raise NotImplementedError


def images_needed(sizes, accuracies, target):
    """Return how many training images it takes to be so accurate.

    Args:
        sizes: numbers of images, growing, all positive.
        accuracies: percent of test images that are right with each of these numbers, growing.
        target: percent, at least accuracies[0].

    Returns:
        The number of images, a float that is not rounded, at which the curve through the measured
        points reaches the target: it is drawn as in the lesson, with straight lines over the
        *logarithm* of the number. None if it does not get there.
    """
    raise NotImplementedError
