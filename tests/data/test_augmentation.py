"""The pipeline: which step does what, in which order, and that a batch follows from its generator alone."""

import numpy as np
import pytest

from minivit.data import DataLoader, Split
from minivit.data.augment import normalize, random_crop, random_flip
from minivit.data.augmentation import Augmentation
from minivit.data.auto_augment import auto_augment
from minivit.data.erasing import random_erasing
from minivit.data.mixing import mix
from minivit.data.rand_augment import parse_rand_augment, rand_augment, tf_rand_augment
from minivit.data.resizing import random_resized_crop, resize
from minivit.errors import UsageError

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def batch(count=12, side=8):
    rng = np.random.default_rng(7)
    return rng.integers(0, 256, (count, 3, side, side), np.uint8), rng.integers(0, 5, count)


def augmented(seed=0, size=8, **settings):
    images, labels = batch()
    rng = np.random.default_rng(seed)
    return Augmentation(**settings)(images, labels, rng, size=size, mean=MEAN, std=STD, num_classes=5)


def test_small_data_is_its_steps_in_the_papers_order():
    x, targets = augmented(
        flip=True, crop_padding=2, auto_augment="cifar", erase=0.5, erase_mode="mean", mixup=1.0, cutmix=1.0,
        mix_prob=1.0, mix_partner="shuffled",
    )  # fmt: skip
    images, labels = batch()
    rng = np.random.default_rng(0)
    images = auto_augment(random_crop(random_flip(images, rng), 2, rng), "cifar", rng)
    expected = normalize(images, MEAN, STD)
    random_erasing(
        expected, rng, probability=0.5, mode="const", values=MEAN, area=(0.02, 0.4), log_aspect=False, tries=100
    )
    expected, expected_targets = mix(expected, labels, 5, rng, mixup=1.0, cutmix=1.0, partner="shuffled")
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(targets, expected_targets)
    assert x.dtype == targets.dtype == np.float32


def test_deit_is_its_steps():
    x, targets = augmented(
        size=6, resized_crop=0.3, interpolation="bilinear", auto_augment="rand-m9-mstd0.5-inc1", color_jitter=0.4,
        erase=0.5, mixup=0.8,
    )  # fmt: skip
    images, labels = batch()
    rng = np.random.default_rng(0)
    images = random_resized_crop(images, (6, 6), rng, scale=(0.3, 1.0), interpolation="bilinear")
    images = rand_augment(images, rng, fill=(128, 102, 76), **parse_rand_augment("rand-m9-mstd0.5-inc1"))
    expected = random_erasing(normalize(images, MEAN, STD), rng, probability=0.5, mode="pixel")
    expected, expected_targets = mix(expected, labels, 5, rng, mixup=0.8, cutmix=0.0)
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(targets, expected_targets)


def test_augreg_is_its_steps():
    x, targets = augmented(auto_augment="tf-rand-l2-m15", mixup=0.5, mix_partner="rolled")
    images, labels = batch()
    rng = np.random.default_rng(0)
    expected = normalize(tf_rand_augment(images, rng, layers=2, magnitude=15), MEAN, STD)
    expected, expected_targets = mix(
        expected, labels, 5, rng, mixup=0.5, cutmix=0.0, partner="rolled", keep_larger=True
    )
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(targets, expected_targets)
    assert (targets.max(axis=1) >= 0.5).all()


def test_nothing_is_done_by_default():
    images, labels = batch()
    x, targets = augmented()
    np.testing.assert_array_equal(x, normalize(images, MEAN, STD))
    np.testing.assert_array_equal(targets, labels)
    assert not Augmentation().is_random and not Augmentation(mixup=1.0, mix_prob=0.0).is_random
    assert Augmentation(cutmix=1.0).is_random and Augmentation(erase=0.1).is_random


@pytest.mark.parametrize("settings", [{}, {"flip": True}, {"crop_padding": 1}])
def test_smaller_images_are_enlarged(settings):
    x, _ = augmented(size=16, **settings)
    assert x.shape == (12, 3, 16, 16)
    if not settings:
        np.testing.assert_array_equal(x, normalize(resize(batch()[0], (16, 16)), MEAN, STD))


def test_color_jitter_gives_way_to_a_policy():
    alone, _ = augmented(color_jitter=0.4)
    assert not np.array_equal(alone, augmented()[0])
    policy = {"auto_augment": "imagenet"}
    np.testing.assert_array_equal(augmented(color_jitter=0.4, **policy)[0], augmented(**policy)[0])


@pytest.mark.parametrize("switch, method", [(0, {"mixup": 0.8}), (1, {"cutmix": 1.0})])
def test_the_switch_chooses_between_mixup_and_cutmix(switch, method):
    chosen = augmented(mixup=0.8, cutmix=1.0, mix_switch=switch)
    for found, alone in zip(chosen, augmented(**method), strict=True):
        np.testing.assert_array_equal(found, alone)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"auto_augment": "cifra"}, "unknown policy 'cifra'; did you mean 'cifar'"),
        ({"auto_augment": "rand-x9"}, "rand-x9"),
        ({"erase_mode": "pixels"}, "unknown erase_mode 'pixels'; did you mean 'pixel'"),
        ({"mix_partner": "rolling"}, "unknown mix_partner 'rolling'"),
        ({"mix_mode": "bach"}, "did you mean 'batch'"),
        ({"mix_mode": "pair", "mix_partner": "shuffled"}, "mix_mode 'pair' needs mix_partner 'reversed'"),
        ({"erase": 1.5}, "erase must be from 0 to 1"),
        ({"mixup": -1.0}, "mixup must be from 0"),
        ({"crop_padding": 1_000_000}, "crop_padding must be from 0 to 512"),
        ({"color_jitter": 1e200}, "color_jitter must be from 0 to 10"),
        ({"auto_augment": "tf-rand-l2-m" + "9" * 400}, "unknown policy"),
        ({"auto_augment": "rand-m" + "9" * 400}, "rand-m"),
        ({"interpolation": "bicubik"}, "did you mean 'bicubic'"),
        ({"crop_padding": 4, "resized_crop": 0.1}, "set one of them to 0"),
    ],
)
def test_nonsense_is_refused(settings, message):
    with pytest.raises(UsageError) as error:
        Augmentation(**settings)
    assert message in str(error.value)


class TestLoader:
    """What the loader does with it."""

    def loader(self, count=40, batch_size=8, **settings):
        images = np.random.default_rng(1).integers(0, 256, (count, 3, 8, 8), np.uint8)
        split = Split(images, np.arange(count))
        return DataLoader(
            split, batch_size, mean=MEAN, std=STD, shuffle=True, num_classes=count, seed=3, **settings
        )

    def test_mixed_batches_follow_from_seed_epoch_and_number(self):
        augmentation = Augmentation(flip=True, auto_augment="cifar", erase=0.5, mixup=0.8, cutmix=1.0)
        loader = self.loader(augmentation=augmentation)
        whole = list(loader.epoch(1))
        for (x, targets), (again, again_targets) in zip(whole[2:], loader.epoch(1, start_batch=2), strict=True):
            np.testing.assert_array_equal(x, again)
            np.testing.assert_array_equal(targets, again_targets)
        assert all(np.allclose(targets.sum(axis=1), 1) for _, targets in whole)
        assert whole[0][1].shape == (8, 40)

    def test_indices_are_those_of_the_batches(self):
        loader = self.loader(repeats=2)
        for number, (_, labels) in enumerate(loader.epoch(4)):
            np.testing.assert_array_equal(loader.indices(4, number), labels)

    def test_repeated_augmentation_shows_neighbours(self):
        loader = self.loader(count=300, batch_size=64, repeated_augmentation=3)
        shown = np.concatenate([labels for _, labels in loader.epoch(0)])
        order = np.random.default_rng([0, 3, 0, 0]).permutation(300)
        np.testing.assert_array_equal(shown, np.repeat(order, 3)[:256])  # the sampler's multiple of 256
        assert len(loader) == 4

    def test_the_official_epoch_of_repeated_augmentation(self):
        """Counts of DeiT's sampler for 50,000 images."""
        split = Split(np.zeros((50_000, 3, 1, 1), np.uint8), np.arange(50_000))
        loader = DataLoader(split, 128, mean=MEAN, std=STD, shuffle=True, repeated_augmentation=3)
        order = np.concatenate([loader.indices(0, number) for number in range(len(loader))])
        assert len(order) == 49_920 and len(np.unique(order)) == 16_640

    def test_spread_repetitions_never_meet(self):
        loader = self.loader(count=300, batch_size=32, repeated_augmentation=3, spread=True)
        batches = [labels for _, labels in loader.epoch(0)]
        assert all(len(np.unique(labels)) == len(labels) for labels in batches)
        _, counts = np.unique(np.concatenate(batches), return_counts=True)
        assert sorted(set(counts)) in ([3], [2, 3])

    def test_repetitions_are_augmented_anew(self):
        loader = self.loader(
            count=300, batch_size=60, repeated_augmentation=3, augmentation=Augmentation(crop_padding=3)
        )
        x, labels = next(iter(loader.epoch(0)))
        assert labels[0] == labels[1] == labels[2]
        assert not (np.array_equal(x[0], x[1]) and np.array_equal(x[0], x[2]))

    def test_batches_have_the_size_that_was_asked_for(self):
        loader = self.loader(img_size=12)
        assert all(x.shape[2:] == (12, 12) for x, _ in loader.epoch(0))
