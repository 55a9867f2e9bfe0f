"""MINIVIT_KERNELS and MINIVIT_THREADS, as a user sets them."""

import os
import subprocess
import sys

import pytest

CODE = "import minivit; from minivit.kernels import get_backend; print(get_backend())"


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, check=False
    )


@pytest.mark.parametrize("name", ["numba", "numpy"])
def test_the_environment_chooses(name):
    assert run(CODE, MINIVIT_KERNELS=name).stdout == f"{name}\n"


def test_another_name_is_refused():
    done = run(CODE, MINIVIT_KERNELS="cuda")
    assert done.returncode == 1
    assert "MINIVIT_KERNELS is 'cuda'; expected one of numba, numpy" in done.stderr


def test_a_command_says_it_in_one_line():
    done = run("import sys; sys.argv = ['minivit']; import runpy; runpy.run_module('minivit', run_name='__main__')",
               MINIVIT_KERNELS="cuda")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_threads():
    code = "from minivit.kernels.threads import num_threads; print(num_threads())"
    assert run(code, MINIVIT_THREADS="3").stdout == "3\n"
