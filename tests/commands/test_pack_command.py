"""``minivit.pack``, and packed files in ``minivit.evaluate`` and ``minivit.profile``."""

import json

import numpy as np
import pytest
from command_line import assert_one_line, run

from minivit import convert, create_model, evaluate, pack, profile, train
from minivit.data import load_dataset
from minivit.training import checkpoint, packed_file

SMALL = {"img_size": 32, "patch_size": 4, "embed_dims": (12, 24, 72), "depths": (1, 1, 1), "num_heads": (1, 2, 1),
         "mlp_ratios": (2, 2, 2)}  # fmt: skip
WEIGHTS = 9 * 12**2 + 8 * 24**2 + 8 * 72**2 + 4 * 12 * 24 + 4 * 24 * 72  # the first stage reduces keys and values


@pytest.fixture
def ckpt(tmp_path):
    """The checkpoint of a binary network for shapes10, with the state of a run beside."""
    model = create_model("binary_vit", num_classes=10, seed=1, **SMALL)
    data = load_dataset("shapes10", limit_train=1, limit_test=1)
    about = {"data": "shapes10", "class_names": data.class_names, "mean": data.mean, "std": data.std}
    checkpoint.save(tmp_path / "a.npz", model, **about, training={"epoch": 1}, optimizer={"m": np.zeros(10_000)})
    return tmp_path / "a.npz"


@pytest.fixture
def packed(ckpt, call, tmp_path):
    code, _, err = call(pack, ckpt, "-o", tmp_path / "a.packed")
    assert (code, err) == (0, "")
    return tmp_path / "a.packed"


def result(out):
    return json.loads(out.splitlines()[-1])


def test_a_user_packs_and_verifies(ckpt, tmp_path):
    code, out, err = run("minivit.pack", ckpt.name, "-o", "a.packed", "--verify", cwd=tmp_path)
    assert (code, err) == (0, "")
    found, size = result(out), (tmp_path / "a.packed").stat().st_size
    state = checkpoint.load(ckpt).state_dict()
    float_bytes = 4 * sum(array.size for array in state.values())
    assert found == {
        "model": "binary_vit", "file": "a.packed", "bytes": size, "checkpoint_bytes": float_bytes,
        "ratio": round(float_bytes / size, 2), "binary_weights": WEIGHTS, "largest_difference": 0.0,
    }  # fmt: skip
    assert "logits of 4 random images differ by at most 0" in out
    assert size < ckpt.stat().st_size / 5


def test_classes_and_normalisation_go_along_and_the_run_does_not(ckpt, packed):
    before, after = checkpoint.read(ckpt), checkpoint.read(packed)
    for name in ("architecture", "arguments", "data", "class_names", "mean", "std"):
        assert getattr(before, name) == getattr(after, name)
    assert after.packed and after.training is None and not after.optimizer


def test_evaluate_gives_the_same_numbers(ckpt, packed, call):
    found = [result(call(evaluate, path, "--limit-test", 100, "--batch-size", 32)[1]) for path in (ckpt, packed)]
    for numbers in found:
        del numbers["images_per_second"]
    assert found[0] == found[1] and found[0]["images"] == 100


def test_profile_counts_the_architecture_and_times_the_bits(ckpt, packed, call, monkeypatch):
    def totals(path, *options):
        code, out, err = call(profile, path, *options)
        assert (code, err) == (0, "")
        return result(out)

    plain, found = totals(ckpt), totals(packed, "--time", "--batch-size", 2)
    assert plain["weight_bytes"] == 4 * sum(array.size for array in checkpoint.load(ckpt).state_dict().values())
    assert found["file_bytes"] == packed.stat().st_size and plain["file_bytes"] == ckpt.stat().st_size
    assert found["images_per_second"] > 0
    assert found["binary_weights"] == WEIGHTS
    assert {key: found[key] for key in plain if key != "file_bytes"} == {
        key: plain[key] for key in plain if key != "file_bytes"
    }


def test_profile_times_the_packed_network_itself(packed, call, monkeypatch):
    from minivit.analysis import throughput
    from minivit.models.packing import is_packed

    monkeypatch.setattr(throughput, "images_per_second", lambda model, size: 7.0 if is_packed(model) else 1.0)
    assert result(call(profile, packed, "--time")[1])["images_per_second"] == 7
    code, _, err = call(profile, packed, "--img-size", 64)
    assert_one_line(err, "minivit.profile: error: ", "a.packed is packed: its img_size cannot be changed")
    assert code == 2


def test_convert_has_no_use_for_bits(packed, call, tmp_path):
    code, _, err = call(convert, packed, "-o", tmp_path / "a.safetensors")
    assert_one_line(err, "minivit.convert: error: ", "a.packed is packed", "the checkpoint it was made from")
    assert code == 1


def test_an_older_file_is_replaced_and_told(ckpt, packed, call):
    code, _, err = call(pack, ckpt, "-o", packed)
    assert code == 0 and err == f"note: replaced {packed}\n"


@pytest.mark.parametrize(
    "arguments, words, expected",
    [
        ("a.packed -o b.packed", ["a.packed is packed already"], 1),
        ("a.npz -o a.npz", ["-o 'a.npz' is there and no regular packed file, so it stays: name another file"], 2),
        ("a.npz -o ./a.npz", ["-o './a.npz' is there"], 2),
        ("a.npz -o vit.npz", ["-o 'vit.npz' is there"], 2),
        ("a.npz -o text", ["-o 'text' is there"], 2),
        ("a.npz -o .", ["-o '.' is there"], 2),
        ("a.npz -o=", ["-o '' is there"], 2),
        ("a.npz -o /dev/full", ["-o '/dev/full' is there"], 2),
        ("a.npz -o link", ["-o 'link' is there"], 2),
        ("vit.npz -o b.packed", ["vit has no binary blocks to pack"], 2),
        ("a.npz -o nowhere/b.packed", ["cannot write nowhere/b.packed", "No such file or directory"], 1),
        ("a.npz", ["the following arguments are required: -o"], 2),
        ("absent.npz -o b.packed", ["no such checkpoint: absent.npz"], 1),
        ("text -o b.packed", ["text is damaged or not a checkpoint of minivit"], 1),
        ("cut.packed -o b.packed", ["cut.packed is damaged", "checksum is wrong"], 1),
    ],
)
def test_it_refuses(ckpt, packed, call, monkeypatch, tmp_path, arguments, words, expected):
    monkeypatch.chdir(tmp_path)
    checkpoint.save("vit.npz", create_model("vit", seed=None, depth=1))
    (tmp_path / "text").write_text("no network at all")
    (tmp_path / "cut.packed").write_bytes(packed.read_bytes()[:-1])
    (tmp_path / "link").symlink_to("b.packed")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.exists()}
    code, out, err = call(pack, *arguments.split())
    assert_one_line(err, "minivit.pack: error: ", *words)
    assert (code, out) == (expected, "")
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.exists()} == before


def test_what_differs_is_not_written(ckpt, packed, call, monkeypatch, tmp_path):
    def write(file, metadata, arrays):
        arrays["head.bias"][0] += 1e-3
        original(file, metadata, arrays)

    original = packed_file.write
    monkeypatch.setattr(packed_file, "write", write)
    before = packed.read_bytes()
    code, out, err = call(pack, ckpt, "-o", packed, "--verify")
    assert_one_line(err, "nothing is written: the packed network's logits differ by up to 1.0e-03, and 0 of 4")
    assert (code, out) == (1, "") and packed.read_bytes() == before
    assert set(tmp_path.iterdir()) == {ckpt, packed}


def test_a_network_that_overflows_cannot_be_verified(call, tmp_path):
    model = create_model("binary_vit", num_classes=10, seed=1, **SMALL)
    model.head.bias.data[0] = np.nan
    checkpoint.save(tmp_path / "broken.npz", model)
    code, _, err = call(pack, tmp_path / "broken.npz", "-o", tmp_path / "b.packed", "--verify")
    assert_one_line(err, "not finite")
    assert code == 1 and not (tmp_path / "b.packed").exists()


def test_a_packed_network_teaches(ckpt, packed, call, tmp_path, monkeypatch):
    """It says what its checkpoint says, so that the student becomes the same."""
    monkeypatch.chdir(tmp_path)
    options = ["--recipe", "shapes", "--epochs", 1, "--limit-train", 16, "--limit-test", 16, "--batch-size", 8,
               "--model-arg", "depth=1", "embed_dim=16", "num_heads=2"]  # fmt: skip
    for teacher in (ckpt, packed):
        code, _, err = call(train, *options, "--teacher", teacher, "--out", f"by_{teacher.suffix[1:]}")
        assert code == 0, err
    first, second = (checkpoint.read(f"by_{kind}/last.npz").weights for kind in ("npz", "packed"))
    assert all(np.array_equal(array, second[name]) for name, array in first.items())


def test_a_packed_network_is_no_run_to_resume(packed, call, tmp_path):
    packed.rename(tmp_path / "last.npz")
    code, out, err = call(train, "--resume", "--out", tmp_path)
    assert_one_line(err, "minivit.train: error: ", "last.npz holds weights only, not the state of a run")
    assert (code, out) == (1, "")
