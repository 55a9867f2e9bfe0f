"""RandAugment: levels and operations against Pillow and golden numbers, and the statistics of what is applied."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_strategies import image_batches, through_pillow

from minivit.data import image_ops
from minivit.data import rand_augment as module
from minivit.data.rand_augment import parse_rand_augment, rand_augment, timm_operations
from minivit.errors import UsageError

ONE = np.array([1])
RAMP = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
COLORS = np.random.default_rng(0).integers(0, 256, (1, 3, 16, 20), np.uint8)


def noise(count, height=32, width=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, height, width), np.uint8)


# --- Levels and operations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("magnitude", [0, 2, 5, 9, 10, 15, 20])
def test_golden_levels(golden, magnitude):
    arrays = golden("augment_ops")
    plain, increasing = timm_operations(False, 0, "nearest"), timm_operations(True, 0, "nearest")
    # On a ramp of all 256 values, each number of bits, threshold or amount has a result of its own.
    for key, table, operation, name, images in (
        ("Posterize", plain, image_ops.posterize, "posterize", RAMP),
        ("PosterizeIncreasing", increasing, image_ops.posterize, "posterize", RAMP),
        ("Solarize", plain, image_ops.solarize, "solarize", RAMP),
        ("SolarizeIncreasing", increasing, image_ops.solarize, "solarize", RAMP),
        ("SolarizeAdd", plain, image_ops.solarize_add, "solarize_add", RAMP),
        ("SolarizeAdd", increasing, image_ops.solarize_add, "solarize_add", RAMP),
        ("Color", plain, image_ops.color, "color", COLORS),
    ):
        argument = arrays[f"level.{key}_{magnitude}"]
        expected = operation(images, np.array([argument if name == "color" else int(argument)]))
        assert np.array_equal(table[name](images, np.array([magnitude / 10]), ONE), expected), key


def pillow_operations(increasing, fill, resample):
    """Name -> function (Pillow image, level, sign), written as timm's table reads."""
    from PIL import Image, ImageEnhance, ImageOps

    def affine(image, a, b, c, d, e, f):
        return image.transform(image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), resample, fillcolor=fill)

    def enhance(name):
        def apply(image, v, sign):
            factor = max(0.1, 1 + sign * 0.9 * v) if increasing else 0.1 + 1.8 * v
            return getattr(ImageEnhance, name)(image).enhance(factor)

        return apply

    def posterize(image, v, sign):
        bits = 4 - int(4 * v) if increasing else int(4 * v)
        return ImageOps.posterize(image, bits) if bits else Image.new("RGB", image.size)

    def solarize(image, v, sign):
        threshold = min(256, int(256 * v))
        return ImageOps.solarize(image, 256 - threshold if increasing else threshold)

    def solarize_add(image, v, sign):
        return image.point([min(255, x + min(128, int(110 * v))) if x < 128 else x for x in range(256)] * 3)

    return {
        "auto_contrast": lambda image, v, sign: ImageOps.autocontrast(image),
        "equalize": lambda image, v, sign: ImageOps.equalize(image),
        "invert": lambda image, v, sign: ImageOps.invert(image),
        "rotate": lambda image, v, sign: image.rotate(sign * 30 * v, resample, fillcolor=fill),
        "posterize": posterize,
        "solarize": solarize,
        "solarize_add": solarize_add,
        "color": enhance("Color"),
        "contrast": enhance("Contrast"),
        "brightness": enhance("Brightness"),
        "sharpness": enhance("Sharpness"),
        "shear_x": lambda image, v, sign: affine(image, 1, sign * 0.3 * v, 0, 0, 1, 0),
        "shear_y": lambda image, v, sign: affine(image, 1, 0, 0, sign * 0.3 * v, 1, 0),
        "translate_x": lambda image, v, sign: affine(image, 1, 0, sign * 0.45 * v * image.width, 0, 1, 0),
        "translate_y": lambda image, v, sign: affine(image, 1, 0, 0, 0, 1, sign * 0.45 * v * image.height),
    }


@pytest.mark.parametrize("increasing", [False, True])
@given(
    images=image_batches(),
    levels=st.lists(st.floats(0, 1) | st.sampled_from([0, 0.5, 0.9, 1]), min_size=3, max_size=3).map(np.array),
    signs=st.lists(st.sampled_from([-1, 1]), min_size=3, max_size=3).map(np.array),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic"]),
)
def test_operations_are_timms(increasing, images, levels, signs, interpolation):
    resampling = pytest.importorskip("PIL.Image").Resampling[interpolation.upper()]
    table = timm_operations(increasing, (124, 116, 104), interpolation)
    expected = pillow_operations(increasing, (124, 116, 104), resampling)
    assert list(table) == list(expected)
    assert len(table) == 15
    for name, operation in table.items():
        reference = through_pillow(expected[name], images, levels, signs)
        assert np.array_equal(operation(images, levels, signs), reference), name


# --- Statistics ----------------------------------------------------------------------------------------------------


def close(counts, expected, trials):
    """Whether every count is within five standard deviations of what is to be expected."""
    expected = np.asarray(expected, float)
    return np.all(np.abs(counts - expected) <= 5 * np.sqrt(expected * (1 - expected / trials)))


def test_operations_are_drawn_uniformly_with_replacement(monkeypatch):
    table = {str(i): lambda x, level, sign, i=i: 16 * x + i for i in range(1, 16)}
    monkeypatch.setattr(module, "timm_operations", lambda *arguments: table)
    trials = 90_000
    always = rand_augment(np.zeros(trials, int), np.random.default_rng(0), probability=1.0)
    pairs = np.bincount(always, minlength=256).reshape(16, 16)
    assert not pairs[0].any()
    assert not pairs[:, 0].any()
    assert close(pairs[1:, 1:], np.full((15, 15), trials / 225), trials)

    half = np.bincount(rand_augment(np.zeros(trials, int), np.random.default_rng(1)), minlength=256)
    once, twice = trials / 2 / 15, trials / 4 / 225  # once: by the first layer or by the second
    assert close(half[0], trials / 4, trials)
    assert close(half[1:16], np.full(15, once), trials)
    assert close(half.reshape(16, 16)[1:, 1:], np.full((15, 15), twice), trials)


@pytest.mark.parametrize(
    ("magnitude", "spread", "largest", "expected_mean", "expected_std"),
    [(5, 0.5, 10, 5, 0.5), (9, 0, 10, 9, 0), (14, 0, 10, 10, 0), (14, 0.5, 20, 14, 0.5), (10, 1, 10, 9.601, 0.583)],
)
def test_magnitudes_are_normal_and_clipped(monkeypatch, magnitude, spread, largest, expected_mean, expected_std):
    seen = []
    table = {"probe": lambda x, level, sign: seen.append((10 * level, sign)) or x}
    monkeypatch.setattr(module, "timm_operations", lambda *arguments: table)
    rng = np.random.default_rng(0)
    rand_augment(
        np.zeros(40_000, int), rng, layers=1, magnitude=magnitude, noise=spread, max_magnitude=largest, probability=1.0
    )
    ((magnitudes, signs),) = seen
    assert magnitudes.min() >= 0
    assert magnitudes.max() <= largest
    assert magnitudes.mean() == pytest.approx(expected_mean, abs=0.03)
    assert magnitudes.std() == pytest.approx(expected_std, abs=0.02)
    assert set(signs) == {-1, 1}
    assert abs(signs.sum()) < 5 * np.sqrt(len(signs))


def test_magnitudes_stay_above_0(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "timm_operations", lambda *a: {"probe": lambda x, level, sign: seen.append(level) or x})
    rand_augment(np.zeros(1000, int), np.random.default_rng(0), magnitude=0, noise=2.0)
    assert min(level.min() for level in seen) == 0


# --- The whole -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("increasing", [False, True])
def test_it_repeats_from_the_seed_and_leaves_its_input(increasing):
    images = noise(64)
    before = images.copy()
    result = rand_augment(images, np.random.default_rng(5), increasing=increasing)
    assert np.array_equal(images, before)
    assert result.shape == images.shape
    assert result.dtype == np.uint8
    assert np.array_equal(result, rand_augment(images, np.random.default_rng(5), increasing=increasing))
    assert 0.5 < np.any(result != images, axis=(1, 2, 3)).mean() < 0.95  # 3/4 go through an operation


@pytest.mark.parametrize("nothing", [{"probability": 0.0}, {"layers": 0}])
def test_nothing_applied_changes_nothing(nothing):
    images = noise(50)
    result = rand_augment(images, np.random.default_rng(0), **nothing)
    assert np.array_equal(result, images)
    assert not np.shares_memory(result, images)


def test_the_increasing_set_differs_from_the_plain_one():
    images = noise(64)
    plain, increasing = (rand_augment(images, np.random.default_rng(0), increasing=inc) for inc in (False, True))
    changed = np.any(plain != increasing, axis=(1, 2, 3)).mean()
    assert 0.1 < changed < 0.9  # the same images go through the same operations, of which 6 in 15 differ


def test_the_fill_colour_comes_in_from_outside():
    grey = np.full((400, 3, 8, 8), 77, np.uint8)
    fill = (10, 20, 30)
    for name in ("rotate", "shear_x", "shear_y", "translate_x", "translate_y"):
        result = timm_operations(True, fill, "nearest")[name](grey[:1], np.array([1.0]), ONE)
        colors = set(map(tuple, result[0].reshape(3, -1).T.tolist()))
        assert colors == {(77, 77, 77), fill}, name
    results = [rand_augment(grey, np.random.default_rng(0), layers=1, fill=color) for color in (fill, (9, 9, 9))]
    differ = np.any(results[0] != results[1], axis=(1, 2, 3)).mean()
    assert 0.08 < differ < 0.25  # half of the 5 in 15 that move pixels


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (5, 3, 2, 7), (40, 3, 33, 5)])
def test_odd_shapes(shape):
    images = noise(1)[:, :, :1, :1] + np.zeros(shape, np.uint8)
    assert rand_augment(images, np.random.default_rng(0)).shape == shape


# --- timm's notation -----------------------------------------------------------------------------------------------


def test_parse_deits():
    assert parse_rand_augment("rand-m9-mstd0.5-inc1") == {
        "magnitude": 9,
        "noise": 0.5,
        "increasing": True,
        "layers": 2,
        "probability": 0.5,
        "max_magnitude": 10,
    }


def test_parse_everything():
    assert parse_rand_augment("rand-inc0-mmax20-p0.25-n3-mstd1-m15") == {
        "magnitude": 15,
        "noise": 1.0,
        "increasing": False,
        "layers": 3,
        "probability": 0.25,
        "max_magnitude": 20,
    }


def test_parse_nothing_gives_timms_defaults_and_fits_the_function():
    keywords = parse_rand_augment("rand")
    assert keywords == {
        "magnitude": 10,
        "noise": 0.0,
        "increasing": False,
        "layers": 2,
        "probability": 0.5,
        "max_magnitude": 10,
    }
    rand_augment(noise(4), np.random.default_rng(0), **keywords)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is written like rand-m9-mstd0.5-inc1"),
        ("original-m9", "is written like"),
        ("rand-m", "'m' is not one of"),
        ("rand-m9.5", "'m9.5' is not one of"),
        ("rand-9", "'9' is not one of"),
        ("rand--m9", "'' is not one of"),
        ("rand-x3", "'x3' is not one of m, n, p, mstd, mmax, inc and a number"),
        ("rand-inc2", "'inc2'"),
        ("rand-tweights", "'tweights'"),
        ("rand-mstdx", "'mstdx'"),
        ("rand-p1.5", "probability"),
        ("rand-mstd101", "noise"),
    ],
)
def test_parse_refuses_nonsense(text, complaint):
    with pytest.raises(UsageError, match=complaint):
        parse_rand_augment(text)
