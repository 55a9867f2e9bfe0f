"""Packed files: the network comes back bit for bit, and nothing that is damaged or forged is ever believed."""

import hashlib
import json
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

import minivit
from minivit.errors import MinivitError
from minivit.models.packing import is_packed, pack
from minivit.tensor import Tensor, no_grad
from minivit.training import checkpoint, packed_file
from minivit.training.packed_file import DTYPES

FLAT = {"img_size": 16, "patch_size": 4, "embed_dim": 20, "depth": 2, "num_heads": 2}
PYRAMID = {"img_size": 16, "patch_size": 2, "embed_dims": (6, 12, 72), "depths": (1, 1, 2), "num_heads": (1, 2, 1),
           "mlp_ratios": (2, 2, 4)}  # fmt: skip
NETWORKS = {"binary_vit": PYRAMID, "binary_vit_star": PYRAMID, "binary_deit": FLAT, "binary_deit_cls": FLAT}
TINY = {"img_size": 8, "patch_size": 4, "embed_dim": 4, "depth": 1, "num_heads": 2, "num_classes": 3}
DESCRIPTION = {
    "data": "pets",
    "class_names": ("cat", "dog", "eel"),
    "mean": (0.5, 0.4, 0.3),
    "std": (0.1, 0.2, 0.3),
}


@pytest.fixture(scope="module")
def model():
    return pack(minivit.create_model("binary_deit", seed=7, **TINY))


@pytest.fixture
def path(model, tmp_path):
    path = tmp_path / "model.packed"
    checkpoint.save(path, model, **DESCRIPTION)
    return path


def assert_refused(path, *words):
    """Reading raises MinivitError in one line that names the file and says ``words``."""
    with pytest.raises(MinivitError) as error:
        minivit.load(path)
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in (str(path), *words)), message


def parts(path):
    """The metadata of a packed file and its parts, all unfolded."""
    rest, unfolded = path.read_bytes()[packed_file._START :], []
    while rest:
        stream = zlib.decompressobj()
        unfolded.append(stream.decompress(rest))
        rest = stream.unused_data
    return json.loads(unfolded[0]), unfolded[1:]


def sign(path, metadata, sections, behind=b""):
    """Write a packed file with a valid checksum: what only a forger does."""
    body = b"".join(zlib.compress(part) for part in (json.dumps(metadata).encode(), *sections)) + behind
    path.write_bytes(packed_file.MAGIC + hashlib.sha256(body).digest() + body)


def forge(path, **values):
    metadata, sections = parts(path)
    sign(path, metadata | values, sections)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_comes_back_bit_for_bit(name, tmp_path):
    model = minivit.create_model(name, num_classes=5, seed=3, **NETWORKS[name])
    rng = np.random.default_rng(0)
    for _, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.dtype == np.float32 and tensor.ndim:
            tensor.data = tensor.data + rng.random(tensor.shape, np.float32)
    x = Tensor(rng.standard_normal((3, 3, 16, 16), np.float32))
    with no_grad():
        expected = model.eval()(x).data
        state = pack(model).state_dict()
        minivit.save(tmp_path / "a.packed", model)
        loaded = minivit.load(tmp_path / "a.packed")
        np.testing.assert_array_equal(loaded(x).data, expected, strict=True)
    assert is_packed(loaded) and not loaded.training
    assert loaded.state_dict().keys() == state.keys()
    for key, array in loaded.state_dict().items():
        np.testing.assert_array_equal(array, state[key], strict=True)
    minivit.save(tmp_path / "b.packed", loaded)
    assert (tmp_path / "b.packed").read_bytes() == (tmp_path / "a.packed").read_bytes()


def test_the_file_describes_itself(model, path):
    saved = checkpoint.read(path)
    assert saved.packed and saved.architecture == "binary_deit" and saved.path == path
    assert saved.arguments == json.loads(json.dumps(model.arguments))
    assert {name: getattr(saved, name) for name in DESCRIPTION} == DESCRIPTION
    assert saved.training is None and saved.optimizer == {}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_checkpoint_is_not_packed(tmp_path):
    minivit.save(tmp_path / "a.npz", minivit.create_model("binary_deit", seed=None, **TINY))
    assert not checkpoint.read(tmp_path / "a.npz").packed
    assert not is_packed(minivit.load(tmp_path / "a.npz"))


def test_the_published_network_takes_a_twelfth(tmp_path):
    """No two of its constants are alike, so that they hardly deflate; initial ones do."""
    model = minivit.create_model("binary_vit")
    float_bytes = 4 * sum(array.size for array in model.state_dict().values())
    minivit.save(tmp_path / "initial.packed", pack(model))
    rng = np.random.default_rng(0)
    for _, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.dtype == np.float32:
            tensor.data = tensor.data + 0.1 * rng.random(tensor.shape, np.float32)
    minivit.save(tmp_path / "trained.packed", model)
    initial, trained = ((tmp_path / f"{name}.packed").stat().st_size for name in ("initial", "trained"))
    assert 15 < float_bytes / initial < 16 and 12 < float_bytes / trained < 13


@pytest.mark.parametrize("harmless", [packed_file.HARMLESS, 0])
def test_a_network_without_weights_is_read_again(harmless, tmp_path, monkeypatch):
    """All its constants are alike: the file would unfold to many times its size."""
    monkeypatch.setattr(packed_file, "HARMLESS", harmless)
    minivit.save(tmp_path / "a.packed", pack(minivit.create_model("binary_deit", seed=None, **FLAT)))
    assert is_packed(minivit.load(tmp_path / "a.packed"))


# --- damage ------------------------------------------------------------------------------------------------------


def test_every_truncation_is_refused(path):
    whole = path.read_bytes()
    for length in sorted({*range(70), *np.linspace(0, len(whole) - 1, 60).astype(int)}):
        path.write_bytes(whole[:length])
        assert_refused(path)
    path.write_bytes(whole + b"\0")
    assert_refused(path, "checksum")


def test_every_flipped_bit_is_refused(path):
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        assert_refused(path)


def test_every_bit_of_the_first_bytes(path):
    whole = path.read_bytes()
    for bit in range(8 * 64):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert_refused(path)


def test_foreign_files_are_refused(path, tmp_path):
    for content in (b"", b"\x89", packed_file.MAGIC, packed_file.MAGIC + bytes(32), packed_file.MAGIC + bytes(500)):
        path.write_bytes(content)
        assert_refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.bin", bytes(100))
    assert_refused(path, "no entry metadata.json")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert_refused(tmp_path / "photo.png", "not a checkpoint of minivit")


def test_newer_versions_are_refused(path):
    metadata, _ = parts(path)
    sign(path, metadata | {"version": packed_file.VERSION + 1, "arrays": "told otherwise"}, [b"another layout"])
    assert_refused(path, "newer minivit", "upgrade")


# --- forgery -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [{"format": "minivit checkpoint"}, {"version": 0}, {"version": "1"}, {"arguments": 3}, {"architecture": "sl_vit"},
     {"architecture": "binary_vit"}, {"architecture": None}, {"data": 5}, {"class_names": ["cat"]}, {"mean": [0.5]},
     {"std": [0.1, 0, 0.1]}, {"training": 7}, {"arrays": []}, {"arrays": None}, {"arrays": [[]]}, {"arrays": 3},
     {"arrays": [["a", "<f4", [-1, -1]]]}, {"arrays": [["a", "<f4", [1.5]]]}, {"arrays": [["a", "|O", [1]]]},
     {"arrays": [["a", ["<f4"], [1]]]}, {"arrays": [[["a"], "<f4", [1]]]}, {"arrays": [["a", "<f4", 5]]}],
)  # fmt: skip
def test_metadata_that_makes_no_sense_is_refused(path, values):
    forge(path, **values)
    assert_refused(path)


@pytest.mark.parametrize("name", ["format", "version", "architecture", "arguments", "class_names", "mean", "arrays"])
def test_nothing_may_be_missing(path, name):
    metadata, sections = parts(path)
    del metadata[name]
    sign(path, metadata, sections)
    assert_refused(path, "damaged")


@pytest.mark.parametrize("metadata", [[], 3, None, "text"])
def test_metadata_of_another_kind_is_refused(path, metadata):
    sign(path, metadata, parts(path)[1])
    assert_refused(path, "damaged")


def test_sections_that_do_not_fit_are_refused(path):
    metadata, sections = parts(path)
    for i, section in enumerate(sections):
        for wrong in (section[:-1], section + b"\0", b"", None):
            changed = [*sections[:i], *([] if wrong is None else [wrong]), *sections[i + 1 :]]
            if changed != sections:
                sign(path, metadata, changed)
                assert_refused(path, "damaged")
    sign(path, metadata, sections, behind=b"more")
    assert_refused(path, "behind its end")


def test_two_arrays_of_one_name_are_refused(path):
    metadata, sections = parts(path)
    name, dtype, shape = metadata["arrays"][-1]
    for other in DTYPES:
        sign(path, metadata | {"arrays": [[name, other, [0]], *metadata["arrays"]]}, sections)
        assert_refused(path, "one name")
    sign(path, metadata | {"arrays": [[name, dtype, shape], *metadata["arrays"]]}, sections)
    assert_refused(path, "one name")


def test_what_is_missing_or_unknown_has_a_name(path):
    metadata, sections = parts(path)
    sign(path, metadata | {"arrays": [["a", "<f8", [1]], *metadata["arrays"]]}, sections)
    assert_refused(path, "unknown dtype <f8")
    del metadata["version"]
    sign(path, metadata, sections)
    assert_refused(path, "it has no entry 'version'")


def test_arrays_that_do_not_fit_the_network_are_refused(path):
    metadata, sections = parts(path)
    arrays = metadata["arrays"]
    renamed = [["head.biass" if name == "head.bias" else name, *rest] for name, *rest in arrays]
    sign(path, metadata | {"arrays": renamed}, sections)
    assert_refused(path, "head.bias")
    reshaped = [[name, dtype, [*shape[::-1]]] for name, dtype, shape in arrays]
    sign(path, metadata | {"arrays": reshaped}, sections)
    assert_refused(path, "has shape")


def test_what_unfolds_to_far_more_than_it_says_takes_no_memory(path):
    metadata, sections = parts(path)
    _, floats, _ = sections
    wide = {  # 12 million binary weights, which fit the words and take 50 MB as floats
        "arguments": metadata["arguments"] | {"embed_dim": 1024},
        "arrays": [["a", "<u8", [1 << 18]], ["b", "<f4", [1 << 16]]],
    }
    bombs = [
        lambda: sign(path, metadata, [sections[0], floats + bytes(100_000_000), sections[2]]),
        lambda: sign(path, metadata | {"data": "a" * 100_000_000}, sections),
        lambda: forge(path, arrays=[["head.weight", "<f4", [1 << 40]]]),
        lambda: forge(path, arrays=[["head.weight", "<f4", [1 << 20, 1 << 20]]]),
        lambda: forge(path, arrays=[[f"{i}", "<u8", [1 << 14]] for i in range(1000)]),
        lambda: sign(path, metadata | wide, [bytes(1 << 21), np.random.default_rng(0).bytes(1 << 18), b""]),
    ]
    for bomb in bombs:
        checkpoint.save(path, pack(minivit.create_model("binary_deit", seed=7, **TINY)), **DESCRIPTION)
        bomb()
        assert path.stat().st_size < 1e6
        assert_takes_no_memory(path)


@pytest.mark.parametrize(
    "changed",
    [{"embed_dim": 1 << 15, "num_heads": 1}, {"depth": 10**4}, {"num_classes": 10**6}, {"img_size": 1 << 14},
     {"img_size": 1 << 14, "patch_size": 1 << 13}, {"mlp_ratio": 10**9}, {"in_chans": 10**6}],
)  # fmt: skip
def test_sizes_that_the_weights_cannot_have_take_no_memory(model, path, changed):
    forge(path, arguments=model.arguments | changed, class_names=[], mean=None, std=None)
    assert_takes_no_memory(path)


@pytest.mark.parametrize(
    "changed",
    [{"mlp_ratios": (10**9, 2, 4)}, {"depths": (1, 1, 10**4)}, {"embed_dims": (6, 12, 12 << 12)},
     {"img_size": 1 << 14}],
)  # fmt: skip
def test_crafted_sizes_of_a_pyramid_take_no_memory(path, changed):
    arguments = minivit.create_model("binary_vit", num_classes=3, seed=None, **PYRAMID).arguments
    forge(path, architecture="binary_vit", arguments=arguments | changed, class_names=[])
    assert_takes_no_memory(path)


def assert_takes_no_memory(path):
    tracemalloc.start()
    try:
        assert_refused(path)
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()
