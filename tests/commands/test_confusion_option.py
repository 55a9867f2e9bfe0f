"""``minivit.evaluate --confusion``."""

import json
import sys

import numpy as np
import pytest
from command_line import assert_one_line

from minivit import evaluate
from minivit.data import DataLoader, load_dataset
from minivit.tensor import Tensor, no_grad
from minivit.training import checkpoint

CKPT = "runs/sl_vit-shapes10/best.npz"


def test_a_picture_and_the_pairs(workplace, tmp_path, call, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(workplace)
    code, out, err = call(evaluate, CKPT, "--limit-test", 32, "--confusion", tmp_path / "a.png")
    assert (code, err) == (0, "")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    first, head, rule, *table, last = out.splitlines()
    result = json.loads(last)
    assert result["confusion"] == str(tmp_path / "a.png")

    dataset = load_dataset("shapes10", limit_train=1, limit_test=32)
    images, labels = next(DataLoader(dataset.test, 32, mean=dataset.mean, std=dataset.std).epoch(0))
    with no_grad():
        guesses = checkpoint.load(CKPT)(Tensor(images)).data.argmax(axis=1)
    wrong = [(dataset.class_names[i], dataset.class_names[j]) for i, j in zip(labels, guesses) if i != j]
    assert round(100 * (1 - len(wrong) / 32), 2) == result["top1"]
    counts = [wrong.count((a, b)) for a, b, _ in result["confused"]]
    assert counts == [n for _, _, n in result["confused"]] == sorted(counts, reverse=True)
    assert len(counts) == min(10, len(set(wrong)))
    assert head.split() == ["class", "taken", "for", "images"] and set(rule) == {"-"}
    assert [line.split() for line in table] == [[a, b, str(n)] for a, b, n in result["confused"]]


def test_a_network_that_always_says_the_same(workplace, tmp_path, call, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(workplace)
    model = checkpoint.load(CKPT)
    model.head.weight.data[:] = 0
    model.head.bias.data[:] = np.arange(10) == 4
    checkpoint.save(tmp_path / "a.npz", model, data="shapes10")
    code, out, _ = call(evaluate, tmp_path / "a.npz", "--limit-test", 400, "--confusion", tmp_path / "a.png")
    pairs = json.loads(out.splitlines()[-1])["confused"]
    answer = load_dataset("shapes10", limit_train=1, limit_test=1).class_names[4]
    assert code == 0 and len(pairs) == 9 and {taken_for for _, taken_for, _ in pairs} == {answer}


def test_without_matplotlib_it_stops_before_the_work(workplace, tmp_path, call, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, out, err = call(evaluate, "absent.npz", "--confusion", tmp_path / "a.png")
    assert_one_line(err, 'minivit.evaluate: error: plots need Matplotlib: pip install "minivit[plots]"')
    assert (code, out) == (1, "")


@pytest.mark.parametrize(
    "path, words", [("absent/a.png", "No such file"), ("file/a.png", "Not a directory"), ("a.png", "it is a folder")]
)
def test_a_picture_that_cannot_be_written_stops_it_before_the_work(tmp_path, call, monkeypatch, path, words):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "a.png").mkdir()
    code, out, err = call(evaluate, "absent.npz", "--confusion", path)
    assert_one_line(err, f"minivit.evaluate: error: cannot write {path}: {words}")
    assert (code, out) == (1, "")


def test_no_other_file_is_drawn_over(workplace, call, monkeypatch):
    monkeypatch.chdir(workplace)
    path = workplace / "runs/sl_vit-shapes10/best.npz"
    before = path.read_bytes()
    code, _, err = call(evaluate, path, "--confusion", path)
    assert code == 2 and "name a file that ends in .png" in err
    assert path.read_bytes() == before
