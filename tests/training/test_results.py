"""Reading what runs have left behind."""

import json

import pytest
from sweep_parts import row

from minivit.errors import MinivitError
from minivit.training.config import resolve
from minivit.training.results import Outcome, collect, read_config, read_results, read_run, write_results
from minivit.training.run_folder import RunFolder

CONFIG = resolve({"data": "blobs", "model": "vit", "epochs": 2, "recipe": "quick"}).as_dict()


def lines(*rows):
    """A log with these rows."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def make(tmp_path):
    """``make(name, epochs)``: the folder of a run that has finished so many epochs."""

    def make(name, epochs, **changes):
        folder = RunFolder(tmp_path / name)
        folder.path.mkdir(parents=True)
        config = CONFIG | changes
        folder.write_config(config, {"threads": 1})
        folder.write_log([row(epoch, config["seed"]) for epoch in range(1, epochs + 1)])
        return folder

    return make


@pytest.mark.parametrize("epochs, status", [(0, "unfinished"), (1, "unfinished"), (2, "finished")])
def test_a_run_is_finished_when_its_epochs_are(make, epochs, status):
    folder = make("run", epochs)
    assert read_run(folder.path) == Outcome(str(folder.path), status, CONFIG, [row(1), row(2)][:epochs])
    assert read_run(folder.path, "name").name == "name"


def test_a_run_without_a_log_has_no_epochs(make):
    folder = make("run", 0)
    folder.log.unlink()
    assert read_run(folder.path).rows == []


@pytest.mark.parametrize("bytes_cut", [1, 9, 10_000])
def test_a_line_that_a_kill_has_cut_counts_for_nothing(make, bytes_cut):
    folder = make("run", 1)
    whole = folder.log.read_bytes()
    folder.log.write_bytes(whole + whole[:-bytes_cut])
    assert read_run(folder.path) == Outcome(str(folder.path), "unfinished", CONFIG, [row(1)])


def test_settings_that_an_earlier_version_did_not_know(make):
    folder = make("run", 2)
    content = json.loads(folder.config.read_text())
    del content["config"]["optimizer"], content["config"]["teacher"]
    folder.config.write_text(json.dumps(content))
    assert read_config(folder.path) == CONFIG


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("config.json", None, "cannot read .*config.json: No such file"),
        ("config.json", b"{", "config.json is damaged: no JSON"),
        ("config.json", b"[]", "config.json: no JSON object for the settings"),
        ("config.json", b'{"config": {"model": "vit"}}', "config.json: among the settings, .* missing"),
        ("config.json", b"\xff", "config.json is damaged: it is no text"),
        ("log.jsonl", b"{\n", "log.jsonl, line 1 is damaged: no JSON"),
        ("log.jsonl", b"3\n", "log.jsonl is damaged: the row of epoch 1"),
        ("log.jsonl", lines(row(1) | {"test_top1": "x"}), "log.jsonl is damaged: the row of epoch 1"),
        ("log.jsonl", lines(row(2)), "log.jsonl is damaged: the row of epoch 1 is that of epoch 2"),
        ("log.jsonl", lines(row(1), row(2), row(3)), "damaged: 3 epochs, .* the run has 2"),
    ],
)  # fmt: skip
def test_damage_is_one_line(make, name, content, words):
    folder = make("run", 2)
    if content is None:
        (folder.path / name).unlink()
    else:
        (folder.path / name).write_bytes(content)
    with pytest.raises(MinivitError, match=words) as error:
        read_run(folder.path)
    assert "\n" not in str(error.value)


def test_results_are_read_as_written(tmp_path):
    outcomes = [
        Outcome("a", "finished", CONFIG, [row(1), row(2)]),
        Outcome("b", "failed", CONFIG, [row(1)], "the loss became nan"),
        Outcome("c", "waiting"),
    ]
    write_results(tmp_path / "results.jsonl", outcomes)
    assert read_results(tmp_path / "results.jsonl") == outcomes


@pytest.mark.parametrize(
    "line, words",
    [
        ("{", "line 1 is damaged: no JSON"),
        ("3", "no JSON object for .*line 1"),
        ('{"name": "a"}', "line 1, status: missing"),
        ('{"name": "a", "status": "lost"}', "line 1: no status of a run: 'lost'"),
        ('{"name": "a", "status": "finished"}', "line 1 is damaged: 0 epochs do not fit"),
        ('{"name": "a", "status": "waiting", "config": {"model": "vit"}}', "line 1: among the settings, .*missing"),
        (json.dumps({"name": "a", "status": "going", "rows": [row(1)]}), "line 1 is damaged: 1 epochs do not fit"),
        (json.dumps({"name": "a", "status": "going", "rows": [4]}), "line 1 is damaged: the row of epoch 1"),
    ],
)
def test_damaged_results_are_one_line(tmp_path, line, words):
    (tmp_path / "results.jsonl").write_text(line + "\n")
    with pytest.raises(MinivitError, match=words) as error:
        read_results(tmp_path / "results.jsonl")
    assert "\n" not in str(error.value)


def test_collecting_folders_and_files(make, tmp_path):
    for seed in (0, 1):
        make(f"study/seed={seed}", 2, seed=seed)
    make("study/seed=2", 1, seed=2)
    make("lonely", 2, seed=3)
    study = tmp_path / "study"
    a, b = (read_run(study / f"seed={seed}", f"seed={seed}") for seed in (0, 1))
    going = Outcome("seed=2", "going", CONFIG | {"seed": 2})
    write_results(study / "results.jsonl", [a, b, going, Outcome("x", "waiting")])

    found = collect([study, tmp_path / "lonely"])
    assert [(outcome.name, outcome.status, len(outcome.rows)) for outcome in found] == [
        (f"{study}/seed=0", "finished", 2),
        (f"{study}/seed=1", "finished", 2),
        (f"{study}/seed=2", "unfinished", 1),  # it has come further since
        (f"{study}/x", "waiting", 0),
        (str(tmp_path / "lonely"), "finished", 2),
    ]
    assert [outcome.name for outcome in collect([study / "results.jsonl"])] == ["seed=0", "seed=1", "seed=2", "x"]
    (study / "results.jsonl").unlink()
    assert [outcome.name for outcome in collect([study])] == [f"{study}/seed={seed}" for seed in (0, 1, 2)]


def test_a_run_counts_once(make, tmp_path):
    a, b = make("a", 2), make("b", 2, seed=1)
    twice = collect([a.path, b.path, a.path, tmp_path])
    assert [outcome.name for outcome in twice] == [str(a.path), str(b.path)]


def test_a_damaged_run_among_several_is_passed_over(make, tmp_path):
    make("study/a", 2)
    make("study/b", 2, seed=1).log.write_text("{\n")
    study, notes = tmp_path / "study", []
    assert [outcome.name for outcome in collect([study], notes.append)] == [f"{study}/a"]
    assert notes == [f"note: passing over a run: {study}/b/log.jsonl, line 1 is damaged: no JSON"]

    going = Outcome("b", "going", CONFIG | {"seed": 1}, [row(1)])
    write_results(study / "results.jsonl", [read_run(study / "a", "a"), going])
    assert [len(outcome.rows) for outcome in collect([study], notes.append)] == [2, 1]
    assert notes[1:] == [f"note: {study}/b/log.jsonl, line 1 is damaged: no JSON"]
    (study / "results.jsonl").unlink()
    (study / "a" / "log.jsonl").write_text("[\n")
    with pytest.raises(MinivitError, match="study/a/log.jsonl, line 1 is damaged"):
        collect([study], notes.append)
    with pytest.raises(MinivitError, match="study/b/log.jsonl, line 1 is damaged"):
        collect([study / "b"], notes.append)


def test_there_must_be_runs(tmp_path):
    with pytest.raises(MinivitError, match="no runs in .*: no config.json, no results.jsonl"):
        collect([tmp_path])
    with pytest.raises(MinivitError, match="cannot read .*absent: No such file"):
        collect([tmp_path / "absent"])
