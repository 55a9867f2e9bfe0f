"""docs/models.md is what its generator writes, as far as that is checked quickly, and knows every model."""

import importlib.util
from pathlib import Path

import pytest

from minivit.models import list_models

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("models_table", DOCS / "models_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def lines():
    return (DOCS / "models.md").read_text(encoding="utf-8").splitlines()


def test_every_model_has_a_line(generator, lines):
    assert generator.listed() <= set(list_models())
    for name in list_models():
        assert any(line.startswith(f"| `{name}` |") for line in lines), f"{name} is missing: run make docs"


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "cait_xxs24_224", "pit_ti_224", "t2t_vit_7", "resnet20"])
def test_lines_of_imagenet_models_are_up_to_date(generator, lines, name):
    (row,) = (row for rows, _ in generator.IMAGENET.values() for row in rows if row.name == name)
    assert generator.imagenet_line(row) in lines, "run make docs"


def test_lines_of_small_models_are_up_to_date(generator, lines):
    for rows, *sizes in generator.SMALL.values():
        assert [line for row in rows if (line := generator.small_line(row, *sizes)) not in lines] == [], "run make docs"


def test_lines_of_binary_models_are_up_to_date(generator, lines):
    assert [row.name for row in generator.BINARY if generator.binary_line(row) not in lines] == [], "run make docs"
    assert all(generator.small_binary_line(*sizes) in lines for sizes in generator.SMALL_BINARY), "run make docs"


def test_text_and_heads_are_up_to_date(generator, lines):
    text = "\n".join(lines)
    assert text.startswith(generator.INTRODUCTION) and generator.SMALL_TEXT in text and generator.BINARY_TEXT in text
    for title, (_, sources) in generator.IMAGENET.items():
        assert f"## {title}\n\n{sources}\n" in text


@pytest.mark.parametrize(
    "ours, printed, expected",
    [
        (5_717_416, "5,717,416", ""),
        (189.747, "189.8", ""),  # 0.03 %
        (189.7, "189.8", "-0.1 %"),
        (5_717_416, "5.7M", ""),
        (5_717_416, "5M", ""),  # cut
        (5_717_416, "6M*", ""),  # rounded
        (5_717_416, "5.8M", "-1.4 %"),
        (9.602, "9.5*", "+1.1 %"),
        (13.66, "13.8", "-1.0 %"),
        (1.0, "", ""),
    ],
)
def test_differences(generator, ours, printed, expected):
    assert generator.difference(ours, printed) == expected
