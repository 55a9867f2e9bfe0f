"""Weight files: what is written comes back, half precision widens exactly, and damage is refused in one line."""

import io
import json
import pickle
import struct
import sys
import tarfile
import zipfile
from argparse import Namespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from minivit.errors import MinivitError, UsageError
from minivit.models import weight_files
from minivit.models.weight_files import read_weights, write_safetensors


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    return {
        "head.weight": rng.standard_normal((3, 5)).astype(np.float32),
        "transposed": rng.standard_normal((4, 6)).astype(np.float32).T,
        "exact": rng.standard_normal(7),
        "bn.num_batches_tracked": np.array(12),
    }


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name


def write(path, weights, metadata=None):
    with open(path, "wb") as file:
        write_safetensors(file, weights, metadata or {})


def raw_safetensors(path, **tensors):
    """Write a file by hand from name -> (dtype, shape, bytes), as the format's description has it."""
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


class TestSafetensors:
    def test_what_is_written_comes_back(self, tmp_path, weights):
        path = tmp_path / "a.safetensors"
        write(path, weights, {"minivit": '{"a": 1}'})
        found, metadata = read_weights(path)
        assert_same(found, weights)
        assert metadata == {"format": "pt", "minivit": '{"a": 1}'}

    def test_the_library_reads_the_same(self, tmp_path, weights):
        from safetensors.numpy import load_file

        write(tmp_path / "a.safetensors", weights)
        assert_same(load_file(tmp_path / "a.safetensors"), weights)

    @given(arrays(np.uint16, array_shapes(max_dims=3, max_side=4)))
    def test_half_precision_widens_exactly(self, tmp_path_factory, bits):
        path = tmp_path_factory.getbasetemp() / "half.safetensors"
        shape = list(bits.shape)
        raw_safetensors(path, half=("F16", shape, bits.tobytes()), brain=("BF16", shape, bits.tobytes()))
        found, _ = read_weights(path)
        assert found["half"].dtype == found["brain"].dtype == np.float32
        np.testing.assert_array_equal(found["half"], bits.view(np.float16))
        assert found["brain"].shape == bits.shape
        # sign, 8 bits of exponent, 7 of mantissa: those of a float32, cut
        np.testing.assert_array_equal(found["brain"].view(np.uint32), bits.astype(np.uint32) * 65536)

    def test_brain_floats_are_the_numbers_they_should_be(self, tmp_path):
        raw_safetensors(tmp_path / "a.safetensors", x=("BF16", [3], struct.pack("<3H", 0x3F80, 0xC049, 0x0000)))
        np.testing.assert_array_equal(read_weights(tmp_path / "a.safetensors")[0]["x"], [1, -3.140625, 0])

    def test_other_numbers_are_refused_by_name(self, tmp_path):
        raw_safetensors(tmp_path / "a.safetensors", scale=("F8_E4M3", [2], b"ab"))
        with pytest.raises(MinivitError, match="scale holds F8_E4M3, which minivit does not read"):
            read_weights(tmp_path / "a.safetensors")

    def test_without_the_library(self, tmp_path, weights, monkeypatch):
        write(tmp_path / "a.safetensors", weights)
        monkeypatch.setitem(sys.modules, "safetensors", None)
        with pytest.raises(MinivitError, match=r'pip install "minivit\[interop\]"'):
            read_weights(tmp_path / "a.safetensors")
        with pytest.raises(MinivitError, match=r'pip install "minivit\[interop\]"'):
            write_safetensors(io.BytesIO(), weights, {})

    @given(st.data())
    def test_damage_is_an_error_or_harmless(self, tmp_path_factory, data):
        path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
        write(path, {"a": np.arange(4.0), "b": np.ones((2, 2), np.float32)}, {"text": "abc"})
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        try:
            found, metadata = read_weights(path)
        except MinivitError as error:
            assert "\n" not in str(error)
        else:
            assert all(isinstance(array, np.ndarray) for array in found.values()) and isinstance(metadata, dict)


class TestNpz:
    def test_plain_arrays(self, tmp_path, weights):
        np.savez(tmp_path / "a.npz", **weights)
        found, metadata = read_weights(tmp_path / "a.npz")
        assert_same(found, weights)
        assert metadata == {}

    def test_half_precision_widens(self, tmp_path):
        np.savez_compressed(tmp_path / "a.NPZ", x=np.array([0.1, 2], np.float16))
        (tmp_path / "a.NPZ.npz").rename(tmp_path / "a.NPZ")
        found, _ = read_weights(tmp_path / "a.NPZ")
        assert found["x"].dtype == np.float32
        np.testing.assert_array_equal(found["x"], np.float16([0.1, 2]))

    def test_objects_and_texts_are_refused(self, tmp_path):
        np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
        np.savez(tmp_path / "texts.npz", x=np.array(["a"]))
        with pytest.raises(MinivitError, match="objects.npz is damaged or no .npz file of weights: Object arrays"):
            read_weights(tmp_path / "objects.npz")
        with pytest.raises(MinivitError, match="x holds <U1, not real numbers"):
            read_weights(tmp_path / "texts.npz")


    def test_files_that_unfold_to_far_more_than_their_size(self, tmp_path, monkeypatch):
        monkeypatch.setattr(weight_files, "HARMLESS", 1 << 16)
        zeros = {"x": np.zeros(10**5)}
        np.savez_compressed(tmp_path / "a.npz", **zeros)
        with pytest.raises(MinivitError, match="a.npz would unfold to 800,128 bytes, which is absurd"):
            read_weights(tmp_path / "a.npz")
        np.savez(tmp_path / "b.npz", **zeros)  # as long as the file itself
        assert_same(read_weights(tmp_path / "b.npz")[0], zeros)
        monkeypatch.setattr(weight_files, "HARMLESS", 1 << 20)
        assert_same(read_weights(tmp_path / "a.npz")[0], zeros)


class TestPyTorch:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    @pytest.mark.parametrize("wrap", [(), *((key,) for key in weight_files.WRAPPERS), ("model", "state_dict")])
    def test_state_dicts_bare_or_wrapped(self, torch, tmp_path, weights, wrap):
        content = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
        for key in wrap:
            content = {"epoch": 3, "args": {"lr": 0.1}, key: content}
        torch.save(content, tmp_path / "a.pth")
        found, metadata = read_weights(tmp_path / "a.pth")
        assert_same(found, weights)
        assert metadata == {}

    def test_the_weights_themselves_come_before_their_average(self, torch, tmp_path):
        content = {"model_ema": {"x": torch.zeros(2)}, "model": {"x": torch.ones(2)}}
        torch.save(content, tmp_path / "a.pt")
        np.testing.assert_array_equal(read_weights(tmp_path / "a.pt")[0]["x"], [1, 1])

    def test_half_precision_widens(self, torch, tmp_path):
        numbers = torch.tensor([1.5, -3.140625])
        torch.save({"a": numbers.half(), "b": numbers.bfloat16()}, tmp_path / "a.bin")
        found, _ = read_weights(tmp_path / "a.bin")
        for array in found.values():
            assert array.dtype == np.float32
        np.testing.assert_array_equal(found["b"], [1.5, -3.140625])

    def test_objects_are_never_loaded(self, torch, tmp_path):
        torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "a.pth")
        words = "holds Python objects, which are never loaded; .* torch.save\\(checkpoint\\['model'\\], FILE\\)"
        with pytest.raises(MinivitError, match=words):
            read_weights(tmp_path / "a.pth")

    def test_weights_beside_the_arguments_of_a_script(self, torch, tmp_path):
        torch.save({"model": {"x": torch.ones(2)}, "args": Namespace(lr=0.1)}, tmp_path / "a.pth")
        with pytest.raises(MinivitError, match="never loaded; where it comes from, save the weights without them"):
            read_weights(tmp_path / "a.pth")

    def test_the_ending_of_pytorch_s_example_scripts(self, torch, tmp_path):
        torch.save({"state_dict": {"x": torch.ones(2)}}, tmp_path / "model_best.pth.tar")
        np.testing.assert_array_equal(read_weights(tmp_path / "model_best.pth.tar")[0]["x"], [1, 1])
        with tarfile.open(tmp_path / "real.tar", "w") as archive:
            archive.add(tmp_path / "model_best.pth.tar", "a")
        with pytest.raises(MinivitError, match="real.tar is damaged or no .tar file of weights"):
            read_weights(tmp_path / "real.tar")

    def test_names_must_be_text(self, torch, tmp_path):
        torch.save({3: torch.ones(2), "x": torch.ones(2)}, tmp_path / "a.pth")
        with pytest.raises(MinivitError, match="the names in its state dict are not all text"):
            read_weights(tmp_path / "a.pth")

    def test_a_dictionary_that_holds_itself(self, torch, tmp_path):
        content = {"epoch": 3}
        content["model"] = content
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(MinivitError, match="does it hold a state dict"):
            read_weights(tmp_path / "a.pth")

    def test_tensors_that_are_far_more_than_their_storage(self, torch, tmp_path):
        half = torch.zeros(1, dtype=torch.float16)
        shared = torch.ones(1 << 16)
        for content in (
            {"head.weight": torch.zeros(1).expand(10**11, 12)},
            {"x": half.expand(3 * 10**8)},  # 1.2 GB in float32
            {str(i): shared for i in range(1 << 13)},
        ):
            torch.save(content, tmp_path / "a.pth")
            with pytest.raises(MinivitError, match="a.pth would unfold to .* bytes, which is absurd"):
                read_weights(tmp_path / "a.pth")
        tied = {"embed": shared, "head": shared.view(256, 256), "scale": half.expand(12)}
        torch.save(tied, tmp_path / "a.pth")
        found, _ = read_weights(tmp_path / "a.pth")
        assert found["head"].shape == (256, 256) and found["scale"].dtype == np.float32

    def test_a_zip_that_unfolds_to_far_more_than_its_size(self, torch, tmp_path, monkeypatch):
        monkeypatch.setattr(weight_files, "HARMLESS", 1 << 16)
        torch.save({"x": torch.zeros(10**5)}, tmp_path / "whole.pth")
        paths = (tmp_path / "whole.pth", "r"), (tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED)
        with zipfile.ZipFile(*paths[0]) as whole, zipfile.ZipFile(*paths[1]) as small:
            for entry in whole.namelist():
                small.writestr(entry, whole.read(entry))
        with pytest.raises(MinivitError, match="a.pth would unfold to 4.*, which is absurd"):
            read_weights(tmp_path / "a.pth")
        assert read_weights(tmp_path / "whole.pth")[0]["x"].shape == (10**5,)

    @pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"model": {"lr": 0.1}}])
    def test_no_state_dict(self, torch, tmp_path, content):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(MinivitError, match="a.pth is damaged or no .pth file of weights: .*state dict"):
            read_weights(tmp_path / "a.pth")

    def test_without_pytorch(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(MinivitError, match=r"only by PyTorch: pip install .* or use a .safetensors file"):
            read_weights(tmp_path / "a.pth")


class Trap:
    """A pickle of this writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("ending", ["safetensors", "npz", "pth"])
def test_pickles_are_not_loaded(tmp_path, ending):
    if ending == "pth":
        pytest.importorskip("torch")
    path = tmp_path / f"a.{ending}"
    path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=2))
    with pytest.raises(MinivitError, match=f"a.{ending} is damaged or no .{ending} file of weights: ") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("ending", ["safetensors", "npz", "pth"])
@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_truncated_files(tmp_path, weights, ending, kept):
    path = tmp_path / f"a.{ending}"
    if ending == "safetensors":
        write(path, weights)
    elif ending == "npz":
        np.savez(path, **weights)
    else:
        torch = pytest.importorskip("torch")
        torch.save({name: torch.from_numpy(np.array(array)) for name, array in weights.items()}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(MinivitError, match=f"a.{ending} is damaged or no .{ending} file of weights: ") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ["safetensors", "npz", "pth"])
def test_no_such_file(tmp_path, ending):
    if ending == "pth":
        pytest.importorskip("torch")
    with pytest.raises(MinivitError, match="no such file: .*absent"):
        read_weights(tmp_path / f"absent.{ending}")
    (tmp_path / f"folder.{ending}").mkdir()
    with pytest.raises(MinivitError, match="cannot read .*folder.*: Is a directory"):
        read_weights(tmp_path / f"folder.{ending}")


def test_too_little_memory_is_no_damage(tmp_path, monkeypatch):
    def load(*args, **kwargs):
        raise MemoryError("Unable to allocate 9 TiB")

    np.savez(tmp_path / "a.npz", x=np.ones(2))
    monkeypatch.setattr(np, "load", load)
    with pytest.raises(MemoryError, match="9 TiB"):
        read_weights(tmp_path / "a.npz")


def test_an_unknown_ending_names_the_known_ones(tmp_path):
    with pytest.raises(UsageError, match="a.safetensor: .*did you mean '.safetensors'.*known: .*.npz"):
        read_weights(tmp_path / "a.safetensor")
