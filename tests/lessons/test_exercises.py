"""Exercises of the lessons: no stub passes, every solution does, and typical mistakes get hints of their own."""

import subprocess
import sys

import numpy as np
import pytest

from lessons import checking
from lessons.__main__ import first_line, main

LESSONS = sorted(path.stem for path in checking.HERE.glob("[0-9][0-9]_*.py"))
EXERCISES = [
    (number, name)
    for number in checking.numbers()
    for name in checking.load(checking.HERE / "checks" / f"{number}.py").EXERCISES
]


def exercise(number, name):
    return checking.load(checking.HERE / "checks" / f"{number}.py").EXERCISES[name]


def right(number, name):
    return getattr(checking.load(checking.solution(number)), name)


def test_every_lesson_has_exercises():
    assert [name[:2] for name in LESSONS] == checking.numbers()
    assert all(2 <= len([n for n, _ in EXERCISES if n == number]) <= 3 for number in checking.numbers())


@pytest.mark.parametrize("number", checking.numbers())
def test_no_stub_passes(number):
    assert set(checking.check(number).values()) == {"not written yet"}


@pytest.mark.parametrize("number", checking.numbers())
def test_every_solution_passes(number):
    assert set(checking.check(number, checking.solution(number)).values()) == {None}


@pytest.mark.parametrize("number, name", EXERCISES)
def test_typical_mistakes_get_their_own_hints(number, name):
    task = exercise(number, name)
    assert task.mistakes
    for hint, mistake in task.mistakes.items():
        assert checking.judge(task, mistake, right(number, name)) == hint


@pytest.mark.parametrize("number, name", EXERCISES)
def test_an_unknown_mistake_gets_the_general_hint(number, name):
    task = exercise(number, name)
    assert task.hint in checking.judge(task, lambda *arguments: "nonsense", right(number, name))
    assert "ZeroDivisionError" in checking.judge(task, lambda *arguments: 1 / 0, right(number, name))
    assert "SystemExit" in checking.judge(task, lambda *arguments: sys.exit("done"), right(number, name))
    assert "the function is gone" in checking.judge(task, None, right(number, name))


@pytest.mark.parametrize("number", checking.numbers())
def test_stubs_say_what_to_write(number):
    stubs, known = checking.load(checking.HERE / "exercises" / f"{number}.py"), checking.load(checking.solution(number))
    for name in (name for n, name in EXERCISES if n == number):
        stub, solution = getattr(stubs, name), getattr(known, name)
        assert len(stub.__doc__) > 60
        code = stub.__code__
        assert code.co_varnames[: code.co_argcount] == solution.__code__.co_varnames[: solution.__code__.co_argcount]


def test_a_file_that_python_cannot_read(tmp_path):
    path = tmp_path / "01.py"
    path.write_text("def topological_order(:")
    assert all("SyntaxError" in hint for hint in checking.check("01", path).values())


def test_results_are_compared_by_shape_and_size():
    assert checking.agree([1, (2.0, np.ones(3))], (1, [2.0 + 1e-9, np.ones(3)]), 1e-6)
    assert checking.agree(np.ones((2, 3)), (np.ones(3), [1, 1, 1]), 1e-6)
    assert not checking.agree(np.array(1.0), (1.0,), 1e-6)
    assert not checking.agree(np.ones((3, 1)), np.ones(3), 1e-6)
    assert not checking.agree(np.array([1.0, np.nan]), np.ones(2), 1e-6)
    assert not checking.agree(None, np.ones(2), 1e-6)
    assert not checking.agree(np.ones(2), True, 1e-6)
    assert checking.agree(np.True_, True, 1e-6) and not checking.agree("ab", "a", 1e-6)


def test_arguments_must_stay_as_they_are():
    task = checking.Exercise(lambda rng: [(np.arange(3.0),)], hint="think")
    assert checking.judge(task, lambda x: x * 2, lambda x: x * 2) is None
    assert "work on a copy" in checking.judge(task, lambda x: np.multiply(x, 2, out=x), lambda x: x * 2)
    task = checking.Exercise(lambda rng: [({"b": [np.ones(2)]},)], hint="think")
    assert checking.judge(task, lambda graph: len(graph), len) is None
    assert "work on a copy" in checking.judge(task, lambda graph: [graph.popitem()] and 1, len)
    assert "work on a copy" in checking.judge(task, lambda graph: [graph["b"].append(1)] and 1, len)


def test_strange_results_are_wrong_without_a_traceback():
    task = checking.Exercise(lambda rng: [(np.ones((2, 2)),)], hint="think")
    assert "rows are not of equal length" in checking.judge(task, lambda x: [[1.0], [1.0, 2.0]], np.copy)
    assert "think" in checking.judge(task, lambda x: 10**400, np.copy)
    assert "think" in checking.judge(task, lambda x: x + 0.5j, np.copy)


def test_endless_loops_can_be_stopped(tmp_path):
    def stopped(*arguments):
        raise KeyboardInterrupt

    task = checking.Exercise(lambda rng: [(np.ones(2),)], hint="think")
    assert checking.judge(task, stopped, np.copy) == checking.STOPPED
    path = tmp_path / "01.py"
    path.write_text("raise KeyboardInterrupt")
    assert set(checking.check("01", path).values()) == {checking.STOPPED}


def test_hints_tell_sequences_apart_in_one_line():
    pair = (np.ones(3), np.ones(3))
    assert "3 values, and should give 2" in checking.difference([1, 2, 3], pair, 1e-6)
    assert "it gives float, and should give a tuple" in checking.difference(1.0, pair, 1e-6)
    assert "1 of 2 numbers" in checking.difference(np.array([2**40 + 1, 5]), np.array([2**40, 5]), 1e-15)
    assert "\n" not in checking.difference((np.zeros((9, 9)), np.ones(3)), pair, 1e-6)


class TestCommand:
    def test_progress_names_every_lesson(self, capsys):
        assert main([]) == 0
        out = capsys.readouterr().out
        assert all(first_line(checking.HERE / f"{name}.py") in out for name in LESSONS)

    def test_check_says_what_is_not_written(self, capsys):
        assert main(["check", "1"]) == 1
        assert "not yet  topological_order: not written yet" in capsys.readouterr().out

    def test_solution(self, capsys):
        assert main(["solution", "01"]) == 0
        assert capsys.readouterr().out == checking.solution("01").read_text()

    @pytest.mark.parametrize("words", [["check", "99"], ["solution", "x"], ["chek", "01"]])
    def test_wrong_usage(self, words, capsys):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
        assert "error" in capsys.readouterr().err

    def test_as_a_user_types_it(self):
        done = subprocess.run(
            [sys.executable, "-m", "lessons", "check", "01"], capture_output=True, text=True, cwd=checking.HERE.parent
        )
        assert done.returncode == 1 and done.stdout.endswith("2 of 2 to go, in lessons/exercises/01.py\n")
