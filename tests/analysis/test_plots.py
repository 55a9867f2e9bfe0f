"""Pictures are drawn, and are pictures."""

import sys

import pytest

from minivit.analysis.plots import save_curves
from minivit.errors import MinivitError

ROWS = [
    {
        "epoch": e,
        "train_loss": 2 / e,
        "test_loss": 1 / e,
        "test_top1": 90 - 30 / e,
        "test_top5": 99.0,
        "lr": 1e-3 / e,
    }
    for e in range(1, 4)
]


def test_dollar_signs_are_no_formula(tmp_path):
    pytest.importorskip("matplotlib")
    save_curves(tmp_path / "curves.png", ROWS, "vit on folder:ds$a_{$b")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize("count", [1, 3])
def test_curves_are_a_picture_of_some_size(tmp_path, count):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "curves.png"
    save_curves(path, ROWS[:count], "vit on blobs")
    with image.open(path) as picture:
        assert picture.format == "PNG"
        width, height = picture.size
        assert width > 1000 and height > 300
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 20)
        assert len(colours) > 50  # lines, text and grid, not a blank sheet
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MinivitError, match=r'pip install "minivit\[plots\]"'):
        save_curves(tmp_path / "curves.png", ROWS, "")
    assert not list(tmp_path.iterdir())
