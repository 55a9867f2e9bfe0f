"""``python -m minivit.train``: train a network."""

import json
import os
import shlex
import shutil
import sys
import textwrap

from minivit import command
from minivit.errors import UsageError
from minivit.training.config import DEFAULT_DATA, DEFAULT_MODEL, TrainConfig
from minivit.training.recipes import RECIPES
from minivit.training.rules import OPTIMIZERS, SCHEDULES

USUAL = ("shapes", "quick", "small_data")

EPILOG = """\
recipes:
{recipes}

examples:
  python -m minivit.train                                   sl_vit on drawn shapes: no download, a few minutes
  python -m minivit.train --data cifar100 --epochs 30       the paper's recipe with a shorter schedule
  python -m minivit.train --data cifar10 --recipe quick --time-budget 10
  python -m minivit.train --model vit --model-arg depth=4 embed_dim=96 --out runs/tiny
  python -m minivit.train --model deit_tiny_distilled_patch16_224 --model-arg patch_size=4 --data cifar100 \
      --teacher runs/resnet20-cifar100/best.npz
  python -m minivit.train --model deit_tiny_patch16_224 --recipe quick_deit --data cifar100 --mixup 0
  python -m minivit.train --init-from runs/sl_vit-cifar100/best.npz --data tiny_imagenet --recipe augreg_transfer
  python -m minivit.train --resume                          go on with the newest run, exactly

A run leaves config.json, log.jsonl, last.npz, best.npz and curves.png in its folder. Ctrl-C saves first, as do
SIGTERM and a closed terminal.
The last line of stdout is one JSON object; test_top1 and test_top5 are percentages, those of best.npz.
Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted after saving.
"""


def build_parser():
    """Return the parser of this command. Options that are not given stay None: the recipe decides them."""
    recipes = "\n".join(
        textwrap.fill(f"  {recipe.name:<12}  {recipe.description}", 88, subsequent_indent=" " * 14)
        for recipe in RECIPES.values()
    )
    parser = command.Parser("train", description="Train a network.", epilog=EPILOG.format(recipes=recipes))

    what = parser.add_argument_group("what to train (python -m minivit lists the names)")
    what.add_argument("--model", metavar="NAME", help=f"network (default: {DEFAULT_MODEL})")
    what.add_argument("--model-arg", dest="model_args", nargs="+", action="extend", type=command.key_value,
                      metavar="KEY=VALUE",
                      help="constructor keywords, values as in JSON, such as depth=4 (default: the recipe's)")
    what.add_argument("--data", metavar="NAME", help=f"data set, or folder:PATH (default: {DEFAULT_DATA})")
    what.add_argument("--img-size", type=command.positive_int, metavar="N",
                      help="pixels a side; smaller images are enlarged (default: the data set's)")
    what.add_argument("--init-from", metavar="CKPT",
                      help="start from these weights, with a new classifier where the classes are others, and "
                      "positions resampled where the size is another; the model is that of the checkpoint")
    what.add_argument("--linear-probe", action="store_true", default=None,
                      help="with --init-from: train the classifier alone")
    what.add_argument("--limit-train", type=command.positive_int, metavar="N",
                      help="use only so many training images (default: all)")
    what.add_argument("--limit-test", type=command.positive_int, metavar="N",
                      help="use only so many test images (default: all)")
    command.add_data_options(what)

    how = parser.add_argument_group("how to train (the defaults are those of the recipe)")
    how.add_argument("--recipe", metavar="NAME",
                     help="settings that the options below change one by one (default: shapes for shapes10 "
                     "and shapes100, small_data for all others)")
    how.add_argument("--config", metavar="FILE",
                     help="config.json of another run, whose settings take the place of the recipe's")
    how.add_argument("--epochs", type=command.positive_int, metavar="N",
                     help=f"passes over the data ({_by_recipe('epochs')}); the warm-up changes in proportion")
    how.add_argument("--batch-size", type=command.positive_int, metavar="N",
                     help=f"images in a step ({_by_recipe('batch_size')})")
    how.add_argument("--optimizer", metavar="NAME",
                     help=f"adamw, or sgd with momentum 0.9 ({_by_recipe('optimizer')}); another one than the "
                     f"recipe's brings its own defaults: {_by_optimizer()}")
    how.add_argument("--lr", type=command.positive_float, metavar="X",
                     help=f"peak learning rate ({_by_recipe('lr', lambda r: r.lr_for(DEFAULT_MODEL))})")
    how.add_argument("--warmup-epochs", type=command.non_negative_float, metavar="X",
                     help=f"linear warm-up before the cosine ({_by_recipe('warmup_epochs')})")
    how.add_argument("--weight-decay", type=command.non_negative_float, metavar="X",
                     help=f"strength of the decay ({_by_recipe('weight_decay')})")
    how.add_argument("--label-smoothing", type=command.fraction, metavar="X",
                     help=f"share of the target spread over all classes ({_by_recipe('label_smoothing')})")
    how.add_argument("--drop-path", type=command.fraction, metavar="X",
                     help=f"stochastic depth ({_by_recipe('drop_path')})")
    how.add_argument("--schedule", metavar="NAME",
                     help=f"how the learning rate falls: {', '.join(SCHEDULES)} ({_by_recipe('schedule')})")
    how.add_argument("--ema", type=command.fraction, metavar="X",
                     help=f"decay of averaged weights, measured beside the others ({_by_recipe('ema')})")
    how.add_argument("--auto-augment", metavar="POLICY",
                     help="changes of colour and geometry: cifar, svhn, imagenet, rand-m9-mstd0.5-inc1, tf-rand-l2-m15 "
                     f"..., or none ({_by_recipe('auto_augment', lambda r: r.auto_augment or 'none')})")
    how.add_argument("--erase", type=command.fraction, metavar="X",
                     help=f"share of the images that lose a rectangle ({_by_recipe('erase')})")
    how.add_argument("--mixup", type=command.non_negative_float, metavar="X",
                     help=f"Mixup's alpha, 0 for none ({_by_recipe('mixup')})")
    how.add_argument("--cutmix", type=command.non_negative_float, metavar="X",
                     help=f"CutMix's alpha, 0 for none ({_by_recipe('cutmix')})")
    how.add_argument("--set", dest="settings", nargs="+", action="extend", type=command.key_value, metavar="KEY=VALUE",
                     help="any other number of the recipe, such as crop_padding=2 repeated_augmentation=3 clip=1 "
                     "(config.json of a run lists them all)")
    how.add_argument("--teacher", metavar="CKPT",
                     help="checkpoint of a network that teaches: the loss becomes (1 - alpha) cross-entropy + alpha "
                     "distillation")
    how.add_argument("--distill", metavar="HOW",
                     help=f"learn the teacher's decisions (hard) or its probabilities (soft) ({_by_recipe('distill')})")
    how.add_argument("--alpha", type=command.non_negative_float, metavar="X",
                     help=f"weight of the distillation, up to 1 ({_by_recipe('alpha')})")
    how.add_argument("--temperature", type=command.positive_float, metavar="X",
                     help=f"softens the probabilities of soft distillation ({_by_recipe('temperature')})")
    how.add_argument("--seed", type=command.non_negative_int, metavar="N",
                     help="of weights, order and augmentation (default: 0); the data set stays the same")

    run = parser.add_argument_group("the run")
    run.add_argument("--out", metavar="DIR",
                     help="folder of the run (default: the first free one of runs/MODEL-DATA, -2, -3 ...)")
    run.add_argument("--resume", action="store_true",
                     help="go on with the run in --out, or with the newest one; its settings cannot change")
    run.add_argument("--time-budget", type=command.positive_float, metavar="MINUTES",
                     help="stop then, test and save; --resume can finish the run (default: no limit)")
    command.add_threads_option(run, "all cores; for --resume as many as the run began with, so that it repeats exactly")
    return parser


def main(argv=None):
    """Run the command. Returns the exit code."""
    args = build_parser().parse_args(argv)
    command.set_threads(args.threads)

    from minivit.training.run_folder import RunFolder

    if args.config and (args.resume or args.recipe):
        raise UsageError("--config gives all settings: leave --resume and --recipe out")
    if args.resume:
        folder = RunFolder.existing(args.out) if args.out else RunFolder.newest(args.model, args.data)
        if args.threads is None:
            command.set_threads(folder.threads(), overrule=False)

    from dataclasses import asdict

    from minivit.training import loop
    from minivit.training.config import resolve, settable

    said = vars(args)
    overrides = {name: said[name] for name in TrainConfig.__dataclass_fields__ if said.get(name) is not None}
    if "model_args" in overrides:
        overrides["model_args"] = command.model_keywords(overrides["model_args"])
    overrides |= settable(args.settings or [], overrides)
    options = {"data_dir": args.data_dir, "offline": args.offline, "time_budget": args.time_budget}
    if args.resume:
        result = loop.resume(folder, overrides, **options)
    else:
        config = resolve(overrides, RunFolder.read_settings(args.config) if args.config else None)
        folder = RunFolder.create(args.out, config.model, config.data)
        result = loop.train(config, folder, **options)

    if result.stopped_by is not None:
        print(f"stopped by {result.stopped_by}; go on with: {_continuation(args, folder)}", file=sys.stderr)
    if result.stopped_by == "interrupt":
        return 130
    line = asdict(result)
    del line["stopped_by"]
    for key, digits in (("test_top1", 2), ("test_top5", 2), ("seconds", 1), ("images_per_second", 1)):
        line[key] = round(line[key], digits)
    print(json.dumps(line, allow_nan=False))
    return 0


def _continuation(args, folder):
    """The command line that resumes this run."""
    words = [_python(), "-m", "minivit.train", "--resume", "--out", str(folder.path)]
    words += ["--data-dir", args.data_dir] if args.data_dir else []
    words += ["--offline"] if args.offline else []
    words += ["--threads", str(args.threads)] if args.threads else []
    return shlex.join(words)


def _python():
    """What to type for this interpreter: its path from here if it lies below, as that of ``make train`` does."""
    path = os.path.abspath(sys.executable)
    if path.startswith(os.path.join(os.getcwd(), "")):
        return os.path.relpath(path)
    return "python" if shutil.which("python") == path else path


def _by_optimizer():
    """``sgd --lr 0.05 --weight-decay 0.0005``, and so on for each optimiser."""
    return ", ".join(
        f"{name} --lr {own['lr']:g} --weight-decay {own['weight_decay']:g}" for name, own in OPTIMIZERS.items()
    )


def _by_recipe(name, get=None):
    """``quick 14, small_data 100``: what the usual recipes say about an option."""
    get = get or (lambda recipe: getattr(recipe, name))
    return ", ".join(f"{usual} {get(RECIPES[usual])}" for usual in USUAL)


if __name__ == "__main__":
    command.run("train", main)
