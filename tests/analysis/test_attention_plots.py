"""Pictures of attention: the heat is where the map has it, and any label can be written."""

import sys

import numpy as np
import pytest

from minivit.analysis.attention_plots import MAX_PANELS, Row, save_attention
from minivit.errors import MinivitError, UsageError

RED = np.zeros((3, 8, 16), np.uint8)
RED[0] = 255
EVEN = np.ones((2, 4))


def draw(path, rows, titles):
    """The picture as an array (height, width, 3)."""
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    save_attention(path, rows, titles)
    with image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def boxes(picture):
    """(top, bottom, left, right) of the red image, and of the map beside it."""
    red = np.argwhere((picture == (255, 0, 0)).all(axis=2))
    (top, left), (bottom, right) = red.min(axis=0), red.max(axis=0) + 1
    paper = (picture[(top + bottom) // 2, right:] > 250).all(axis=1)
    start = right + np.flatnonzero(~paper & (np.arange(len(paper)) > 1))[0]
    return (top, bottom, left, right), (top, bottom, start, start + right - left)


@pytest.mark.parametrize("row, column", [(0, 0), (0, 3), (1, 1)])
def test_the_heat_is_where_the_map_has_it(tmp_path, row, column):
    attention = EVEN / 10
    attention[row, column] = 1
    picture = draw(tmp_path / "a.png", [Row("red", RED, [attention])], ["map"])
    (top, bottom, left, right), (_, _, start, end) = boxes(picture)
    assert (right - left) == pytest.approx(2 * (bottom - top), abs=3) and right - left > 150
    panel = picture[top:bottom, start:end]
    warmth = panel[..., 0] + panel[..., 1] - panel[..., 2]
    warmth[(panel.max(axis=2) - panel.min(axis=2)) < 10] = 0  # the numbers in the corner, black on white
    y, x = np.argwhere(warmth > 0.95 * warmth.max()).mean(axis=0) / panel.shape[:2]
    assert (y, x) == pytest.approx(((row + 0.5) / 2, (column + 0.5) / 4), abs=0.13)


def test_even_and_empty_maps_and_rows_of_different_lengths(tmp_path):
    rows = [Row("a", RED, [EVEN]), Row("b", RED, [EVEN * 0, EVEN])]
    picture = draw(tmp_path / "a.png", rows, ["one", "two"])
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("label", ["$x_{", "a\nb", "\u732b", "\udcff", "x" * 300])
def test_labels_are_taken_as_they_are(tmp_path, label):
    plain = draw(tmp_path / "a.png", [Row("a", RED, [EVEN])], ["a"])
    picture = draw(tmp_path / "b.png", [Row(label, RED, [EVEN])], [label])
    assert picture.shape == plain.shape
    width = [box[1] - box[0] for box in (boxes(plain)[0], boxes(picture)[0])]
    assert width[1] > 0.8 * width[0]  # a long name does not squeeze the panels


def test_too_many_panels(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [Row("a", RED, [EVEN])] * (MAX_PANELS // 2 + 1)
    with pytest.raises(UsageError, match=f"201 x 2 panels are more than {MAX_PANELS}"):
        save_attention(tmp_path / "a.png", rows, ["a"])
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MinivitError, match=r'pip install "minivit\[plots\]"'):
        save_attention(tmp_path / "a.png", [Row("a", RED, [EVEN])], ["a"])
