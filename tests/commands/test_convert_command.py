"""``minivit.convert``: official weights in and out, and what it says about weights that do not fit."""

import json
import pickle

import numpy as np
import pytest
from command_line import assert_one_line, run

import minivit
from minivit import convert
from minivit.models import transfer
from minivit.models.positions import METHODS, resample_positions
from minivit.models.weight_files import read_weights, write_safetensors
from minivit.training import checkpoint

DEIT = "deit_tiny_distilled_patch16_224"
SMALL = {"patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 3, "mlp_ratio": 2.0}
TINY = {"img_size": 16, **SMALL}
TINY_ARGS = ["--model", DEIT, "--img-size", "16", "--model-arg", *(f"{key}={value}" for key, value in SMALL.items())]


def deit_shapes(dim=192, depth=12, patch=16, tokens=198, classes=1000, ratio=4):
    """Names and shapes of a distilled DeiT, as its authors list them."""
    shapes = {
        "cls_token": (1, 1, dim),
        "dist_token": (1, 1, dim),
        "pos_embed": (1, tokens, dim),
        "patch_embed.proj.weight": (dim, 3, patch, patch),
        "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
        "head.weight": (classes, dim),
        "head.bias": (classes,),
        "head_dist.weight": (classes, dim),
        "head_dist.bias": (classes,),
    }
    for i in range(depth):
        for layer, rows, columns in (
            ("attn.qkv", 3 * dim, dim),
            ("attn.proj", dim, dim),
            ("mlp.fc1", ratio * dim, dim),
            ("mlp.fc2", dim, ratio * dim),
        ):
            shapes |= {f"blocks.{i}.{layer}.weight": (rows, columns), f"blocks.{i}.{layer}.bias": (rows,)}
        for norm in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{norm}.{p}": (dim,) for p in ("weight", "bias")}
    return shapes


def save_safetensors(path, arrays, metadata=None):
    with open(path, "wb") as file:
        write_safetensors(file, arrays, metadata or {})


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name


@pytest.fixture
def official(tmp_path):
    """Weights of a tiny distilled DeiT with 7 classes, as somebody else might have saved them."""
    rng = np.random.default_rng(0)
    shapes = deit_shapes(dim=12, depth=1, patch=4, tokens=18, classes=7, ratio=2)
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    save_safetensors(tmp_path / "official.safetensors", arrays)
    return arrays


@pytest.fixture
def convert_here(tmp_path, call, monkeypatch):
    """``convert_here(*arguments)``, in tmp_path, -> (exit code, the JSON or None, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run_it(*arguments):
        code, out, err = call(convert, *arguments)
        return code, json.loads(out.splitlines()[-1]) if out else None, err

    return run_it


class TestRoundTrip:
    def test_a_full_size_deit_comes_back_bit_for_bit(self, tmp_path, convert_here):
        model = minivit.create_model(DEIT, seed=3)
        class_names = [f"class {i}" for i in range(1000)]
        checkpoint.save(tmp_path / "a.npz", model, class_names=class_names, mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
        code, result, err = convert_here("a.npz", "-o", "b.safetensors")
        assert (code, err) == (0, "")
        assert result == {
            "model": DEIT, "parameters": 5_910_800, "tensors": len(deit_shapes()), "file": "b.safetensors",
            "dropped": [], "resampled": [],
        }  # fmt: skip
        arrays, metadata = read_weights(tmp_path / "b.safetensors")
        assert {name: array.shape for name, array in arrays.items()} == deit_shapes()
        assert {array.dtype.name for array in arrays.values()} == {"float32"}
        assert json.loads(metadata["minivit"])["architecture"] == DEIT

        code, result, err = convert_here("b.safetensors", "-o", "c.npz")
        assert (code, err, result["model"], result["parameters"]) == (0, "", DEIT, 5_910_800)
        saved = checkpoint.read(tmp_path / "c.npz")
        assert_same(saved.weights, model.state_dict())
        assert saved.arguments == checkpoint.read(tmp_path / "a.npz").arguments
        assert saved.class_names == tuple(class_names)
        assert (saved.mean, saved.std) == ((0.1, 0.2, 0.3), (1, 2, 3))

    @pytest.mark.parametrize("name", ["sl_vit", "sl_swin", "t2t"])
    def test_small_data_models_keep_their_names(self, tmp_path, convert_here, name):
        model = minivit.create_model(name, seed=1, img_size=32, num_classes=4)
        checkpoint.save(tmp_path / "a.npz", model)
        assert convert_here("a.npz", "-o", "b.safetensors")[0] == 0
        assert_same(read_weights(tmp_path / "b.safetensors")[0], model.state_dict())
        assert convert_here("b.safetensors", "-o", "c.npz")[0] == 0
        assert (tmp_path / "c.npz").read_bytes() == (tmp_path / "a.npz").read_bytes()

    def test_official_names_become_those_of_minivit(self, tmp_path, convert_here, golden):
        file = golden("sl_vit_cifar")
        np.savez(tmp_path / "a.npz", **{key[6:]: file[key] for key in file if key.startswith("param.")})
        code, result, err = convert_here(
            "a.npz", "--model", "sl_vit", "--model-arg", "embed_dim=24", "depth=2", "num_heads=3", "-o", "b.npz"
        )
        assert (code, err) == (0, "")
        model = minivit.load(tmp_path / "b.npz")
        assert model.config.num_classes == 10  # those of the file, not the model's own 100
        logits = model(minivit.Tensor(file["input"].astype(np.float32))).data
        np.testing.assert_allclose(logits, file["logits"], rtol=0, atol=1e-4 * np.abs(file["logits"]).max())

    def test_in_a_process_of_its_own(self, tmp_path, official):
        code, out, err = run("minivit.convert", "official.safetensors", *TINY_ARGS, "-o", "a.npz", cwd=tmp_path)
        assert (code, err) == (0, "")
        assert json.loads(out.splitlines()[-1])["tensors"] == len(official)
        assert_same(checkpoint.read(tmp_path / "a.npz").weights, dict(checkpoint.load(tmp_path / "a.npz").state_dict()))
        assert_same(checkpoint.load(tmp_path / "a.npz").state_dict(), official)


class TestFitting:
    def test_new_classes_drop_the_classifiers(self, tmp_path, official, convert_here):
        code, result, err = convert_here("official.safetensors", *TINY_ARGS, "--num-classes", 5, "-o", "a.npz")
        assert code == 0
        dropped = ["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"]
        assert (result["dropped"], result["resampled"]) == (dropped, [])
        assert_one_line(err, "note: dropped head.weight, head.bias, head_dist.weight, head_dist.bias", "5 classes")
        weights = checkpoint.load(tmp_path / "a.npz").state_dict()
        fresh = minivit.create_model(DEIT, **TINY, num_classes=5).state_dict()
        assert_same(weights, official | {name: fresh[name] for name in dropped})
        assert np.abs(weights["head.weight"]).min() > 0

    def test_the_same_number_of_classes_keeps_them(self, tmp_path, official, convert_here):
        code, result, err = convert_here("official.safetensors", *TINY_ARGS, "--num-classes", 7, "-o", "a.npz")
        assert (code, err, result["dropped"]) == (0, "", [])
        assert_same(checkpoint.load(tmp_path / "a.npz").state_dict(), official)

    def test_new_classes_forget_the_names_of_the_old(self, tmp_path, convert_here):
        model = minivit.create_model(DEIT, **TINY, num_classes=2)
        checkpoint.save(tmp_path / "a.npz", model, data="shapes10", class_names=["a", "b"], mean=[0] * 3, std=[1] * 3)
        assert convert_here("a.npz", "--num-classes", 3, "-o", "b.npz")[0] == 0
        saved = checkpoint.read(tmp_path / "b.npz")
        assert (saved.class_names, saved.data, saved.mean) == ((), None, (0, 0, 0))
        assert saved.arguments == model.arguments | {"num_classes": 3}

    @pytest.mark.parametrize("method", convert.RESAMPLE)
    def test_position_tables_follow_the_image_size(self, tmp_path, official, convert_here, method):
        code, result, err = convert_here(
            "official.safetensors", *TINY_ARGS, "--img-size", "24x32", "--resample", method, "-o", "a.npz"
        )
        assert (code, result["resampled"], result["dropped"]) == (0, ["pos_embed"], [])
        assert_one_line(err, f"note: resampled pos_embed from 4x4 to 6x8 patches ({method})")
        model = checkpoint.load(tmp_path / "a.npz")
        assert model.config.img_size == (24, 32)
        expected = resample_positions(official["pos_embed"], (6, 8), prefix=2, method=method)
        assert_same(model.state_dict(), official | {"pos_embed": expected})

    def test_checkpoints_take_another_image_size_too(self, tmp_path, convert_here):
        checkpoint.save(tmp_path / "a.npz", minivit.create_model(DEIT, **TINY, num_classes=2))
        code, result, err = convert_here("a.npz", "--img-size", 24, "-o", "b.npz")
        assert (code, result["model"], result["resampled"]) == (0, DEIT, ["pos_embed"])
        assert checkpoint.load(tmp_path / "b.npz").config.img_size == 24

    @pytest.mark.parametrize("ending", [".npz", ".safetensors"])
    @pytest.mark.parametrize("model", [[], ["--model", "m_vit"]])
    def test_grids_need_not_be_square(self, tmp_path, convert_here, ending, model):
        made = minivit.create_model("vit", img_size=(8, 32), **SMALL)
        checkpoint.save(tmp_path / "a.npz", made)
        if ending == ".safetensors":
            assert convert_here("a.npz", "-o", "a.safetensors")[0] == 0
        if model:
            model = [*model, "--model-arg", *(f"{key}={value}" for key, value in SMALL.items())]
        code, result, err = convert_here(f"a{ending}", *model, "--img-size", 16, "-o", "b.npz")  # 2x8 and 4x4: 16 each
        assert (code, result["resampled"]) == (0, ["pos_embed"])
        assert_one_line(err, "note: resampled pos_embed from 2x8 to 4x4 patches (bicubic)")
        expected = resample_positions(made.pos_embed.data, (4, 4), prefix=1, old_grid=(2, 8))
        np.testing.assert_array_equal(checkpoint.load(tmp_path / "b.npz").pos_embed.data, expected)

    def test_methods_are_those_of_the_library(self):
        assert convert.RESAMPLE == tuple(METHODS)

    def test_replacing_a_file_is_said(self, tmp_path, official, convert_here):
        (tmp_path / "a.npz").write_text("old")
        code, _, err = convert_here("official.safetensors", *TINY_ARGS, "-o", "a.npz")
        assert code == 0
        assert_one_line(err, "note: replaced a.npz")

    def test_nothing_was_replaced_where_writing_failed(self, tmp_path, official, convert_here):
        (tmp_path / "a.npz").mkdir()
        code, _, err = convert_here("official.safetensors", *TINY_ARGS, "-o", "a.npz")
        assert_one_line(err, "minivit.convert: error: cannot write a.npz")
        assert code == 1


class TestRefusals:
    def refuse(self, convert_here, code, words, *arguments):
        found, result, err = convert_here(*arguments)
        assert_one_line(err, "minivit.convert: error: ", *words)
        assert (found, result) == (code, None)

    @pytest.mark.parametrize(
        "code, words, arguments",
        [
            (2, ["unknown model 'deit_tiny_patch_224'", "did you mean 'deit_tiny_patch16_224'"],
             "official.safetensors --model deit_tiny_patch_224 -o a.npz"),
            (2, ["official.safetensors does not say which model it holds: add --model"],
             "official.safetensors -o a.npz"),
            (2, ["no keyword 'dept'", "did you mean 'depth'"],
             "official.safetensors --model sl_vit --model-arg dept=2 -o a.npz"),
            (2, ["seed is no keyword of a network"], "official.safetensors {tiny} --model-arg seed=3 -o a.npz"),
            (2, ["img_size 17 does not divide into patches of 4"],
             "official.safetensors {tiny} --img-size 17 -o a.npz"),
            (2, ["--img-size: must look like 224 or 192x256"],
             "official.safetensors {tiny} --img-size 1x2x3 -o a.npz"),
            (2, ["--resample: invalid choice: 'cubic'", "bicubic"],
             "official.safetensors {tiny} --resample cubic -o a.npz"),
            (2, ["--out must be NAME.npz", "NAME.safetensors", "'a.pth'"], "official.safetensors {tiny} -o a.pth"),
            (2, ["--out must be NAME.npz", "'.npz'"], "official.safetensors {tiny} -o .npz"),
            (2, ["--out must be NAME.npz", "'nowhere/.safetensors'"], "official.safetensors -o nowhere/.safetensors"),
            (2, ["img_size has two values, 16 and 64"],
             "official.safetensors {tiny} img_size=64 -o a.npz"),
            (2, ["num_classes has two values, 5 and 6"],
             "official.safetensors {tiny} num_classes=6 --num-classes 5 -o a.npz"),
            (2, ["depth has two values, 1 and 2"], "official.safetensors {tiny} depth=2 -o a.npz"),
            (2, ["required: -o/--out"], "official.safetensors {tiny}"),
            (2, ["a.tensors: no file of weights ends so", ".safetensors"], "a.tensors {tiny} -o a.npz"),
            (1, ["no such file: absent.safetensors"], "absent.safetensors {tiny} -o a.npz"),
            (1, ["no such file: absent.npz"], "absent.npz -o a.safetensors"),
            (1, ["cannot write nowhere/a.npz"], "official.safetensors {tiny} -o nowhere/a.npz"),
            (1, ["cannot write nowhere/a.safetensors"],
             "official.safetensors {tiny} -o nowhere/a.safetensors"),
        ],
    )  # fmt: skip
    def test_requests(self, tmp_path, official, convert_here, code, words, arguments):
        self.refuse(convert_here, code, words, *arguments.format(tiny=" ".join(TINY_ARGS)).split())
        assert [path.name for path in tmp_path.iterdir()] == ["official.safetensors"]

    def test_all_that_does_not_fit_is_listed_at_once(self, tmp_path, official, convert_here):
        del official["norm.bias"], official["blocks.0.attn.qkv.weight"]
        official["norm.weight"] = np.ones(13, np.float32)
        official["cls_token"] = np.ones(12, np.float32)
        official["extra"] = np.ones(2, np.float32)
        save_safetensors(tmp_path / "bad.safetensors", official)
        words = [
            "bad.safetensors", "missing norm.bias", "missing blocks.0.attn.qkv.weight", "unexpected extra",
            "norm.weight has shape (13,), expected (12,)", "cls_token has shape (12,), expected (1, 1, 12)",
        ]  # fmt: skip
        self.refuse(convert_here, 1, words, "bad.safetensors", *TINY_ARGS, "-o", "a.npz")
        assert not (tmp_path / "a.npz").exists()

    def test_a_table_that_cannot_be_resampled(self, tmp_path, official, convert_here):
        official["pos_embed"] = official["pos_embed"][:, :-1]
        save_safetensors(tmp_path / "bad.safetensors", official)
        words = ["pos_embed has shape (1, 17, 12), expected (1, 18, 12)"]
        self.refuse(convert_here, 1, words, "bad.safetensors", *TINY_ARGS, "-o", "a.npz")

    @pytest.mark.parametrize("kept", [4, 200, -1])
    def test_truncated_files(self, tmp_path, official, convert_here, kept):
        checkpoint.save(tmp_path / "whole.npz", minivit.create_model(DEIT, **TINY))
        for whole in ("official.safetensors", "whole.npz"):
            cut = "cut" + whole[whole.index(".") :]
            (tmp_path / cut).write_bytes((tmp_path / whole).read_bytes()[:kept])
            self.refuse(convert_here, 1, [f"{cut} is damaged"], cut, *TINY_ARGS, "-o", "a.npz")

    def test_a_damaged_checkpoint(self, tmp_path, convert_here):
        checkpoint.save(tmp_path / "a.npz", minivit.create_model(DEIT, **TINY))
        content = bytearray((tmp_path / "a.npz").read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / "a.npz").write_bytes(content)
        self.refuse(convert_here, 1, ["a.npz is damaged", "CRC"], "a.npz", "-o", "a.safetensors")

    def test_a_pickle_under_another_name(self, tmp_path, convert_here):
        (tmp_path / "a.safetensors").write_bytes(pickle.dumps({"a": np.zeros(3)}))
        self.refuse(convert_here, 1, ["a.safetensors is damaged"], "a.safetensors", *TINY_ARGS, "-o", "a.npz")

    @pytest.mark.parametrize(
        "entry",
        [
            "",
            "[]",
            "{}",
            "[" * 100_000,
            {"arguments": 3},
            {"class_names": ["a"]},
            {"class_names": None},
            {"mean": [0, 0]},
            {"mean": 3},
            {"std": [1, 1, float("nan")]},
            {"std": ["a", "b", "c"]},
            {"std": [0, 0, 0]},
            {"std": [1, 1, -1]},
            {"mean": [True, 0, 0]},
            {"data": 3},
            {"architecture": None},
        ],
        ids=lambda entry: str(entry)[:30],
    )
    def test_a_header_that_makes_no_sense(self, tmp_path, official, convert_here, entry):
        if isinstance(entry, dict):
            arguments = minivit.create_model(DEIT, **TINY, num_classes=7).arguments
            good = {"architecture": DEIT, "arguments": arguments, "data": None}
            entry = json.dumps({**good, "class_names": [], "mean": None, "std": None, **entry})
        save_safetensors(tmp_path / "a.safetensors", official, {"minivit": entry})
        words = ["a.safetensors: its header does not say properly which model it holds"]
        self.refuse(convert_here, 1, words, "a.safetensors", "-o", "a.npz")

    def save_with_header(self, path, official, architecture=DEIT, **arguments):
        arguments = minivit.create_model(DEIT, **TINY, num_classes=7).arguments | arguments
        header = {"architecture": architecture, "arguments": arguments, "data": None, "class_names": []}
        save_safetensors(path, official, {"minivit": json.dumps({**header, "mean": None, "std": None})})

    @pytest.mark.parametrize(
        "change, words",
        [
            ({"architecture": "deit_giant"}, ["does not fit", "unknown model 'deit_giant'"]),
            ({"depth": 10**9}, ["does not fit", "1000000000 blocks"]),
            ({"depth": 10**4}, ["is damaged: the sizes that it declares"]),
            ({"depht": 1}, ["does not fit", "no keyword 'depht'"]),
        ],
    )
    def test_a_header_that_declares_another_network(self, tmp_path, official, convert_here, change, words):
        self.save_with_header(tmp_path / "a.safetensors", official, **change)
        self.refuse(convert_here, 1, ["a.safetensors ", *words], "a.safetensors", "-o", "a.npz")

    def test_a_header_of_other_classes_or_channels_than_the_weights(self, tmp_path, official, convert_here):
        arguments = {**minivit.create_model(DEIT, **TINY, num_classes=3).arguments, "in_chans": 1}
        header = {"architecture": DEIT, "arguments": arguments, "data": None, "mean": None, "std": None}
        for said, words in (
            ({"class_names": ["a", "b", "c"]}, "it names 3 classes, and has 7"),
            ({"class_names": [], "mean": [0.5]}, "its mean is not a number for each of 3 channels"),
        ):
            save_safetensors(tmp_path / "a.safetensors", official, {"minivit": json.dumps({**header, **said})})
            words = ["what a.safetensors says does not fit the network of its weights", words]
            self.refuse(convert_here, 1, words, "a.safetensors", *TINY_ARGS, "--model-arg", "in_chans=3", "-o", "b.npz")
            assert not (tmp_path / "b.npz").exists()

    @pytest.mark.parametrize("value", [1e300, np.nan])
    def test_numbers_that_are_not_finite(self, tmp_path, official, convert_here, value):
        official["norm.bias"] = np.full(12, value)
        save_safetensors(tmp_path / "a.safetensors", official)
        words = ["a.safetensors: norm.bias holds numbers that are not finite in float32"]
        self.refuse(convert_here, 1, words, "a.safetensors", *TINY_ARGS, "-o", "a.npz")

    def test_empty_classifiers(self, tmp_path, official, convert_here):
        official["head.weight"] = np.zeros((0, 12), np.float32)
        save_safetensors(tmp_path / "a.safetensors", official)
        words = ["a.safetensors: head.weight has shape (0, 12)"]
        self.refuse(convert_here, 1, words, "a.safetensors", *TINY_ARGS, "-o", "a.npz")

    def test_too_little_memory(self, official, convert_here, monkeypatch):
        def give_up(*args, **kwargs):
            raise MemoryError("Unable to allocate 9 TiB")

        monkeypatch.setattr(transfer, "create_model", give_up)
        words = ["this machine has not the memory to convert official.safetensors: Unable to allocate 9 TiB"]
        self.refuse(convert_here, 1, words, "official.safetensors", *TINY_ARGS, "-o", "a.npz")

    def test_model_overrules_the_header(self, tmp_path, official, convert_here):
        self.save_with_header(tmp_path / "a.safetensors", official, architecture="deit_giant", depth=10**9)
        code, result, err = convert_here("a.safetensors", *TINY_ARGS, "-o", "a.npz")
        assert (code, err, result["model"]) == (0, "", DEIT)
