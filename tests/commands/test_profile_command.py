"""``minivit.profile``: the table, the totals, the time, and what it refuses."""

import json
import subprocess
import sys

import pytest
from command_line import ROOT, assert_one_line, run

from minivit import profile
from minivit.analysis import cost

KEYS = [
    "model", "img_size", "parameters", "state_entries", "binary_weights", "flops", "multiply_adds",
    "affine_multiplies", "norm_elements", "bops", "ops", "weight_bytes", "activation_bytes",
]  # fmt: skip


@pytest.fixture
def profiled(call):
    """``profiled(*arguments)`` -> (lines of the table, totals) of a call that succeeds."""

    def run(*arguments):
        code, out, err = call(profile, *arguments)
        assert (code, err) == (0, "")
        *lines, totals = out.splitlines()
        return lines, json.loads(totals)

    return run


def test_a_user_gets_a_table_and_totals(tmp_path):
    code, out, err = run("minivit.profile", "--model", "sl_vit", cwd=tmp_path)
    assert (code, err) == (0, "")
    *lines, totals = out.splitlines()
    totals = json.loads(totals)
    assert list(totals) == KEYS
    assert totals["model"] == "sl_vit" and totals["img_size"] == 32
    assert totals["parameters"] == totals["state_entries"] == 2_747_248
    assert totals["weight_bytes"] == 4 * 2_747_248
    assert totals["flops"] == totals["ops"] == 190_093_440 and totals["bops"] == 0
    assert lines[0] == "sl_vit, one image of 32x32 pixels, 100 classes"
    cells = [line.split() for line in lines]
    assert ["head", "100", "19,300", "0.02", "0.0%", "0.00"] in cells
    assert ["total", "2,747,248", "190.09", "100.0%", f"{totals['activation_bytes'] / 1e6:.2f}"] in cells
    assert [c[0] for c in cells if c[0].startswith("blocks.")] == ["blocks.0-8"] + [
        f"blocks.0-8.{part}" for part in ("norm1", "attn", "norm2", "mlp")
    ]
    assert len({len(line) for line in lines[1:-2]}) == 1, "columns are not aligned"


def test_the_size_of_images_and_the_classes(profiled):
    lines, totals = profiled("--model", "vit", "--img-size", 64, "--num-classes", 200)
    assert "64x64 pixels, 200 classes" in lines[0]
    assert (totals["img_size"], totals["parameters"], totals["flops"]) == (64, 2_756_744, 189_522_816)
    lines, totals = profiled("--model", "deit_tiny_patch16_224", "--img-size", "96x160")
    assert "96x160 pixels" in lines[0] and totals["img_size"] == [96, 160]


def test_fixed_tables_are_state_but_no_parameters(profiled):
    _, totals = profiled("--model", "t2t")
    assert totals["state_entries"] - totals["parameters"] == 16_640


def test_depth_and_folding(profiled):
    tiny = ["--model", "vit", "--model-arg", "depth=3", "embed_dim=24", "num_heads=2"]
    names = {line.split()[0] for line in profiled(*tiny, "--depth", 1)[0]}
    assert {"patch_embed", "blocks.0-2", "norm", "head", "total"} < names
    names = {line.split()[0] for line in profiled(*tiny, "--depth", 1, "--unfold")[0]}
    assert {"blocks.0", "blocks.1", "blocks.2"} < names
    lines, totals = profiled(*tiny, "--depth", 3)
    assert any(line.startswith("blocks.0-2.attn.qkv ") for line in lines)
    assert totals == profiled(*tiny)[1]


def test_binary_networks_have_binary_operations_and_every_term_is_printed(profiled):
    lines, totals = profiled("--model", "binary_vit", "--depth", 1)
    assert (totals["parameters"], totals["state_entries"]) == (22_491_771, 22_618_037)
    assert (totals["binary_weights"], totals["bops"]) == (21_196_800, 3_822_206_976)
    assert totals["flops"] == 19_177_472 == totals["multiply_adds"] + totals["affine_multiplies"]
    assert totals["affine_multiplies"] == 9_031_680 and totals["ops"] == 78_899_456
    cells = [line.split() for line in lines]
    assert ["layer", "output", "parameters", "MFLOPs", "share", "MBOPs", "share", "activations", "MB"] in cells
    assert ["total", "22,491,771", "19.18", "100.0%", "3,822.21", "100.0%"] in [row[:-1] for row in cells]
    text = "\n".join(" ".join(row) for row in cells)
    assert "BOPs 3,822,206,976 =" in text
    assert "FLOPs 19,177,472 = 10,145,792 multiply-adds + 9,031,680 in affine layers" in text
    assert "OPs 78,899,456 = BOPs / 64 + FLOPs = 59,721,984 + 19,177,472" in text
    assert "parameters 22,491,771 = 21,196,800 binary weights + 1,294,971 others" in text


def test_a_checkpoint(profiled, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    trained = json.loads((workplace / "stdout").read_text().splitlines()[-1])
    lines, totals = profiled("runs/sl_vit-shapes10/best.npz")
    assert lines[0] == "sl_vit, one image of 32x32 pixels, 10 classes"
    assert totals["parameters"] == trained["parameters"]
    assert profiled("runs/sl_vit-shapes10/best.npz", "--img-size", 64)[1]["img_size"] == 64


def test_time(profiled):
    lines, totals = profiled("--model", "vit", "--model-arg", "depth=1", "embed_dim=24", "num_heads=2",
                             "--time", "--batch-size", 4)  # fmt: skip
    assert list(totals) == [*KEYS, "images_per_second", "batch_size", "threads"]
    assert totals["images_per_second"] > 0 and totals["batch_size"] == 4 and totals["threads"] >= 1
    assert "images/s, 4 at once" in lines[-1]


@pytest.mark.parametrize(
    "arguments, words, expected",
    [
        ("", ["--model", "checkpoint"], 2),
        ("a.npz --model vit", ["--model", "checkpoint"], 2),
        ("--model vitt", ["'vitt'", "did you mean 'vit'"], 2),
        ("--model vit --img-size 0", ["--img-size: must be a whole number of at least 1"], 2),
        ("--model vit --img-size 32x32x3", ["--img-size: must look like 224 or 192x256"], 2),
        ("--model vit --img-size big", ["--img-size: must be a whole number"], 2),
        ("--model deit_tiny_patch16_224 --img-size 100", ["100", "16"], 2),
        ("--model vit --model-arg depth", ["--model-arg: must look like depth=4"], 2),
        ("--model vit --model-arg deph=4", ["'deph'", "'depth'"], 2),
        ("--model vit --model-arg seed=3", ["seed is no keyword of a network"], 2),
        ("--model vit --img-size 32 --model-arg img_size=64", ["img_size has two values, 32 and 64"], 2),
        ("--model vit --model-arg depth=4 depth=5", ["depth has two values, 4 and 5"], 2),
        ("--model vit --depth 0", ["--depth: must be a whole number of at least 1"], 2),
        ("--model vit --img-size 100000000", ["img_size must be at most"], 2),
        ("absent.npz", ["no such checkpoint: absent.npz"], 1),
    ],
)
def test_it_refuses(call, monkeypatch, tmp_path, arguments, words, expected):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(profile, *arguments.split())
    assert_one_line(err, "minivit.profile: error: ", *words)
    assert (code, out) == (expected, "")


def test_the_same_value_twice_is_no_contradiction(profiled):
    arguments = ["--model", "vit", "--img-size", "32x48", "--model-arg", "img_size=[32, 48]", "depth=1"]
    assert profiled(*arguments)[1]["img_size"] == [32, 48]


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_weights_from_elsewhere_are_sent_to_convert(call, tmp_path, name):
    (tmp_path / name).write_bytes(b"no checkpoint")
    code, _, err = call(profile, tmp_path / name)
    assert_one_line(err, f"{name} is damaged or not a checkpoint of minivit", "(python -m minivit.convert makes one)")
    assert code == 1


def test_a_network_that_does_not_fit_into_memory(call, monkeypatch):
    def measure(model):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(cost, "measure", measure)
    code, out, err = call(profile, "--model", "vit")
    assert_one_line(err, "minivit.profile: error: this machine has not the memory to run vit", "9 TiB")
    assert (code, out) == (1, "")


def test_python_s_own_profiler_still_works(tmp_path):
    command = [sys.executable, "-m", "cProfile", "-m", "minivit.profile", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "python -m minivit.profile" in done.stdout and "function calls" in done.stdout
