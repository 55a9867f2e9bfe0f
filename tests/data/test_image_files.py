"""Image files: decoding, the cache of decoded images, and ``folder:PATH``."""

import io
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from minivit.data import load_dataset
from minivit.data.decoded import ImageFile, Listing, fingerprint, load_decoded, read_file
from minivit.data.images import decode
from minivit.errors import MinivitError, UsageError

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")


def silent(message):
    pass


def encoded(pixels, format="PNG", mode=None, **options):
    """Encode an array ``(H, W, 3)`` or ``(H, W)``."""
    image = Image.fromarray(np.asarray(pixels))
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, format, **options)
    return file.getvalue()


def colours(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


# Decoding


@pytest.mark.parametrize("format", ["PNG", "BMP", "PPM", "TIFF"])
def test_an_image_of_the_right_size_is_taken_as_it_is(format):
    pixels = colours(16, 16)
    decoded = decode(encoded(pixels, format), 16, "x")
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, pixels.transpose(2, 0, 1))


def test_a_long_image_is_cut_to_its_middle():
    pixels = np.zeros((10, 40, 3), np.uint8)
    pixels[:, 15:25] = (200, 100, 50)
    for turned in (pixels, pixels.transpose(1, 0, 2)):
        decoded = decode(encoded(np.ascontiguousarray(turned)), 10, "x")
        assert np.array_equal(decoded.reshape(3, -1).T, np.tile(np.uint8([200, 100, 50]), (100, 1)))


def test_resizing_keeps_flat_colours_and_order():
    pixels = np.zeros((30, 30, 3), np.uint8)
    pixels[:15, :, 0], pixels[15:, :, 1] = 250, 150
    decoded = decode(encoded(pixels), 10, "x")
    assert decoded.shape == (3, 10, 10)
    # The bicubic filter reaches two pixels past the boundary, which is in the middle.
    assert np.all(decoded[0, :3] == 250) and np.all(decoded[0, 7:] == 0)
    assert np.all(decoded[1, :3] == 0) and np.all(decoded[1, 7:] == 150)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_every_mode_becomes_rgb(mode):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[4:] = 255
    decoded = decode(encoded(pixels, "TIFF" if mode == "CMYK" else "PNG", mode), 8, "x")
    assert decoded.shape == (3, 8, 8)
    assert np.all(decoded[:, :4] == 0) and np.all(decoded[:, 4:] == 255)


def test_sixteen_bits_are_scaled_not_clipped():
    grey = (np.arange(64, dtype=np.uint16) * 1028).reshape(8, 8)
    assert np.array_equal(decode(encoded(grey), 8, "x")[1], (grey // 257).astype(np.uint8))


def test_the_camera_may_be_turned():
    pixels = colours(8, 8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned to the left: show it a quarter turn to the right
    decoded = decode(encoded(pixels, exif=exif), 8, "x")
    assert np.array_equal(decoded, np.rot90(pixels, -1).transpose(2, 0, 1))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_a_damaged_image_is_one_line_with_its_name(format):
    content = encoded(colours(32, 32), format)
    for damaged in (content[: len(content) // 2], b"", b"GIF89a" + bytes(20)):
        with pytest.raises(MinivitError) as error:
            decode(damaged, 32, "pictures/cat.jpg")
        assert str(error.value).startswith("pictures/cat.jpg is ")
        assert "\n" not in str(error.value)


def test_a_large_photograph_is_decoded_and_a_huge_one_refused(monkeypatch):
    content = encoded(colours(30, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns above, and refuses twice as many
    assert decode(content, 8, "a.png").shape == (3, 8, 8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(MinivitError, match=r"^a\.png is a damaged image \(Image size \(1200 pixels\) exceeds[^\n]*$"):
        decode(content, 8, "a.png")


def test_without_pillow_one_line_says_what_to_install(monkeypatch):
    content = encoded(colours(8, 8))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MinivitError, match=r'pip install "minivit\[images\]"'):
        decode(content, 8, "x")


# The cache


def listing_of(values, size=4):
    """Flat grey images, alternately of two classes, every one in both splits."""
    files = []
    for index, value in enumerate(values):
        content = encoded(np.full((size, size, 3), value, np.uint8))
        files.append(ImageFile(index % 2, f"image {index}", lambda content=content: content))
    return Listing(("even", "odd"), files, files)


def load_cached(data_dir, values, source="a", img_size=4, note=silent):
    """Load a cache; ``values=None`` where it must not be built."""

    def open_listing():
        assert values is not None, "the cache was built again"
        return nullcontext(listing_of(values))

    return load_decoded("mine", "key", {"files": source}, data_dir, img_size, open_listing, note)


def test_a_cache_is_built_once_and_mapped(tmp_path):
    built = load_cached(tmp_path, [10, 20, 30])
    again = load_cached(tmp_path, None)
    for data in (built, again):
        assert isinstance(data.train.images, np.memmap)
        assert not data.train.images.flags.writeable
        assert data.train.images.shape == (3, 3, 4, 4)
        assert data.train.images[:, 0, 0, 0].tolist() == [10, 20, 30]
        assert data.test.labels.tolist() == [0, 1, 0]
        assert data.class_names == ("even", "odd")
        np.testing.assert_allclose(data.mean, 20 / 255)
        np.testing.assert_allclose(data.std, np.std([10, 20, 30]) / 255)
    assert [path.name for path in tmp_path.iterdir()] == ["decoded"]
    assert [path.name for path in (tmp_path / "decoded").iterdir()] == ["key-4"]


def test_a_changed_source_or_format_is_decoded_again(tmp_path, monkeypatch):
    load_cached(tmp_path, [1, 2], "a")
    assert load_cached(tmp_path, [3, 4, 5], "b").train.images[0, 0, 0, 0] == 3
    assert len(load_cached(tmp_path, None, "b").train) == 3
    monkeypatch.setattr("minivit.data.decoded.FORMAT", 99)
    assert len(load_cached(tmp_path, [6, 7], "b").train) == 2
    assert [path.name for path in (tmp_path / "decoded").iterdir()] == ["key-4"]


def test_sizes_have_caches_of_their_own(tmp_path):
    load_cached(tmp_path, [1, 2], img_size=4)
    assert load_cached(tmp_path, [1, 2], img_size=8).img_size == 8
    assert load_cached(tmp_path, None, img_size=4).img_size == 4


@pytest.mark.parametrize("file", ["manifest.json", "train_images.npy", "test_labels.npy"])
@pytest.mark.parametrize("damage", ["truncated", "emptied", "removed", "garbled"])
def test_a_damaged_cache_is_built_again(tmp_path, file, damage):
    load_cached(tmp_path, [1, 2])
    path = tmp_path / "decoded" / "key-4" / file
    content = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes({"truncated": content[:-5], "emptied": b"", "garbled": b"x" * len(content)}[damage])
    assert load_cached(tmp_path, [7, 8]).train.images[0, 0, 0, 0] == 7


def test_an_abandoned_build_is_cleared_away(tmp_path):
    for name in (".key-4-abcd_123", ".key-4-abcd_123-stale"):
        (tmp_path / "decoded" / name).mkdir(parents=True)
        os.utime(tmp_path / "decoded" / name, (0, 0))
    load_cached(tmp_path, [1, 2])
    assert [path.name for path in (tmp_path / "decoded").iterdir()] == ["key-4"]


def test_a_label_out_of_range_is_noticed(tmp_path):
    load_cached(tmp_path, [1, 2])
    np.save(tmp_path / "decoded" / "key-4" / "train_labels.npy", np.array([0, 2]))
    assert load_cached(tmp_path, [7, 8]).train.labels.tolist() == [0, 1]


def test_a_pickled_cache_is_not_opened(tmp_path):
    load_cached(tmp_path, [1, 2])
    np.save(tmp_path / "decoded" / "key-4" / "train_labels.npy", np.array([{}, {}]), allow_pickle=True)
    assert load_cached(tmp_path, [7, 8]).train.labels.tolist() == [0, 1]


def test_two_builds_at_once_do_not_disturb_each_other(tmp_path):
    def open_listing():
        load_cached(tmp_path, [1, 2])  # another process, quicker than this one
        return nullcontext(listing_of([1, 2]))

    data = load_decoded("mine", "key", {"files": "a"}, tmp_path, 4, open_listing, silent)
    assert data.train.images[:, 0, 0, 0].tolist() == [1, 2]
    assert [path.name for path in (tmp_path / "decoded").iterdir()] == ["key-4"]


def test_a_failed_build_leaves_nothing_and_keeps_the_old_cache(tmp_path):
    load_cached(tmp_path, [1, 2], "a")
    with pytest.raises(MinivitError, match="image 1 is a damaged"):
        broken = listing_of([1, 2])
        broken.train[1] = ImageFile(0, "image 1", lambda: encoded(colours(4, 4))[:60])
        load_decoded("mine", "key", {"files": "b"}, tmp_path, 4, lambda: nullcontext(broken), silent)
    assert [path.name for path in (tmp_path / "decoded").iterdir()] == ["key-4"]
    assert len(load_cached(tmp_path, None, "a").train) == 2


def test_a_read_only_folder_sends_the_cache_to_the_users_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o555)
    notes = []
    load_cached(data_dir, [1, 2], note=notes.append)
    assert list(data_dir.iterdir()) == []
    assert (tmp_path / "cache" / "minivit" / "decoded" / "key-4" / "manifest.json").exists()
    assert len(notes) == 1 and str(data_dir) in notes[0]
    load_cached(data_dir, None, note=notes.append)
    assert len(notes) == 1


def test_no_place_for_the_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(MinivitError, match="XDG_CACHE_HOME"):
        load_cached(tmp_path / "file" / "none", [1, 2])


def test_a_data_folder_that_is_not_there_yet_is_made(tmp_path):
    notes = []
    load_cached(tmp_path / "data", [1, 2], note=notes.append)
    assert notes == [] and (tmp_path / "data" / "decoded" / "key-4" / "manifest.json").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    """With a limit on the size of a file in the place of a full disk: the second image does not fit."""
    resource = pytest.importorskip("resource", reason="needs POSIX limits")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(MinivitError) as error:
            load_cached(tmp_path, [1, 2, 3], img_size=160)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "decoded images cannot be kept" in str(error.value) and "free some space" in str(error.value)
    assert "\n" not in str(error.value)
    assert list((tmp_path / "decoded").iterdir()) == []


def test_the_file_of_images_grows_as_they_are_decoded(tmp_path, monkeypatch):
    """Made at its full length at once, it would have holes, and a full disk would be noticed too late."""
    sizes = []

    def watched(content, img_size, where):
        sizes.append([path.stat().st_size for path in tmp_path.glob("decoded/.key-*/train_images.npy")])
        return decode(content, img_size, where)

    monkeypatch.setattr("minivit.data.decoded.decode", watched)
    data = load_cached(tmp_path, [1, 2], img_size=160)
    assert len(sizes[0]) == 1 and sizes[0][0] < 3 * 160 * 160
    assert data.train.images[:, 2, 159, 159].tolist() == [1, 2]


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(MinivitError, match=r"gone\.png cannot be read \(No such file or directory\)"):
        read_file(tmp_path / "gone.png")


def test_a_fingerprint_notices_names_sizes_and_times(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1")
    os.utime(path, ns=(5, 5))
    prints = [fingerprint(tmp_path, ["a"]), fingerprint(tmp_path, ["a"])]
    os.utime(path, ns=(5, 6))
    prints.append(fingerprint(tmp_path, ["a"]))
    path.write_bytes(b"12")
    os.utime(path, ns=(5, 6))
    prints.append(fingerprint(tmp_path, ["a"]))
    path.rename(tmp_path / "b")
    prints.append(fingerprint(tmp_path, ["b"]))
    assert prints[0] == prints[1] and len(set(prints)) == 4


def test_a_fingerprint_does_not_depend_on_how_the_folder_is_written(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a").write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    assert fingerprint(tmp_path / "photos", ["a"]) == fingerprint(Path("photos"), ["a"])


# folder:PATH


def fill(folder, **classes):
    """Write so many flat images into a sub-folder a class; the grey value is the image's number."""
    for name, values in classes.items():
        (folder / name).mkdir(parents=True)
        for value in values:
            (folder / name / f"{value:03}.png").write_bytes(encoded(np.full((6, 9, 3), value, np.uint8)))
    return folder


def load(folder, cache, **options):
    return load_dataset(f"folder:{folder}", cache, note=silent, **{"img_size": 4, **options})


@pytest.fixture
def cache(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


def values(split):
    return split.images[:, 0, 0, 0].tolist()


def test_a_tenth_of_each_class_is_set_aside(tmp_path, cache):
    root = fill(tmp_path / "photos", cat=range(20), dog=range(100, 105))
    data = load(root, cache)
    assert data.name == f"folder:{root}"
    assert data.class_names == ("cat", "dog")
    assert np.bincount(data.train.labels).tolist() == [18, 4]
    assert np.bincount(data.test.labels).tolist() == [2, 1]
    assert sorted(values(data.train) + values(data.test)) == [*range(20), *range(100, 105)]
    assert [value >= 100 for value in values(data.train)] == data.train.labels.astype(bool).tolist()
    assert values(load(root, cache).test) == values(data.test)
    assert data.train.images.shape[1:] == (3, 4, 4)
    np.testing.assert_allclose(data.mean, np.mean(values(data.train)) / 255, rtol=1e-9)


def test_the_seed_chooses_what_is_set_aside(tmp_path, cache):
    root = fill(tmp_path / "photos", cat=range(60), dog=range(100, 160))
    chosen = {tuple(values(load(root, cache, seed=seed).test)) for seed in (0, 1, 2)}
    assert len(chosen) == 3


@pytest.mark.parametrize("split", ["test", "val"])
def test_given_splits_are_kept(tmp_path, cache, split):
    fill(tmp_path / "photos" / "train", cat=[1, 2], dog=[3])
    fill(tmp_path / "photos" / split, cat=[4], dog=[5, 6])
    data = load(tmp_path / "photos", cache)
    assert values(data.train) == [1, 2, 3] and data.train.labels.tolist() == [0, 0, 1]
    assert values(data.test) == [4, 5, 6] and data.test.labels.tolist() == [0, 1, 1]


def test_a_test_folder_is_preferred_and_a_lone_train_folder_is_split(tmp_path, cache):
    fill(tmp_path / "photos" / "train", cat=[1, 2], dog=[3, 4])
    assert len(load(tmp_path / "photos", cache).test) == 2
    fill(tmp_path / "photos" / "val", cat=[7])
    fill(tmp_path / "photos" / "test", cat=[8])
    data = load(tmp_path / "photos", cache)
    assert values(data.test) == [8] and len(data.train) == 4


def test_only_images_count(tmp_path, cache):
    root = fill(tmp_path / "photos", cat=[1, 2], dog=[3, 4])
    (root / "cat" / "notes.txt").write_text("not an image")
    (root / "cat" / ".hidden.png").write_bytes(b"not an image")
    (root / ".thumbnails").mkdir()
    (root / "list.csv").write_text("")
    (root / "dog" / "more").mkdir()
    (root / "dog" / "more" / "5.PNG").write_bytes(encoded(np.full((4, 4, 3), 5, np.uint8)))
    data = load(root, cache)
    assert data.class_names == ("cat", "dog")
    assert sorted(values(data.train) + values(data.test)) == [1, 2, 3, 4, 5]


def test_a_new_image_is_noticed(tmp_path, cache):
    root = fill(tmp_path / "photos", cat=[1, 2], dog=[3, 4])
    assert len(load(root, cache).train) == 2
    (root / "dog" / "5.png").write_bytes(encoded(np.full((4, 4, 3), 5, np.uint8)))
    assert len(load(root, cache).train) == 3


def test_a_relative_and_an_absolute_path_share_a_cache(tmp_path, cache, monkeypatch):
    root = fill(tmp_path / "photos", cat=[1, 2], dog=[3, 4])
    monkeypatch.chdir(tmp_path)
    first = load("photos", "cache")
    monkeypatch.setattr("minivit.data.decoded.decode", lambda *arguments: pytest.fail("decoded again"))
    for path in (root, "./photos", "photos/"):
        assert values(load(path, cache).train) == values(first.train)


def test_limits_apply(tmp_path, cache):
    root = fill(tmp_path / "photos", cat=range(20), dog=range(100, 120))
    data = load(root, cache, limit_train=5, limit_test=1)
    assert (len(data.train), len(data.test)) == (5, 1)


def make_one_class(root):
    fill(root, cat=[1, 2])


def make_an_empty_class(root):
    fill(root, cat=[1, 2], dog=[])


def make_a_single_image(root):
    fill(root, cat=[1, 2], dog=[3])


def make_an_unknown_class(root):
    fill(root / "train", cat=[1], dog=[2])
    fill(root / "test", cow=[3])


def make_an_empty_test(root):
    fill(root / "train", cat=[1], dog=[2])
    fill(root / "test", cat=[])


def make_a_damaged_image(root):
    fill(root, cat=[1, 2], dog=[3, 4])
    (root / "dog" / "003.png").write_bytes(encoded(colours(30, 30))[:500])


def make_a_text_image(root):
    fill(root, cat=[1, 2], dog=[3, 4])
    (root / "cat" / "001.png").write_text("not an image")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "no folder"),
        (make_one_class, "1 class folders"),
        (make_an_empty_class, "dog has 0 images"),
        (make_a_single_image, "dog has 1 images; it needs 2"),
        (make_an_unknown_class, "the class 'cow'"),
        (make_an_empty_test, "has no images of any class"),
        (make_a_damaged_image, "003.png is a damaged image"),
        (make_a_text_image, "001.png is not an image"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_line(tmp_path, cache, make, message):
    make(tmp_path / "photos")
    with pytest.raises(MinivitError) as error:
        load(tmp_path / "photos", cache)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_folder_without_a_path_is_a_mistake_in_the_request(cache):
    with pytest.raises(UsageError, match="needs the path"):
        load("", cache)


def test_the_manifest_says_what_a_cache_was_made_from(tmp_path, cache):
    root = fill(tmp_path / "photos", cat=[1, 2], dog=[3, 4])
    load(root, cache)
    (manifest,) = cache.glob("decoded/folder-*-4/manifest.json")
    content = json.loads(manifest.read_text())
    assert content["class_names"] == ["cat", "dog"]
    assert len(content["source"]["files"]) == 64
