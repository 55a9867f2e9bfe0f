"""``python -m minivit.predict``: what a trained network sees in image files."""

import json

from minivit import command
from minivit.errors import MinivitError, UsageError

BATCH_SIZE = 32

EPILOG = """\
examples:
  python -m minivit.predict runs/sl_vit-cifar100/best.npz cat.jpg photos/*.png
  python -m minivit.predict binary_vit.packed cat.jpg
  python -m minivit.predict deit.npz cat.jpg --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225

Each image is turned as its camera says, scaled until it just covers the size that the network takes, and cut to its
middle, as in the data sets. The last line of stdout is one JSON object: under "images", for each file that could be
read, its name and its likeliest classes with their probabilities; under "failed" the names of the others, each of which
has a line on stderr. With any of those the exit code is 1.
"""


def build_parser():
    """Return the parser of this command."""
    parser = command.Parser("predict", description="Name what a trained network sees in images.", epilog=EPILOG)
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint or packed file")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files (needs Pillow)")
    how = parser.add_argument_group("how")
    how.add_argument("--top", type=command.positive_int, default=5, metavar="N", help="classes to name (default: 5)")
    for name, kind in (("mean", command.non_negative_float), ("std", command.positive_float)):
        how.add_argument(f"--{name}", type=kind, nargs=3, metavar=("R", "G", "B"),
                         help=f"{name} of the channels, of values from 0 to 1 (default: as in training)")  # fmt: skip
    command.add_threads_option(how)
    return parser


def main(argv=None):
    """Run the command."""
    args = build_parser().parse_args(argv)
    command.set_threads(args.threads)

    from minivit.data.images import require_pillow
    from minivit.training import checkpoint

    require_pillow()
    saved = checkpoint.read(args.checkpoint)
    mean, std = args.mean or saved.mean, args.std or saved.std
    if mean is None or std is None:
        raise UsageError(
            f"{args.checkpoint} does not say how images were normalised in training: add --mean and --std (those of "
            "ImageNet are --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225)"
        )
    if saved.configuration().in_chans != 3:
        raise UsageError(f"{args.checkpoint} takes images of {saved.configuration().in_chans} channels; files have 3")
    model = saved.build()
    names = saved.class_names or [f"class {i}" for i in range(model.config.num_classes)]
    seen, failed = [], []
    for start in range(0, len(args.images), BATCH_SIZE):
        files, pixels = _decode(args.images[start : start + BATCH_SIZE], model.config.image_shape, failed)
        if files:
            seen += zip(files, _top(_probabilities(model, pixels, mean, std, args.checkpoint), names, args.top))
    _print_table(seen)
    images = [{"file": file, "top": [{"class": c, "probability": round(p, 6)} for c, p in top]} for file, top in seen]
    print(json.dumps({"model": saved.architecture, "images": images, "failed": failed}))
    return 1 if failed else 0


def _decode(files, size, failed):
    """Decode image files to (files, list of uint8 (3, height, width)); those that cannot be are told of and added to
    ``failed``."""
    from pathlib import Path

    from minivit.data.decoded import read_file
    from minivit.data.images import decode

    good, pixels = [], []
    for file in files:
        try:
            pixels.append(decode(read_file(Path(file)), size, file))
            good.append(file)
        except MinivitError as error:
            command.complain("predict", error)
            failed.append(file)
    return good, pixels


def _probabilities(model, pixels, mean, std, path):
    """Softmax of the logits: (images, classes) float64."""
    import numpy as np

    from minivit.data.augment import normalize
    from minivit.tensor import Tensor, no_grad

    with no_grad(), np.errstate(over="ignore", invalid="ignore"):
        logits = model(Tensor(normalize(np.stack(pixels), mean, std))).data.astype(np.float64)
    if not np.isfinite(logits).all():
        raise MinivitError(f"the network of {path} gives numbers that are not finite")
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def _top(probabilities, names, count):
    """For each image (name, probability) of its ``count`` likeliest classes, the likeliest first."""
    order = (-probabilities).argsort(axis=1, kind="stable")[:, :count]
    return [[(names[i], float(row[i])) for i in best] for row, best in zip(probabilities, order)]


def _print_table(seen):
    width = max((len(command.printable(name)) for _, top in seen for name, _ in top), default=0)
    for file, top in seen:
        print(command.printable(file))
        for name, probability in top:
            print(f"  {command.printable(name):<{width}}  {probability:7.2%}")


if __name__ == "__main__":
    command.run("predict", main)
