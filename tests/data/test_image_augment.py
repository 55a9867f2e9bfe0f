"""Crop, flip and normalisation against plain loops over images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivit.data.augment import normalize, random_crop, random_flip
from minivit.data.dataset import channel_statistics


def images_of(count, height=8, width=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, height, width), np.uint8)


@given(padding=st.integers(1, 5), height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_crop_equals_a_loop_over_images(padding, height, width, seed):
    images = images_of(6, height, width, seed)
    cropped = random_crop(images, padding, np.random.default_rng(seed))
    top, left = np.random.default_rng(seed).integers(0, 2 * padding + 1, size=(2, 6))
    for image, result, row, column in zip(images, cropped, top, left):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
        assert np.array_equal(result, padded[:, row : row + height, column : column + width])


def test_crop_reaches_every_offset():
    image = np.zeros((1, 3, 5, 5), np.uint8)
    image[:, :, 2, 2] = 9
    crops = random_crop(np.repeat(image, 2000, axis=0), 2, np.random.default_rng(0))
    seen = {tuple(int(i) for i in np.argwhere(crop[0] == 9)[0]) for crop in crops}
    assert seen == {(row, column) for row in range(5) for column in range(5)}


def test_flip_equals_a_loop_over_images():
    images = images_of(64)
    before = images.copy()
    flipped = random_flip(images, np.random.default_rng(3))
    mirrored = np.random.default_rng(3).random(64) < 0.5
    assert 20 < mirrored.sum() < 44
    for image, result, mirror in zip(before, flipped, mirrored):
        assert np.array_equal(result, image[:, :, ::-1] if mirror else image)
    assert flipped is images  # in place


def test_normalize_is_to_tensor_then_normalize():
    images = images_of(5)
    mean, std = (0.507, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    result = normalize(images, mean, std)
    expected = (images / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)


def test_normalize_of_a_strided_view_is_contiguous():
    records = np.zeros((4, 2 + 3 * 32 * 32), np.uint8)
    result = normalize(records[:, 2:].reshape(4, 3, 32, 32), (0.5,) * 3, (0.25,) * 3)
    assert result.flags.c_contiguous
    assert np.all(result == -2)


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_channel_statistics_are_exact(chunk):
    images = images_of(10)
    mean, std = channel_statistics(images, chunk)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 2, 3)), rtol=1e-9)
    assert all(type(value) is float for value in mean + std)
