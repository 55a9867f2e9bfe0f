"""The original RandAugment, TensorFlow's: arguments beyond magnitude 10, cutout, and what shrinks with the images."""

import numpy as np
import pytest

from minivit.data import image_ops
from minivit.data import rand_augment as module
from minivit.data.affine import rotate, shear_x, shear_y, translate_x, translate_y
from minivit.data.rand_augment import tf_rand_augment


@pytest.mark.parametrize(
    ("magnitude", "degrees", "bits", "threshold", "added", "factor", "slope", "pixels"),
    [
        (0, 0, 0, 0, 0, 0.1, 0, 0),
        (10, 30, 4, 256, 110, 1.9, 0.3, 100),
        (15, 45, 6, 384, 165, 2.8, 0.45, 150),
        (20, 60, 8, 512, 220, 3.7, 0.6, 200),
    ],
)
def test_tensorflow_arguments(monkeypatch, magnitude, degrees, bits, threshold, added, factor, slope, pixels):
    tables = []
    monkeypatch.setattr(module, "apply_operations", lambda images, chosen, level, sign, table: tables.append(table))
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 224, 224), np.uint8)
    tf_rand_augment(images, np.random.default_rng(0), layers=1, magnitude=magnitude)
    ((*_, cutout), table), minus = (list(tables[0]), tables[0]), np.array([-1])
    assert cutout == "cutout"
    assert len(table) == 16
    expected = {
        "auto_contrast": image_ops.auto_contrast(images),
        "equalize": image_ops.equalize(images),
        "invert": image_ops.invert(images),
        "rotate": rotate(images, np.array([-degrees]), 128),
        "posterize": image_ops.posterize(images, np.array([bits])),
        "solarize": image_ops.solarize(images, np.array([threshold])),
        "solarize_add": image_ops.solarize_add(images, np.array([added])),
        "shear_x": shear_x(images, np.array([-slope]), 128),
        "shear_y": shear_y(images, np.array([-slope]), 128),
        "translate_x": translate_x(images, np.array([-pixels]), 128),
        "translate_y": translate_y(images, np.array([-pixels]), 128),
    }
    for name in ("color", "contrast", "brightness", "sharpness"):
        expected[name] = getattr(image_ops, name)(images, np.array([factor]))
    for name, result in expected.items():
        assert np.array_equal(table[name](images, np.array([magnitude / 10]), minus), result), name


def test_tensorflow_applies_one_of_16_in_every_layer(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "apply_operations", lambda images, chosen, level, sign, table: seen.append(chosen))
    tf_rand_augment(np.zeros((32_000, 3, 1, 1), np.uint8), np.random.default_rng(0), layers=3, magnitude=10)
    assert len(seen) == 3
    for chosen in seen:
        counts = np.bincount(chosen, minlength=16)
        assert np.abs(counts - 2000).max() < 5 * np.sqrt(2000 * 15 / 16)


def only(name, monkeypatch):
    """Let every image go through the operation ``name``."""
    apply = module.apply_operations

    def forced(images, chosen, level, sign, table):
        apply(images, np.full(len(images), list(table).index(name)), level, sign, table)

    monkeypatch.setattr(module, "apply_operations", forced)


def test_cutout_paints_grey_squares_anywhere(monkeypatch):
    only("cutout", monkeypatch)
    images = np.zeros((2000, 3, 64, 56), np.uint8)
    result = tf_rand_augment(images, np.random.default_rng(0), layers=1, magnitude=10)
    assert set(np.unique(result)) == {0, 128}
    painted = result[:, 0] == 128
    assert np.array_equal(result[:, 1] == 128, painted)
    rows, columns = painted.any(axis=2), painted.any(axis=1)
    assert np.array_equal(painted, rows[:, :, None] & columns[:, None, :])  # rectangles
    assert rows.sum(axis=1).max() == columns.sum(axis=1).max() == 20  # 2 * int(40 * 56 / 224)
    assert rows.sum(axis=1).min() == columns.sum(axis=1).min() == 10  # centred on the first row: half of it is there
    assert rows.any(axis=0).all()
    assert columns.any(axis=0).all()


def test_pixels_shrink_with_the_image(monkeypatch):
    only("translate_x", monkeypatch)
    images = np.zeros((50, 3, 32, 32), np.uint8)
    result = tf_rand_augment(images, np.random.default_rng(0), layers=1, magnitude=10)
    assert set((result[:, 0, 0] == 128).sum(axis=1)) == {14}  # 100 * 32 / 224 = 14.3
    assert {tuple(np.flatnonzero(row == 128)[[0, -1]].tolist()) for row in result[:, 0, 0]} == {(0, 13), (18, 31)}


@pytest.mark.parametrize(("side", "grey"), [(224, 196), (32, 4), (300, 255)])
def test_the_originals_contrast_blends_with_a_wrong_grey(side, grey, monkeypatch):
    only("contrast", monkeypatch)
    images = np.full((1, 3, side, side), 77, np.uint8)
    right = tf_rand_augment(images, np.random.default_rng(0), layers=1, magnitude=0)
    wrong = tf_rand_augment(images, np.random.default_rng(0), layers=1, magnitude=0, contrast_bug=True)
    assert np.all(right == 77)
    assert np.all(wrong == int(grey + 0.1 * (77 - grey)))


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (5, 3, 2, 7), (40, 3, 33, 5)])
def test_it_repeats_from_the_seed_and_leaves_its_input(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    before = images.copy()
    first, second = (tf_rand_augment(images, np.random.default_rng(1), layers=2, magnitude=15) for _ in range(2))
    assert np.array_equal(images, before)
    assert np.array_equal(first, second)
    assert first.shape == shape
    assert first.dtype == np.uint8
