"""What all commands share: the parser, checked types of options, errors in one line. Imports nothing big."""

import argparse
import json
import math
import os
import sys

from minivit.errors import MinivitError, UsageError


def name_of(command):
    """Return the module that users call: ``minivit.train`` for "train", ``minivit`` for None."""
    return "minivit" if command is None else f"minivit.{command}"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors take one line, and whose epilog keeps its line breaks."""

    def __init__(self, command, **kwargs):
        super().__init__(
            prog=f"python -m {name_of(command)}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **kwargs,
        )
        self.command = command

    def error(self, message):
        self.exit(2, f"{name_of(self.command)}: error: {printable(message)} (--help lists the options)\n")


def run(command, main, argv=None):
    """Call ``main(argv)`` and exit: 0 or what it returns, 1 failed, 2 misused, 130 interrupted.

    Args:
        command: see :func:`name_of`.
        main: function of the list of arguments, or None for those of the process.
    """
    _prepare_streams()
    try:
        code = main(argv) or 0
        sys.stdout.flush()
    except MinivitError as error:
        complain(command, error)
        code = 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print(f"\n{name_of(command)}: interrupted", file=sys.stderr)
        code = 130
    except MemoryError as error:
        complain(command, f"not enough memory: {error}")
        code = 1
    except BrokenPipeError:  # the reader of a pipe has left, as ``head`` does: nobody is there to be told
        _abandon_stdout()
        code = 1
    except OSError as error:  # what nobody foresaw: a file that cannot be read, a disk that is full
        complain(command, error)
        code = 1
        try:
            sys.stdout.flush()
        except OSError:  # it was stdout itself
            _abandon_stdout()
    sys.exit(code)


def complain(command, error):
    """Print an error in one line on stderr."""
    print(f"{name_of(command)}: error: {printable(error)}", file=sys.stderr)


def printable(text):
    """Return ``text`` with control characters escaped: names from files may hold what a terminal obeys."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def _prepare_streams():
    """Let stdout and stderr take any name, in any encoding; what was closed, as by ``>&-``, leads nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", closefd=False))
        getattr(sys, name).reconfigure(errors="backslashreplace")


def _abandon_stdout():
    """Send what stdout still holds to nowhere: at its exit Python would complain once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def set_threads(count, overrule=True):
    """Give BLAS and the kernels ``count`` threads; None changes nothing. Call it before NumPy is imported.

    Without ``overrule``, an environment variable that the user has set stays.
    """
    if count is None:
        return
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "MINIVIT_THREADS"):
        if overrule or variable not in os.environ:
            os.environ[variable] = str(count)


def add_data_options(group):
    """Add the options that say where data sets are: ``--data-dir`` and ``--offline``."""
    group.add_argument(
        "--data-dir", metavar="DIR", help="folder of the data sets (default: $MINIVIT_DATA, else data/)"
    )
    group.add_argument("--offline", action="store_true", help="never download anything")


def add_threads_option(group, default="all cores"):
    """Add ``--threads``; ``default`` says in the help what holds without it."""
    group.add_argument(
        "--threads",
        type=positive_int,
        metavar="N",
        help=f"threads of BLAS and of the kernels (default: {default})",
    )


def positive_int(text):
    """Option type: a whole number of at least 1."""
    return _whole(text, 1)


def non_negative_int(text):
    """Option type: a whole number of at least 0."""
    return _whole(text, 0)


def positive_float(text):
    """Option type: a finite number above 0."""
    return _number(text, lambda x: x > 0, "a number above 0")


def non_negative_float(text):
    """Option type: a finite number of at least 0."""
    return _number(text, lambda x: x >= 0, "a number of at least 0")


def fraction(text):
    """Option type: a number from 0 up to, but not including, 1."""
    return _number(text, lambda x: 0 <= x < 1, "a number from 0 up to, but not including, 1")


def key_value(text):
    """Option type: KEY=VALUE with a JSON value; anything else that VALUE may be is a string."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"must look like depth=4, not {text!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def png_file(text):
    """Option type: a file to draw into. Another ending may be that of a file that is worth keeping."""
    if not text.lower().endswith(".png"):
        raise argparse.ArgumentTypeError(f"the picture is a PNG: name a file that ends in .png, not {text!r}")
    return text


def image_size(text):
    """Option type: N for N x N pixels, or HxW as the list [height, width], which is how ``key_value`` reads a pair."""
    sides = [positive_int(side) for side in text.split("x")]
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f"must look like 224 or 192x256, not {text!r}")
    return sides[0] if len(sides) == 1 else sides


def model_keywords(model_args, **options):
    """Return the constructor keywords that ``--model-arg`` and options with names of their own give together.

    Args:
        model_args: pairs (keyword, value).
        options: keyword -> value, None where the option was not given.

    Raises:
        UsageError: a keyword has two values, or is ``seed``, which is none.
    """
    keywords = {key: value for key, value in options.items() if value is not None}
    for key, value in model_args:
        if key == "seed":
            raise UsageError("seed is no keyword of a network")
        if keywords.setdefault(key, value) != value:
            raise UsageError(f"{key} has two values, {keywords[key]} and {value}: leave one out")
    return keywords


def _whole(text, least):
    try:
        number = int(text)
    except ValueError:
        number = None
    if number is None or number < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text!r}")
    return number


def _number(text, allowed, wanted):
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or not allowed(number):
        raise argparse.ArgumentTypeError(f"must be {wanted}, not {text!r}")
    return number
