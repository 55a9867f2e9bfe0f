"""Operations on colour and contrast, byte for byte: golden results, Pillow, and what each one means."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_strategies import image_batches, through_pillow

from minivit.data import image_ops

ENHANCEMENTS = {"color": "Color", "contrast": "Contrast", "brightness": "Brightness", "sharpness": "Sharpness"}
factors = st.lists(st.floats(0, 4) | st.sampled_from([0, 0.1, 0.5, 1, 1.9, 3.7]), min_size=3, max_size=3).map(np.array)
GOLDEN = [
    *("autocontrast", "equalize", "invert"),
    *(f"solarize_{threshold}" for threshold in (0, 26, 128, 200, 256)),
    *(f"solarize_add_{amount}" for amount in (0, 33, 99)),
    *(f"posterize_{bits}" for bits in (1, 3, 4, 6, 8)),
    *(f"{name}_{factor}" for name in ENHANCEMENTS for factor in (0.1, 0.19, 0.55, 1.0, 1.45, 1.81, 1.9)),
]


@pytest.mark.parametrize("key", GOLDEN)
def test_golden(golden, key):
    arrays = golden("augment_ops")
    images = arrays["image"].transpose(2, 0, 1)[None]
    name, _, number = key.rpartition("_") if key[-1].isdigit() else (key, "", "")
    arguments = [np.array([float(number) if "." in number else int(number)])] if number else []
    result = getattr(image_ops, name.replace("autocontrast", "auto_contrast"))(images, *arguments)
    assert result.dtype == np.uint8
    assert np.array_equal(result[0], arrays[key].transpose(2, 0, 1))


@given(images=image_batches())
def test_operations_without_argument_equal_pillow(images):
    pillow = pytest.importorskip("PIL.ImageOps")
    for name in ("auto_contrast", "equalize", "invert"):
        expected = through_pillow(getattr(pillow, name.replace("_", "")), images)
        assert np.array_equal(getattr(image_ops, name)(images), expected), name


@given(
    images=image_batches(),
    thresholds=st.lists(st.integers(0, 256) | st.floats(0, 256), min_size=3, max_size=3).map(np.array),
    bits=st.lists(st.integers(1, 8), min_size=3, max_size=3).map(np.array),
)
def test_solarize_and_posterize_equal_pillow(images, thresholds, bits):
    pillow = pytest.importorskip("PIL.ImageOps")
    assert np.array_equal(image_ops.solarize(images, thresholds), through_pillow(pillow.solarize, images, thresholds))
    assert np.array_equal(image_ops.posterize(images, bits), through_pillow(pillow.posterize, images, bits))


@pytest.mark.parametrize("name", ENHANCEMENTS)
@given(images=image_batches(), factor=factors)
def test_enhancements_equal_pillow(name, images, factor):
    enhancer = getattr(pytest.importorskip("PIL.ImageEnhance"), ENHANCEMENTS[name])
    expected = through_pillow(lambda image, own: enhancer(image).enhance(own), images, factor)
    assert np.array_equal(getattr(image_ops, name)(images, factor), expected)


@given(images=image_batches(), amount=st.lists(st.integers(0, 300), min_size=3, max_size=3).map(np.array))
def test_solarize_add_equals_its_definition(images, amount):
    expected = [[min(255, v + a) if v < 128 else v for v in x.ravel().tolist()] for x, a in zip(images, amount)]
    assert np.array_equal(image_ops.solarize_add(images, amount), np.reshape(expected, images.shape))


def test_posterize_beyond_its_eight_bits():
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    images = np.repeat(ramp, 4, axis=0)
    nothing, less, all_bits, more = image_ops.posterize(images, np.array([0, -2, 8, 12]))
    assert not nothing.any()
    assert not less.any()
    assert np.array_equal(all_bits, ramp[0])
    assert np.array_equal(more, ramp[0])


def test_equalize_spreads_crowded_values():
    crowded = np.repeat(np.arange(100, 116, dtype=np.uint8), 64).reshape(1, 1, 32, 32)
    # 1024 pixels, 64 of each value: one step up for every (1024 - 64) // 255 = 3 pixels that are darker.
    expected = [min(255, (1 + 64 * darker) // 3) for darker in range(16)]
    assert np.array_equal(image_ops.equalize(crowded).ravel()[::64], expected)
    assert np.array_equal(image_ops.equalize(crowded[:, :, :8]), crowded[:, :, :8])  # too few pixels to spread


def test_contrast_about_a_given_grey():
    images = np.full((2, 3, 4, 4), 100, np.uint8)
    assert np.all(image_ops.contrast(images, np.array([0.0, 2.0]), mean=40)[0] == 40)
    assert np.all(image_ops.contrast(images, np.array([0.0, 2.0]), mean=40)[1] == 160)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("auto_contrast", ()),
        ("equalize", ()),
        ("invert", ()),
        ("solarize", (90,)),
        ("solarize_add", (40,)),
        ("posterize", (3,)),
        *((name, (1.5,)) for name in ENHANCEMENTS),
    ],
)
def test_the_input_stays_as_it_is_and_images_are_independent(name, arguments):
    images = np.random.default_rng(0).integers(20, 220, (5, 3, 30, 27), np.uint8)
    operation = getattr(image_ops, name)
    before = images.copy()
    together = operation(images, *(np.full(5, argument) for argument in arguments))
    assert np.array_equal(images, before)
    assert not np.array_equal(together, images)
    alone = [operation(images[i : i + 1], *(np.array([argument]) for argument in arguments)) for i in range(5)]
    assert np.array_equal(together, np.concatenate(alone))
    assert not np.shares_memory(together, images)
