"""``minivit.evaluate``, ``python -m minivit``, and what all commands have in common."""

import json
import os
import re
import subprocess
import sys

import pytest
from command_line import ROOT, assert_one_line, start

from minivit import __main__ as overview
from minivit import command, create_model, evaluate
from minivit.training import checkpoint


class TestEvaluate:
    def test_it_measures_what_training_did(self, workplace, call, monkeypatch):
        monkeypatch.chdir(workplace)
        trained = json.loads((workplace / "stdout").read_text().splitlines()[-1])
        code, out, err = call(evaluate, trained["checkpoint"], "--limit-test", 32)
        assert (code, err) == (0, "")
        result = json.loads(out.splitlines()[-1])
        assert set(result) == {"top1", "top5", "loss", "images", "images_per_second"}
        assert (result["top1"], result["top5"]) == (trained["test_top1"], trained["test_top5"])
        assert result["images"] == 32

    def test_a_network_that_overflows(self, workplace, tmp_path, call):
        saved = checkpoint.read(workplace / "runs/sl_vit-shapes10/best.npz")
        model = saved.build()
        model.norm.weight.data[:] = 3e38
        path = tmp_path / "broken.npz"
        checkpoint.save(path, model, data="shapes10")
        code, out, err = call(evaluate, path, "--limit-test", 32)
        assert_one_line(err, "minivit.evaluate: error: ", "broken.npz gives numbers that are not finite")
        assert (code, out) == (1, "")

    def test_images_that_are_no_squares(self, tmp_path, call):
        image = pytest.importorskip("PIL.Image", reason="needs Pillow")
        for name in ("a", "b"):
            for part in ("train", "test"):
                (tmp_path / "images" / part / name).mkdir(parents=True)
                image.new("RGB", (64, 64)).save(tmp_path / "images" / part / name / "1.png")
        model = create_model("vit", img_size=(24, 32), patch_size=4, depth=1, num_classes=2)
        checkpoint.save(tmp_path / "a.npz", model, class_names=["a", "b"])
        arguments = ["--data", f"folder:{tmp_path / 'images'}", "--data-dir", tmp_path / "data"]
        code, out, err = call(evaluate, tmp_path / "a.npz", *arguments)
        words = ["takes images of 24x32, but those of", "are 64x64"]
        assert_one_line(err.splitlines(keepends=True)[-1], "minivit.evaluate: error: ", *words)
        assert (code, out) == (2, "")

    @pytest.mark.parametrize(
        "arguments, words, expected",
        [
            ("{ckpt} --data shapes100", ["10 classes, but shapes100 has 100"], 2),
            ("{ckpt} --data shapes1", ["'shapes1'", "shapes10"], 2),
            ("{ckpt} --batch-size 0", ["--batch-size: must be a whole number"], 2),
            ("{ckpt} --limit-test -3", ["--limit-test: must be a whole number"], 2),
            ("absent.npz", ["no such checkpoint: absent.npz"], 1),
            ("stdout", ["stdout is damaged or not a checkpoint"], 1),
            (".", ["cannot read ."], 1),
            ("", ["the following arguments are required: CKPT"], 2),
        ],
    )
    def test_it_refuses(self, workplace, call, monkeypatch, arguments, words, expected):
        monkeypatch.chdir(workplace)
        code, out, err = call(evaluate, *arguments.format(ckpt="runs/sl_vit-shapes10/best.npz").split())
        assert_one_line(err, "minivit.evaluate: error: ", *words)
        assert (code, out) == (expected, "")


class TestOverview:
    def test_it_lists_everything(self, call):
        code, out, err = call(overview)
        assert (code, err) == (0, "")
        for name in (
            "minivit.train",
            "minivit.evaluate",
            "sl_vit",
            "cifar100",
            "shapes10",
            "quick",
            "small_data",
        ):
            assert name in out
        assert re.search(r"threads +\d+", out) and re.search(r"kernels +(numba|numpy)", out)
        assert "blas" in out

    def test_a_closed_pipe_is_no_error(self, tmp_path):
        process = start("minivit", cwd=tmp_path)
        process.stdout.close()
        assert process.stderr.read() == ""
        process.stderr.close()
        assert process.wait(timeout=60) == 1

    def test_every_command_is_listed_and_helps(self):
        for name in overview.COMMANDS:
            module = __import__(f"minivit.{name}", fromlist=["build_parser"])
            text = module.build_parser().format_help()
            assert "examples:" in text and f"python -m minivit.{name}" in text


def test_an_error_of_the_system_is_one_line(capsys):
    def unlucky(argv):
        raise OSError(28, "No space left on device", "a.txt")

    with pytest.raises(SystemExit) as stop:
        command.run("train", unlucky)
    assert stop.value.code == 1
    assert capsys.readouterr().err == "minivit.train: error: [Errno 28] No space left on device: 'a.txt'\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_under_stdout_is_one_line(tmp_path):
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "minivit"], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert_one_line(process.stderr, "minivit: error: ", "No space left on device")
    assert process.returncode == 1


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments, code", [(["minivit"], 0), (["minivit.evaluate", "absent.npz"], 1)])
def test_streams_that_the_caller_has_closed(closed, arguments, code):
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-W", "error", "-m", *arguments]
    done = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    heard = code and closed == ">&-"
    assert done.stderr == ("minivit.evaluate: error: no such checkpoint: absent.npz\n" if heard else "")


def test_control_characters_in_errors_are_escaped(tmp_path, call):
    model = create_model("vit", seed=None, depth=1)
    state = model.state_dict()
    model.state_dict = lambda: state | {"\x1b[2J\n": state["head.bias"]}
    checkpoint.save(tmp_path / "a.npz", model)
    code, _, err = call(evaluate, tmp_path / "a.npz", "--data", "shapes100", "--limit-test", 1)
    assert_one_line(err, "minivit.evaluate: error: ", "unexpected \\x1b[2J\\n")
    code, _, err = call(evaluate, tmp_path / "\x1b\n.npz")
    assert_one_line(err, "no such checkpoint", "\\x1b\\n.npz")
    code, _, err = call(evaluate, "a", "--\x1b\n")
    assert_one_line(err, "unrecognized arguments: --\\x1b\\n")
    assert code == 2 and "\x1b" not in err


@pytest.mark.parametrize("overrule, expected", [(True, "3"), (False, "7")])
def test_threads_may_leave_what_the_user_has_set(monkeypatch, overrule, expected):
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MINIVIT_THREADS"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    command.set_threads(3, overrule)
    assert (os.environ["OPENBLAS_NUM_THREADS"], os.environ["MINIVIT_THREADS"]) == (expected, "3")


def test_ctrl_c_outside_the_loop_is_one_line(capsys):
    def interrupted(argv):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        command.run("train", interrupted)
    assert stop.value.code == 130
    assert capsys.readouterr().err == "\nminivit.train: interrupted\n"
