"""``minivit.attention``: pictures of where networks look, and what it refuses."""

import json

import numpy as np
import pytest
from command_line import assert_one_line, run

from minivit import attention, create_model
from minivit.analysis import attention_plots
from minivit.analysis.attention_maps import attention_maps, rollout_maps
from minivit.data import load_dataset
from minivit.data.augment import normalize
from minivit.models.packing import pack
from minivit.training import checkpoint

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
pytest.importorskip("matplotlib")

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
ABOUT = {"mean": MEAN, "std": STD}
SMALL = {"num_classes": 6, "img_size": 16, "patch_size": 4, "embed_dim": 12, "num_heads": 2}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with two networks and two photographs."""
    monkeypatch.chdir(tmp_path)
    checkpoint.save("vit.npz", create_model("vit", depth=3, seed=1, **SMALL), **ABOUT)
    pit = create_model("pit", img_size=32, base_dims=(6, 6), depth=(1, 2), heads=(2, 4), num_classes=6, seed=2)
    checkpoint.save("pit.npz", pit, data="shapes10", **ABOUT)
    rng = np.random.default_rng(0)
    for name, shape in (("a.png", (16, 16, 3)), ("b.png", (20, 33, 3))):
        Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(name)
    return tmp_path


@pytest.fixture
def drawn(call, monkeypatch):
    """``drawn(*arguments)`` -> (JSON line, the rows and titles that were drawn)."""

    def look(*arguments):
        seen = []
        monkeypatch.setattr(attention_plots, "save_attention", lambda path, *what: seen.append(what))
        code, out, err = call(attention, *arguments, "-o", "out.png")
        assert (code, err) == (0, "")
        return json.loads(out.splitlines()[-1]), *seen[0]

    return look


def expected(path, image, how=attention_maps, **options):
    """Maps (heads, rows, columns) of a photograph that has the network's size."""
    pixels = np.asarray(Image.open(image)).transpose(2, 0, 1)
    return how(checkpoint.load(path), normalize(pixels[None], MEAN, STD), **options)[1][0]


def test_a_user_gets_a_picture_and_a_line(folder):
    code, out, err = run("minivit.attention", "vit.npz", "-o", "out.png", "--layer", "0", "a.png", "b.png", cwd=folder)
    assert (code, err) == (0, "")
    text, line = out.splitlines()
    assert text == "vit: layer 0, mean of 2 heads, 4 x 4 patches"
    assert json.loads(line) == {
        "file": "out.png", "images": ["a.png", "b.png"], "checkpoints": ["vit.npz"], "models": ["vit"],
        "layers": [[0]], "heads": ["mean"], "grid": [[4, 4]],
    }  # fmt: skip
    with Image.open("out.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 300


@pytest.mark.parametrize("layer", [0, -1])
def test_the_mean_of_the_heads_of_a_layer(folder, drawn, layer):
    line, rows, titles = drawn("vit.npz", "a.png", "b.png", "--layer", layer)
    assert line["layers"] == [[layer % 3]] and titles == [f"vit\nlayer {layer % 3}, mean of 2 heads"]
    assert [row.label for row in rows] == ["a.png", "b.png"]
    np.testing.assert_array_equal(rows[0].image, np.asarray(Image.open("a.png")).transpose(2, 0, 1))
    np.testing.assert_allclose(rows[0].maps, [expected("vit.npz", "a.png", layer=layer).mean(axis=0)], rtol=1e-5)


def test_one_head(folder, drawn):
    line, rows, titles = drawn("vit.npz", "a.png", "--head", 1)
    assert line["heads"] == [[1]] and titles == ["vit\nlayer 2, head 1"]
    np.testing.assert_allclose(rows[0].maps, [expected("vit.npz", "a.png")[1]], rtol=1e-5)


def test_all_heads_in_a_row_for_each_network(folder, drawn):
    line, rows, titles = drawn("vit.npz", "pit.npz", "a.png", "b.png", "--head", "all")
    assert line["heads"] == [[0, 1], [0, 1, 2, 3]] and line["layers"] == [[2], [2]]
    assert titles == ["head 0", "head 1", "head 2", "head 3"]
    assert [row.label for row in rows] == [
        "a.png\nvit\nlayer 2", "a.png\npit\nlayer 2", "b.png\nvit\nlayer 2", "b.png\npit\nlayer 2"
    ]  # fmt: skip
    assert [len(row.maps) for row in rows] == [2, 4, 2, 4]
    assert [row.image.shape[1] for row in rows] == [16, 32, 16, 32]  # as each network sees it
    np.testing.assert_allclose(rows[0].maps, expected("vit.npz", "a.png"), rtol=1e-5)


def test_rollout_side_by_side(folder, drawn):
    line, rows, titles = drawn("vit.npz", "pit.npz", "a.png", "--rollout")
    assert line["layers"] == [[0, 1, 2], [1, 2]] and line["grid"] == [[4, 4], [8, 8]]
    assert titles == ["vit\nrollout of layers 0 to 2", "pit\nrollout of layers 1 to 2"]
    assert len(rows) == 1 and [m.shape for m in rows[0].maps] == [(4, 4), (8, 8)]
    np.testing.assert_allclose(rows[0].maps[0], expected("vit.npz", "a.png", rollout_maps)[0], rtol=1e-5)


def test_networks_of_one_kind_have_the_names_of_their_files(folder, drawn):
    (folder / "run").mkdir()
    (folder / "run" / "vit.npz").write_bytes((folder / "vit.npz").read_bytes())
    _, rows, titles = drawn("vit.npz", folder / "run" / "vit.npz", "a.png")
    assert [title.splitlines()[0] for title in titles] == ["vit.npz", "run/vit.npz"]
    np.testing.assert_array_equal(*rows[0].maps)


def test_images_of_a_data_set(folder, drawn):
    line, rows, _ = drawn("pit.npz", "--index", 5, 2)  # of the data that it was trained on
    dataset = load_dataset("shapes10", limit_train=1)
    labels = [dataset.class_names[i] for i in dataset.test.labels[[5, 2]]]
    assert line["images"] == labels == [row.label for row in rows]
    np.testing.assert_array_equal([row.image for row in rows], dataset.test.images[[5, 2]])


def test_without_normalisation_it_must_be_given(folder, call, drawn):
    checkpoint.save("b.npz", checkpoint.load("vit.npz"))
    code, out, err = call(attention, "b.npz", "a.png", "-o", "out.png")
    assert_one_line(err, "minivit.attention: error: ", "does not say how images were normalised", "--mean 0.485")
    assert (code, out) == (2, "")
    _, rows, _ = drawn("b.npz", "a.png", "--mean", *MEAN, "--std", *STD)
    np.testing.assert_allclose(rows[0].maps, [expected("vit.npz", "a.png").mean(axis=0)], rtol=1e-5)


def test_a_network_that_overflows(folder, call):
    model = checkpoint.load("vit.npz")
    model.norm.weight.data[:] = model.blocks[2].norm1.weight.data[:] = 3e38
    checkpoint.save("b.npz", model, **ABOUT)
    code, out, err = call(attention, "b.npz", "a.png", "-o", "out.png")
    assert_one_line(err, "minivit.attention: error: ", "b.npz gives numbers that are not finite")
    assert (code, out) == (1, "")


@pytest.mark.parametrize(
    "arguments, words, expected",
    [
        ("-o out.png", ["required: CKPT (--help"], 2),
        ("vit.npz a.png", ["required", "-o"], 2),
        ("vit.npz a.png -o out.jpg", ["ends in .png, not out.jpg"], 2),
        ("vit.npz a.png -o a.png", ["a.png is one of the images"], 2),
        ("vit.npz a.png -o no/out.png", ["cannot write no/out.png"], 1),
        ("absent.npz a.png -o out.png", ["no such checkpoint: absent.npz"], 1),
        ("vit.npz absent.npz a.png -o out.png", ["no such checkpoint: absent.npz"], 1),
        ("vit.npz absent.png -o out.png", ["absent.png cannot be read"], 1),
        ("vit.npz text.png -o out.png", ["text.png is not an image"], 1),
        ("vit.npz a.png --index 3 -o out.png", ["not both"], 2),
        ("vit.npz a.png --layer 3 -o out.png", ["vit.npz: there is no layer 3", "0 to 2"], 2),
        ("vit.npz a.png --layer -4 -o out.png", ["vit.npz: there is no layer -4", "0 to 2"], 2),
        ("vit.npz a.png --head 2 -o out.png", ["vit.npz has no head 2 in layer 2"], 2),
        ("vit.npz a.png --head x -o out.png", ["--head: must be a whole number"], 2),
        ("vit.npz a.png --rollout --head 1 -o out.png", ["leave --head out"], 2),
        ("vit.npz a.png --rollout --layer 1 -o out.png", ["--rollout", "--layer"], 2),
        ("pit.npz --index 3 2000 -o out.png", ["shapes10 has no test image 2000: there are 2000"], 2),
        ("swin.npz a.png -o out.png", ["swin.npz: Swin attends within windows"], 2),
        ("grey.npz a.png -o out.png", ["grey.npz takes images of 1 channels"], 2),
        ("bits.packed a.png -o out.png", ["bits.packed: a packed network keeps no attention weights"], 2),
    ],
)
def test_it_refuses(folder, call, arguments, words, expected):
    (folder / "text.png").write_text("no image")
    if "grey" in arguments:
        checkpoint.save("grey.npz", create_model("vit", in_chans=1, **SMALL), mean=(0.5,), std=(0.5,))
    if "swin" in arguments:
        checkpoint.save("swin.npz", create_model("swin", embed_dim=8, depths=(1, 1), num_heads=(1, 2)), **ABOUT)
    if "packed" in arguments:
        checkpoint.save("bits.packed", pack(create_model("binary_deit_cls", depth=1, **SMALL)), **ABOUT)
    code, out, err = call(attention, *arguments.split())
    assert_one_line(err, "minivit.attention: error: ", *words)
    assert (code, out) == (expected, "")
    assert not (folder / "out.png").exists()
