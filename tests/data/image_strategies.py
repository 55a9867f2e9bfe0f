"""Random small images for Hypothesis, and Pillow's side of a comparison."""

import numpy as np
import pytest
from hypothesis import strategies as st


@st.composite
def image_batches(draw, max_side=19):
    """Three RGB images of one odd or even size, 1x1 too, as uint8 ``(3, 3, H, W)``: noise, few levels or flat."""
    height, width = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    low, high = draw(st.sampled_from([(0, 256), (100, 104), (250, 256), (0, 2), (77, 78)]))
    images = rng.integers(low, high, (3, 3, height, width))
    if draw(st.booleans()):
        images *= rng.random((3, 3, height, width)) < 0.3  # mostly black
    return images.astype(np.uint8)


def through_pillow(function, images, *arguments):
    """Apply ``function(pillow_image, argument...)`` to each image; ``arguments`` are arrays ``(B,)``."""
    image_module = pytest.importorskip("PIL.Image")
    results = []
    for image, *own in zip(images, *(argument.tolist() for argument in arguments)):
        result = function(image_module.fromarray(image.transpose(1, 2, 0).copy()), *own)
        results.append(np.asarray(result).transpose(2, 0, 1))
    return np.stack(results)
