"""Random erasing: where, how large, with what."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from minivit.data.erasing import box_mask, random_boxes, random_erasing
from minivit.errors import UsageError

MARK = 99  # a value that no fill takes


def erase(count, height=32, width=32, seed=0, channels=3, **arguments):
    images = np.full((count, channels, height, width), MARK, np.float32)
    arguments = {"probability": 1.0, "mode": "const"} | arguments
    result = random_erasing(images, np.random.default_rng(seed), **arguments)
    assert result is images  # in place
    assert result.dtype == np.float32
    return images


def erased_boxes(images):
    """Boxes ``(B, 4)`` around what was erased, which must be exactly rectangles, the same in every channel."""
    erased = images != MARK
    assert np.array_equal(erased, np.broadcast_to(erased[:, :1], erased.shape))
    rows, columns = erased[:, 0].any(axis=2), erased[:, 0].any(axis=1)
    tops, lefts = rows.argmax(axis=1), columns.argmax(axis=1)
    boxes = np.stack([tops, lefts, rows.sum(axis=1), columns.sum(axis=1)], axis=1)
    assert np.array_equal(erased[:, 0], box_mask(boxes, *images.shape[2:]))
    return boxes


def reference_box(height, width, rng, area, min_aspect, log_aspect, tries):
    """The rule of timm for one image (or of the paper's code, without the logarithm), by the standard library."""
    for _ in range(tries):
        target = rng.uniform(*area) * height * width
        if log_aspect:
            aspect = math.exp(rng.uniform(math.log(min_aspect), -math.log(min_aspect)))
        else:
            aspect = rng.uniform(min_aspect, 1 / min_aspect)
        box_height, box_width = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if box_height < height and box_width < width:
            return rng.randint(0, height - box_height), rng.randint(0, width - box_width), box_height, box_width
    return 0, 0, 0, 0


@pytest.mark.parametrize(
    ("height", "width", "arguments"),
    [
        (32, 32, {}),
        (32, 32, {"area": (0.02, 0.4), "log_aspect": False, "tries": 100}),  # the small-data recipe
        (24, 60, {"area": (0.3, 0.9), "tries": 2}),  # boxes that often do not fit
    ],
)
def test_boxes_are_distributed_as_in_the_reference(height, width, arguments):
    boxes = erased_boxes(erase(4000, height, width, channels=1, **arguments))
    rule = {"area": (0.02, 1 / 3), "min_aspect": 0.3, "log_aspect": True, "tries": 10} | arguments
    rng = random.Random(1)
    reference = np.array([reference_box(height, width, rng, **rule) for _ in range(4000)])
    for mine, theirs in zip(boxes.T, reference.T):
        assert stats.ks_2samp(mine, theirs).pvalue > 0.001
    assert stats.ks_2samp(boxes[:, 2] * boxes[:, 3], reference[:, 2] * reference[:, 3]).pvalue > 0.001
    empty, empty_reference = np.mean(boxes[:, 2] == 0), np.mean(reference[:, 2] == 0)
    np.testing.assert_allclose(empty, empty_reference, atol=0.035)


def test_areas_and_aspects_keep_their_ranges():
    rule = {"area": (0.02, 1 / 3), "aspect": (0.3, 1 / 0.3), "largest": (1999, 1999)}
    boxes = random_boxes(5000, 2000, 2000, np.random.default_rng(0), **rule)
    areas, aspects = boxes[:, 2] * boxes[:, 3] / 2000**2, boxes[:, 2] / boxes[:, 3]
    assert 0.0199 < areas.min() < 0.021
    assert 0.33 < areas.max() < 0.334
    np.testing.assert_allclose(areas.mean(), (0.02 + 1 / 3) / 2, atol=0.005)
    assert 0.299 < aspects.min() < 0.302
    assert 3.31 < aspects.max() < 3.35
    np.testing.assert_allclose(np.log(aspects).mean(), 0, atol=0.03)


def test_boxes_reach_every_place():
    seen = (erase(3000, 8, 9, channels=1) != MARK).mean(axis=(0, 1))
    assert seen.min() > 0.02  # corners too
    tops, lefts = erased_boxes(erase(3000, 8, 9, channels=1, area=(0.1, 0.1), min_aspect=1))[:, :2].T
    # A box of 3 x 3 has 6 x 7 places.
    counts = np.bincount(tops * 7 + lefts)
    assert len(counts) == 42
    assert stats.chisquare(counts).pvalue > 0.001


def test_ties_are_rounded_to_even():
    """Sides of 2.5 become 2, sides of 3.5 become 4."""
    for side, rounded in ((2.5, 2), (3.5, 4)):
        area = (side**2 / 64,) * 2  # exact in binary
        boxes = random_boxes(5, 8, 8, np.random.default_rng(0), area=area, aspect=(1, 1), largest=(8, 8))
        assert np.all(boxes[:, 2:] == rounded)


def test_the_number_of_tries_counts():
    """A draw fits with probability q, none of n with (1 - q)^n. Squares of side 99.5 are rounded to 100: too large."""
    rule = {"area": (0.6, 1.2), "aspect": (1, 1), "largest": (99, 99)}
    rng = np.random.default_rng(0)
    fits = [np.mean(random_boxes(20000, 100, 100, rng, tries=tries, **rule)[:, 2] > 0) for tries in (1, 3)]
    np.testing.assert_allclose(fits[0], (0.995**2 - 0.6) / 0.6, atol=0.01)
    np.testing.assert_allclose(fits[1], 1 - (1 - fits[0]) ** 3, atol=0.01)


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_probability(probability):
    erased = (erase(4000, 8, 8, probability=probability) != MARK).any(axis=(1, 2, 3))
    np.testing.assert_allclose(erased.mean(), probability, atol=0 if probability in (0, 1) else 0.025)


def test_constant_fill():
    assert set(np.unique(erase(20))) == {0, MARK}
    values = (0.507, 0.4865, 0.4409)
    images = erase(20, values=values)
    for channel, value in enumerate(values):
        assert set(np.unique(images[:, channel])) == {np.float32(value), MARK}


def test_random_fill_is_one_colour_for_each_box():
    images = erase(3000, 12, 12, mode="rand")
    erased_boxes(images)
    inside = np.ma.masked_equal(images, MARK)
    assert np.all(inside.max(axis=(2, 3)) == inside.min(axis=(2, 3)))
    colours = np.asarray(inside.max(axis=(2, 3)))
    for channel in colours.T:
        assert stats.kstest(channel, "norm").pvalue > 0.001
    assert np.abs(np.corrcoef(colours.T) - np.eye(3)).max() < 0.06  # channels are independent


def test_pixel_fill_is_independent_noise():
    images = erase(300, mode="pixel")
    noise = images[images != MARK]
    assert len(np.unique(noise)) > 0.99 * len(noise)
    assert stats.kstest(noise[:20000], "norm").pvalue > 0.001


def test_several_boxes_share_the_area():
    images = np.full((400, 1, 100, 100), MARK, np.float32)
    random_erasing(images, np.random.default_rng(0), probability=1, mode="const", count=4)
    areas = (images != MARK).mean(axis=(1, 2, 3))
    mean = (0.02 + 1 / 3) / 2
    assert 0.85 * mean < areas.mean() < mean  # less than the sum, because boxes overlap
    assert areas.std() < 0.6 * (1 / 3 - 0.02) / 12**0.5  # a sum of four varies half as much as one


@given(
    seed=st.integers(0, 2**32),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    mode=st.sampled_from(["const", "rand", "pixel"]),
)
def test_boxes_are_smaller_than_images_of_any_size(seed, height, width, mode):
    boxes = erased_boxes(erase(5, height, width, seed, mode=mode))
    assert np.all((boxes[:, 2] < height) & (boxes[:, 3] < width))


def test_the_same_generator_erases_the_same():
    np.testing.assert_array_equal(erase(6, seed=5, mode="pixel"), erase(6, seed=5, mode="pixel"))
    assert not np.array_equal(erase(6, seed=5), erase(6, seed=6))


def test_senseless_requests_are_refused():
    with pytest.raises(UsageError, match="did you mean 'pixel'"):
        erase(1, mode="pixels")
    with pytest.raises(UsageError, match="'const' only"):
        erase(1, mode="rand", values=(0, 0, 0))
