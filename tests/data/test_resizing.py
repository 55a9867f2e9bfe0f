"""Resizing against Pillow, byte for byte; crops against one image after the other."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from minivit.data import resizing
from minivit.data.resizing import random_crop_boxes, random_resized_crop, resize
from minivit.errors import UsageError

sides = st.integers(1, 33)


def images_of(count, height, width, rng, extreme=False):
    if extreme:  # black and white only: the cubic overshoots at every edge
        return rng.choice(np.array([0, 255], np.uint8), (count, 3, height, width))
    return rng.integers(0, 256, (count, 3, height, width), np.uint8)


def boxes_of(count, height, width, rng):
    box_heights, box_widths = rng.integers(1, height + 1, count), rng.integers(1, width + 1, count)
    tops, lefts = rng.integers(0, height - box_heights + 1), rng.integers(0, width - box_widths + 1)
    return np.stack([tops, lefts, box_heights, box_widths], axis=1)


def pillow_resize(pixels, size, interpolation, box, cut):
    """One image ``(3, H, W)`` resized by Pillow."""
    pillow = pytest.importorskip("PIL", reason="Pillow is not installed")
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    filter = Image.Resampling[interpolation.upper()]
    (height, width), (top, left, box_height, box_width) = size, (int(number) for number in box)
    if cut:
        image = image.crop((left, top, left + box_width, top + box_height))
        top = left = 0
    right, bottom = left + box_width, top + box_height
    shrink_height, shrink_width = image.height - height, image.width - width
    if int(pillow.__version__.partition(".")[0]) < 13 and shrink_height > max(0, 2 * shrink_width):
        # Pillow 13 resizes the rows first in this case. One axis at a time, all versions agree.
        image = image.resize((image.width, height), filter, box=(0, top, image.width, bottom))
        top, bottom = 0, height
    resized = image.resize((width, height), filter, box=(left, top, right, bottom))
    return np.asarray(resized).transpose(2, 0, 1)


@given(
    seed=st.integers(0, 2**32),
    height=sides,
    width=sides,
    size=st.tuples(sides, sides),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    cut=st.booleans(),
    extreme=st.booleans(),
)
def test_equals_pillow_in_every_byte(seed, height, width, size, interpolation, cut, extreme):
    rng = np.random.default_rng(seed)
    images, boxes = images_of(4, height, width, rng, extreme), boxes_of(4, height, width, rng)
    before = images.copy()
    resized = resize(images, size, interpolation, boxes, cut=cut)
    assert resized.dtype == np.uint8
    for image, box, result in zip(images, boxes, resized):
        np.testing.assert_array_equal(result, pillow_resize(image, size, interpolation, box, cut))
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (1, 1, (7, 5)),
        (7, 5, (1, 1)),
        (97, 3, (2, 50)),
        (3, 97, (50, 2)),
        (97, 91, (11, 10)),
        (97, 60, (30, 55)),  # Pillow 13: rows first
        (60, 97, (55, 30)),
        (64, 64, (224, 224)),
    ],
)
def test_whole_images_equal_pillow(height, width, size, interpolation):
    images = images_of(3, height, width, np.random.default_rng(0))
    for image, result in zip(images, resize(images, size, interpolation)):
        expected = pillow_resize(image, size, interpolation, (0, 0, height, width), cut=False)
        np.testing.assert_array_equal(result, expected)


def test_a_box_of_the_right_size_is_copied():
    images = images_of(2, 9, 8, np.random.default_rng(0))
    for interpolation in ("bilinear", "bicubic"):
        for cut in (False, True):
            result = resize(images, (4, 5), interpolation, (3, 2, 4, 5), cut=cut)
            np.testing.assert_array_equal(result, images[:, :, 3:7, 2:7])


def test_images_are_independent_of_their_batch(monkeypatch):
    rng = np.random.default_rng(1)
    images, boxes = images_of(9, 21, 17, rng), boxes_of(9, 21, 17, rng)
    together = resize(images, (12, 14), boxes=boxes, cut=True)
    monkeypatch.setattr(resizing, "CHUNK", 2 * 3 * 21 * 17)  # two images at once
    np.testing.assert_array_equal(resize(images, (12, 14), boxes=boxes, cut=True), together)
    alone = [resize(images[i : i + 1], (12, 14), boxes=boxes[i], cut=True)[0] for i in range(9)]
    np.testing.assert_array_equal(alone, together)


def test_a_cut_image_does_not_see_what_lies_outside():
    images = np.full((1, 3, 12, 12), 255, np.uint8)
    images[:, :, 4:8, 4:8] = 10
    assert np.all(resize(images, (9, 9), boxes=(4, 4, 4, 4), cut=True) == 10)
    assert resize(images, (9, 9), boxes=(4, 4, 4, 4)).max() > 10


def test_senseless_requests_are_refused():
    images = np.zeros((2, 3, 8, 8), np.uint8)
    with pytest.raises(UsageError, match="did you mean 'bicubic'"):
        resize(images, (4, 4), "bicubik")
    with pytest.raises(UsageError, match="0 x 4"):
        resize(images, (0, 4))
    for box in ((0, 0, 9, 8), (0, -1, 4, 4), (5, 5, 4, 3), (0, 0, 0, 4)):
        with pytest.raises(UsageError, match="8 x 8"):
            resize(images, (4, 4), boxes=box)


def reference_crop_box(height, width, rng, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)):
    """torchvision's rule for one image, with the standard library's generator."""
    for _ in range(10):
        area = rng.uniform(*scale) * height * width
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            return rng.randint(0, height - box_height), rng.randint(0, width - box_width), box_height, box_width
    box_height, box_width = height, width
    if width / height < ratio[0]:
        box_height = round(width / ratio[0])
    elif width / height > ratio[1]:
        box_width = round(height * ratio[1])
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


@pytest.mark.parametrize(
    ("height", "width", "ranges"),
    [
        (224, 224, {}),
        (32, 32, {}),
        (60, 200, {}),
        (200, 40, {}),
        (50, 70, {"scale": (0.3, 0.9), "ratio": (1.2, 2.0)}),
    ],
)
def test_crop_boxes_are_distributed_as_in_torchvision(height, width, ranges):
    boxes = random_crop_boxes(20000, height, width, np.random.default_rng(0), **ranges)
    rng = random.Random(0)
    reference = np.array([reference_crop_box(height, width, rng, **ranges) for _ in range(20000)])
    for mine, theirs in zip(boxes.T, reference.T):
        assert stats.ks_2samp(mine, theirs).pvalue > 0.001
    for shape in (np.multiply, np.divide):  # area and aspect
        mine, theirs = shape(boxes[:, 2], boxes[:, 3]), shape(reference[:, 2], reference[:, 3])
        assert stats.ks_2samp(mine, theirs).pvalue > 0.001
    assert np.all(boxes[:, :2] >= 0)
    assert np.all(boxes[:, :2] + boxes[:, 2:] <= (height, width))


def test_crop_boxes_of_square_images_keep_their_ranges():
    boxes = random_crop_boxes(5000, 500, 500, np.random.default_rng(2))
    areas, ratios = boxes[:, 2] * boxes[:, 3] / 500**2, boxes[:, 3] / boxes[:, 2]
    assert 0.079 < areas.min() < 0.085
    assert areas.max() > 0.97
    assert 0.74 < ratios.min() < 0.76
    assert 1.32 < ratios.max() < 1.35
    np.testing.assert_allclose(np.log(ratios).mean(), 0, atol=0.01)


@pytest.mark.parametrize(
    ("height", "width", "central"),
    [(1, 64, (0, 31, 1, 1)), (64, 2, (30, 0, 3, 2)), (400, 9, (194, 0, 12, 9)), (9, 400, (0, 194, 9, 12))],
)
def test_without_a_box_that_fits_the_middle_is_taken(height, width, central):
    boxes = random_crop_boxes(50, height, width, np.random.default_rng(0), scale=(0.99, 1.0))
    np.testing.assert_array_equal(boxes, np.tile(central, (50, 1)))


def test_without_a_box_that_fits_a_square_image_is_taken_whole():
    boxes = random_crop_boxes(20, 30, 30, np.random.default_rng(0), scale=(1.5, 2.0))
    np.testing.assert_array_equal(boxes, np.tile((0, 0, 30, 30), (20, 1)))


@given(seed=st.integers(0, 2**32), height=sides, width=sides, size=st.tuples(sides, sides))
def test_random_resized_crop_cuts_and_resizes_its_boxes(seed, height, width, size):
    rng = np.random.default_rng(seed)
    images = images_of(3, height, width, rng)
    crops = random_resized_crop(images, size, np.random.default_rng(seed), interpolation="bilinear")
    boxes = random_crop_boxes(3, height, width, np.random.default_rng(seed))
    for image, box, crop in zip(images, boxes, crops):
        np.testing.assert_array_equal(crop, pillow_resize(image, size, "bilinear", box, cut=True))
