"""The progress bar of downloads and decoding."""

import sys


def progress_bar(iterable=None, **options):
    """Return a ``tqdm`` bar with ``options``: hidden where stderr is no terminal, gone when it is closed."""
    from tqdm import tqdm  # only a first start needs it

    return tqdm(iterable, leave=False, disable=not sys.stderr.isatty(), **options)
