"""Shear, translation, rotation and general affine maps, byte for byte: golden results and Pillow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_strategies import image_batches, through_pillow

from minivit.data.affine import INTERPOLATIONS, affine, rotate, shear_x, shear_y, translate_x, translate_y
from minivit.errors import UsageError

IMAGENET_MEAN = (124, 116, 104)
# Numbers without a fraction, or with one of 1/2 or 1/20, land on the edges between pixels.
slopes = st.floats(-1, 1) | st.sampled_from([0, 0.05, 0.3, -0.3, 0.5, 1, -1])
shifts = st.floats(-20, 20) | st.sampled_from([0, 0.5, -0.5, 1.5, 0.25, 2, -3, 40])
angles = st.floats(-400, 400) | st.sampled_from([0, 30, 45, -45, 60, 90, 135, 180, 270, -90, 360])
fills = st.integers(0, 255) | st.tuples(*[st.integers(0, 255)] * 3)


def three(numbers):
    return st.lists(numbers, min_size=3, max_size=3).map(np.array)


def pillow_affine(image, a, b, c, d, e, f, fill, interpolation):
    """Pillow's Image.transform with the same arguments."""
    from PIL import Image

    fill = (fill,) * 3 if isinstance(fill, int) else fill
    resample = Image.Resampling[interpolation.upper()]
    return image.transform(image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), resample, fillcolor=fill)


def pillow_rotate(image, degrees, fill, interpolation):
    from PIL import Image

    fill = (fill,) * 3 if isinstance(fill, int) else fill
    return image.rotate(degrees, Image.Resampling[interpolation.upper()], fillcolor=fill)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(
    ("key", "operation", "argument"),
    [
        ("shear_x_0.27", shear_x, 0.27),
        ("shear_y_0.27", shear_y, 0.27),
        ("shear_x_-0.11", shear_x, -0.11),
        ("shear_y_-0.11", shear_y, -0.11),
        ("translate_x_rel_0.405", translate_x, 0.405 * 20),
        ("translate_y_rel_0.405", translate_y, 0.405 * 16),
        ("translate_x_rel_-0.15", translate_x, -0.15 * 20),
        ("translate_y_rel_-0.15", translate_y, -0.15 * 16),
        ("rotate_27.0", rotate, 27.0),
        ("rotate_-13.5", rotate, -13.5),
    ],
)
def test_golden(golden, key, operation, argument, interpolation):
    arrays = golden("augment_ops")
    images = arrays["image"].transpose(2, 0, 1)[None]
    result = operation(images, np.array([argument]), IMAGENET_MEAN, interpolation)
    assert result.dtype == np.uint8
    assert np.array_equal(result[0], arrays[f"{key}_{interpolation}"].transpose(2, 0, 1))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@given(images=image_batches(), slope=three(slopes), shift=three(shifts), fill=fills)
def test_shear_and_translation_equal_pillow(interpolation, images, slope, shift, fill):
    cases = {
        shear_x: (slope, lambda image, s: pillow_affine(image, 1, s, 0, 0, 1, 0, fill, interpolation)),
        shear_y: (slope, lambda image, s: pillow_affine(image, 1, 0, 0, s, 1, 0, fill, interpolation)),
        translate_x: (shift, lambda image, t: pillow_affine(image, 1, 0, t, 0, 1, 0, fill, interpolation)),
        translate_y: (shift, lambda image, t: pillow_affine(image, 1, 0, 0, 0, 1, t, fill, interpolation)),
    }
    for operation, (argument, pillow) in cases.items():
        expected = through_pillow(pillow, images, argument)
        assert np.array_equal(operation(images, argument, fill, interpolation), expected), operation.__name__


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@given(images=image_batches(), degrees=three(angles), fill=fills)
def test_rotation_equals_pillow(interpolation, images, degrees, fill):
    expected = through_pillow(lambda image, own: pillow_rotate(image, own, fill, interpolation), images, degrees)
    assert np.array_equal(rotate(images, degrees, fill, interpolation), expected)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@given(images=image_batches(), matrices=three(st.tuples(slopes, slopes, shifts, slopes, slopes, shifts)))
def test_any_map_equals_pillow(interpolation, images, matrices):
    expected = through_pillow(lambda image, own: pillow_affine(image, *own, (1, 2, 3), interpolation), images, matrices)
    assert np.array_equal(affine(images, matrices, (1, 2, 3), interpolation), expected)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_larger_images_equal_pillow(interpolation):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 3, 97, 224), np.uint8)
    degrees = np.array([45.0, -30.0, 21.7])
    expected = through_pillow(lambda image, own: pillow_rotate(image, own, 128, interpolation), images, degrees)
    assert np.array_equal(rotate(images, degrees, 128, interpolation), expected)


def test_directions():
    image = np.arange(1, 10, dtype=np.uint8).reshape(1, 1, 3, 3)
    one = np.array([1.0])
    assert np.array_equal(translate_x(image, one)[0, 0], [[2, 3, 0], [5, 6, 0], [8, 9, 0]])
    assert np.array_equal(translate_y(image, one)[0, 0], [[4, 5, 6], [7, 8, 9], [0, 0, 0]])
    assert np.array_equal(rotate(image, 90 * one)[0, 0], np.rot90(image[0, 0]))  # counter-clockwise
    assert np.array_equal(shear_x(image, 0.99 * one)[0, 0], [[1, 2, 3], [5, 6, 0], [9, 0, 0]])
    assert np.array_equal(shear_y(image, 0.99 * one)[0, 0], [[1, 5, 9], [4, 8, 0], [7, 0, 0]])


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("operation", [shear_x, shear_y, translate_x, translate_y, rotate])
def test_the_input_stays_as_it_is_and_images_are_independent(operation, interpolation):
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 9, 13), np.uint8)
    before, arguments = images.copy(), np.array([0.0, 0.3, -0.2, 7.0])
    together = operation(images, arguments, 128, interpolation)
    assert np.array_equal(images, before)
    assert np.array_equal(together[0], images[0])  # an argument of 0 changes nothing
    alone = [operation(images[i : i + 1], arguments[i : i + 1], 128, interpolation) for i in range(4)]
    assert np.array_equal(together, np.concatenate(alone))
    assert not np.shares_memory(together, images)


def test_an_unknown_interpolation_is_refused():
    with pytest.raises(UsageError, match="unknown interpolation 'bicubik'; did you mean 'bicubic'"):
        rotate(np.zeros((1, 3, 4, 4), np.uint8), np.array([1.0]), 0, "bicubik")
