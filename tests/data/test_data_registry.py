"""Names, limits and places: what load_dataset promises before it opens a file."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from minivit.data import DATASETS, DataLoader, Dataset, Split, load_dataset, resolve_data_dir
from minivit.data.cifar import CIFAR10, CIFAR100
from minivit.data.tiny_imagenet import ARCHIVE
from minivit.errors import MinivitError, UsageError


def test_the_data_sets_have_descriptions():
    assert list(DATASETS) == ["shapes10", "shapes100", "cifar10", "cifar100", "tiny_imagenet", "folder:PATH"]
    assert all(text and "\n" not in text for text in DATASETS.values())


@pytest.mark.parametrize(("name", "near"), [("cifar", "'cifar10'"), ("shapes", "'shapes10'"), ("", "known:")])
def test_an_unknown_name_is_answered_with_near_ones(name, near):
    with pytest.raises(UsageError) as error:
        load_dataset(name)
    assert near in str(error.value) and "tiny_imagenet" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "option", [{"limit_train": 0}, {"limit_train": -3}, {"limit_test": 0}, {"img_size": 0}, {"seed": -1}]
)
@pytest.mark.parametrize("name", ["shapes10", "cifar10", "folder:photos"])
def test_numbers_out_of_range_are_refused_before_anything_is_opened(name, option, tmp_path):
    with pytest.raises(UsageError, match="must be at least"):
        load_dataset(name, tmp_path, offline=True, **option)


def test_drawn_images_stay_small_until_the_loader_enlarges_them():
    dataset = load_dataset("shapes10", img_size=48, limit_train=4, limit_test=2)
    assert dataset.img_size == 48 and dataset.train.images.shape == (4, 3, 32, 32)
    loader = DataLoader(dataset.train, 4, mean=dataset.mean, std=dataset.std, img_size=dataset.img_size)
    ((images, _),) = loader.epoch(0)
    assert images.shape == (4, 3, 48, 48)


def test_the_native_size_may_be_said():
    assert load_dataset("shapes10", img_size=32, limit_train=1, limit_test=1).img_size == 32


def test_the_data_folder(monkeypatch):
    monkeypatch.delenv("MINIVIT_DATA", raising=False)
    assert resolve_data_dir() == Path("data")
    monkeypatch.setenv("MINIVIT_DATA", "elsewhere")
    assert resolve_data_dir() == Path("elsewhere")
    assert resolve_data_dir("given") == Path("given")
    assert resolve_data_dir("~/given") == Path.home() / "given"


@contextmanager
def without_privileges():
    """Root may read everything: be a user without rights for a while."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
@pytest.mark.parametrize("mode", [0o000, 0o444])
@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tiny_imagenet", "folder:locked"])
def test_a_folder_that_may_not_be_read_is_one_line(tmp_path, monkeypatch, name, mode):
    (tmp_path / "locked" / "train").mkdir(parents=True)
    (tmp_path / "locked").chmod(mode)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    try:
        with without_privileges(), pytest.raises(MinivitError) as error:
            load_dataset(name, "locked", offline=True)
    finally:
        (tmp_path / "locked").chmod(0o755)
    assert "\n" not in str(error.value)
    assert "locked" in str(error.value)
    assert "Permission denied" in str(error.value)


def test_the_data_folders_readme_names_every_download():
    readme = (Path(__file__).parents[2] / "data" / "README.md").read_text(encoding="utf-8")
    for remote in (CIFAR10.archive, CIFAR100.archive, ARCHIVE):
        assert f"| `{remote.name}` |" in readme
        assert f"`{remote.sha256}`" in readme
        assert len(bytes.fromhex(remote.sha256)) == 32
        assert all(url.startswith("https://") and url.endswith("/" + remote.name) for url in remote.urls)


def test_a_limited_split_is_part_of_a_fixed_permutation():
    split = Split(np.arange(50, dtype=np.uint8).reshape(50, 1, 1, 1), np.arange(50))
    data = Dataset("mine", split, split, ("a",), (0,), (1,), 1)
    ten, twenty = data.limited(10, None, 0), data.limited(20, 5, 0)
    assert ten.test is split
    assert np.array_equal(ten.train.labels, twenty.train.labels[:10])
    assert np.array_equal(ten.train.images.ravel(), ten.train.labels)
    assert len(set(twenty.train.labels.tolist())) == 20
    assert not np.array_equal(twenty.test.labels, twenty.train.labels[:5])
    assert not np.array_equal(ten.train.labels, data.limited(10, None, 1).train.labels)
    assert data.limited(50, 99, 0).train is split


def test_the_package_is_cheap_to_import():
    code = (
        "import sys, minivit.data; heavy = {'numba', 'PIL', 'scipy', 'tqdm', 'urllib.request', 'tarfile'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
