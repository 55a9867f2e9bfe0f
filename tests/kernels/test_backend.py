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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_pool_works_after_a_fork():
    """The child has none of the parent's threads, and finds the locks free."""
    code = (
        "import os, numpy as np; from minivit.kernels import threads\n"
        "threads.set_num_threads(2); total = lambda: threads.partial_sums(\n"
        "    lambda a, b, out: out.__iadd__(b - a), 100, 1, (1,), np.float64)[0]\n"
        "assert total() == 100\n"
        "with threads._starting:\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        os._exit(0 if total() == 100 else 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), total())\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "0 100.0\n", done.stderr
