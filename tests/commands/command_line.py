"""Running commands as a user does, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = ["--limit-train", "64", "--limit-test", "32", "--batch-size", "16", "--threads", "1"]
TINY += ["--model-arg", "depth=1", "embed_dim=16", "num_heads=2"]


def start(module, *arguments, cwd, **options):
    """Start ``python -m MODULE ARGUMENTS`` with the project on its path and warnings as errors."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", module, *arguments],
        cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def run(module, *arguments, cwd):
    """Run a command to its end. Returns (exit code, stdout, stderr)."""
    process = start(module, *arguments, cwd=cwd)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def assert_one_line(err, *words):
    """Standard error is one line, without a traceback, that says ``words``."""
    assert err.count("\n") == 1 and err.endswith("\n"), err
    assert "Traceback" not in err
    assert all(word in err for word in words), err
