"""Exercises of lesson 04, convolution. Check them by: python -m lessons check 04"""


def output_size(size, kernel, stride, padding):
    """Return how many windows fit into a line of pixels.

    Args:
        size: how many pixels there are.
        kernel: pixels of a window.
        stride: pixels from one window to the next.
        padding: zeros added at each of the two ends.

    Returns:
        An int: windows that lie within the padded line.
    """
    raise NotImplementedError


def im2col(x, kernel):
    """Return all windows of an image as columns.

    Args:
        x: (C, H, W).
        kernel: k, the windows' height and width in pixels. They lie at every place (stride 1), and
            there is no padding.

    Returns:
        (C k k, m n) for m = H - k + 1 rows of n = W - k + 1 windows. Element
        (c k k + u k + v, i n + j) is x[c, i + u, j + v].
    """
    raise NotImplementedError


def col2im(columns, shape, kernel):
    """Return the gradient of an image, given that of its columns: the VJP of ``im2col``.

    Args:
        columns: (C k k, m n), ordered as above: the gradient by each element of them.
        shape: (C, H, W), of the image.
        kernel: k, as above.

    Returns:
        (C, H, W).
    """
    raise NotImplementedError
