"""The loader: what an epoch holds, exact resuming, and a thread that leaves no trace."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivit.data import DataLoader, Split
from minivit.data.augmentation import Augmentation
from minivit.errors import UsageError

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def numbered(count):
    """Images whose every pixel, and whose label, is the image's number."""
    labels = np.arange(count)
    images = np.broadcast_to(labels.astype(np.uint8)[:, None, None, None], (count, 3, 4, 4))
    return Split(np.ascontiguousarray(images), labels)


def noisy(count=40):
    images = np.random.default_rng(1).integers(0, 256, (count, 3, 8, 8), np.uint8)
    return Split(images, np.arange(count))


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("minivit-loader")]


def assert_same_batches(left, right):
    left, right = list(left), list(right)
    assert len(left) == len(right)
    for (images, labels), (other_images, other_labels) in zip(left, right):
        assert np.array_equal(images, other_images)
        assert np.array_equal(labels, other_labels)


def test_without_shuffle_the_order_is_the_stored_one():
    loader = DataLoader(numbered(10), 4, **PLAIN)
    batches = list(loader.epoch(0))
    assert len(batches) == len(loader) == 3
    assert [labels.tolist() for _, labels in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    for images, labels in batches:
        assert images.dtype == np.float32 and labels.dtype == np.int64
        assert images.flags.c_contiguous
        assert np.array_equal(np.rint(images[:, 0, 0, 0] * 255), labels)


@given(
    count=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    repeats=st.integers(1, 3),
    epoch=st.integers(0, 5),
    prefetch=st.integers(0, 3),
)
def test_an_epoch_is_whole_permutations(count, batch_size, repeats, epoch, prefetch):
    settings = {"shuffle": True, "repeats": repeats, "prefetch": prefetch, **PLAIN}
    loader = DataLoader(numbered(count), batch_size, **settings)
    batches = list(loader.epoch(epoch))
    assert len(batches) == len(loader)
    assert all(len(labels) == batch_size for _, labels in batches[:-1])
    seen = np.concatenate([labels for _, labels in batches])
    for repeat in np.split(seen, repeats):
        assert np.array_equal(np.sort(repeat), np.arange(count))
    for images, labels in batches:
        assert np.array_equal(np.rint(images[:, 2, 3, 3] * 255), labels)


def test_passes_epochs_and_seeds_have_orders_of_their_own():
    loader = DataLoader(numbered(50), 50, shuffle=True, repeats=2, **PLAIN)
    orders = [tuple(labels.tolist()) for epoch in (0, 1) for _, labels in loader.epoch(epoch)]
    other = DataLoader(numbered(50), 50, shuffle=True, repeats=2, seed=1, **PLAIN)
    orders += [tuple(labels.tolist()) for _, labels in other.epoch(0)]
    assert len(set(orders)) == 6
    again = [tuple(labels.tolist()) for _, labels in loader.epoch(0)]
    assert again == orders[:2]


def test_the_official_epoch_length():
    split = Split(np.zeros((50_000, 3, 1, 1), np.uint8), np.zeros(50_000, np.int64))
    assert len(DataLoader(split, 128, repeats=3, drop_last=True, **PLAIN)) == 1171
    assert len(DataLoader(split, 128, repeats=3, **PLAIN)) == 1172


@pytest.mark.parametrize("start", [0, 1, 3, 6, 7])
def test_resuming_inside_an_epoch_is_exact(start):
    augmentation = Augmentation(flip=True, crop_padding=2)
    settings = {"shuffle": True, "augmentation": augmentation, "repeats": 2, "seed": 5, **PLAIN}
    whole = list(DataLoader(noisy(), 12, **settings).epoch(3))
    resumed = DataLoader(noisy(), 12, **settings).epoch(3, start_batch=start)
    assert len(whole) == 7
    assert_same_batches(whole[start:], resumed)


@pytest.mark.parametrize("prefetch", [1, 2, 9])
def test_prefetching_changes_nothing(prefetch):
    settings = {"shuffle": True, "augmentation": Augmentation(flip=True, crop_padding=2), **PLAIN}
    assert_same_batches(
        DataLoader(noisy(), 7, prefetch=0, **settings).epoch(2),
        DataLoader(noisy(), 7, prefetch=prefetch, **settings).epoch(2),
    )


def test_augmentation_differs_between_epochs_and_batches():
    same = Split(np.repeat(noisy(1).images, 40, axis=0), np.zeros(40, np.int64))
    loader = DataLoader(same, 20, augmentation=Augmentation(flip=True, crop_padding=4), **PLAIN)
    batches = [images for epoch in (0, 1) for images, _ in loader.epoch(epoch)]
    for index, images in enumerate(batches):
        assert not any(np.array_equal(images, other) for other in batches[:index])


def test_flip_alone_keeps_or_mirrors():
    split = noisy()
    loader = DataLoader(split, 40, augmentation=Augmentation(flip=True), **PLAIN)
    ((images, labels),) = loader.epoch(0)
    original = split.images / np.float32(255)
    kept = np.isclose(images, original, atol=1e-6).all(axis=(1, 2, 3))
    mirrored = np.isclose(images, original[..., ::-1], atol=1e-6).all(axis=(1, 2, 3))
    assert np.all(kept ^ mirrored)
    assert 8 < mirrored.sum() < 32


def test_augmentation_equals_a_loop_and_leaves_the_split_alone():
    """The draws come in the order flips, rows, columns: a change of it would change every run."""
    split = noisy()
    before = split.images.copy()
    settings = {"shuffle": True, "augmentation": Augmentation(flip=True, crop_padding=2), "seed": 3, **PLAIN}
    batches = list(DataLoader(split, 16, **settings).epoch(1))
    order = np.random.default_rng([0, 3, 1, 0]).permutation(40)
    for index, (images, labels) in enumerate(batches):
        chosen = order[16 * index : 16 * index + 16]
        assert np.array_equal(labels, chosen)
        rng = np.random.default_rng([1, 3, 1, index])
        mirrored = rng.random(len(chosen)) < 0.5
        top, left = rng.integers(0, 5, (2, len(chosen)))
        for result, number, mirror, row, column in zip(images, chosen, mirrored, top, left):
            image = before[number][:, :, ::-1] if mirror else before[number]
            padded = np.pad(image, ((0, 0), (2, 2), (2, 2)))[:, row : row + 8, column : column + 8]
            np.testing.assert_allclose(result, padded / 255, rtol=0, atol=1e-6)
    assert np.array_equal(split.images, before)


def test_a_consumer_that_stops_early_leaves_no_thread():
    loader = DataLoader(numbered(100), 1, **PLAIN)
    batches = loader.epoch(0)
    next(batches)
    assert len(loader_threads()) == 1
    batches.close()
    assert loader_threads() == []
    for _ in loader.epoch(0):
        break
    assert loader_threads() == []


class Watched:
    """Images that count how often they are read, and fail from one read on."""

    def __init__(self, fail_at=None):
        self.reads = 0
        self.fail_at = fail_at

    def __getitem__(self, chosen):
        self.reads += 1
        if self.fail_at is not None and self.reads > self.fail_at:
            raise OSError("the disk is gone")
        return np.zeros((len(chosen), 3, 4, 4), np.uint8)


def test_the_thread_works_ahead_but_only_so_far():
    images = Watched()
    batches = DataLoader(Split(images, np.arange(100)), 1, prefetch=3, **PLAIN).epoch(0)
    next(batches)
    deadline = time.monotonic() + 5
    while images.reads < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert images.reads == 4
    batches.close()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_what_the_thread_raises_reaches_the_consumer(prefetch):
    loader = DataLoader(Split(Watched(fail_at=2), np.arange(9)), 1, prefetch=prefetch, **PLAIN)
    batches = loader.epoch(0)
    assert len(next(batches)[1]) == len(next(batches)[1]) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert loader_threads() == []


def test_batches_belong_to_the_consumer():
    loader = DataLoader(numbered(6), 2, **PLAIN)
    first, _ = next(iter(loader.epoch(0)))
    before = first.copy()
    list(loader.epoch(0))
    assert np.array_equal(first, before)
    first[:] = 7
    again, _ = next(iter(loader.epoch(0)))
    assert np.array_equal(again, before)


@pytest.mark.parametrize(
    "bad",
    [{"batch_size": 0}, {"repeats": 0}, {"repeated_augmentation": 0}, {"prefetch": -1}, {"seed": -1}],
)
def test_numbers_out_of_range_are_refused(bad):
    with pytest.raises(UsageError, match="must be at least"):
        DataLoader(numbered(4), **{"batch_size": 2, **PLAIN, **bad})


def test_no_batch_at_all_is_refused():
    with pytest.raises(UsageError, match="4 images do not fill one batch of 5"):
        DataLoader(numbered(4), 5, drop_last=True, **PLAIN)


@pytest.mark.parametrize(("epoch", "start"), [(0, 3), (0, -1), (-1, 0)])
def test_a_batch_that_is_not_there_is_refused(epoch, start):
    loader = DataLoader(numbered(4), 2, **PLAIN)
    with pytest.raises(UsageError, match="no batch"):
        loader.epoch(epoch, start)
    assert list(loader.epoch(0, 2)) == []
