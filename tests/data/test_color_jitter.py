"""Colour jitter against Pillow, one image after the other."""

import itertools

import numpy as np
import pytest
from scipy import stats

from minivit.data import color_jitter as module
from minivit.data.color_jitter import color_jitter
from minivit.errors import UsageError

STRENGTHS = {"brightness": 0.4, "contrast": 0.3, "saturation": 0.8}


@pytest.fixture
def changes(monkeypatch):
    """What is done to each image, in order: image number -> [(step, factor), ...]. Images hold their number."""
    done = {}

    def spy(step):
        original = getattr(module, f"change_{step}")

        def change(images, factor):
            for image, number in zip(images, factor):
                done.setdefault(int(image[0, 0, 0]) * 256 + int(image[1, 0, 0]), []).append((step, number))
            original(images, factor)
            return images

        monkeypatch.setattr(module, f"change_{step}", change)

    for step in STRENGTHS:
        spy(step)
    return done


def numbered(count):
    images = np.zeros((count, 3, 1, 1), np.uint8)
    images[:, 0, 0, 0], images[:, 1, 0, 0] = np.divmod(np.arange(count), 256)
    return images


def test_equals_pillow_in_every_byte():
    pytest.importorskip("PIL", reason="Pillow is not installed")
    from PIL import Image, ImageEnhance

    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 7, 9), np.uint8)
    before = images.copy()
    jittered = color_jitter(images, np.random.default_rng(1), **STRENGTHS)
    np.testing.assert_array_equal(images, before)
    rng = np.random.default_rng(1)
    strengths = np.array(list(STRENGTHS.values()))
    factors = rng.uniform(1 - strengths, 1 + strengths, (40, 3))
    orders = rng.permuted(np.tile(np.arange(3), (40, 1)), axis=1)
    assert len({tuple(order) for order in orders}) == 6
    for pixels, factor, order, result in zip(images, factors, orders, jittered):
        image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        for step in order:
            image = enhancers[step](image).enhance(float(factor[step]))
        np.testing.assert_array_equal(result, np.asarray(image).transpose(2, 0, 1))


def test_factors_are_uniform_and_independent(changes):
    color_jitter(numbered(3000), np.random.default_rng(0), **STRENGTHS)
    factors = np.array([[dict(steps)[step] for step in STRENGTHS] for steps in changes.values()])
    assert factors.shape == (3000, 3)
    for factor, strength in zip(factors.T, STRENGTHS.values()):
        assert stats.kstest(factor, stats.uniform(1 - strength, 2 * strength).cdf).pvalue > 0.001
    assert np.abs(np.corrcoef(factors.T) - np.eye(3)).max() < 0.06


def test_every_order_is_as_likely(changes):
    color_jitter(numbered(3000), np.random.default_rng(0), **STRENGTHS)
    orders = [tuple(step for step, _ in steps) for steps in changes.values()]
    counts = [orders.count(order) for order in itertools.permutations(STRENGTHS)]
    assert sum(counts) == 3000
    assert stats.chisquare(counts).pvalue > 0.001


def test_factors_are_not_negative(changes):
    color_jitter(numbered(500), np.random.default_rng(0), brightness=2.5, contrast=0, saturation=0)
    factors = np.array([dict(steps)["brightness"] for steps in changes.values()])
    assert 0 <= factors.min() < 0.05
    assert 3.4 < factors.max() <= 3.5


def test_strength_0_changes_nothing():
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 5, 5), np.uint8)
    result = color_jitter(images, np.random.default_rng(0), brightness=0, contrast=0, saturation=0)
    np.testing.assert_array_equal(result, images)
    assert result is not images


def test_negative_strengths_are_refused():
    with pytest.raises(UsageError, match="negative"):
        color_jitter(np.zeros((1, 3, 2, 2), np.uint8), np.random.default_rng(0), contrast=-0.1)
