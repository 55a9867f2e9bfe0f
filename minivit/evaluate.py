"""``python -m minivit.evaluate``: measure a trained network on test images."""

import json
import math

from minivit import command

EPILOG = """\
examples:
  python -m minivit.evaluate runs/sl_vit-shapes10/best.npz
  python -m minivit.evaluate runs/sl_vit-cifar100/best.npz --data cifar100 --data-dir ~/data
  python -m minivit.evaluate binary_vit.packed
  python -m minivit.evaluate runs/sl_vit-shapes10/best.npz --confusion confusion.png

The last line of stdout is one JSON object; top1 and top5 are percentages, confused has the pairs of the table of
--confusion: [class, taken for, images].
"""

LISTED = 10
"""Pairs of classes that --confusion lists."""


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
    parser.add_argument("--confusion", type=command.png_file, metavar="FILE.png",
                        help="draw which classes are taken for which, and list the worst pairs")  # fmt: skip
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

    from minivit.analysis.confusion import confusion_matrix
    from minivit.analysis.figure import check_figure
    from minivit.data import load_dataset
    from minivit.errors import MinivitError
    from minivit.kernels.memory import keep_freed_memory
    from minivit.training import checkpoint
    from minivit.training.evaluation import evaluate
    from minivit.training.report import progress

    if args.confusion:
        check_figure(args.confusion)  # before all the work
    saved = checkpoint.read(args.checkpoint)
    name = args.data or saved.data or "shapes10"
    size = saved.arguments.get("img_size")
    dataset = load_dataset(
        name,
        args.data_dir,
        limit_train=1,  # nobody looks at them
        limit_test=args.limit_test,
        offline=args.offline,
        img_size=size if isinstance(size, int) else None,  # where it is no square, check_fits says so
    )
    checkpoint.check_fits(saved, dataset)
    model = saved.build()
    matrix = np.zeros((dataset.num_classes, dataset.num_classes), np.int64)

    def count(logits, labels):
        matrix[:] += confusion_matrix(labels, logits.argmax(axis=1), dataset.num_classes)

    keep_freed_memory()
    # The loss says whether something overflowed: no warnings before that.
    with np.errstate(over="ignore", invalid="ignore"), progress("testing", len(dataset.test), "images") as bar:
        measured = evaluate(
            model,
            dataset.test,
            saved.mean or dataset.mean,
            saved.std or dataset.std,
            args.batch_size,
            img_size=dataset.img_size,
            on_batch=lambda images: bar.update(images) and None,
            on_logits=count,
        )
    if not math.isfinite(measured.loss):
        raise MinivitError(f"the network of {args.checkpoint} gives numbers that are not finite")
    title = command.printable(f"{saved.architecture} on {name}")
    print(f"{title}: top-1 {measured.top1:.2f} %, top-5 {measured.top5:.2f} %")
    result = {
        "top1": round(measured.top1, 2),
        "top5": round(measured.top5, 2),
        "loss": round(measured.loss, 6),
        "images": measured.images,
        "images_per_second": round(measured.images / measured.seconds, 1),
    }
    if args.confusion:
        title += f": {measured.top1:.2f} % of {measured.images} test images"
        result |= _report_confusion(args.confusion, matrix, dataset.class_names, title)
    print(json.dumps(result, allow_nan=False))


def _report_confusion(path, matrix, class_names, title):
    """Draw the confusion matrix and print the pairs confused most. Returns what the result says of them."""
    from minivit.analysis.confusion import most_confused, save_confusion
    from minivit.analysis.table import text_table

    names = [command.printable(name) for name in class_names]
    save_confusion(path, matrix, names, title)
    pairs = [(names[i], names[j], images) for i, j, images in most_confused(matrix, LISTED)]
    if pairs:
        rows = [(*classes, str(images)) for *classes, images in pairs]
        print(text_table(("class", "taken for", "images"), rows, left=(0, 1)))
    return {"confusion": path, "confused": pairs}


if __name__ == "__main__":
    command.run("evaluate", main)
