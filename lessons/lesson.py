"""What every lesson shares: the options, the pictures in lessons/out/, some data, and the line at its end."""

import argparse
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE / "out"


class Lesson:
    """One run of a lesson.

    Args:
        file: the lesson's ``__file__``.
        arguments: words of the command line; None for those of the process. Notebooks have none.

    Attributes:
        quick: whether the short form runs: seconds, on drawn shapes.
    """

    def __init__(self, file, arguments=None):
        self.name = Path(file).stem
        parser = argparse.ArgumentParser(
            prog=f"python lessons/{Path(file).name}", description=f"Lesson {self.name}: run it, and read it."
        )
        parser.add_argument("--quick", action="store_true", help="the short form: at most 20 seconds, no data set")
        in_notebook = "ipykernel" in sys.modules
        self.quick = parser.parse_args([] if in_notebook and arguments is None else arguments).quick
        self.started = time.perf_counter()

    def choose(self, quick, full):
        """Return the first value in the short form, the second in the full one."""
        return quick if self.quick else full

    def data(self, train, test):
        """Return a ``minivit.data.Dataset`` with so many images: drawn shapes in the short form, else CIFAR-100.

        Where CIFAR-100 is not on this machine, the full form takes drawn shapes too, and says so.
        """
        from minivit.data import load_dataset
        from minivit.errors import MinivitError

        if not self.quick:
            try:
                return load_dataset("cifar100", limit_train=train, limit_test=test, offline=True)
            except MinivitError:
                print("no CIFAR-100 in ./data or $MINIVIT_DATA: drawn shapes instead, for which the text's")
                print("numbers do not hold (python -m minivit.train --data cifar100 fetches it)")
        return load_dataset("shapes10", limit_train=train, limit_test=test)

    def seconds_of(self, function, *arguments):
        """Mean time of many calls; by this thread's clock, which stands still for other programs."""
        function(*arguments)
        calls, start, enough = 0, time.thread_time(), self.choose(quick=0.1, full=1.0)
        while (spent := time.thread_time() - start) < enough:
            function(*arguments)
            calls += 1
        return spent / calls

    def figure(self, rows=1, columns=1, **options):
        """Return ``(figure, axes)`` of Matplotlib, or ``(None, None)`` where it is not installed."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            print('no picture: pip install "minivit[plots]"')
            return None, None
        figure = Figure(layout="constrained", **options)
        return figure, figure.subplots(rows, columns)

    def save(self, figure, title):
        """Write a figure to lessons/out/LESSON-title.png."""
        OUT.mkdir(exist_ok=True)
        path = OUT / f"{self.name}-{title}.png"
        figure.savefig(path, dpi=110)
        print(f"picture: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")

    def passed(self, claim, **numbers):
        """Print the last line of a lesson whose assertions all held: what it has shown, and the numbers."""
        seconds = time.perf_counter() - self.started
        measured = ", ".join(f"{name} {value}" for name, value in numbers.items())
        print(f"PASS {self.name} ({seconds:.0f} s): {claim}{': ' if measured else ''}{measured}")
