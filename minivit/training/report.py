"""What a training run says: a table on stdout, a progress bar on stderr where that is a terminal."""

import sys

from tqdm import tqdm

COLUMNS = (
    ("epoch", "epoch", "d"),
    ("train loss", "train_loss", ".4f"),
    ("test top-1", "test_top1", ".2f"),
    ("test top-5", "test_top5", ".2f"),
    ("lr", "lr", ".2e"),
    ("images/s", "images_per_second", ",.0f"),
    ("seconds", "seconds", ".1f"),
)
WIDTH = 11


def print_header(*lines):
    """Print what is about to run, and the head of the table."""
    print(*lines, sep="\n")
    print("".join(f"{title:>{WIDTH}}" for title, _, _ in COLUMNS), flush=True)


def print_row(row):
    """Print one line of ``log.jsonl`` as a line of the table."""
    print("".join(f"{format(row[key], style):>{WIDTH}}" for _, key, style in COLUMNS), flush=True)


def note(text):
    """Say something beside the table."""
    print(text, file=sys.stderr, flush=True)


def progress(label, total, unit, done=0):
    """Return a ``tqdm`` bar over ``total`` units, invisible where stderr is no terminal, gone once closed."""
    return tqdm(
        total=total, initial=done, desc=label, unit=f" {unit}", disable=None, leave=False, file=sys.stderr
    )
