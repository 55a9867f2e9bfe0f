"""Checkpoints: what goes in comes out, and nothing else is ever believed."""

import io
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest

import minivit
from minivit.errors import MinivitError, UsageError
from minivit.training import checkpoint

KEYWORDS = {"num_classes": 3, "img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}
DESCRIPTION = {
    "data": "pets",
    "class_names": ("cat", "dog", "eel"),
    "mean": (0.5, 0.4, 0.3),
    "std": (0.1, 0.2, 0.3),
}


@pytest.fixture(scope="module")
def model():
    return minivit.create_model("sl_vit", seed=7, **KEYWORDS)


@pytest.fixture
def path(model, tmp_path):
    path = tmp_path / "model.npz"
    checkpoint.save(path, model, **DESCRIPTION)
    return path


def assert_refused(path, *words):
    """Reading raises MinivitError in one line that names the file and says ``words``."""
    with pytest.raises(MinivitError) as error:
        minivit.load(path)
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in (str(path), *words)), message


def rewrite(path, change):
    """Pass the entries of the zip, name -> bytes, through ``change`` and write them again."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def edit_metadata(path, **values):
    def change(entries):
        entries["metadata.json"] = json.dumps(json.loads(entries["metadata.json"]) | values)

    rewrite(path, change)


def test_what_is_saved_is_loaded(model, path):
    loaded = minivit.load(path)
    assert not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], array)
        assert loaded.state_dict()[name].dtype == array.dtype
    x = minivit.Tensor(np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32))
    with minivit.no_grad():
        np.testing.assert_array_equal(loaded(x).data, model.eval()(x).data)


def test_the_file_describes_itself(model, path):
    saved = checkpoint.read(path)
    assert (saved.architecture, saved.arguments) == (
        model.architecture,
        json.loads(json.dumps(model.arguments)),
    )
    assert {name: getattr(saved, name) for name in DESCRIPTION} == DESCRIPTION
    assert saved.training is None and saved.optimizer == {}


def test_numpy_reads_it_too(model, path):
    with np.load(path, allow_pickle=False) as arrays:
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(arrays[f"model/{name}"], array)


def test_state_of_a_run_is_kept(model, tmp_path):
    optimizer = {
        "steps": np.array(12),
        "exp_avg.w": np.arange(6.0).reshape(2, 3),
        "empty": np.zeros((0, 2), np.float32),
    }
    training = {"epoch": 3, "generator": np.random.default_rng(1).bit_generator.state}
    checkpoint.save(tmp_path / "last.npz", model, training=training, optimizer=optimizer)
    saved = checkpoint.read(tmp_path / "last.npz")
    assert saved.training == training
    assert saved.optimizer.keys() == optimizer.keys()
    for name, array in optimizer.items():
        np.testing.assert_array_equal(saved.optimizer[name], array, strict=True)


def test_equal_models_make_equal_files(model, path, tmp_path):
    checkpoint.save(tmp_path / "again.npz", model, **DESCRIPTION)
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


def test_saving_leaves_no_temporary_file(path):
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_every_truncation_is_refused(path):
    whole = path.read_bytes()
    for length in np.linspace(0, len(whole) - 1, 100).astype(int):
        path.write_bytes(whole[:length])
        assert_refused(path)


def test_a_flipped_byte_is_refused_or_harmless(model, path):
    """Some bytes of a zip mean nothing, such as its dates; all others must be noticed."""
    whole, refused = path.read_bytes(), 0
    weights = model.state_dict()
    rng = np.random.default_rng(0)
    for position in rng.integers(len(whole), size=300):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            loaded = minivit.load(path)
        except MinivitError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            for name, array in loaded.state_dict().items():
                np.testing.assert_array_equal(array, weights[name])
    assert refused > 200


@pytest.mark.parametrize(
    "content", [b"", b"hello, I am a text file\n" * 40, os.urandom(5000), b"PK\x05\x06" + bytes(18)]
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other.npz"
    path.write_bytes(content)
    assert_refused(path, "not a checkpoint")


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(MinivitError, match="no such checkpoint"):
        minivit.load(tmp_path / "absent.npz")
    assert_refused(tmp_path, "Is a directory")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_someone_else_are_refused(tmp_path, save):
    save(tmp_path / "theirs.npz", weight=np.zeros(3))
    assert_refused(tmp_path / "theirs.npz", "no entry metadata.json")


def test_pickles_are_never_opened(path, tmp_path):
    marker = tmp_path / "opened"

    class Bomb:
        def __reduce__(self):
            return marker.touch, ()

    raw = io.BytesIO()
    np.lib.format.write_array(raw, np.array([Bomb()], dtype=object), allow_pickle=True)
    rewrite(path, lambda entries: entries.update({"model/head.bias.npy": raw.getvalue()}))
    assert_refused(path, "Python objects")
    rewrite(path, lambda entries: entries.update({"model/head.bias.npy": pickle.dumps(Bomb())}))
    assert_refused(path)
    assert not marker.exists()


def test_compressed_entries_are_refused(path):
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/harmless.npy", np.random.default_rng(0).bytes(1000))
    assert_refused(path, "compressed")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/bomb.npy", bytes(10_000_000))
    assert path.stat().st_size < 1_000_000
    assert_refused(path, "compressed")


def test_entries_that_share_their_bytes_are_refused(path):
    with zipfile.ZipFile(path, "a") as archive:
        largest = max(archive.filelist, key=lambda entry: entry.file_size)
        archive.filelist += [largest] * 200
        archive.writestr("model/another.npy", b"")  # so that the directory is written anew
    assert_refused(path, "overlap")


def test_headers_that_claim_too_much_are_refused(path):
    raw = io.BytesIO()
    np.lib.format.write_array_header_1_0(raw, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    rewrite(path, lambda entries: entries.update({"model/head.bias.npy": raw.getvalue() + bytes(40)}))
    assert_refused(path, "size that its header states")


def test_newer_formats_are_refused(path):
    edit_metadata(path, version=checkpoint.VERSION + 1)
    assert_refused(path, "newer minivit", "upgrade")


@pytest.mark.parametrize(
    "values",
    [{"format": "other"}, {"version": "one"}, {"version": 0}, {"version": True}, {"arguments": 3},
     {"architecture": "sl_vitt"}, {"architecture": None}, {"architecture": ["sl_vit"]}, {"architecture": {}},
     {"data": 5}, {"class_names": "abc"}, {"class_names": ["cat", "dog"]}, {"class_names": [1, 2, 3]},
     {"mean": ["a", "b", "c"]}, {"mean": [0.5, 0.5]}, {"mean": 0.5}, {"mean": [0.5, 0.5, float("nan")]},
     {"std": [0.1, 0.0, 0.1]}, {"std": [1, 1, 10**400]}, {"training": 7}],
)  # fmt: skip
def test_metadata_that_makes_no_sense_is_refused(path, values):
    edit_metadata(path, **values)
    assert_refused(path)


@pytest.mark.parametrize(
    "changed",
    [{"depht": 1}, {"depth": 2}, {"embed_dim": 12}, {"embed_dim": "8"}, {"embed_dim": None}, {"embed_dim": -8},
     {"embed_dim": 0}, {"depth": True}, {"depth": 1.5}, {"num_classes": None}, {"num_classes": 3.0}, {"seed": -1},
     {"seed": 1}, {"name": "vit"}, {"num_heads": [2]}, {"drop_rate": {}}, {"norm_eps": float("nan")},
     {"mlp_ratio": 1e400}, {"patch_size": 0}],
)  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(model, path, changed):
    edit_metadata(path, arguments=model.arguments | changed)
    assert_refused(path)


@pytest.mark.parametrize(
    "changed",
    [{"embed_dim": 10**9}, {"depth": 10**9}, {"num_classes": 10**9}, {"in_chans": 10**9}, {"num_heads": 10**9},
     {"img_size": 4 * 10**6}, {"img_size": 10**9, "patch_size": 10**9}, {"mlp_ratio": 999.0},
     {"embed_dim": 10**200}, {"embed_dim": 500, "num_heads": 1}],
)  # fmt: skip
def test_sizes_that_the_weights_cannot_have_take_no_memory(model, path, changed):
    edit_metadata(path, arguments=model.arguments | changed, class_names=[], mean=None, std=None)
    tracemalloc.start()
    try:
        assert_refused(path)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_arguments_without_classes_are_refused(model, path):
    edit_metadata(path, arguments={k: v for k, v in model.arguments.items() if k != "num_classes"})
    assert_refused(path, "num_classes")


@pytest.mark.parametrize("name", ["architecture", "arguments", "data", "class_names", "mean", "std", "training"])
def test_nothing_may_be_missing(path, name):
    def change(entries):
        metadata = json.loads(entries["metadata.json"])
        del metadata[name]
        entries["metadata.json"] = json.dumps(metadata)

    rewrite(path, change)
    assert_refused(path, "damaged")


@pytest.mark.parametrize("dtype", ["U3", "S3", "c8", "M8[s]", [("a", "f4")]])
def test_arrays_of_other_things_than_numbers_are_refused(path, dtype):
    raw = io.BytesIO()
    np.lib.format.write_array(raw, np.zeros(3, dtype))
    rewrite(path, lambda entries: entries.update({"model/head.bias.npy": raw.getvalue()}))
    assert_refused(path, "not real numbers")


def test_nothing_that_is_no_number_is_written(model, tmp_path):
    with pytest.raises(ValueError):
        checkpoint.save(tmp_path / "a.npz", model, training={"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name, changed",
    [
        ("regnety_002", {"depth": 2**30}),
        ("regnety_002", {"stem_width": 10**9}),
        ("resnet20", {"in_chans": 10**8}),
        ("resnet20", {"layers": [10**9, 3, 3]}),
        ("sl_swin", {"img_size": 16384, "patch_size": 1}),
        ("swin_tiny_patch4_window7_224", {"img_size": 16384}),
        ("swin_tiny_patch4_window7_224", {"img_size": 16384, "patch_size": 1}),
        ("swin", {"window_size": 2**30, "img_size": 16384}),
        ("t2t", {"in_chans": 10**9}),
        ("t2t_vit_7", {"img_size": 16384, "token_dim": 10**6}),
        ("cait", {"num_heads": 10**9, "head_dim": 1}),
        ("pit", {"depth": [10**8, 1, 1]}),
    ],
)
def test_crafted_sizes_of_every_family_take_no_memory(name, changed, path, tmp_path):
    keywords = json.loads(json.dumps(minivit.create_model(name, seed=None).arguments))
    edit_metadata(path, architecture=name, arguments=keywords | changed, class_names=[], mean=None, std=None)
    tracemalloc.start()
    try:
        assert_refused(path)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", minivit.list_models())
def test_every_model_has_more_weights_than_its_sizes_need(name):
    model = minivit.create_model(name, seed=None)
    entries = sum(tensor.size for _, tensor in [*model.named_parameters(), *model.named_buffers()])
    assert entries / 40 < model.config.least_weights() <= entries


def test_names_that_no_file_can_have(tmp_path):
    assert_refused(tmp_path / ("x" * 300), "cannot read", "File name too long")


def test_missing_weights_are_refused(path):
    rewrite(path, lambda entries: entries.pop("model/head.bias.npy"))
    assert_refused(path, "head.bias")


def test_a_failed_save_keeps_the_old_file(model, path, monkeypatch):
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(MinivitError, match=f"cannot write {path}: No space left on device"):
        checkpoint.save(path, model)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_saving_where_nothing_can_be_written(model, path):
    with pytest.raises(MinivitError, match="cannot write"):
        checkpoint.save(path / "below-a-file.npz", model)


class TestFit:
    """``check_fits``: a checkpoint is only measured on data like that which it was trained on."""

    class Data:
        name, num_classes, img_size, class_names = "pets", 3, 8, ("cat", "dog", "eel")

    def test_the_same_data_fits(self, path):
        checkpoint.check_fits(checkpoint.read(path), self.Data)

    @pytest.mark.parametrize(
        "changed, message",
        [
            ({"num_classes": 4}, "knows 3 classes, but pets has 4"),
            ({"img_size": 32}, "takes images of 8x8, but those of pets are 32x32"),
            ({"class_names": ("cat", "dog", "emu")}, "'eel' where that has 'emu'"),
        ],
    )
    def test_other_data_is_refused(self, path, changed, message):
        with pytest.raises(UsageError, match=message):
            checkpoint.check_fits(checkpoint.read(path), type("Other", (self.Data,), changed))


KILL_WHILE_SAVING = """
import os, random, signal, sys, time
from pathlib import Path
import minivit
from minivit.training import checkpoint

path, kills = Path(sys.argv[1]), int(sys.argv[2])
model = minivit.create_model("sl_vit", num_classes=3, img_size=8, embed_dim=8, depth=1, num_heads=2)
checkpoint.save(path, model, training={"save": 0})
random.seed(0)
seen = set()
for _ in range(kills):
    child = os.fork()
    if child == 0:
        while True:
            checkpoint.save(path, model, training={"save": time.time_ns()})
    time.sleep(random.uniform(0.002, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    seen.add(checkpoint.read(path).training["save"])
print(len(seen))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path):
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILL_WHILE_SAVING, str(tmp_path / "last.npz"), "50"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10  # the saves went on between the kills
