"""Confusion matrices: counts, pairs, pictures."""

import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivit.analysis.confusion import confusion_matrix, most_confused, save_confusion, shares
from minivit.errors import MinivitError


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4))))
def test_each_image_is_counted_once(pairs):
    labels, predictions = np.array(pairs, np.int64).reshape(-1, 2).T
    matrix = confusion_matrix(labels, predictions, 5)
    expected = Counter(pairs)
    assert matrix.shape == (5, 5) and matrix.dtype == np.int64
    assert all(matrix[i, j] == expected[i, j] for i in range(5) for j in range(5))
    errors = {pair: n for pair, n in expected.items() if pair[0] != pair[1]}
    found = most_confused(matrix, 25)
    assert {(i, j): n for i, j, n in found} == errors
    assert [n for _, _, n in found] == sorted(errors.values(), reverse=True)
    rows = shares(matrix).sum(axis=1)
    np.testing.assert_allclose(rows, 100 * (matrix.sum(axis=1) > 0), rtol=1e-12)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int32])
def test_small_integers_do_not_overflow(kind):
    labels, predictions = np.array([99, 3, 99], kind), np.array([98, 100, 98], kind)
    matrix = confusion_matrix(labels, predictions, 101)
    assert matrix.dtype == np.int64 and matrix.sum() == 3
    assert (matrix[99, 98], matrix[3, 100]) == (2, 1)


def test_the_most_confused_pairs_come_first_and_ties_in_order():
    matrix = np.array([[50, 2, 7], [2, 60, 0], [7, 9, 5]])
    assert most_confused(matrix, 3) == [(2, 1, 9), (0, 2, 7), (2, 0, 7)]
    assert most_confused(matrix, 99)[-1] == (1, 0, 2)
    assert most_confused(np.diag([3, 4]), 5) == []


@pytest.mark.parametrize("classes", [2, 21])
def test_small_and_large_pictures(tmp_path, classes):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 2000)
    guesses = np.where(rng.random(2000) < 0.7, labels, rng.integers(0, classes, 2000))
    names = ["$a class$ with a name that is long", *(f"猫 {i}" for i in range(1, classes))]  # not in the font
    save_confusion(tmp_path / "a.png", confusion_matrix(labels, guesses, classes), names, "vit on $pets$")
    with image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 400
        assert len(picture.convert("RGB").getcolors(maxcolors=1 << 20)) > 50
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MinivitError, match=r'pip install "minivit\[plots\]"'):
        save_confusion(tmp_path / "a.png", np.eye(2, dtype=int), ["a", "b"], "")
    assert not list(tmp_path.iterdir())
