"""``python -m lessons``: the map of the course, and the checking of exercises."""

import argparse
import ast
import contextlib
import io
import sys
from pathlib import Path

from lessons import checking

HERE = Path(__file__).parent

EPILOG = """\
examples:
  python -m lessons                 all lessons, and which exercises are done
  python -m lessons check 07        is what I wrote in lessons/exercises/07.py right?
  python -m lessons solution 07     show one that is
  python lessons/07_spt.py --quick  run a lesson
"""


def main(argv=None):
    """Run the command. Returns the exit code: 0, 1 where an exercise is not right yet, 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m lessons", description="The lessons of minivit, and their exercises.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in (("check", "check the exercises of a lesson"), ("solution", "show a solution")):
        commands.add_parser(name, help=text).add_argument("number", metavar="NN", help="number of the lesson, as 07")
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        return show_progress()
    number = arguments.number.zfill(2)
    if number not in checking.numbers():
        parser.error(f"there is no lesson {arguments.number!r} with exercises; known: {' '.join(checking.numbers())}")
    if arguments.command == "solution":
        print(checking.solution(number).read_text(encoding="utf-8"), end="")
        return 0
    return check(number)


def check(number):
    """Print for each exercise whether it is right, else a hint."""
    results = checking.check(number)
    for name, hint in results.items():
        print(f"  right    {name}" if hint is None else f"  not yet  {name}: {hint}")
    wrong = sum(hint is not None for hint in results.values())
    if wrong:
        print(f"{wrong} of {len(results)} to go, in lessons/exercises/{number}.py")
    else:
        print(f"All {len(results)} right.")
    return 1 if wrong else 0


def show_progress():
    """Print the lessons with their claims, and how many exercises of each are right."""
    known = checking.numbers()
    for path in sorted(HERE.glob("[0-9][0-9]_*.py")):
        number, title = path.stem[:2], first_line(path)
        done = "-"
        if number in known:
            with contextlib.redirect_stdout(io.StringIO()):  # what exercises print does not belong here
                hints = list(checking.check(number).values())
            done = f"{hints.count(None)}/{len(hints)}"
        print(f"  {number}  {done:>4}  {title}")
    print("\nexercises done / there are; python -m lessons check NN says more")
    return 0


def first_line(path):
    """The first line of a lesson's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
