"""The map of the course says what the lessons' headers say."""

import ast
import re

import pytest

from lessons.checking import HERE

ROWS = {
    file: [cell.strip() for cell in row.split("|")]
    for row in (HERE / "README.md").read_text().splitlines()
    for file in re.findall(r"^\| \[.*\]\((\d\d_\w+\.py)\)", row)
}
LESSONS = sorted(HERE.glob("[0-9][0-9]_*.py"))


def numbers(text):
    """Numbers of lessons in a text, ranges such as 01-03 written out."""
    found = set()
    for first, last in re.findall(r"\b(\d\d)\b(?:-(\d\d)\b)?", text):
        found.update(range(int(first), int(last or first) + 1))
    return found


def test_the_map_has_every_lesson_in_order():
    assert list(ROWS) == [path.name for path in LESSONS]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_header_and_map_agree(path):
    header = ast.get_docstring(ast.parse(path.read_text()))
    before = re.search(r"^Read before: (.*?)\.$", header, re.M | re.S)[1]
    full, quick = re.search(r"^Takes: (\d+ (?:s|min)) on two cores \(--quick (\d+ s)\)\.$", header, re.M).groups()
    *_, listed, listed_quick, listed_full, _ = ROWS[path.name]
    assert numbers(listed) == numbers(before)
    assert (listed_quick, listed_full) == (quick, full)
    assert numbers(before) <= set(range(1, int(path.stem[:2])))
