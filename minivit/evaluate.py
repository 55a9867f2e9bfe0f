"""``python -m minivit.evaluate``: measure a trained network on test images."""

import json
import math

from minivit import command

EPILOG = """\
examples:
  python -m minivit.evaluate runs/sl_vit-shapes10/best.npz
  python -m minivit.evaluate runs/sl_vit-cifar100/best.npz --data cifar100 --data-dir ~/data
  python -m minivit.evaluate binary_vit.packed

The last line of stdout is one JSON object; top1 and top5 are percentages.
"""


def build_parser():
    """Return the parser of this command."""
    parser = command.Parser(
        "evaluate", description="Measure a trained network on test images.", epilog=EPILOG
    )
    parser.add_argument(
        "checkpoint", metavar="CKPT", help="file written by training, such as runs/.../best.npz, or a packed one"
    )
    what = parser.add_argument_group("data")
    what.add_argument(
        "--data", metavar="NAME", help="data set (default: the one that the network was trained on)"
    )
    what.add_argument(
        "--limit-test", type=command.positive_int, metavar="N", help="test images (default: all)"
    )
    command.add_data_options(what)
    how = parser.add_argument_group("how")
    how.add_argument(
        "--batch-size",
        type=command.positive_int,
        default=256,
        metavar="N",
        help="images at once (default: 256)",
    )
    command.add_threads_option(how)
    return parser


def main(argv=None):
    """Run the command."""
    args = build_parser().parse_args(argv)
    command.set_threads(args.threads)

    import numpy as np

    from minivit.data import load_dataset
    from minivit.errors import MinivitError
    from minivit.kernels.memory import keep_freed_memory
    from minivit.training import checkpoint
    from minivit.training.evaluation import evaluate
    from minivit.training.report import progress

    saved = checkpoint.read(args.checkpoint)
    name = args.data or saved.data or "shapes10"
    size = saved.arguments.get("img_size")
    sized = isinstance(size, int) and (name == "tiny_imagenet" or name.startswith("folder:"))
    dataset = load_dataset(
        name,
        args.data_dir,
        limit_train=1,  # nobody looks at them
        limit_test=args.limit_test,
        offline=args.offline,
        img_size=size if sized else None,  # where it is no square, check_fits says so
    )
    checkpoint.check_fits(saved, dataset)
    model = saved.build()
    keep_freed_memory()
    # The loss says whether something overflowed: no warnings before that.
    with np.errstate(over="ignore", invalid="ignore"), progress("testing", len(dataset.test), "images") as bar:
        measured = evaluate(
            model,
            dataset.test,
            saved.mean or dataset.mean,
            saved.std or dataset.std,
            args.batch_size,
            on_batch=lambda images: bar.update(images) and None,
        )
    if not math.isfinite(measured.loss):
        raise MinivitError(f"the network of {args.checkpoint} gives numbers that are not finite")
    print(f"{saved.architecture} on {name}: top-1 {measured.top1:.2f} %, top-5 {measured.top5:.2f} %")
    result = {
        "top1": round(measured.top1, 2),
        "top5": round(measured.top5, 2),
        "loss": round(measured.loss, 6),
        "images": measured.images,
        "images_per_second": round(measured.images / measured.seconds, 1),
    }
    print(json.dumps(result, allow_nan=False))


if __name__ == "__main__":
    command.run("evaluate", main)
