"""``minivit.predict``: classes of image files, and what it says about files that are none."""

import json
import os

import numpy as np
import pytest
from command_line import assert_one_line, run

from minivit import Tensor, create_model, no_grad, predict
from minivit.models.packing import pack
from minivit.training import checkpoint

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
NAMES = ("ant", "bee", "cat", "dog", "eel", "fox")
ABOUT = {"class_names": NAMES, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}
SMALL = {"num_classes": 6, "img_size": 16, "patch_size": 4, "depth": 1}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with a network and three photographs."""
    monkeypatch.chdir(tmp_path)
    checkpoint.save("a.npz", create_model("binary_deit", seed=2, embed_dim=12, num_heads=2, **SMALL), **ABOUT)
    rng = np.random.default_rng(0)
    for name, shape in (("square.png", (16, 16, 3)), ("wide.png", (20, 33, 3)), ("grey.png", (40, 16))):
        Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(name)
    return tmp_path


def predicted(call, *arguments, code=0):
    """What the JSON line says: file -> [(class, probability)]."""
    found, out, err = call(predict, *arguments)
    assert found == code, err
    line = json.loads(out.splitlines()[-1])
    assert list(line) == ["model", "images", "failed"]
    return {image["file"]: [(top["class"], top["probability"]) for top in image["top"]] for image in line["images"]}


def softmax(path, name, mean=ABOUT["mean"], std=ABOUT["std"]):
    """Probabilities in float64, for an image of the network's size."""
    pixels = np.asarray(Image.open(name)).transpose(2, 0, 1) / 255
    x = (pixels - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    with no_grad():
        logits = checkpoint.load(path)(Tensor(x[None].astype(np.float32))).data[0].astype(np.float64)
    p = np.exp(logits - logits.max())
    return p / p.sum()


def test_a_user_gets_a_table_and_a_line(folder):
    code, out, err = run("minivit.predict", "a.npz", "square.png", "wide.png", cwd=folder)
    assert (code, err) == (0, "")
    *table, line = out.splitlines()
    line = json.loads(line)
    assert line["model"] == "binary_deit" and line["failed"] == []
    assert [image["file"] for image in line["images"]] == ["square.png", "wide.png"]
    assert [row.strip() for row in table if not row.startswith("  ")] == ["square.png", "wide.png"]
    assert len(table) == 2 * (1 + 5) and len({len(row) for row in table if row.startswith("  ")}) == 1
    first = line["images"][0]["top"][0]
    assert table[1].split() == [first["class"], f"{first['probability']:.2%}"]


def test_the_five_likeliest_classes(folder, call):
    expected = softmax("a.npz", "square.png")
    order = np.argsort(-expected)[:5]
    found = predicted(call, "a.npz", "square.png", "grey.png")["square.png"]
    assert [name for name, _ in found] == [NAMES[i] for i in order]
    np.testing.assert_allclose([p for _, p in found], expected[order], atol=1e-5)


def test_more_or_fewer_classes(folder, call):
    assert len(predicted(call, "a.npz", "wide.png", "--top", 1)["wide.png"]) == 1
    found = predicted(call, "a.npz", "wide.png", "--top", 100)["wide.png"]
    assert {name for name, _ in found} == set(NAMES)
    assert sum(p for _, p in found) == pytest.approx(1, abs=1e-5)


def test_a_packed_network_says_the_same(folder, call):
    checkpoint.save("a.packed", pack(checkpoint.load("a.npz")), **ABOUT)
    images = ["square.png", "wide.png", "grey.png"]
    assert predicted(call, "a.packed", *images) == predicted(call, "a.npz", *images)


def test_many_images_keep_their_order(folder, call, monkeypatch):
    alone = {name: predicted(call, "a.npz", name)[name] for name in ("wide.png", "grey.png", "square.png")}
    monkeypatch.setattr(predict, "BATCH_SIZE", 2)
    together = predicted(call, "a.npz", *alone)
    assert list(together) == list(alone)
    for name, found in together.items():
        assert [c for c, _ in found] == [c for c, _ in alone[name]]


def test_oblong_networks(folder, call):
    checkpoint.save("b.npz", create_model("vit", **SMALL | {"img_size": (8, 24)}), **ABOUT)
    assert len(predicted(call, "b.npz", "wide.png", "grey.png")) == 2


def test_a_network_that_knows_no_names_or_normalisation(folder, call):
    checkpoint.save("b.npz", checkpoint.load("a.npz"))
    code, out, err = call(predict, "b.npz", "square.png")
    assert_one_line(err, "minivit.predict: error: ", "does not say how images were normalised", "--mean 0.485")
    assert (code, out) == (2, "")
    given = ["--mean", 0.1, 0.2, 0.3, "--std", 1, 1, 1]
    found = predicted(call, "b.npz", "square.png", *given)["square.png"]
    expected = softmax("b.npz", "square.png", (0.1, 0.2, 0.3), (1, 1, 1))
    assert found[0][0] == f"class {expected.argmax()}" and found[0][1] == pytest.approx(expected.max(), abs=1e-5)
    assert predicted(call, "a.npz", "square.png", *given)["square.png"][0][1] == found[0][1]  # what is given counts


def test_files_that_are_no_images_have_a_line_each(folder, call):
    (folder / "text.png").write_text("no image")
    (folder / "cut.png").write_bytes((folder / "wide.png").read_bytes()[:500])
    files = ["text.png", "square.png", "absent.png", "cut.png", "."]
    code, out, err = call(predict, "a.npz", *files)
    line = json.loads(out.splitlines()[-1])
    assert code == 1
    assert [image["file"] for image in line["images"]] == ["square.png"]
    assert line["failed"] == ["text.png", "absent.png", "cut.png", "."]
    lines = err.splitlines()
    assert len(lines) == 4 and all(text.startswith("minivit.predict: error: ") for text in lines)
    assert all(name in text for name, text in zip(line["failed"], lines))
    code, out, err = call(predict, "a.npz", "absent.png")
    assert_one_line(err, "absent.png cannot be read (No such file or directory)")
    assert code == 1 and json.loads(out.splitlines()[-1])["images"] == []


@pytest.mark.skipif(os.name != "posix", reason="names are text there")
@pytest.mark.parametrize("encoding", ["utf-8:strict", "latin-1", "ascii:strict"])
def test_names_that_no_encoding_holds(encoding, folder, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    saved = checkpoint.read("a.npz")
    checkpoint.save("b.npz", saved.build(), **ABOUT | {"class_names": ("猫", "\udcfe", *NAMES[2:])})
    names = os.fsdecode(b"\xff.png"), "☃.png"
    for name in names:
        (folder / name).write_bytes((folder / "square.png").read_bytes())
    code, out, err = run("minivit.predict", "b.npz", *names, os.fsdecode(b"\xfe.png"), "--top", "6", cwd=folder)
    assert code == 1
    assert_one_line(err, "\\udcfe.png cannot be read")
    *table, line = out.splitlines()
    assert table[0] == "\\udcff.png" and any("\\udcfe" in row for row in table)
    assert [image["file"] for image in json.loads(line)["images"]] == list(names)


def test_control_characters_do_not_reach_the_terminal(folder, call):
    saved, name = checkpoint.read("a.npz"), "a\x1b[2J\nb.png"
    (folder / "square.png").rename(name)
    checkpoint.save("b.npz", saved.build(), **ABOUT | {"class_names": ("\x1b]0;owned\x07", "\r", *NAMES[2:])})
    code, out, err = call(predict, "b.npz", name, "\x1b.png", "--top", 6)
    assert_one_line(err, "\\x1b.png cannot be read")
    *table, line = out.splitlines()
    assert len(table) == 1 + 6 and table[0] == "a\\x1b[2J\\nb.png" and not any("\x1b" in row for row in table)
    assert len({len(row) for row in table[1:]}) == 1
    assert json.loads(line)["images"][0]["file"] == name and code == 1


def test_a_network_that_overflows(folder, call):
    model = checkpoint.load("a.npz")
    model.head.bias.data[0] = np.inf
    checkpoint.save("b.npz", model, **ABOUT)
    code, out, err = call(predict, "b.npz", "square.png")
    assert_one_line(err, "minivit.predict: error: ", "b.npz gives numbers that are not finite")
    assert (code, out) == (1, "")


@pytest.mark.parametrize(
    "arguments, words, expected",
    [
        ("a.npz", ["the following arguments are required: IMAGE"], 2),
        ("absent.npz square.png", ["no such checkpoint: absent.npz"], 1),
        ("square.png square.png", ["square.png is damaged or not a checkpoint"], 1),
        ("a.npz square.png --top 0", ["--top: must be a whole number of at least 1"], 2),
        ("a.npz square.png --std 1 0 1", ["--std: must be a number above 0"], 2),
        ("a.npz square.png --mean 1 2", ["--mean: expected 3 arguments"], 2),
        ("grey.npz square.png", ["grey.npz takes images of 1 channels; files have 3"], 2),
    ],
)
def test_it_refuses(folder, call, arguments, words, expected):
    checkpoint.save("grey.npz", create_model("vit", in_chans=1, **SMALL), mean=(0.5,), std=(0.5,))
    code, out, err = call(predict, *arguments.split())
    assert_one_line(err, "minivit.predict: error: ", *words)
    assert (code, out) == (expected, "")
