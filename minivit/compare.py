"""``python -m minivit.compare``: finished runs side by side."""

import json
import sys

from minivit import command
from minivit.command import printable

EPILOG = """\
examples:
  python -m minivit.compare runs/vit-cifar100 runs/sl_vit-cifar100
  python -m minivit.compare runs/study --plot study.png
  python -m minivit.compare study/results.jsonl --by model

Runs that differ in nothing but the seed are one group: mean ± half the width of its 95 % interval by Student's t. The
columns before the numbers are the settings that tell the groups apart. Accuracies are on the test images: those of the
last epoch, also with averaged weights (EMA) where there are any, and of the best epoch, which was chosen by the same
images and so is flattered. Minutes are those of training and testing, and compare only what ran under the same
conditions.
The last line of stdout is one JSON object.
"""


def build_parser():
    """Return the parser of this command."""
    parser = command.Parser("compare", description="Put finished runs side by side.", epilog=EPILOG)
    parser.add_argument("runs", metavar="RUN", nargs="+",
                        help="folder of a run, of a sweep or of several runs, or results.jsonl of a sweep")  # fmt: skip
    parser.add_argument("--by", metavar="SETTING", nargs="+", action="extend",
                        help="runs with equal values of these settings are one group, whatever the others are "
                        "(default: all settings but the seed)")  # fmt: skip
    parser.add_argument("--plot", type=command.png_file, metavar="FILE.png",
                        help="draw accuracy and loss over the epochs into this file")
    return parser


def main(argv=None):
    """Run the command."""
    args = build_parser().parse_args(argv)

    from minivit.analysis.comparison import group, mixed_settings, save_comparison, table
    from minivit.analysis.figure import check_figure
    from minivit.errors import MinivitError
    from minivit.training import report
    from minivit.training.results import FINISHED, collect

    if args.plot:
        check_figure(args.plot)
    outcomes = collect(args.runs, note=lambda text: report.note(printable(text)))
    groups = group([outcome for outcome in outcomes if outcome.config], args.by)
    mixed = mixed_settings(groups)
    if any(g.runs for g in groups):
        print(table(groups, printable))
    unfinished = [outcome for outcome in outcomes if outcome.status != FINISHED]
    for outcome in unfinished:
        print(printable(f"{outcome.status}: {outcome.name}{_progress(outcome)}"))
    if mixed:
        print(printable(f"note: groups hold runs that differ in {', '.join(mixed)}"), file=sys.stderr)
    if args.plot:
        if not any(outcome.rows for outcome in outcomes):
            raise MinivitError("no run has finished an epoch: there is nothing to draw")
        save_comparison(args.plot, groups)
    result = {
        "runs": len(outcomes),
        "finished": len(outcomes) - len(unfinished),
        "unfinished": [outcome.name for outcome in unfinished],
        "groups": [g.as_dict() for g in groups],
    }
    print(json.dumps(result | ({"plot": args.plot} if args.plot else {}), allow_nan=False))


def _progress(outcome):
    """How far an unfinished run has come, and why it failed."""
    far = ""
    if outcome.rows:
        far = f", {len(outcome.rows)} of {outcome.config['epochs']} epochs, {outcome.rows[-1]['test_top1']:.2f} %"
    return far + (f": {outcome.error}" if outcome.error else "")


if __name__ == "__main__":
    command.run("compare", main)
