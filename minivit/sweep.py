"""``python -m minivit.sweep``: train many networks, from one file that says which."""

import json
import sys
import textwrap

from minivit import command

EXAMPLE = """\
[settings]                      # of all runs: the options of minivit.train, with underscores
data = "cifar100"
recipe = "quick"

[grid]                          # every combination is a run
model = ["vit", "sl_vit"]
seed = [0, 1, 2]

[[runs]]                        # runs beside the grid, each with settings and a grid of its own
name = "teacher"
model = "resnet20"

[[runs]]
name = "student"
model = "deit_tiny_distilled_patch16_224"
model_args = { patch_size = 4 }
teacher = "@teacher"            # the best checkpoint of the run of that name, which is trained first
grid = { distill = ["hard", "soft"], seed = [0, 1, 2] }
"""

EPILOG = f"""\
a sweep file:
{textwrap.indent(EXAMPLE, "  ")}
A file FILE.json holds the same as JSON; Python 3.10 needs that, or the package tomli. Paths start where the command is
called.

examples:
  python -m minivit.sweep study.toml --dry-run
  python -m minivit.sweep study.toml --jobs 2 --threads 1
  python -m minivit.compare runs/study --plot study.png

Each run has a folder in DIR, as minivit.train makes it, with all that it prints in output.txt; DIR/results.jsonl holds
the settings and the epochs of all, also of runs that FILE no longer has. The same command, typed again, goes on:
finished runs stay, begun ones are resumed, failed ones are tried again. It can be killed at any moment. Ctrl-C lets the
runs save first.
The last line of stdout is one JSON object.
Exit codes: 0 all runs are finished, 1 some failed, 2 wrong usage, 130 interrupted after saving.
"""


def build_parser():
    """Return the parser of this command."""
    parser = command.Parser("sweep", description="Train many networks, from one file that says which.", epilog=EPILOG)
    parser.add_argument("file", metavar="FILE", help="what to train: TOML as below, or JSON")
    parser.add_argument("--out", metavar="DIR", help="folder of the sweep (default: runs/ and the name of FILE)")
    parser.add_argument("--dry-run", action="store_true", help="only list the runs and their commands")
    how = parser.add_argument_group("how")
    how.add_argument("--jobs", type=command.positive_int, default=1, metavar="N",
                     help="runs at once (default: 1); on two cores, two runs of one thread each end sooner than "
                     "one after the other on both")  # fmt: skip
    command.add_threads_option(how, "all cores, shared by the jobs; a run that is resumed keeps its own number")
    command.add_data_options(parser.add_argument_group("data"))
    return parser


def main(argv=None):
    """Run the command. Returns the exit code."""
    args = build_parser().parse_args(argv)

    from pathlib import Path

    from minivit.training import report, sweep_file
    from minivit.training.results import FAILED, FINISHED, RESULTS
    from minivit.training.run_folder import RUNS
    from minivit.training.sweep import Sweep

    runs = sweep_file.read(args.file)
    out = Path(args.out) if args.out else RUNS / Path(args.file).stem
    sweep = Sweep(
        runs,
        out,
        command=lambda *run: [sys.executable, "-m", "minivit.train", *_train_options(args, *run)],
        note=lambda text: report.note(command.printable(text)),
    )
    for name in sweep.runs:
        _check_options(name, sweep.settings(name))
    sweep.check()
    if args.dry_run:
        return _print_plan(args, sweep)

    print(f"{len(runs)} runs, files in {out}; what each prints is in its output.txt", file=sys.stderr, flush=True)
    ended = sweep.run(args.jobs)
    outcomes = sweep.outcomes.values()
    finished = [outcome for outcome in outcomes if outcome.status == FINISHED]
    failed = [outcome.name for outcome in outcomes if outcome.status == FAILED]
    if not ended:
        print(f"stopped with {len(finished)} of {len(runs)} runs finished; the same command goes on", file=sys.stderr)
        return 130
    if finished:
        from minivit.analysis.comparison import group, table

        print(table(group(finished), command.printable))
    if failed:
        print(f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}; the same command tries them again",
              file=sys.stderr, flush=True)  # fmt: skip
    result = {"runs": len(runs), "finished": len(finished), "failed": failed, "results": str(out / RESULTS)}
    print(json.dumps(result))
    return 1 if failed else 0


def _train_options(args, settings, folder, resume):
    """What follows ``minivit.train`` on the command line of a run."""
    from minivit.kernels.threads import num_threads

    if resume:
        settings = {key: value for key, value in settings.items() if key != "init_from"}  # the file may have moved
    words = [*(["--resume"] if resume else []), f"--out={folder}", *_settings_options(settings)]
    if args.threads or (args.jobs > 1 and not resume):
        words.append(f"--threads={args.threads or max(1, num_threads() // args.jobs)}")
    if args.data_dir:
        words.append(f"--data-dir={args.data_dir}")
    return words + (["--offline"] if args.offline else [])


def _settings_options(settings):
    """Settings as options of ``minivit.train``: ``--set`` for those that have no option of their own."""
    from minivit import train

    own, words = vars(train.build_parser().parse_args([])), []
    for name, value in settings.items():
        if name == "model_args":
            words += ["--model-arg", *(f"{key}={json.dumps(inner)}" for key, inner in value.items())]
        elif name in own and not isinstance(value, bool):
            words.append(f"--{name.replace('_', '-')}={value}")
        else:
            words += ["--set", f"{name}={json.dumps(value)}"]
    return words


def _check_options(name, settings):
    """Raise UsageError if ``minivit.train`` would refuse the settings of that run as options."""
    from minivit import train
    from minivit.errors import UsageError

    def refuse(message):
        raise UsageError(f"run {name}: {message}")

    parser = train.build_parser()
    parser.error = refuse
    parser.parse_args(_settings_options(settings))


def _print_plan(args, sweep):
    """List the runs, how far they are, and the commands that a sweep would give."""
    import shlex

    from minivit.training.results import FINISHED

    counts = {"finished": 0, "to resume": 0, "new": 0}
    for name, outcome in sweep.outcomes.items():
        resume = sweep.can_resume(name)
        state = "finished" if outcome.status == FINISHED else "to resume" if resume else "new"
        counts[state] += 1
        options = _train_options(args, sweep.settings(name), sweep.folders[name].path, resume)
        needs = "".join(f", after {other}" for other in sweep.runs[name].needs.values())
        print(f"{name} ({state}{needs})")
        if state != "finished":
            print(command.printable(f"  python -m minivit.train {shlex.join(options)}"))
    print(json.dumps({"runs": len(sweep.runs), **{key.replace(" ", "_"): n for key, n in counts.items()}}))
    return 0


if __name__ == "__main__":
    command.run("sweep", main)
