"""Data sets, augmentation and loading. Images are uint8 until the loader normalises a batch to float32."""

from minivit.data.dataset import Dataset, Split
from minivit.data.loader import DataLoader
from minivit.data.registry import DATASETS, load_dataset, print_to_stderr, resolve_data_dir

__all__ = [
    "DATASETS",
    "DataLoader",
    "Dataset",
    "Split",
    "load_dataset",
    "print_to_stderr",
    "resolve_data_dir",
]
