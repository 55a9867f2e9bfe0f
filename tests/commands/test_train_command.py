"""``minivit.train`` and its companions as a user calls them: in processes of their own."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from command_line import ROOT, TINY, assert_one_line, run, start

from minivit import evaluate, train
from minivit.training import checkpoint


def way_on():
    """How a command begins that resumes a run."""
    return f"{train._python()} -m minivit.train --resume"


class TestTrain:
    def test_the_last_line_is_the_result(self, workplace):
        result = json.loads((workplace / "stdout").read_text().splitlines()[-1])
        assert set(result) == {
            "model", "data", "parameters", "epochs", "test_top1", "test_top5", "seconds",
            "images_per_second", "checkpoint",
        }  # fmt: skip
        assert (result["model"], result["data"], result["epochs"]) == ("sl_vit", "shapes10", 2)
        assert result["checkpoint"] == "runs/sl_vit-shapes10/best.npz"
        model = checkpoint.load(workplace / result["checkpoint"])
        assert result["parameters"] == model.num_parameters()
        rows = [
            json.loads(line)
            for line in (workplace / "runs/sl_vit-shapes10/log.jsonl").read_text().splitlines()
        ]
        assert result["test_top1"] == max(row["test_top1"] for row in rows)
        assert set(rows[0]) >= {
            "epoch", "train_loss", "test_top1", "test_top5", "lr", "images_per_second", "seconds",
        }  # fmt: skip

    def test_no_progress_bar_without_a_terminal(self, workplace):
        assert (workplace / "stderr").read_text() == ""

    def test_threads_are_recorded(self, workplace):
        environment = json.loads((workplace / "runs/sl_vit-shapes10/config.json").read_text())["environment"]
        assert environment["threads"] == 1
        assert {"python", "numpy", "numba", "scipy", "minivit", "cpu", "blas", "kernels"} <= set(environment)

    def test_a_second_run_takes_the_next_folder(self, workplace, call, monkeypatch):
        monkeypatch.chdir(workplace)
        code, out, _ = call(train, "--epochs", 1, "--time-budget", "1e-9", *TINY)
        assert code == 0
        assert json.loads(out.splitlines()[-1])["checkpoint"] == "runs/sl_vit-shapes10-2/best.npz"

    def test_a_config_file_repeats_a_run(self, workplace, tmp_path):
        before = workplace / "runs/sl_vit-shapes10"
        options = ("--config", before / "config.json", "--out", "again", "--threads", "1")
        assert run("minivit.train", *options, cwd=tmp_path)[0] == 0
        first, again = (checkpoint.read(folder / "last.npz") for folder in (before, tmp_path / "again"))
        for name, array in first.weights.items():
            np.testing.assert_array_equal(again.weights[name], array, err_msg=name)

    def test_settings_without_an_option(self, call, tmp_path):
        code, out, _ = call(
            train, *TINY, "--epochs", 1, "--set", "crop_padding=3", "mixup=0.5", "--cutmix", 1, "--ema", 0.5,
            "--out", tmp_path / "run",
        )  # fmt: skip
        assert code == 0
        config = json.loads((tmp_path / "run/config.json").read_text())["config"]
        assert [config[name] for name in ("crop_padding", "mixup", "cutmix", "ema")] == [3, 0.5, 1, 0.5]
        assert "ema_top1" in json.loads((tmp_path / "run/log.jsonl").read_text())
        assert checkpoint.load(tmp_path / "run/ema.npz").architecture == "sl_vit"

    def test_resuming_a_finished_run(self, workplace, call, monkeypatch):
        monkeypatch.chdir(workplace)
        code, out, err = call(train, "--resume", "--out", "runs/sl_vit-shapes10")
        assert (code, err) == (0, "")
        assert out.splitlines()[-1] == (workplace / "stdout").read_text().splitlines()[-1]

    def test_time_budget_names_the_way_on(self, tmp_path, call):
        code, out, err = call(train, "--time-budget", "1e-9", "--out", tmp_path / "run", *TINY)
        assert code == 0
        assert_one_line(
            err, f"stopped by time budget; go on with: {way_on()} --out {tmp_path}"
        )
        assert json.loads(out.splitlines()[-1])["epochs"] == 0

    @pytest.mark.parametrize(
        "executable, on_path, printed",
        [
            ("{cwd}/.venv/bin/python", None, ".venv/bin/python"),  # what make train uses
            ("/opt/py/bin/python", "/opt/py/bin/python", "python"),
            ("/opt/py/bin/python", "/usr/bin/python", "/opt/py/bin/python"),
        ],
    )
    def test_the_way_on_names_this_interpreter(self, tmp_path, monkeypatch, executable, on_path, printed):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "executable", executable.format(cwd=tmp_path))
        monkeypatch.setattr(train.shutil, "which", lambda name: on_path)
        assert train._python() == printed

    def test_resuming_takes_as_many_threads_as_the_run_began_with(self, tmp_path):
        code, _, err = run("minivit.train", "--time-budget", "1e-9", "--out", "run", *TINY, cwd=tmp_path)
        assert code == 0, err
        code, out, err = run("minivit.train", "--resume", "--out", "run", cwd=tmp_path)
        assert (code, err) == (0, "")  # no note that the environment has changed
        assert ", 1 threads;" in out

    def test_a_folder_of_images(self, tmp_path, call):
        image = pytest.importorskip("PIL.Image")
        rng = np.random.default_rng(0)
        for name in ("cat", "dog"):
            (tmp_path / "pets" / name).mkdir(parents=True)
            for i in range(10):
                image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(
                    tmp_path / "pets" / name / f"{i}.png"
                )
        data = f"--data folder:{tmp_path}/pets --data-dir {tmp_path}/data --img-size 16"
        tiny = "--epochs 1 --batch-size 4 --model-arg depth=1 embed_dim=16 num_heads=2"
        code, out, err = call(train, *data.split(), *tiny.split(), "--out", tmp_path / "run")
        assert code == 0, err
        code, again, err = call(evaluate, tmp_path / "run" / "best.npz", "--data-dir", tmp_path / "data")
        assert code == 0, err
        assert json.loads(again.splitlines()[-1])["top1"] == json.loads(out.splitlines()[-1])["test_top1"]


# Dozens of epochs, so that a run is sure to be in the middle when the signal comes.
LONG = ["--epochs", "30", "--seed", "3", "--drop-path", "0.2", "--out", "run", *TINY]


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The end of the run ``LONG`` when nothing interrupts it."""
    cwd = tmp_path_factory.mktemp("whole")
    code, _, err = run("minivit.train", *LONG, cwd=cwd)
    assert code == 0, err
    return checkpoint.read(cwd / "run" / "last.npz")


class TestInterruptions:
    def assert_resumes_to(self, whole, cwd):
        code, out, err = run("minivit.train", "--resume", "--out", "run", "--threads", "1", cwd=cwd)
        assert code == 0, err
        assert json.loads(out.splitlines()[-1])["epochs"] == 30
        ended = checkpoint.read(cwd / "run" / "last.npz")
        for name, array in whole.weights.items():
            np.testing.assert_array_equal(ended.weights[name], array, err_msg=name)
        log = [json.loads(line) for line in (cwd / "run" / "log.jsonl").read_text().splitlines()]
        assert [row["epoch"] for row in log] == list(range(1, 31))
        assert [row["train_loss"] for row in log] == [
            row["train_loss"] for row in whole.training["state"]["rows"]
        ]

    def wait_for_rows(self, process, count):
        """Read stdout until that many epochs are reported: two lines and the head of the table come first."""
        for _ in range(3 + count):
            assert process.stdout.readline(), process.stderr.read()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_saves_and_tells_how_to_go_on(self, whole, tmp_path, monkeypatch, number):
        monkeypatch.chdir(tmp_path)
        if signal.getsignal(number) == signal.SIG_IGN:
            pytest.skip(f"{number.name} is ignored here, as under nohup, and so by all that is started from here")
        process = start("minivit.train", *LONG, cwd=tmp_path)
        self.wait_for_rows(process, 3)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "Traceback" not in err
        assert f"go on with: {way_on()} --out run --threads 1\n" in err
        assert '"test_top1"' not in out
        if number == signal.SIGINT:
            self.assert_resumes_to(whole, tmp_path)

    @pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs terminals")
    def test_a_closed_terminal_saves(self, tmp_path):
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            pytest.skip("SIGHUP is ignored here, as under nohup, and so by all that is started from here")
        ours, theirs = os.openpty()
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "dumb"}
        command = [sys.executable, "-W", "error", "-m", "minivit.train", *LONG]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        shown = b""
        while shown.count(b"\n") < 6:
            shown += os.read(ours, 1000)
        process.send_signal(signal.SIGHUP)
        os.close(ours)
        assert process.wait(timeout=60) == 130
        state = checkpoint.read(tmp_path / "run" / "last.npz").training["state"]
        assert 0 < state["epoch"] < 30 and (state["batch"] > 0 or state["epoch"] == len(state["rows"]))

    def test_a_run_that_is_going_is_left_alone(self, whole, tmp_path):
        process = start("minivit.train", *LONG, cwd=tmp_path)
        self.wait_for_rows(process, 1)
        code, out, err = run("minivit.train", "--resume", "--out", "run", cwd=tmp_path)
        assert_one_line(err, f"run: this run is still going (pid {process.pid})")
        assert (code, out) == (1, "")
        process.kill()
        process.communicate()
        self.assert_resumes_to(whole, tmp_path)
        assert not [file.name for file in (tmp_path / "run").iterdir() if file.name.startswith(".")]

    def test_kills_at_any_moment(self, whole, tmp_path):
        rng = np.random.default_rng(0)
        arguments = LONG
        for _ in range(4):
            process = start("minivit.train", *arguments, cwd=tmp_path)
            self.wait_for_rows(process, 1)
            time.sleep(rng.uniform(0, 0.1))
            process.kill()
            process.communicate()
            arguments = ["--resume", "--out", "run", "--threads", "1"]
        self.assert_resumes_to(whole, tmp_path)


WITHOUT_RIGHTS = """
import json, os, sys
from minivit import command, evaluate, train
from minivit.data import shapes
from minivit.training import evaluation, loop
if os.geteuid() == 0:
    os.setuid(65534)
for name, *arguments in json.loads(sys.argv[1]):
    try:
        command.run(name, {"train": train, "evaluate": evaluate}[name].main, arguments)
    except SystemExit as stop:
        print(stop.code)
"""


class TestTrainRefuses:
    @pytest.mark.parametrize(
        "arguments, words",
        [
            ("--model sl_vitt", ["unknown model 'sl_vitt'", "sl_vit"]),
            ("--data cifar1000", ["'cifar1000'", "cifar100"]),
            ("--recipe quik", ["unknown recipe 'quik'; did you mean 'quick'"]),
            ("--optimizer adamv", ["unknown optimiser 'adamv'; did you mean 'ada"]),
            ("--set crop_pading=2", ["no setting 'crop_pading'; did you mean 'crop_padding'"]),
            ("--config nowhere.json --recipe quick", ["leave --resume and --recipe out"]),
            ("--epochs 0", ["--epochs: must be a whole number of at least 1, not '0'", "--help"]),
            ("--batch-size -1", ["--batch-size: must be a whole number of at least 1, not '-1'"]),
            ("--batch-size 1000 --limit-train 20", ["1000"]),
            ("--lr 0", ["--lr: must be a number above 0, not '0'"]),
            ("--lr nan", ["--lr: must be a number above 0, not 'nan'"]),
            ("--lr fast", ["--lr: must be a number above 0, not 'fast'"]),
            ("--weight-decay -0.1", ["--weight-decay: must be a number of at least 0"]),
            (
                "--label-smoothing 1",
                ["--label-smoothing: must be a number from 0 up to, but not including, 1"],
            ),
            ("--drop-path -1", ["--drop-path: must be a number from 0"]),
            ("--seed -1", ["--seed: must be a whole number of at least 0, not '-1'"]),
            ("--seed 1.5", ["--seed: must be a whole number"]),
            ("--limit-train 0", ["--limit-train: must be a whole number of at least 1"]),
            ("--time-budget -5", ["--time-budget: must be a number above 0"]),
            ("--threads 0", ["--threads: must be a whole number of at least 1"]),
            ("--epochs 2 --warmup-epochs 3", ["a warm-up of 3 epochs is longer than the run of 2"]),
            ("--model-arg depth", ["--model-arg: must look like depth=4, not 'depth'"]),
            ("--model-arg dpth=4", ["no keyword 'dpth'", "depth"]),
            ("--model-arg depth=four", ["depth must be of type int", "'four'"]),
            ("--model-arg num_classes=7", ["num_classes is not a model argument of a run"]),
            ("--epoch 3", ["unrecognized arguments: --epoch"]),
        ],
    )
    def test_wrong_usage(self, tmp_path, monkeypatch, call, arguments, words):
        monkeypatch.chdir(tmp_path)
        code, out, err = call(train, *arguments.split())
        assert_one_line(err, "minivit.train: error: ", *words)
        assert (code, out) == (2, "")
        assert not list(tmp_path.iterdir())  # nothing is left behind

    @pytest.mark.parametrize("arguments", ["--model sl_vitt", "--data cifar1000", "--batch-size 1000 --limit-train 20"])
    def test_an_empty_folder_of_the_user_stays(self, tmp_path, call, arguments):
        (tmp_path / "mine").mkdir()
        code, _, err = call(train, *arguments.split(), "--out", tmp_path / "mine")
        assert code == 2
        assert list(tmp_path.iterdir()) == [tmp_path / "mine"] and not list((tmp_path / "mine").iterdir())

    def test_a_folder_that_holds_a_run(self, workplace, monkeypatch, call):
        monkeypatch.chdir(workplace)
        code, _, err = call(train, "--out", "runs/sl_vit-shapes10")
        assert_one_line(err, "runs/sl_vit-shapes10 holds a run already", "--resume")
        assert code == 2

    def test_changed_settings_of_a_run(self, workplace, monkeypatch, call):
        monkeypatch.chdir(workplace)
        code, _, err = call(
            train, "--resume", "--out", "runs/sl_vit-shapes10", "--epochs", 5, "--model", "vit"
        )
        assert_one_line(err, "--epochs 5 (the run has 2)", "--model vit (the run has sl_vit)")
        assert code == 2

    @pytest.mark.parametrize("out", ["{tmp}/file/run", "/proc/run"])
    def test_an_unwritable_folder(self, tmp_path, call, out):
        (tmp_path / "file").touch()
        out = out.format(tmp=tmp_path)
        code, _, err = call(train, "--out", out)
        assert_one_line(err, f"cannot write to the folder {out}")
        assert code == 1

    def test_paths_that_the_user_may_not_see(self, tmp_path):
        """Root may see everything: the process gives its rights up, after its imports."""
        closed = tmp_path / "closed"
        closed.mkdir()
        closed.chmod(0)
        calls = [["train", "--out", "{}/run"], ["train", "--resume", "--out", "{}/run"], ["evaluate", "{}/best.npz"]]
        calls = [[word.format(closed) for word in words] for words in calls]
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", WITHOUT_RIGHTS, json.dumps(calls)],
            cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        closed.chmod(0o700)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "1\n1\n1\n"
        assert done.stderr.splitlines() == [
            f"minivit.train: error: cannot write to the folder {closed}/run: Permission denied",
            f"minivit.train: error: cannot read {closed}/run/last.npz: Permission denied",
            f"minivit.evaluate: error: cannot read {closed}/best.npz: Permission denied",
        ]

    def test_a_name_that_is_too_long(self, tmp_path, call):
        for arguments in (["--out", tmp_path / ("x" * 300)], ["--resume", "--out", tmp_path / ("x" * 300)]):
            code, _, err = call(train, *arguments)
            assert_one_line(err, "File name too long")
            assert code == 1
        code, _, err = call(evaluate, "x" * 300)
        assert_one_line(err, "cannot read xxx", "File name too long")

    @pytest.mark.parametrize("arguments", ["", "--out {tmp}/nowhere"])
    def test_nothing_to_resume(self, tmp_path, monkeypatch, call, arguments):
        monkeypatch.chdir(tmp_path)
        code, _, err = call(train, "--resume", *arguments.format(tmp=tmp_path).split())
        assert_one_line(err, "nothing to resume")
        assert code == 1

    def test_a_corrupt_checkpoint(self, workplace, tmp_path, call):
        whole = (workplace / "runs/sl_vit-shapes10/last.npz").read_bytes()
        (tmp_path / "last.npz").write_bytes(whole[: len(whole) // 2])
        code, _, err = call(train, "--resume", "--out", tmp_path)
        assert_one_line(err, f"{tmp_path}/last.npz is damaged or not a checkpoint of minivit")
        assert code == 1

    def test_a_checkpoint_of_another_kind(self, workplace, tmp_path, call):
        (tmp_path / "last.npz").write_bytes((workplace / "runs/sl_vit-shapes10/best.npz").read_bytes())
        code, _, err = call(train, "--resume", "--out", tmp_path)
        assert_one_line(err, "holds weights only")
        assert code == 1

    def test_missing_data_offline(self, tmp_path, monkeypatch, call):
        monkeypatch.chdir(tmp_path)
        code, _, err = call(train, "--data", "cifar100", "--offline", "--data-dir", tmp_path / "data")
        assert_one_line(err, "cifar-100-binary.tar.gz", str(tmp_path / "data"), "shapes10")
        assert code == 1
        assert not list(tmp_path.glob("runs/*"))

    @pytest.fixture
    def archive(self, tmp_path):
        return tmp_path / "cifar-100-binary.tar.gz"

    def test_a_truncated_archive(self, tmp_path, monkeypatch, call, archive):
        monkeypatch.chdir(tmp_path)
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w:gz") as tar:
            member = tarfile.TarInfo("cifar-100-binary/train.bin")
            member.size = 100_000
            tar.addfile(member, io.BytesIO(np.random.default_rng(0).bytes(member.size)))
        archive.write_bytes(raw.getvalue()[:50_000])
        code, _, err = call(train, "--data", "cifar100", "--offline", "--data-dir", tmp_path)
        assert_one_line(err, "cifar-100-binary.tar.gz")
        assert code == 1

    @pytest.mark.parametrize("name", ["../escaped", "{tmp}/outside"])
    def test_an_archive_that_reaches_outside(self, tmp_path, monkeypatch, call, archive, name):
        name = name.format(tmp=tmp_path)
        monkeypatch.chdir(tmp_path)
        with tarfile.open(archive, "w:gz") as tar:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
        code, _, err = call(train, "--data", "cifar100", "--offline", "--data-dir", tmp_path)
        assert_one_line(err, name)
        assert code == 1
        assert not (tmp_path.parent / "escaped").exists() and not (tmp_path / "outside").exists()

    def test_divergence(self, tmp_path, call):
        code, _, err = call(train, "--lr", "1e30", "--warmup-epochs", 0, "--out", tmp_path / "run", *TINY)
        assert_one_line(err, "minivit.train: error: the loss became nan at step 2 (epoch 1", "lower --lr")
        assert code == 1
        checkpoint.read(tmp_path / "run" / "last.npz").build()
