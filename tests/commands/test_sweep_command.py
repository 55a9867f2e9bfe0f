"""``minivit.sweep`` as a user calls it: real runs, and interruptions of all kinds."""

import contextlib
import json
import os
import signal
import time

import numpy as np
import pytest
from command_line import ROOT, assert_one_line, run, start

from minivit import sweep, train
from minivit.training import checkpoint
from minivit.training.results import read_results

STUDY = {
    "settings": {
        "data": "shapes10", "epochs": 8, "limit_train": 64, "limit_test": 32, "batch_size": 16, "drop_path": 0.1,
        "model_args": {"depth": 2, "embed_dim": 16, "num_heads": 2},
    },
    "runs": [{"name": "student", "model": "sl_vit", "teacher": "@teacher"}, {"name": "teacher", "model": "vit"}],
}  # fmt: skip


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A folder with study.json, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "study.json").write_text(json.dumps(STUDY))
    return tmp_path


def change(study, settings):
    """Write these settings into study.json."""
    content = STUDY | {"settings": STUDY["settings"] | settings}
    (study / "study.json").write_text(json.dumps(content))


def rows(outcome):
    """The rows of a run without its times."""
    timed = ("seconds", "images_per_second")
    return [{key: value for key, value in row.items() if key not in timed} for row in outcome.rows]


def kill(process, out, with_runs):
    process.kill()
    if with_runs:
        for file in out.glob("*/.minivit.lock"):
            with contextlib.suppress(ValueError, ProcessLookupError):  # it was just about to begin or to end
                os.kill(int(file.read_text()), signal.SIGKILL)
    process.communicate()


def test_interruptions_of_all_kinds_change_nothing(study):
    rng = np.random.default_rng(0)
    words = ["minivit.sweep", "study.json", "--threads", "1", "--out"]
    whole = start(*words, "whole", cwd=study)
    for number, how in enumerate(("kill", "interrupt", "kill all")):
        process = start(*words, "cut", cwd=study)
        assert "2 runs, files in cut" in process.stderr.readline()
        if number > 0:
            process.stderr.readline()  # the first run has begun, or was left behind
        time.sleep(rng.uniform(0.1, 1.0))
        if how == "interrupt":
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
            assert process.returncode == 130, err
            assert err.endswith("of 2 runs finished; the same command goes on\n") and "Traceback" not in err
        else:
            kill(process, study / "cut", with_runs=how == "kill all")

    code, out, err = run(*words, "cut", cwd=study)
    assert code == 0, err
    table, result = out.splitlines()[:-1], json.loads(out.splitlines()[-1])
    assert table[0].split()[:2] == ["model", "runs"] and len(table) == 4
    assert result == {"runs": 2, "finished": 2, "failed": [], "results": "cut/results.jsonl"}
    _, err = whole.communicate(timeout=120)
    assert whole.returncode == 0, err
    cut, whole = (read_results(study / name / "results.jsonl") for name in ("cut", "whole"))
    assert [(one.name, one.status) for one in cut] == [("student", "finished"), ("teacher", "finished")]
    for one, other in zip(cut, whole, strict=True):
        assert rows(one) == rows(other)
        ends = [checkpoint.read(study / name / one.name / "last.npz").weights for name in ("cut", "whole")]
        for name, array in ends[0].items():
            np.testing.assert_array_equal(array, ends[1][name], err_msg=name)
    files = ["best.npz", "config.json", "curves.png", "last.npz", "log.jsonl", "output.txt"]
    if not (study / "whole" / "teacher" / "curves.png").exists():
        files.remove("curves.png")  # Matplotlib is not there
    assert sorted(path.name for path in (study / "cut" / "teacher").iterdir()) == files


def test_a_policy_by_name_is_resumed(study, call):
    content = {"settings": STUDY["settings"] | {"auto_augment": "none", "epochs": 1}, "grid": {"seed": [0]}}
    (study / "study.json").write_text(json.dumps(content))
    options = ["--data", "shapes10", "--limit-train", 64, "--limit-test", 32, "--batch-size", 16, "--epochs", 1]
    options += ["--drop-path", 0.1, "--model-arg", "depth=2", "embed_dim=16", "num_heads=2"]
    code, _, err = call(train, *options, "--auto-augment", "none", "--out", "runs/study/seed=0", "--time-budget", 1e-9)
    assert code == 0 and "stopped by time budget" in err
    code, out, err = call(sweep, "study.json")
    assert (code, json.loads(out.splitlines()[-1])["finished"]) == (0, 1), err
    assert "[1/1] seed=0: resumed" in err


def test_failed_runs_fail_the_sweep(study, call):
    change(study, {"epochs": 1, "lr": 1e30, "warmup_epochs": 0})
    code, out, err = call(sweep, "study.json", "--jobs", 2)
    assert code == 1
    assert json.loads(out) == {
        "runs": 2, "finished": 0, "failed": ["student", "teacher"], "results": "runs/study/results.jsonl"
    }  # fmt: skip
    assert "[2/2] teacher: failed: the loss became nan at step 2" in err
    assert "[1/2] student: failed: it needs teacher, which failed" in err
    assert err.splitlines()[-1] == "2 of 2 runs failed: student, teacher; the same command tries them again"


def test_a_dry_run_lists_the_commands_and_writes_nothing(study, call):
    change(study, {"optimizer": "sgd", "lr": 1e-3, "clip": 1, "flip": False})
    code, out, err = call(sweep, "study.json", "--dry-run", "--jobs", 2, "--threads", 1, "--data-dir", "d", "--offline")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    common = (
        "--data=shapes10 --epochs=8 --limit-train=64 --limit-test=32 --batch-size=16 --drop-path=0.1 "
        "--optimizer=sgd --lr=0.001 --set clip=1 --set flip=false"
    )
    ends = "--model-arg depth=2 embed_dim=16 num_heads=2 --threads=1 --data-dir=d --offline"
    assert lines == [
        "student (new, after teacher)",
        f"  python -m minivit.train --out=runs/study/student {common} --model=sl_vit "
        f"--teacher=runs/study/teacher/best.npz {ends}",
        "teacher (new)",
        f"  python -m minivit.train --out=runs/study/teacher {common} --model=vit {ends}",
        '{"runs": 2, "finished": 0, "to_resume": 0, "new": 2}',
    ]
    assert [path.name for path in study.iterdir()] == ["study.json"]


def test_what_a_foreign_file_says_does_not_reach_the_terminal_as_it_is(study, call):
    change(study, {"data": "folder:\x1b[2J"})
    code, out, err = call(sweep, "study.json", "--dry-run")
    assert code == 0 and "'--data=folder:\\x1b[2J'" in out
    code, out, err = call(sweep, "study.json", "--offline")
    assert code == 1 and "no folder \\x1b[2J" in err
    assert all(line.isprintable() for line in (out + err).split("\n"))


@pytest.mark.parametrize(
    "settings, arguments, words, expected",
    [
        ({}, "absent.json", ["cannot read absent.json"], 1),
        ({"sed": 1}, "study.json", ["study.json: 'sed' is not a setting of a run, in [settings]; did you mean"], 2),
        ({"epochs": 0}, "study.json", ["run student: argument --epochs: must be a whole number of at least 1"], 2),
        ({"label_smoothing": 1}, "study.json", ["run student: argument --label-smoothing: must be a number from 0"], 2),
        ({"model_args": {"dpth": 1}}, "study.json", ["run student: ", "no keyword 'dpth'", "'depth'"], 2),
        ({"data": True}, "study.json", ["run student: among the settings, data: not of the right kind"], 2),
        ({"data": "shape10"}, "study.json", ["run student: no data set 'shape10'; did you mean 'shapes10'"], 2),
        ({}, "study.json --jobs 0", ["--jobs: must be a whole number of at least 1"], 2),
        ({}, "", ["the following arguments are required: FILE"], 2),
    ],
)  # fmt: skip
def test_it_refuses(study, call, settings, arguments, words, expected):
    change(study, settings)
    code, out, err = call(sweep, *arguments.split())
    assert_one_line(err, "minivit.sweep: error: ", *words)
    assert (code, out) == (expected, "")
    assert [path.name for path in study.iterdir()] == ["study.json"]
