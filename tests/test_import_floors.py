"""The floors of the house: a file imports from its own floor or from lower ones, never upwards.

Reads the source and imports nothing, so that it also judges imports inside functions.
"""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "minivit"
MAX_LINES = 500

# The first name below minivit -> (its floor, the third-party packages it may use).
FLOORS = {
    "errors": (0, ""),
    "blas": (0, "numpy"),
    "kernels": (0, "numpy numba"),
    "tensor": (1, "numpy scipy"),
    "ops": (1, "numpy scipy"),
    "gradcheck": (2, "numpy"),
    "nn": (2, "numpy"),
    "models": (3, "numpy safetensors torch"),
    "data": (3, "numpy tqdm PIL"),
    "training": (4, "numpy tqdm tomllib tomli"),  # tomllib: new to the standard library in Python 3.11
    "analysis": (4, "numpy scipy matplotlib PIL"),
    "command": (5, ""),
    "train": (5, "numpy"),
    "sweep": (5, "numpy"),
    "evaluate": (5, "numpy"),
    "compare": (5, "numpy"),
    "predict": (5, "numpy"),
    "profile": (5, "numpy"),
    "attention": (5, "numpy"),
    "pack": (5, "numpy"),
    "convert": (5, "numpy"),
    "__main__": (5, "numpy numba scipy"),
    "__init__": (5, "numpy"),  # the facade: it may name everything, and nothing below may import it
}
# Data sets are plain arrays: minivit.data may import these and nothing else of the package.
DATA_MAY_IMPORT = {"data", "errors"}
# Optional extras, and what is slow to import: only inside the function that needs it.
LAZY = {"PIL", "matplotlib", "safetensors", "torch"}


def sources():
    return sorted(PACKAGE.rglob("*.py"))


def place(path):
    """The first name below minivit that ``path`` belongs to: minivit/nn/linear.py -> nn."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def exists(module):
    """Whether the dotted name ``module`` is a file or a folder of the project."""
    path = ROOT.joinpath(*module.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports(path, tree):
    """Yield (line, dotted module, whether it runs at import time) for every import in ``tree``."""
    inside_functions = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        at_import_time = id(node) not in inside_functions
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, at_import_time
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                package = path.relative_to(ROOT).parent.parts
                module = ".".join([*package[: len(package) + 1 - node.level], *filter(None, [module])])
            for alias in node.names:
                if module == "minivit" and alias.name == "__version__":
                    continue  # set before anything else is imported
                # `from minivit import nn` names a module, `from minivit import Tensor` the facade.
                submodule = f"{module}.{alias.name}"
                is_module = module == "minivit" and exists(submodule)
                yield node.lineno, submodule if is_module else module, at_import_time


def broken_rules(path, source):
    """Yield a message for every import of ``source`` (the text of ``path``) that the floors forbid."""
    here = place(path)
    floor, third_party = FLOORS[here]
    for line, module, at_import_time in imports(path, ast.parse(source)):
        where = f"{path.relative_to(ROOT)}:{line}"
        top, *rest = module.split(".")
        if top == "minivit":
            there = rest[0] if rest else "__init__"
            if there not in FLOORS:
                yield f"{where}: minivit.{there} is on no floor"
            elif FLOORS[there][0] > floor:
                yield f"{where}: floor {floor} imports minivit.{there}, which is on floor {FLOORS[there][0]}"
            elif {here, there} == {"data", "models"} or (here == "data" and there not in DATA_MAY_IMPORT):
                yield f"{where}: {here} may not import minivit.{there}"
        elif top not in sys.stdlib_module_names:
            if top not in third_party.split():
                yield f"{where}: {here} may not use {top}"
            elif top in LAZY and at_import_time:
                yield f"{where}: import {top} inside the function that needs it"


def test_every_module_is_on_a_floor():
    unknown = sorted({place(path) for path in sources()} - FLOORS.keys())
    assert not unknown, f"on no floor: {unknown}. Add each to FLOORS in {Path(__file__).name}, or move it"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_respect_the_floors(path):
    if place(path) not in FLOORS:
        pytest.skip("on no floor, which test_every_module_is_on_a_floor reports")
    broken = list(broken_rules(path, path.read_text(encoding="utf-8")))
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("kernels/gelu.py", "import scipy.special", "may not use scipy"),
        ("kernels/gelu.py", "from minivit.tensor import Tensor", "floor 0 imports minivit.tensor"),
        ("ops/linalg.py", "from ..nn import linear", "floor 1 imports minivit.nn"),
        ("ops/linalg.py", "def f():\n    from minivit import nn", "floor 1 imports minivit.nn"),
        ("nn/linear.py", "from minivit import Tensor", "floor 2 imports minivit.__init__"),
        ("nn/linear.py", "import minivit.floorless", "is on no floor"),
        ("models/vit.py", "from minivit.data import cifar", "may not import minivit.data"),
        ("data/cifar.py", "from minivit.models import vit", "may not import minivit.models"),
        ("data/cifar.py", "from minivit.tensor import Tensor", "may not import minivit.tensor"),
        ("data/folder.py", "from PIL import Image", "inside the function"),
        ("training/loop.py", "import torch", "may not use torch"),
        ("models/vit.py", "def f():\n    import timm", "may not use timm"),
    ],
)
def test_the_check_sees_a_broken_rule(file, line, complaint):
    (message,) = broken_rules(PACKAGE / file, line)
    assert complaint in message


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("kernels/gelu.py", "import math, numba\nfrom . import exponential"),
        ("ops/linalg.py", "from minivit.kernels import gelu\nfrom ..tensor import op\nimport scipy.special"),
        ("data/folder.py", "from minivit.errors import MinivitError\ndef f():\n    from PIL import Image"),
        ("training/environment.py", "from minivit import __version__"),
        ("train.py", "from minivit import Tensor\nfrom minivit.training.loop import train"),
    ],
)
def test_the_check_lets_good_imports_pass(file, line):
    assert list(broken_rules(PACKAGE / file, line)) == []


def test_files_are_short_and_named_for_a_noun():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    long = [f"{path.relative_to(ROOT)}: {n} lines" for path, n in lengths.items() if n > MAX_LINES]
    assert not long, f"over {MAX_LINES} lines, split by idea: {long}"
    vague = [str(path.relative_to(ROOT)) for path in sources() if path.stem in {"utils", "util", "helpers"}]
    assert not vague, f"name these for what they hold: {vague}"


def test_no_file_holds_an_absolute_path_of_one_machine():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so there is no list of the project's files")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    absolute = re.compile(rb"(?<![\w.~/-])/(?:home|root|Users|work|tmp)/\w")
    found = []
    for name in filter(None, names):
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" not in content:
            found += [f"{name}: {hit.group().decode()}..." for hit in absolute.finditer(content)]
    assert not found, f"absolute paths that no other machine has: {found}"
