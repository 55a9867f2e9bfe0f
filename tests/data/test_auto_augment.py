"""AutoAugment: the tables, the arguments by three conventions, and the statistics of what is applied."""

import numpy as np
import pytest
from image_strategies import through_pillow

from minivit.data.auto_augment import CIFAR, IMAGENET, POLICIES, SVHN, auto_augment
from minivit.errors import UsageError

# The policies once more, from another source (torchvision): operation, probability, magnitude.
TABLES = {
    "cifar": """
        Invert .1 -, Contrast .2 6 | Rotate .7 2, TranslateX .3 9 | Sharpness .8 1, Sharpness .9 3
        ShearY .5 8, TranslateY .7 9 | AutoContrast .5 -, Equalize .9 - | ShearY .2 7, Posterize .3 7
        Color .4 3, Brightness .6 7 | Sharpness .3 9, Brightness .7 9 | Equalize .6 -, Equalize .5 -
        Contrast .6 7, Sharpness .6 5 | Color .7 7, TranslateX .5 8 | Equalize .3 -, AutoContrast .4 -
        TranslateY .4 3, Sharpness .2 6 | Brightness .9 6, Color .2 8 | Solarize .5 2, Invert 0 -
        Equalize .2 -, AutoContrast .6 - | Equalize .2 -, Equalize .6 - | Color .9 9, Equalize .6 -
        AutoContrast .8 -, Solarize .2 8 | Brightness .1 3, Color .7 0 | Solarize .4 5, AutoContrast .9 -
        TranslateY .9 9, TranslateY .7 9 | AutoContrast .9 -, Solarize .8 3 | Equalize .8 -, Invert .1 -
        TranslateY .7 9, AutoContrast .9 -""",
    "svhn": """
        ShearX .9 4, Invert .2 - | ShearY .9 8, Invert .7 - | Equalize .6 -, Solarize .6 6
        Invert .9 -, Equalize .6 - | Equalize .6 -, Rotate .9 3 | ShearX .9 4, AutoContrast .8 -
        ShearY .9 8, Invert .4 - | ShearY .9 5, Solarize .2 6 | Invert .9 -, AutoContrast .8 -
        Equalize .6 -, Rotate .9 3 | ShearX .9 4, Solarize .3 3 | ShearY .8 8, Invert .7 -
        Equalize .9 -, TranslateY .6 6 | Invert .9 -, Equalize .6 - | Contrast .3 3, Rotate .8 4
        Invert .8 -, TranslateY 0 2 | ShearY .7 6, Solarize .4 8 | Invert .6 -, Rotate .8 4
        ShearY .3 7, TranslateX .9 3 | ShearX .1 6, Invert .6 - | Solarize .7 2, TranslateY .6 7
        ShearY .8 4, Invert .8 - | ShearX .7 9, TranslateY .8 3 | ShearY .8 5, AutoContrast .7 -
        ShearX .7 2, Invert .1 -""",
    "imagenet": """
        Posterize .4 8, Rotate .6 9 | Solarize .6 5, AutoContrast .6 - | Equalize .8 -, Equalize .6 -
        Posterize .6 7, Posterize .6 6 | Equalize .4 -, Solarize .2 4 | Equalize .4 -, Rotate .8 8
        Solarize .6 3, Equalize .6 - | Posterize .8 5, Equalize 1 - | Rotate .2 3, Solarize .6 8
        Equalize .6 -, Posterize .4 6 | Rotate .8 8, Color .4 0 | Rotate .4 9, Equalize .6 -
        Equalize 0 -, Equalize .8 - | Invert .6 -, Equalize 1 - | Color .6 4, Contrast 1 8
        Rotate .8 8, Color 1 2 | Color .8 8, Solarize .8 7 | Sharpness .4 7, Invert .6 -
        ShearX .6 5, Equalize 1 - | Color .4 0, Equalize .6 - | Equalize .4 -, Solarize .2 4
        Solarize .6 5, AutoContrast .6 - | Invert .6 -, Equalize 1 - | Color .6 4, Contrast 1 8
        Equalize .8 -, Equalize .6 -""",
}
WITHOUT_ARGUMENT = {"auto_contrast", "equalize", "invert"}


@pytest.mark.parametrize(("name", "table"), [("cifar", CIFAR), ("svhn", SVHN), ("imagenet", IMAGENET)])
def test_tables(name, table):
    expected = [entry.strip() for line in TABLES[name].strip().splitlines() for entry in line.split("|")]
    assert len(table) == len(expected) == 25
    for sub_policy, entry in zip(table, expected):
        for (operation, probability, magnitude), reference in zip(sub_policy, entry.split(","), strict=True):
            reference_operation, reference_probability, reference_magnitude = reference.split()
            assert operation.replace("_", "") == reference_operation.lower()
            assert probability == float(reference_probability)
            assert (reference_magnitude == "-") == (operation in WITHOUT_ARGUMENT)
            assert operation in WITHOUT_ARGUMENT or magnitude == int(reference_magnitude)


# --- Arguments: what the reference codes ask Pillow for ------------------------------------------------------------


def pillow_operations(convention):
    """Name -> function (Pillow image, magnitude index, sign), as the small-data paper's code or torchvision do it."""
    from PIL import Image, ImageEnhance, ImageOps

    small_data = convention == "small_data"
    shear_by = Image.Resampling.BICUBIC if small_data else Image.Resampling.NEAREST
    fill = (128,) * 3 if small_data else (0,) * 3
    fractions = np.linspace(0, 150 / 331, 10)

    def affine(image, a, b, c, d, e, f, resample=Image.Resampling.NEAREST):
        return image.transform(image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), resample, fillcolor=fill)

    def shift(fraction, side, sign):
        return sign * fraction * side if small_data else int(sign * fraction * side)

    def rotate(image, i, sign):
        if not small_data:
            return image.rotate(sign * np.linspace(0, 30, 10)[i])
        turned = image.convert("RGBA").rotate(np.linspace(0, 30, 10)[i])
        return Image.composite(turned, Image.new("RGBA", turned.size, (128,) * 4), turned).convert("RGB")

    def enhance(name):
        return lambda image, i, sign: getattr(ImageEnhance, name)(image).enhance(1 + sign * np.linspace(0, 0.9, 10)[i])

    return {
        "auto_contrast": lambda image, i, sign: ImageOps.autocontrast(image),
        "equalize": lambda image, i, sign: ImageOps.equalize(image),
        "invert": lambda image, i, sign: ImageOps.invert(image),
        "color": enhance("Color"),
        "contrast": enhance("Contrast"),
        "brightness": enhance("Brightness"),
        "sharpness": enhance("Sharpness"),
        "posterize": lambda image, i, sign: ImageOps.posterize(image, int(np.round(np.linspace(8, 4, 10), 0)[i])),
        "solarize": lambda image, i, sign: ImageOps.solarize(
            image, np.linspace(256 if small_data else 255, 0, 10)[i].item()
        ),
        "rotate": rotate,
        "shear_x": lambda image, i, sign: affine(image, 1, sign * np.linspace(0, 0.3, 10)[i], 0, 0, 1, 0, shear_by),
        "shear_y": lambda image, i, sign: affine(image, 1, 0, 0, sign * np.linspace(0, 0.3, 10)[i], 1, 0, shear_by),
        "translate_x": lambda image, i, sign: affine(image, 1, 0, shift(fractions[i], image.width, sign), 0, 1, 0),
        "translate_y": lambda image, i, sign: affine(image, 1, 0, 0, 0, 1, shift(fractions[i], image.height, sign)),
    }


@pytest.mark.parametrize(("policy", "convention"), [("cifar", "small_data"), ("cifar_torchvision", "torchvision")])
def test_arguments_are_those_of_the_reference_code(policy, convention):
    pytest.importorskip("PIL")
    _, table = POLICIES[policy]
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 33, 40), np.uint8)
    magnitudes, signs = np.tile(np.arange(10), 2), np.repeat([1, -1], 10)
    expected = pillow_operations(convention)
    assert set(table) == set(expected)
    for name, operation in table.items():
        reference = through_pillow(expected[name], images, magnitudes, signs)
        assert np.array_equal(operation(images, magnitudes, signs), reference), name


def test_rotation_goes_one_way_only_in_the_small_data_convention():
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32), np.uint8)
    strongest, plus, minus = np.array([9]), np.array([1]), np.array([-1])
    for policy, same in (("cifar", True), ("svhn", True), ("imagenet", True), ("cifar_torchvision", False)):
        rotate = POLICIES[policy][1]["rotate"]
        assert np.array_equal(rotate(images, strongest, plus), rotate(images, strongest, minus)) == same


def test_timm_keeps_more_bits_as_the_magnitude_grows(golden):
    arrays = golden("augment_ops")
    _, table = POLICIES["imagenet_original"]
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    for magnitude in (0, 2, 5, 9, 10, 15, 20):
        kept = np.unique(table["posterize"](ramp, np.array([magnitude]), np.array([1]))).size
        assert kept == 2 ** min(8, arrays[f"level.PosterizeOriginal_{magnitude}"])


# --- Statistics ----------------------------------------------------------------------------------------------------


def spread(expected, trials):
    """Five standard deviations of the number of successes, of which ``expected`` are to be expected."""
    return 5 * np.sqrt(expected * (1 - expected / trials)) + 1e-9


def test_sub_policies_are_drawn_uniformly(monkeypatch):
    table = {f"add {i}": lambda x, magnitude, sign, i=i: x + i for i in range(25)} | {
        "nothing": lambda x, magnitude, sign: x
    }
    policy = tuple(((f"add {i}", 1.0, 0), ("nothing", 1.0, 0)) for i in range(25))
    monkeypatch.setitem(POLICIES, "probe", (policy, table))
    counts = np.bincount(auto_augment(np.zeros(50_000, int), "probe", np.random.default_rng(0)), minlength=25)
    assert np.abs(counts - 2000).max() < spread(2000, 50_000)


def test_probabilities_order_signs_and_magnitudes(monkeypatch):
    seen = []
    table = {
        "add": lambda x, magnitude, sign: x + 1,
        "double": lambda x, magnitude, sign: seen.append((magnitude, sign)) or 2 * x,
    }
    monkeypatch.setitem(POLICIES, "probe", (((("add", 0.3, 2), ("double", 0.6, 7)),), table))
    counts = np.bincount(auto_augment(np.ones(50_000, int), "probe", np.random.default_rng(0)), minlength=5)
    expected = 50_000 * np.array([0, 0.7 * 0.4, 0.3 * 0.4 + 0.7 * 0.6, 0, 0.3 * 0.6])  # 1, 1 + 1 or 1 * 2, (1 + 1) * 2
    assert np.all(np.abs(counts - expected) < spread(expected, 50_000))
    magnitudes, signs = seen[0]
    assert np.all(magnitudes == 7)
    assert set(signs) == {-1, 1}
    assert abs(signs.sum()) < 5 * np.sqrt(len(signs))


@pytest.mark.parametrize("name", POLICIES)
def test_each_operation_is_applied_as_often_as_the_table_says(name, monkeypatch):
    policy, table = POLICIES[name]
    applied = dict.fromkeys(table, 0)

    def probe(operation):
        def count(x, magnitude, sign):
            applied[operation] += len(x)
            assert set(magnitude) <= {m for entry in policy for drawn, _, m in entry if drawn == operation}
            return x

        return count

    monkeypatch.setitem(POLICIES, "probe", (policy, {operation: probe(operation) for operation in table}))
    auto_augment(np.zeros(50_000, int), "probe", np.random.default_rng(1))
    for operation, count in applied.items():
        expected = 50_000 / 25 * sum(p for entry in policy for drawn, p, _ in entry if drawn == operation)
        # Two operations of one sub-policy go together, so that the variance may be twice that of single draws.
        assert abs(count - expected) <= np.sqrt(2) * spread(expected, 100_000), operation


# --- The whole -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POLICIES)
def test_policies_repeat_from_the_seed_and_leave_their_input(name):
    images = np.random.default_rng(0).integers(30, 220, (64, 3, 32, 32), np.uint8)
    before = images.copy()
    result = auto_augment(images, name, np.random.default_rng(5))
    assert np.array_equal(images, before)
    assert result.shape == images.shape
    assert result.dtype == np.uint8
    assert np.array_equal(result, auto_augment(images, name, np.random.default_rng(5)))
    changed = np.any(result != images, axis=(1, 2, 3)).mean()
    assert 0.5 < changed < 1


def test_probability_0_changes_nothing(monkeypatch):
    policy, table = POLICIES["cifar"]
    never = tuple(tuple((operation, 0.0, magnitude) for operation, _, magnitude in entry) for entry in policy)
    monkeypatch.setitem(POLICIES, "never", (never, table))
    images = np.random.default_rng(0).integers(0, 256, (500, 3, 4, 4), np.uint8)
    result = auto_augment(images, "never", np.random.default_rng(0))
    assert np.array_equal(result, images)
    assert not np.shares_memory(result, images)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (5, 3, 2, 7), (40, 3, 33, 5)])
@pytest.mark.parametrize("name", POLICIES)
def test_odd_shapes(name, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert auto_augment(images, name, np.random.default_rng(0)).shape == shape


def test_an_unknown_policy_is_refused():
    with pytest.raises(UsageError, match="unknown AutoAugment policy 'cifer'; did you mean 'cifar'"):
        auto_augment(np.zeros((1, 3, 4, 4), np.uint8), "cifer", np.random.default_rng(0))
