"""Figures: Matplotlib where it is installed, drawn without a display, written in one step."""

import tempfile
import warnings
from pathlib import Path

from minivit.errors import MinivitError
from minivit.training.atomic import atomic_write


def new_figure(width, height):
    """Return an empty Matplotlib ``Figure`` of that size in inches.

    Raises:
        MinivitError: Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # not pyplot: no display, no global state
    except ImportError:
        raise MinivitError('plots need Matplotlib: pip install "minivit[plots]"') from None
    return Figure(figsize=(width, height), layout="constrained")


def check_figure(path):
    """Find out, before long work, whether a figure could be written to the PNG file ``path``.

    Raises:
        MinivitError: Matplotlib is not installed, or the file cannot be written.
    """
    new_figure(1, 1)
    path = Path(path)
    if path.is_dir():
        raise MinivitError(f"cannot write {path}: it is a folder")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise MinivitError(f"cannot write {path}: {error.strerror or error}") from error


def plain(text):
    """Return ``text`` so that Matplotlib shows its dollar signs, and takes nothing between them for a formula."""
    return text.replace("$", r"\$")


def save_figure(figure, path, dpi=110):
    """Write ``figure`` to the PNG file ``path``.

    Raises:
        MinivitError: the file cannot be written.
    """
    with atomic_write(Path(path)) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names in letters that the font does not have
        figure.savefig(file, format="png", dpi=dpi)
