"""Mixup and CutMix: stored values of timm, and what must hold for every draw."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from minivit.data.mixing import cutmix_boxes, cutmix_images, kept_area, mix, mixed_targets, mixup_images
from minivit.errors import UsageError

CLASSES = 10


@pytest.fixture(scope="module")
def stored(golden):
    return golden("mixup_cutmix")


def assert_close(actual, expected):
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixup_equals_stored_values(stored, smoothing):
    images, labels, name = stored["input"], stored["labels"], f"mixup_lam0.3_s{smoothing}"
    lam = np.full(4, 0.3)
    assert_close(mixup_images(images, images[::-1], lam), stored[f"{name}.x"])
    assert_close(mixed_targets(labels, labels[::-1], lam, 5, smoothing), stored[f"{name}.target"])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("lam", "row", "column"), [(0.3, 1, 9), (0.6, 4, 5), (0.9, 7, 0)])
def test_cutmix_equals_stored_values(stored, lam, row, column, smoothing):
    images, labels, name = stored["input"], stored["labels"], f"cutmix_lam{lam}_cy{row}_cx{column}_s{smoothing}"
    boxes = cutmix_boxes(np.full(4, lam), np.full(4, row), np.full(4, column), 8, 10, even_boxes=False)
    top, bottom, left, right = stored[f"{name}.bbox_yl_yh_xl_xh"]
    np.testing.assert_array_equal(boxes, np.tile((top, left, bottom - top, right - left), (4, 1)))
    kept = kept_area(boxes, 8, 10)
    np.testing.assert_allclose(kept, stored[f"{name}.lam_corrected"], rtol=1e-6)
    np.testing.assert_array_equal(cutmix_images(images, images[::-1], boxes), stored[f"{name}.x"])
    assert_close(mixed_targets(labels, labels[::-1], kept, 5, smoothing), stored[f"{name}.target"])


@pytest.mark.parametrize("mode", ["elem", "pair"])
def test_lambdas_of_elements_and_pairs_equal_stored_values(stored, mode):
    images, labels, lam = stored["input"], stored["labels"], stored[f"mixup_{mode}.lam"]
    if mode == "pair":
        lam = np.concatenate([lam, lam[::-1]])
    assert_close(mixup_images(images, images[::-1], lam), stored[f"mixup_{mode}.x"])
    assert_close(mixed_targets(labels, labels[::-1], lam, 5, smoothing=0.1), stored[f"mixup_{mode}.target"])


@given(
    lam=st.floats(0, 1),
    side=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    centre=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
    even=st.booleans(),
)
def test_boxes_follow_the_rule(lam, side, centre, even):
    centre = [int(part * length) for part, length in zip(centre, side)]
    (box,) = cutmix_boxes(np.array([lam]), *np.array(centre)[:, None], *side, even_boxes=even)
    pixels = []
    for length, middle in zip(side, centre):
        cut = int(length * (1 - lam) ** 0.5)
        first, last = middle - cut // 2, middle + (cut // 2 if even else cut - cut // 2)
        pixels.append([pixel for pixel in range(first, last) if 0 <= pixel < length])
    assert [box[2], box[3]] == [len(line) for line in pixels]
    for start, line in zip(box[:2], pixels):
        assert not line or start == line[0]


def numbered(batch, height=8, width=8):
    """Images that are constant, each with its own number, of as many classes: pixels tell where they come from."""
    images = np.ones((batch, 3, height, width), np.float32) * np.arange(batch, dtype=np.float32)[:, None, None, None]
    return images, np.arange(batch)


settings = st.fixed_dictionaries(
    {
        "mixup": st.sampled_from([0.0, 0.2, 1.0]),
        "cutmix": st.sampled_from([0.0, 1.0]),
        "probability": st.sampled_from([0.0, 0.5, 1.0]),
        "mode": st.sampled_from(["batch", "elem", "pair"]),
        "partner": st.sampled_from(["reversed", "rolled", "shuffled"]),
        "cutmix_minmax": st.sampled_from([None, (0.2, 0.8)]),
        "keep_larger": st.booleans(),
        "even_boxes": st.booleans(),
    }
)


@given(seed=st.integers(0, 2**32), batch=st.integers(1, 9), settings=settings)
def test_targets_say_what_the_images_hold(seed, batch, settings):
    """Each image's mean is the mean of the sources' numbers, weighed by its target: true of Mixup and CutMix alike."""
    if settings["mode"] == "pair":
        settings["partner"] = "reversed"
    images, labels = numbered(batch, 7, 11)
    before = images.copy()
    mixed, targets = mix(images, labels, batch, np.random.default_rng(seed), **settings)
    np.testing.assert_array_equal(images, before)
    assert mixed.dtype == targets.dtype == np.float32
    assert mixed.shape == images.shape
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    assert targets.min() >= 0
    np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), targets @ labels, atol=1e-5)
    assert np.all((targets > 0).sum(axis=1) <= 2)
    for image, target in zip(mixed, targets):  # nothing from outside the two partners
        sources = np.flatnonzero(target)
        assert sources.min() - 1e-5 <= image.min() <= image.max() <= sources.max() + 1e-5


def mixed_pairs(batch, seed, **arguments):
    """Each image's target for itself and for the image that was mixed in, by number."""
    images, labels = numbered(batch)
    _, targets = mix(images, labels, batch, np.random.default_rng(seed), **arguments)
    own = targets[labels, labels]
    targets[labels, labels] = 0
    return own, np.where(targets.any(axis=1), targets.argmax(axis=1), labels)


@pytest.mark.parametrize("batch", [6, 7])
def test_partners(batch):
    index = np.arange(batch)
    arguments = {"cutmix": 0, "mixup": 5.0}
    np.testing.assert_array_equal(mixed_pairs(batch, 0, **arguments)[1], index[::-1])
    np.testing.assert_array_equal(mixed_pairs(batch, 0, partner="rolled", **arguments)[1], (index - 1) % batch)
    permutations = {tuple(mixed_pairs(batch, seed, partner="shuffled", **arguments)[1]) for seed in range(30)}
    assert len(permutations) > 25
    assert all(sorted(order) == list(index) for order in permutations)


def test_the_middle_of_an_odd_batch_is_mixed_with_itself():
    for mode in ("batch", "elem", "pair"):
        images, labels = numbered(5)
        mixed, targets = mix(images, labels, 5, np.random.default_rng(0), mode=mode)
        np.testing.assert_allclose(mixed[2], images[2], atol=1e-6)
        np.testing.assert_allclose(targets[2], np.eye(5)[2], atol=1e-6)


def test_modes_draw_once_or_for_each_pair_or_image():
    arguments = {"cutmix": 0, "mixup": 1.0}
    batch = mixed_pairs(8, 0, mode="batch", **arguments)[0]
    assert np.ptp(batch) < 1e-6
    pairs = mixed_pairs(8, 0, mode="pair", **arguments)[0]
    np.testing.assert_allclose(pairs, pairs[::-1], atol=1e-6)
    assert len(np.unique(pairs[:4])) == 4
    assert len(np.unique(mixed_pairs(8, 0, mode="elem", **arguments)[0])) == 8


def test_pairs_exchange_the_same_box():
    images, labels = numbered(6)
    mixed, _ = mix(images, labels, 6, np.random.default_rng(3), mixup=0, mode="pair")
    np.testing.assert_array_equal(mixed != images, (mixed != images)[::-1])
    assert np.any(mixed != images)


def kinds(batches, **arguments):
    """How often a batch was left alone, blended, cut."""
    images, labels = numbered(4)
    rng = np.random.default_rng(0)
    counts = {"plain": 0, "mixup": 0, "cutmix": 0}
    for _ in range(batches):
        mixed, _ = mix(images, labels, 4, rng, **arguments)
        whole = np.all(mixed == mixed.astype(np.int64))  # CutMix leaves whole numbers
        counts["plain" if mixed is images else "cutmix" if whole else "mixup"] += 1
    return np.array(list(counts.values())) / batches


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, (0, 0.5, 0.5)),
        ({"probability": 0.5, "mixup": 1.0, "partner": "shuffled"}, (0.5, 0.25, 0.25)),  # the small-data recipe
        ({"switch_probability": 0.2}, (0, 0.8, 0.2)),
        ({"cutmix": 0}, (0, 1, 0)),
        ({"mixup": 0, "probability": 0.3}, (0.7, 0, 0.3)),
        ({"mixup": 0, "cutmix": 0}, (1, 0, 0)),
        ({"mixup": 0, "cutmix": 0, "cutmix_minmax": (0.3, 0.8)}, (0, 0, 1)),
        ({"probability": 0}, (1, 0, 0)),
    ],
)
def test_rates_of_mixup_and_cutmix(arguments, expected):
    np.testing.assert_allclose(kinds(600, **arguments), expected, atol=0.06)


@pytest.mark.parametrize(
    ("arguments", "low"), [({"mixup": 0.8}, 0.0), ({"mixup": 0.2, "partner": "rolled", "keep_larger": True}, 0.5)]
)
def test_lambdas_of_mixup_are_beta(arguments, low):
    own, _ = mixed_pairs(2000, 0, mode="elem", cutmix=0, **arguments)
    alpha = arguments["mixup"]
    lam = np.random.default_rng(1).beta(alpha, alpha, 2000)
    lam = np.maximum(lam, 1 - lam) if low else lam
    assert own.min() >= low
    assert stats.ks_2samp(own, lam).pvalue > 0.001
    np.testing.assert_allclose(own.mean(), lam.mean(), atol=0.03)


@pytest.mark.parametrize("even", [True, False])
def test_kept_areas_of_cutmix_are_distributed_as_in_the_reference(even):
    images, labels = numbered(3000, 9, 12)
    arguments = {"mixup": 0, "mode": "elem", "even_boxes": even}
    _, targets = mix(images, labels, 3000, np.random.default_rng(0), **arguments)
    rng = np.random.default_rng(1)
    reference = []
    for _ in range(3000):
        cut, inside = (1 - rng.beta(1, 1)) ** 0.5, 1
        for side in (9, 12):
            centre, length = int(rng.integers(side)), int(side * cut)
            start, stop = centre - length // 2, centre + (length // 2 if even else (length + 1) // 2)
            inside *= min(stop, side) - max(start, 0)
        reference.append(1 - inside / (9 * 12))
    own = targets[labels, labels]
    assert stats.ks_2samp(own, np.array(reference, np.float32)).pvalue > 0.001
    np.testing.assert_allclose(own.mean(), np.mean(reference), atol=0.025)


def test_minmax_boxes_lie_anywhere_in_the_image():
    images, labels = numbered(4000, 10, 20)
    arguments = {"mode": "elem", "mixup": 0, "cutmix_minmax": (0.2, 0.5)}
    mixed, targets = mix(images, labels, 4000, np.random.default_rng(0), **arguments)
    pasted = (mixed != images)[:, 0]
    heights, widths = pasted.any(axis=2).sum(axis=1), pasted.any(axis=1).sum(axis=1)
    assert set(heights) == {2, 3, 4}  # the upper end of 5 is excluded
    assert set(widths) == {4, 5, 6, 7, 8, 9}
    np.testing.assert_allclose(targets[labels, labels], 1 - heights * widths / 200, atol=1e-6)
    assert stats.chisquare(np.bincount(heights)[2:]).pvalue > 0.001
    assert pasted.mean(axis=0).min() > 0.006  # corners too: one place of about 115


def test_unmixed_images_are_handed_through():
    images, labels = numbered(4)
    mixed, targets = mix(images, labels, CLASSES, np.random.default_rng(0), probability=0)
    assert mixed is images
    np.testing.assert_array_equal(targets, np.eye(4, CLASSES))


def test_senseless_requests_are_refused():
    images, labels = numbered(4)
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match="did you mean 'pair'"):
        mix(images, labels, 4, rng, mode="pairs")
    with pytest.raises(UsageError, match="did you mean 'rolled'"):
        mix(images, labels, 4, rng, partner="roled")
    with pytest.raises(UsageError, match="needs partner 'reversed'"):
        mix(images, labels, 4, rng, mode="pair", partner="rolled")
