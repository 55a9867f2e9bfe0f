"""Pictures of attention: maps laid over images. Needs Matplotlib, the extra ``plots``; drawn without a display."""

import warnings
from dataclasses import dataclass

import numpy as np

from minivit.analysis.figure import new_figure, save_figure
from minivit.errors import UsageError

MAX_PANELS = 400
PANEL = 1.9  # inches of a panel's width
LONGEST = 28  # letters of a line of text that fit beside or above a panel
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue (ITU-R BT.601)


@dataclass(frozen=True)
class Row:
    """A line of the picture.

    Args:
        label: what stands before it.
        image: uint8 (3, height, width).
        maps: non-negative arrays (rows, columns), each to be laid over the image.
    """

    label: str
    image: np.ndarray
    maps: list


def save_attention(path, rows, titles):
    """Draw small multiples: for each of ``rows`` the image in colour, then each of its maps over the image in grey.

    Colours run in each map from its least number to its largest. Both stand in its corner, with the mean of the map as
    the unit, so that a map that is nearly even says so.

    Args:
        path: the PNG file, a ``Path``.
        rows: a list of Row.
        titles: what stands above each column of maps.

    Raises:
        MinivitError: Matplotlib is not installed, or the file cannot be written.
        UsageError: the picture would have more than MAX_PANELS panels.
    """
    lines, columns = len(rows), 1 + len(titles)
    if lines * columns > MAX_PANELS:
        raise UsageError(f"{lines} x {columns} panels are more than {MAX_PANELS}: take fewer images, or one head")
    height, width = rows[0].image.shape[1:]
    figure = new_figure(PANEL * columns + 0.4, (PANEL * height / width + 0.05) * lines + 1.1)
    figure.set_layout_engine("compressed")  # keeps panels of one shape together
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[], frame_on=False)
    for axes, title in zip(panels[0], ["image", *titles], strict=True):
        axes.set_title(_fitted(title), fontsize=8, parse_math=False)  # a $ in a name is a letter
    for (first, *others), row in zip(panels, rows, strict=True):
        image = row.image.transpose(1, 2, 0)
        first.imshow(image, interpolation="nearest")
        first.set_ylabel(_fitted(row.label), fontsize=8, parse_math=False)
        for axes, attention in zip(others, row.maps):
            heat = _draw(axes, image @ LUMA, attention)
    legend = figure.colorbar(heat, ax=panels, ticks=[0, 1], location="bottom", aspect=40, fraction=0.02, pad=0.02)
    legend.set_ticklabels(["least", "most"], fontsize=8)
    legend.set_label("attention (in the corner: least - most, mean = 1)", fontsize=8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names in scripts that the font does not have
        save_figure(figure, path)


def _draw(axes, grey, attention):
    """Lay a map over a grey image (height, width). Returns the artist that has the colours."""
    height, width = grey.shape
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    shares = attention / (attention.mean() or 1)
    least, most = shares.min(), shares.max()
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    heat = axes.imshow((shares - least) / (most - least or 1), cmap="inferno", vmin=0, vmax=1, alpha=0.65,
                       extent=extent, interpolation="catrom")  # fmt: skip
    axes.text(0.97, 0.03, f"{least:.2f} - {most:.2f}", transform=axes.transAxes, fontsize=8, color="white", ha="right",
              va="bottom", bbox={"facecolor": "black", "alpha": 0.5, "lw": 0, "pad": 1.5})  # fmt: skip
    return heat


def _fitted(text):
    """Cut each line of a text to LONGEST letters, in its middle: names differ at their ends."""
    lines = text.encode(errors="replace").decode().split("\n")  # a file's name may hold bytes that are no text
    half = LONGEST // 2 - 1
    return "\n".join(line if len(line) <= LONGEST else f"{line[:half]}..{line[-half:]}" for line in lines)
