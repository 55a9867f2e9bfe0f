"""CIFAR in the binary layout: small archives of that structure, and the real CIFAR-100 where it is there."""

import hashlib
import io
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from minivit.data import load_dataset
from minivit.data.cifar import CIFAR10, CIFAR100, load_cifar
from minivit.data.dataset import channel_statistics
from minivit.errors import MinivitError

# The official layouts with fewer images: five batches with one label byte, one file with two.
SMALL10 = replace(CIFAR10, train_images=100, test_images=20)
SMALL100 = replace(CIFAR100, train_images=200, test_images=100)


def records(layout, count, seed):
    """Records of ``count`` images, equally many of each class: uint8 ``(count, label bytes + 3072)``."""
    rng = np.random.default_rng(seed)
    classes = layout.label_limits[-1]
    pixels = rng.integers(0, 256, (count, 3072), np.uint8)
    labels = [rng.integers(0, limit, count) for limit in layout.label_limits[:-1]]
    labels.append(rng.permutation(np.arange(count) % classes))
    return np.hstack([np.stack(labels, axis=1).astype(np.uint8), pixels])


def files_of(layout):
    """The content of a small archive: ``{file: bytes}``."""
    train, test = records(layout, layout.train_images, 0), records(layout, layout.test_images, 1)
    files = {
        file: part.tobytes()
        for names, whole in ((layout.train_files, train), (layout.test_files, test))
        for file, part in zip(names, np.split(whole, len(names)))
    }
    class_names = (f"class_{label}\n" for label in range(layout.label_limits[-1]))
    files[layout.names_file] = "".join(class_names).encode() + b"\n"
    return files


def pack(layout, files, data_dir, prefix=""):
    """Write ``files`` as the layout's archive into ``data_dir``."""
    path = data_dir / layout.archive.name
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{prefix}{layout.folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def notes():
    return []


def load(layout, data_dir, notes=None):
    notes = [] if notes is None else notes
    return load_cifar("cifar", layout, data_dir, offline=True, note=notes.append)


@pytest.mark.parametrize("layout", [SMALL10, SMALL100], ids=["cifar10", "cifar100"])
def test_an_archive_is_read_and_unpacked(tmp_path, notes, layout):
    files = files_of(layout)
    path = pack(layout, files, tmp_path)
    data = load(layout, tmp_path, notes)
    assert notes == [f"note: the checksum of {path} is not the official one; using the file as it is"]
    label_bytes = len(layout.label_limits)
    for split, names, count in (
        (data.train, layout.train_files, layout.train_images),
        (data.test, layout.test_files, layout.test_images),
    ):
        expected = np.frombuffer(b"".join(files[name] for name in names), np.uint8).reshape(count, -1)
        assert split.images.shape == (count, 3, 32, 32)
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int64
        assert np.array_equal(split.images.reshape(count, -1), expected[:, label_bytes:])
        assert np.array_equal(split.labels, expected[:, label_bytes - 1])
    assert data.class_names == tuple(f"class_{i}" for i in range(layout.label_limits[-1]))
    assert data.img_size == 32
    assert {file.name for file in (tmp_path / layout.folder).iterdir()} == set(files)
    assert {file.name for file in tmp_path.iterdir()} == {layout.archive.name, layout.folder}


def test_only_the_layouts_files_are_unpacked(tmp_path):
    files = files_of(SMALL100)
    pack(SMALL100, {**files, "readme.html": b"<p>", "odd/deep": b"1"}, tmp_path, prefix="./")
    assert len(load(SMALL100, tmp_path).train) == 200
    assert {file.name for file in (tmp_path / SMALL100.folder).iterdir()} == set(files)


def test_the_planes_are_red_green_blue(tmp_path):
    files = files_of(SMALL10)
    record = bytearray(files["test_batch.bin"])
    record[1 : 1 + 3072] = bytes([10] * 1024 + [20] * 1024 + [30] * 1024)
    files["test_batch.bin"] = bytes(record)
    pack(SMALL10, files, tmp_path)
    image = load(SMALL10, tmp_path).test.images[0]
    assert [int(plane.min()) for plane in image] == [int(plane.max()) for plane in image] == [10, 20, 30]


def test_the_second_start_needs_no_archive(tmp_path, notes):
    path = pack(SMALL100, files_of(SMALL100), tmp_path)
    first = load(SMALL100, tmp_path)
    path.unlink()
    second = load(SMALL100, tmp_path, notes)
    assert np.array_equal(first.train.images, second.train.images)
    assert np.array_equal(first.test.labels, second.test.labels)
    assert notes == []


def test_the_official_checksum_passes_without_a_remark(tmp_path, notes):
    path = pack(SMALL10, files_of(SMALL10), tmp_path)
    remote = replace(SMALL10.archive, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    load(replace(SMALL10, archive=remote), tmp_path, notes)
    assert notes == []


def test_a_read_only_folder_is_read_from_and_left_alone(tmp_path):
    pack(SMALL10, files_of(SMALL10), tmp_path)
    tmp_path.chmod(0o555)
    try:
        assert len(load(SMALL10, tmp_path).train) == 100
        assert [file.name for file in tmp_path.iterdir()] == [SMALL10.archive.name]
    finally:
        tmp_path.chmod(0o755)


def test_a_full_disk_does_not_stop_the_run(tmp_path, notes, monkeypatch):
    def fail(files, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minivit.data.cifar.write_folder", fail)
    pack(SMALL10, files_of(SMALL10), tmp_path)
    assert len(load(SMALL10, tmp_path, notes).train) == 100
    assert "could not be unpacked" in notes[-1]


def test_a_quicker_process_that_unpacks_is_not_a_failure(tmp_path, notes, monkeypatch):
    def overtaken(files, target):
        target.mkdir()
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr("minivit.data.cifar.write_folder", overtaken)
    pack(SMALL10, files_of(SMALL10), tmp_path)
    assert len(load(SMALL10, tmp_path, notes).train) == 100
    assert not any("could not be unpacked" in note for note in notes)


def change(files, name, position, value):
    content = bytearray(files[name])
    content[position] = value
    return {**files, name: bytes(content)}


def without(files, name):
    return {key: content for key, content in files.items() if key != name}


DAMAGE = {
    "a file too short": (
        lambda files: {**files, "train.bin": files["train.bin"][:-1]},
        "train.bin has 614799 bytes, not 614800",
    ),
    "a file too long": (
        lambda files: {**files, "test.bin": files["test.bin"] + b"1"},
        "test.bin has 307401 bytes, not 307400",
    ),
    "a label out of range": (
        lambda files: change(files, "train.bin", 1, 100),
        "train.bin has the label 100, not at most 99",
    ),
    "a coarse label out of range": (
        lambda files: change(files, "test.bin", 0, 20),
        "test.bin has the label 20, not at most 19",
    ),
    "an unbalanced class": (
        lambda files: change(files, "train.bin", 1, (files["train.bin"][1] + 1) % 100),
        "images of class",
    ),
    "a file missing": (lambda files: without(files, "test.bin"), "test.bin"),
    "class names missing": (
        lambda files: {**files, "fine_label_names.txt": b"one two"},
        "fine_label_names.txt has 2 class names, not 100",
    ),
}


@pytest.mark.parametrize("unpacked", [False, True], ids=["archive", "folder"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_wrong_structure_is_refused_in_one_line(tmp_path, notes, damage, unpacked):
    alter, message = DAMAGE[damage]
    files = alter(files_of(SMALL100))
    if unpacked:
        folder = tmp_path / SMALL100.folder
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
    else:
        pack(SMALL100, files, tmp_path)
    with pytest.raises(MinivitError) as error:
        load(SMALL100, tmp_path, notes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert notes == []  # nothing about a checksum beside it
    assert unpacked or not (tmp_path / SMALL100.folder).exists()


def test_a_truncated_archive_leaves_no_folder(tmp_path, notes):
    path = pack(SMALL10, files_of(SMALL10), tmp_path)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(MinivitError, match="truncated or corrupt"):
        load(SMALL10, tmp_path, notes)
    assert notes == []
    assert [file.name for file in tmp_path.iterdir()] == [SMALL10.archive.name]


def test_pickles_are_never_opened(tmp_path):
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(b"anything")
    with pytest.raises(MinivitError) as error:
        load(SMALL100, tmp_path)
    assert "pickles" in str(error.value)
    assert "cifar-100-binary.tar.gz" in str(error.value)
    assert "https://" in str(error.value)
    pack(SMALL100, files_of(SMALL100), tmp_path)
    assert len(load(SMALL100, tmp_path).train) == 200


def test_offline_one_line_says_what_to_do(tmp_path):
    with pytest.raises(MinivitError) as error:
        load_dataset("cifar10", tmp_path, offline=True)
    message = str(error.value)
    assert "\n" not in message
    assert str(tmp_path / "cifar-10-binary.tar.gz") in message
    assert "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz" in message
    assert "shapes10" in message and "shapes100" in message
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def real(shared_data):
    if not (shared_data / CIFAR100.archive.name).exists() and not (shared_data / CIFAR100.folder).exists():
        pytest.skip(f"no {CIFAR100.archive.name} in {shared_data}")
    return load_dataset("cifar100", shared_data, offline=True, note=lambda message: None)


def test_the_real_cifar100(real):
    assert real.train.images.shape == (50_000, 3, 32, 32)
    assert real.test.images.shape == (10_000, 3, 32, 32)
    assert np.array_equal(np.bincount(real.train.labels), np.full(100, 500))
    assert np.array_equal(np.bincount(real.test.labels), np.full(100, 100))
    assert real.class_names[:2] == ("apple", "aquarium_fish") and real.class_names[99] == "worm"


def test_the_declared_statistics_are_those_of_the_real_images(real):
    mean, std = channel_statistics(real.train.images)
    np.testing.assert_allclose(mean, real.mean, atol=2e-4)
    np.testing.assert_allclose(std, real.std, atol=2e-4)


def test_real_batches_are_normalised(real):
    from minivit.data import DataLoader

    loader = DataLoader(real.train, 500, mean=real.mean, std=real.std, shuffle=True)
    images, labels = next(iter(loader.epoch(0)))
    assert images.shape == (500, 3, 32, 32)
    np.testing.assert_allclose(images.mean(axis=(0, 2, 3)), 0, atol=0.15)
    np.testing.assert_allclose(images.std(axis=(0, 2, 3)), 1, atol=0.1)
