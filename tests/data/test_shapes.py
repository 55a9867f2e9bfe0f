"""The drawn data sets: repeatable, balanced, quick, easy to name and hard for a linear model."""

import numpy as np
import pytest
from scipy.optimize import minimize

from minivit.data import load_dataset
from minivit.data.dataset import channel_statistics
from minivit.data.shapes import SHAPES, TEXTURES, draw


@pytest.fixture(scope="module")
def shapes10():
    return load_dataset("shapes10", limit_train=4000, limit_test=1000)


def test_what_a_data_set_is(shapes10):
    assert shapes10.train.images.shape == (4000, 3, 32, 32)
    assert shapes10.train.images.dtype == np.uint8
    assert shapes10.train.labels.dtype == np.int64
    assert shapes10.class_names == tuple(SHAPES)
    assert shapes10.num_classes == 10
    assert shapes10.img_size == 32
    assert np.array_equal(np.bincount(shapes10.train.labels), np.full(10, 400))
    assert np.array_equal(np.bincount(shapes10.test.labels), np.full(10, 100))


def test_class_names_of_shapes100_follow_the_labels():
    data = load_dataset("shapes100", limit_train=500, limit_test=500)
    assert data.num_classes == 100
    assert data.class_names[0] == "plain disc"
    assert data.class_names[73] == "striped crescent"
    assert np.array_equal(np.bincount(data.train.labels), np.full(100, 5))


@pytest.mark.parametrize("name", ["shapes10", "shapes100"])
def test_declared_statistics_are_those_of_the_images(name):
    data = load_dataset(name, limit_train=4000, limit_test=1)
    mean, std = channel_statistics(data.train.images)
    np.testing.assert_allclose(mean, data.mean, atol=0.012)
    np.testing.assert_allclose(std, data.std, atol=0.006)


@pytest.mark.parametrize("name", ["shapes10", "shapes100"])
def test_images_depend_on_seed_split_and_index_alone(name):
    few = load_dataset(name, limit_train=30, limit_test=20)
    more = load_dataset(name, limit_train=700, limit_test=20)
    other = load_dataset(name, limit_train=30, limit_test=20, seed=1)
    assert np.array_equal(few.train.images, more.train.images[:30])
    assert np.array_equal(few.train.labels, more.train.labels[:30])
    assert not np.array_equal(few.train.images, other.train.images)
    assert not np.array_equal(few.train.images[:20], few.test.images)
    assert not np.array_equal(more.train.images[500:520], few.train.images[:20])


def test_no_image_of_the_training_split_is_in_the_test_split(shapes10):
    train = {image.tobytes() for image in shapes10.train.images}
    assert len(train) == 4000
    assert not any(image.tobytes() in train for image in shapes10.test.images)


def linear_accuracy(data, l2, iterations):
    """Test accuracy of multinomial logistic regression on raw pixels."""

    def design(split):
        pixels = split.images.reshape(len(split), -1).astype(np.float32) / 255 - np.float32(0.5)
        return np.hstack([pixels / np.float32(0.29), np.ones((len(split), 1), np.float32)])

    train, labels = design(data.train), data.train.labels
    targets = np.eye(data.num_classes, dtype=np.float32)[labels]

    def loss(flat):
        weights = flat.reshape(-1, data.num_classes).astype(np.float32)
        logits = train @ weights
        logits -= logits.max(axis=1, keepdims=True)
        log_likelihood = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        gradient = train.T @ ((np.exp(log_likelihood) - targets) / len(labels)) + l2 * weights
        value = -np.mean(log_likelihood[np.arange(len(labels)), labels]) + l2 / 2 * np.sum(weights**2)
        return float(value), gradient.ravel().astype(np.float64)

    start = np.zeros(train.shape[1] * data.num_classes)
    fit = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations})
    scores = design(data.test) @ fit.x.reshape(-1, data.num_classes)
    return np.mean(scores.argmax(axis=1) == data.test.labels)


def test_a_linear_model_fails(shapes10):
    fewer = shapes10.limited(2000, None, seed=0)
    assert linear_accuracy(fewer, l2=1.0, iterations=20) < 0.35


def drawn_alone(monkeypatch, shape, texture="plain", count=8):
    """Images of one class without curtain, noise or background waves."""
    for name, value in [("NOISE", 0), ("CURTAIN_PROBABILITY", 0), ("BACKGROUND_CONTRAST", 0), ("SHIFT", 0)]:
        monkeypatch.setattr(f"minivit.data.shapes.{name}", value)
    shapes = np.full(count, list(SHAPES).index(shape))
    textures = np.full(count, list(TEXTURES).index(texture))
    return draw(shapes, textures, np.random.default_rng(0)).astype(int)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_in_the_middle_and_its_surroundings_are_not(monkeypatch, shape):
    images = drawn_alone(monkeypatch, shape)
    background = images[:, :, :1, :1]
    painted = (images != background).any(axis=1)
    assert not painted[:, [0, -1]].any() and not painted[:, :, [0, -1]].any()
    share = painted.mean(axis=(1, 2))
    assert np.all((share > 0.03) & (share < 0.5))
    # A hole only where the shape has one: every other shape covers its own centre.
    assert np.all(painted[:, 16, 16] == (shape not in ("ring", "crescent")))


def test_the_area_of_a_disc_is_right(monkeypatch):
    monkeypatch.setattr("minivit.data.shapes.RADIUS", (10.0, 10.0))
    images = drawn_alone(monkeypatch, "disc")
    background, fill = images[:, :, :1, :1], images[:, :, 16:17, 16:17]
    coverage = np.abs(images - background).sum(axis=(1, 2, 3)) / np.abs(fill - background).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(coverage, np.pi * 9**2, rtol=0.01)


@pytest.mark.parametrize("texture", [texture for texture in TEXTURES if texture != "plain"])
def test_a_texture_uses_both_fill_colours(monkeypatch, texture):
    monkeypatch.setattr("minivit.data.shapes.RADIUS", (12.0, 12.0))
    monkeypatch.setattr("minivit.data.shapes.COLOUR_SPAN", 1.0)  # colours as far apart as can be
    images = drawn_alone(monkeypatch, "square", texture)
    middle = images[:, :, 11:21, 11:21].reshape(len(images), 3, -1)
    assert np.all(middle.std(axis=2).max(axis=1) > 12)


@pytest.mark.parametrize("shape", SHAPES)
def test_distances_have_slope_one_at_the_outline(shape):
    """So that an edge is one pixel wide whatever the shape: the promise behind the antialiasing."""
    step = 1e-3
    y, x = np.mgrid[-1.3:1.3:160j, -1.3:1.3:160j]
    distance = SHAPES[shape](x, y)
    slope = np.hypot(
        SHAPES[shape](x + step, y) - SHAPES[shape](x - step, y),
        SHAPES[shape](x, y + step) - SHAPES[shape](x, y - step),
    ) / (2 * step)
    near = np.abs(distance) < 0.05
    assert near.sum() > 200
    assert np.median(slope[near]) == pytest.approx(1, abs=0.01)
    assert np.mean(np.abs(slope[near] - 1) < 0.05) > 0.9  # corners and creases apart
