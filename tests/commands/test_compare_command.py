"""``minivit.compare`` as a user calls it."""

import json

import pytest
from command_line import assert_one_line

from minivit import compare
from minivit.training.config import resolve
from minivit.training.results import Outcome, write_results


def outcome(model, seed, accuracies, status="finished", epochs=2, **settings):
    config = resolve({"model": model, "seed": seed, "epochs": epochs, "recipe": "quick"} | settings).as_dict()
    rows = [
        {"epoch": i, "train_loss": 2.0 / i, "test_loss": 1.5, "test_top1": top1, "test_top5": 90.0, "lr": 1e-3,
         "images_per_second": 100.0, "seconds": 30.0}
        for i, top1 in enumerate(accuracies, 1)
    ]  # fmt: skip
    return Outcome(f"{model}-{seed}", status, config, rows)


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcomes = [
        outcome("vit", 0, [30.0, 29.0]),
        outcome("vit", 1, [20.0, 31.0]),
        outcome("sl_vit", 0, [40.0, 50.0]),
        outcome("sl_vit", 1, [41.0], "failed"),
        Outcome("swin-0", "waiting"),
    ]
    outcomes[3].error = "the loss became nan"
    write_results(tmp_path / "results.jsonl", outcomes)
    return "results.jsonl"


def test_table_and_result(results, call):
    code, out, err = call(compare, results)
    assert (code, err) == (0, "")
    *lines, last = out.splitlines()
    assert [" ".join(line.split()) for line in lines if not line.startswith("-")] == [
        "model runs final top-1 % best top-1 % train loss epochs minutes",
        "sl_vit 1 50.00 50.00 1.0000 2 1.0",
        "vit 2 30.00 ± 12.71 30.50 ± 6.35 1.0000 ± 0.0000 2 1.0",
        "failed: sl_vit-1, 1 of 2 epochs, 41.00 %: the loss became nan",
        "waiting: swin-0",
    ]
    result = json.loads(last)
    assert (result["runs"], result["finished"], result["unfinished"]) == (5, 3, ["sl_vit-1", "swin-0"])
    sl_vit, vit = result["groups"]
    assert vit == {
        "settings": {"model": "vit"}, "n": 2, "runs": ["vit-0", "vit-1"], "seeds": [0, 1], "unfinished": [],
        "epochs": [2],
        "final_top1": {"mean": 30.0, "half_width": 12.7062}, "best_top1": {"mean": 30.5, "half_width": 6.3531},
        "ema_top1": None, "train_loss": {"mean": 1.0, "half_width": 0.0}, "seconds": {"mean": 60.0, "half_width": 0.0},
    }  # fmt: skip
    assert sl_vit["unfinished"] == ["sl_vit-1"] and sl_vit["final_top1"] == {"mean": 50.0, "half_width": None}


def test_a_run_folder_and_a_picture(workplace, monkeypatch, call):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(workplace)
    code, out, err = call(compare, "runs/sl_vit-shapes10", "--plot", "compared.png")
    assert (code, err) == (0, "")
    result = json.loads(out.splitlines()[-1])
    trained = json.loads((workplace / "stdout").read_text().splitlines()[-1])
    assert result["groups"][0]["best_top1"]["mean"] == trained["test_top1"]
    assert result["plot"] == "compared.png" and (workplace / "compared.png").read_bytes().startswith(b"\x89PNG")


def test_what_a_foreign_file_says_does_not_reach_the_terminal_as_it_is(results, tmp_path, call):
    evil = "\x1b[2J\x9b"
    outcomes = [outcome("vit", 0, [1.0, 2.0], model_args={"depth": 2}), outcome("vit", 0, [1.0], "failed")]
    outcomes[0].config["model_args"][evil] = evil
    outcomes[1].name, outcomes[1].error = evil, evil
    write_results(tmp_path / results, outcomes * 2)
    code, out, err = call(compare, results, "--by", "model")
    assert code == 0 and "\\x1b[2J" in out
    assert all(line.isprintable() for line in (out + err).split("\n"))


def test_pooling_is_said(results, call):
    code, out, err = call(compare, results, "--by", "data")
    assert (code, err) == (0, "note: groups hold runs that differ in model\n")
    assert json.loads(out.splitlines()[-1])["groups"][0]["n"] == 3


@pytest.mark.parametrize(
    "content, arguments, words, expected",
    [
        (None, "absent", ["cannot read absent: No such file"], 1),
        (None, ".", ["no runs in .: no config.json"], 1),
        ("{\n", "results.jsonl", ["results.jsonl, line 1 is damaged: no JSON"], 1),
        ("", "results.jsonl", ["results.jsonl is damaged: it holds no runs"], 1),
        ('{"name": "a", "status": "waiting"}', "results.jsonl --plot a.png", ["no run has finished an epoch"], 1),
        ("good", "results.jsonl --by modle", ["no run has a setting 'modle'; did you mean 'model'"], 2),
        ("good", "results.jsonl --plot absent/a.png", ["cannot write absent/a.png: No such file"], 1),
        (None, "", ["the following arguments are required: RUN"], 2),
    ],
)
def test_it_refuses(tmp_path, monkeypatch, call, content, arguments, words, expected):
    monkeypatch.chdir(tmp_path)
    if content == "good":
        write_results(tmp_path / "results.jsonl", [outcome("vit", 0, [1.0, 2.0])])
    elif content is not None:
        (tmp_path / "results.jsonl").write_text(content)
    if "absent/a.png" in arguments:
        pytest.importorskip("matplotlib")
    code, _, err = call(compare, *arguments.split())
    assert_one_line(err, "minivit.compare: error: ", *words)
    assert code == expected
