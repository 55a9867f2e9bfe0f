"""Importing minivit and asking a command for help stay cheap: nothing heavy is imported before its use."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = [
    name
    for name in ("train", "sweep", "evaluate", "compare", "predict", "profile", "attention", "pack", "convert")
    if (ROOT / "minivit" / f"{name}.py").exists()
]
HEAVY_FOR_HELP = {"numba", "scipy", "matplotlib", "torch", "PIL"}
HEAVY_FOR_IMPORT = {"scipy.optimize", "matplotlib", "torch", "PIL"}

# Runs the module as `python -m` does, then prints one line with the names of all imported modules.
HELP = """
import runpy, sys
module = sys.argv[1]
sys.argv = [module, "--help"]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as stop:
    assert not stop.code, stop.code
print(*sys.modules)
"""


def run(code, *arguments):
    """Standard output of a fresh interpreter that runs ``code``."""
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command):
    help_text, modules = run(HELP, f"minivit.{command}").rsplit("\n", 2)[:2]
    assert f"minivit.{command}" in help_text
    assert not HEAVY_FOR_HELP & set(modules.split())


def test_importing_minivit_imports_nothing_that_few_need():
    modules = run("import sys, minivit; print(*sys.modules)")
    assert not HEAVY_FOR_IMPORT & set(modules.split())
