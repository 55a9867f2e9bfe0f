"""Tiny-ImageNet from a small zip and folder of that layout, and from the real slice where it is at hand."""

import io
import sys
import zipfile

import numpy as np
import pytest

from minivit.data import load_dataset
from minivit.errors import MinivitError

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")

IDS = ["n03", "n01", "n02"]  # not sorted, as in the official wnids.txt
WORDS = "n01\tgoldfish, Carassius auratus\nn02\tbullfrog\nn04\tsomething else\nn03\ttailed frog, bell toad\n"


def jpeg(value, mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, (64, 64), value if mode == "L" else (value, 2 * value, 0)).save(file, "JPEG", quality=95)
    return file.getvalue()


def official(per_class=2):
    """The files of a small Tiny-ImageNet: ``{name: bytes}``."""
    files = {"wnids.txt": "\n".join(IDS).encode(), "words.txt": WORDS.encode()}
    for number, wordnet_id in enumerate(IDS):
        for index in range(per_class):
            name = f"train/{wordnet_id}/images/{wordnet_id}_{index}.JPEG"
            files[name] = jpeg(20 * (number + 1), "L" if index else "RGB")
        files[f"train/{wordnet_id}/{wordnet_id}_boxes.txt"] = b"0\t0\t62\t62\n"
        files[f"val/images/val_{number}.JPEG"] = jpeg(25 * (number + 1))
    files["val/val_annotations.txt"] = b"".join(
        f"val_{number}.JPEG\t{wordnet_id}\t0\t0\t62\t62\n".encode() for number, wordnet_id in enumerate(IDS)
    )
    files["test/images/test_0.JPEG"] = jpeg(99)
    return files


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("tiny-imagenet-200/", b"")
        for name, content in files.items():
            opened.writestr(f"tiny-imagenet-200/{name}", content)


def write_folder(path, files):
    for name, content in files.items():
        target = path / "tiny-imagenet-200" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def load(data_dir, notes=None, **options):
    note = (notes if notes is not None else []).append
    return load_dataset("tiny_imagenet", data_dir, offline=True, note=note, **options)


def check(data):
    assert data.class_names == ("goldfish", "bullfrog", "tailed frog")
    assert data.train.images.shape == (6, 3, 64, 64)
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.test.labels.tolist() == [2, 0, 1]
    # n01 is the second of IDS: red 40, green 80, blue 0 in colour, and 40 in grey.
    np.testing.assert_allclose(data.train.images[:2, :, 30, 30], [[40, 80, 0], [40, 40, 40]], atol=3)
    np.testing.assert_allclose(data.test.images[:, 0, 30, 30], [25, 50, 75], atol=3)
    assert data.mean == (0.4802, 0.4481, 0.3975)


@pytest.mark.parametrize("name", ["tiny-imagenet-200.zip", "tiny-imagenet-200-subset.zip"])
def test_a_zip_file(tmp_path, name):
    notes = []
    write_zip(tmp_path / name, official())
    check(load(tmp_path, notes))
    assert len(notes) == 1 and name in notes[0]
    check(load(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {name, "decoded"}


def test_a_slice_is_called_one_each_time(tmp_path):
    notes = []
    path = tmp_path / "tiny-imagenet-200-subset.zip"
    write_zip(path, official())
    load(tmp_path, notes, limit_train=2)
    load(tmp_path, notes)
    remark = f"note: {path} is a slice of Tiny-ImageNet with 6 training images; the whole data set is https://"
    assert len(notes) == 2 and all(note.startswith(remark) for note in notes)


def test_the_whole_archive_comes_before_a_slice(tmp_path):
    write_zip(tmp_path / "tiny-imagenet-200.zip", official(per_class=3))
    write_zip(tmp_path / "tiny-imagenet-200-subset.zip", official())
    assert len(load(tmp_path).train) == 9


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_a_relative_and_an_absolute_path_share_a_cache(tmp_path, monkeypatch, write):
    write(tmp_path if write is write_folder else tmp_path / "tiny-imagenet-200.zip", official())
    monkeypatch.chdir(tmp_path.parent)
    check(load(tmp_path.name))
    monkeypatch.setattr("minivit.data.decoded.decode", lambda *arguments: pytest.fail("decoded again"))
    check(load(tmp_path))


def test_without_pillow_nothing_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setattr("minivit.data.download._fetch", lambda *arguments: pytest.fail("downloaded"))
    notes = []
    with pytest.raises(MinivitError, match=r'pip install "minivit\[images\]"'):
        load_dataset("tiny_imagenet", tmp_path, note=notes.append)
    assert notes == [] and list(tmp_path.iterdir()) == []


def test_without_pillow_what_was_decoded_is_still_read(tmp_path, monkeypatch):
    write_zip(tmp_path / "tiny-imagenet-200.zip", official())
    load(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    check(load(tmp_path))


def test_a_folder_comes_before_the_archives(tmp_path):
    notes = []
    write_folder(tmp_path, official())
    write_zip(tmp_path / "tiny-imagenet-200.zip", {})
    check(load(tmp_path, notes))
    assert notes == []
    write_folder(tmp_path, {"train/n01/images/n01_7.JPEG": jpeg(1)})
    assert len(load(tmp_path).train) == 7


def test_the_official_checksum_is_judged_once(tmp_path):
    notes = []
    write_zip(tmp_path / "tiny-imagenet-200.zip", official())
    load(tmp_path, notes)
    load(tmp_path, notes)
    assert len(notes) == 1 and "checksum" in notes[0]


def test_another_size(tmp_path):
    write_zip(tmp_path / "tiny-imagenet-200.zip", official())
    data = load(tmp_path, img_size=16, limit_train=4)
    assert data.train.images.shape == (4, 3, 16, 16)
    assert data.img_size == 16


def replace(name, content):
    return lambda files: {**files, name: content}


def remove(*starts):
    return lambda files: {name: content for name, content in files.items() if not name.startswith(starts)}


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (remove("wnids.txt"), "has no wnids.txt"),
        (remove("val/val_ann"), "has no val/val_annotations.txt"),
        (remove("train/n02"), "no training images for 1 of its 3 classes"),
        (replace("wnids.txt", b""), "no training images for 0 of its 0 classes"),
        (remove("val/images/val_1"), "val/images/val_1.JPEG"),
        (replace("val/val_annotations.txt", b"val_0.JPEG\tn99\n"), "'n99'"),
        (replace("val/val_annotations.txt", b"val_0.JPEG\n"), "''"),
        (replace("val/val_annotations.txt", b""), "no validation images"),
        (replace("train/n02/images/n02_1.JPEG", jpeg(5)[:400]), "n02_1.JPEG is a damaged image"),
        (replace("train/n02/images/n02_1.JPEG", b"text"), "n02_1.JPEG is not an image"),
    ],
)
@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_what_is_missing_or_damaged_is_one_line(tmp_path, alter, message, write):
    write(tmp_path if write is write_folder else tmp_path / "tiny-imagenet-200.zip", alter(official()))
    notes = []
    with pytest.raises(MinivitError) as error:
        load(tmp_path, notes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert notes == []  # nothing about a checksum beside it
    assert not list(tmp_path.glob("decoded/*/manifest.json"))


def test_a_truncated_zip_is_one_line(tmp_path):
    path = tmp_path / "tiny-imagenet-200.zip"
    write_zip(path, official())
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(MinivitError, match="truncated or corrupt"):
        load(tmp_path)


def test_offline_one_line_says_what_to_do(tmp_path):
    with pytest.raises(MinivitError, match=r"tiny-imagenet-200\.zip .*https://cs231n.*shapes10"):
        load(tmp_path)


def test_the_real_slice(shared_data, tmp_path):
    """Its first image of each class, so that not all 12,000 are decoded here."""
    source = shared_data / "tiny-imagenet-200-subset.zip"
    if not source.exists():
        pytest.skip(f"no {source.name} in {shared_data}")
    with zipfile.ZipFile(source) as opened:
        names = [name for name in opened.namelist() if not name.endswith("/")]
        kept = [name for name in names if "/train/" not in name and "/test/" not in name]
        for wordnet_id in opened.read("tiny-imagenet-200/wnids.txt").decode().split():
            kept.append(next(name for name in names if f"/{wordnet_id}/images/" in name))
        files = {name.removeprefix("tiny-imagenet-200/"): opened.read(name) for name in kept}
        write_zip(tmp_path / source.name, files)
    data = load(tmp_path)
    assert data.num_classes == 200 and data.class_names[0] == "goldfish"
    assert data.train.labels.tolist() == list(range(200))
    assert data.test.images.shape == (2000, 3, 64, 64)
    assert np.array_equal(np.bincount(data.test.labels), np.full(200, 10))
    np.testing.assert_allclose(data.test.images.mean(axis=(0, 2, 3)) / 255, data.mean, atol=0.01)
    grey = (data.test.images[:, 0] == data.test.images[:, 1]).all(axis=(1, 2))
    assert 10 < grey.sum() < 100
