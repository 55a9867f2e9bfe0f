"""``python -m minivit.attention``: where trained networks look, as maps over images."""

import json
import os
from typing import NamedTuple

from minivit import command
from minivit.errors import MinivitError, UsageError

EPILOG = """\
examples:
  python -m minivit.attention runs/sl_vit-cifar100/best.npz cat.jpg -o cat.png
  python -m minivit.attention runs/vit-cifar100/best.npz runs/sl_vit-cifar100/best.npz --index 3 7 9 -o compared.png
  python -m minivit.attention deit.npz photos/*.jpg --rollout -o rollout.png
  python -m minivit.attention runs/sl_vit-cifar100/best.npz --layer 2 --head all -o heads.png

Files that end in .npz are checkpoints, to be shown side by side; other files are images. Without images, those that
the network was tested on are taken.

A map shows how much the class token takes from each patch. Layers count from 0: all blocks of ViT, DeiT, T2T-ViT and
PiT, the class-attention blocks of CaiT. Binary networks without a class token show the mean of all tokens instead;
Swin and convolutional networks have no such map. Colours run in each map from its least to its largest weight, which
stand in its corner with the mean as the unit.
The last line of stdout is one JSON object: under "layers", "heads" and "grid" what was drawn of each of "checkpoints".
"""


def build_parser():
    """Return the parser of this command."""
    parser = command.Parser("attention", description="Draw where trained networks look.", epilog=EPILOG)
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint")
    parser.add_argument("files", metavar="FILE", nargs="*", default=[],
                        help="more checkpoints to compare, ending in .npz; image files")  # fmt: skip
    parser.add_argument("-o", "--out", required=True, metavar="FILE.png", help="picture to write")
    what = parser.add_argument_group("attention")
    which = what.add_mutually_exclusive_group()
    which.add_argument("--layer", type=int, default=-1, metavar="N",
                       help="layer, from 0, or from the end if negative (default: -1, the last)")  # fmt: skip
    which.add_argument("--rollout", action="store_true", help="attention rollout through the layers, all heads' mean")
    what.add_argument("--head", type=_head, default="mean", metavar="N|all",
                      help="one head, from 0, or a column for each (default: their mean)")  # fmt: skip
    data = parser.add_argument_group("images of a data set")
    data.add_argument("--data", metavar="NAME", help="data set (default: that of the first checkpoint)")
    data.add_argument("--index", type=command.non_negative_int, nargs="+", metavar="I",
                      help="test images, by their number from 0 (default: 0 1 2 3)")  # fmt: skip
    command.add_data_options(data)
    how = parser.add_argument_group("how")
    for name, kind in (("mean", command.non_negative_float), ("std", command.positive_float)):
        how.add_argument(f"--{name}", type=kind, nargs=3, metavar=("R", "G", "B"),
                         help=f"{name} of the channels, of values from 0 to 1 (default: as in training)")  # fmt: skip
    command.add_threads_option(how)
    return parser


def _head(text):
    return text if text in ("mean", "all") else command.non_negative_int(text)


def main(argv=None):
    """Run the command."""
    parser = build_parser()
    args = parser.parse_intermixed_args(argv)  # files may stand on both sides of the options
    checkpoints = [args.checkpoint, *(name for name in args.files if name.endswith(".npz"))]
    files = [name for name in args.files if not name.endswith(".npz")]
    if files and (args.data or args.index):
        parser.error("name image files, or images of a data set, not both")
    if args.rollout and args.head != "mean":
        parser.error("rollout takes the mean of all heads: leave --head out")
    command.set_threads(args.threads)

    from pathlib import Path

    from minivit.analysis.attention_plots import save_attention
    from minivit.analysis.figure import check_figure
    from minivit.training import checkpoint

    out = Path(args.out)
    if out.suffix.lower() != ".png":
        raise UsageError(f"the picture is a PNG: name a file that ends in .png, not {out}")
    if out.exists() and any(os.path.exists(name) and os.path.samefile(out, name) for name in files):
        raise UsageError(f"{out} is one of the images: name another file for the picture")
    check_figure(out)
    saved = [checkpoint.read(name) for name in checkpoints]
    data = args.data or saved[0].data or "shapes10"
    images, views = {}, []
    for each in saved:
        size = each.configuration().image_shape
        if size not in images:
            images[size] = _decode(files, size) if files else _test_images(data, size, args)
        views.append(_look(each, images[size], args))
    distinct = len({each.architecture for each in saved}) == len(saved)
    names = [each.architecture if distinct else "/".join(each.path.parts[-2:]) for each in saved]
    save_attention(out, *_arrange(names, views, args.head == "all"))
    for name, view in zip(names, views):
        text = f"{name}: {view.what}, {' x '.join(map(str, view.grid))} patches"
        print(text.encode(errors="replace").decode())  # a name may hold bytes that are no text
    result = {
        "file": args.out,
        "images": views[0].images.labels,
        "checkpoints": checkpoints,
        "models": [each.architecture for each in saved],
        "layers": [view.layers for view in views],
        "heads": [view.heads for view in views],
        "grid": [view.grid for view in views],
    }
    print(json.dumps(result))


class Images(NamedTuple):
    """Images of one size: their ``labels``, uint8 ``pixels`` (B, 3, height, width), and the data set's statistics."""

    labels: list
    pixels: object
    mean: tuple | None = None
    std: tuple | None = None


class View(NamedTuple):
    """What one network shows.

    Args:
        images: the Images that it saw. maps: (B, K, rows, columns).
        layers: the numbers of the layers drawn. heads: those of the K heads, or "mean".
        what: layers and heads in words.
    """

    images: Images
    maps: object
    layers: list
    heads: list | str
    what: str

    @property
    def grid(self):
        """(rows, columns) of patches."""
        return self.maps.shape[2:]


def _decode(files, size):
    """Decode image files, whose names are their labels."""
    from pathlib import Path

    import numpy as np

    from minivit.data.decoded import read_file
    from minivit.data.images import decode, require_pillow

    require_pillow()
    return Images(files, np.stack([decode(read_file(Path(file)), size, file) for file in files]))


def _test_images(name, size, args):
    """Take test images of a data set, whose classes are their labels."""
    from minivit.data import load_dataset
    from minivit.data.augmentation import fit

    if size[0] != size[1]:
        raise UsageError(f"images of {name} are squares, and a checkpoint takes {size[0]}x{size[1]}: name files")
    dataset = load_dataset(name, args.data_dir, limit_train=1, offline=args.offline, img_size=size[0])
    test = dataset.test
    index = list(args.index or range(min(4, len(test))))
    if max(index) >= len(test):
        raise UsageError(f"{name} has no test image {max(index)}: there are {len(test)}, from 0")
    names = [dataset.class_names[i] for i in test.labels[index]]
    return Images(names, fit(test.images[index], size), dataset.mean, dataset.std)


def _look(saved, images, args):
    """Return the View of a checkpoint."""
    import numpy as np

    from minivit.data.augment import normalize

    channels = saved.configuration().in_chans
    if channels != 3:
        raise UsageError(f"{saved.path} takes images of {channels} channels; a picture has 3")
    mean, std = args.mean or saved.mean or images.mean, args.std or saved.std or images.std
    if mean is None or std is None:
        raise UsageError(
            f"{saved.path} does not say how images were normalised in training: add --mean and --std (those of "
            "ImageNet are --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225)"
        )
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            layers, maps = _maps(saved.build(), normalize(images.pixels, mean, std), args)
    except UsageError as error:
        raise UsageError(f"{saved.path}: {error}") from None
    if not np.isfinite(maps).all():
        raise MinivitError(f"the network of {saved.path} gives numbers that are not finite")
    if args.rollout:
        return View(images, maps, layers, "mean", f"rollout of layers {layers[0]} to {layers[-1]}")
    count = maps.shape[1]
    if args.head == "mean":
        what, heads, maps = f"mean of {count} heads", "mean", maps.mean(axis=1, keepdims=True)
    elif args.head == "all":
        what, heads = f"{count} heads", list(range(count))
    elif args.head < count:
        what, heads, maps = f"head {args.head}", [args.head], maps[:, args.head : args.head + 1]
    else:
        raise UsageError(f"{saved.path} has no head {args.head} in layer {layers[0]}: there are {count}, from 0")
    return View(images, maps, layers, heads, f"layer {layers[0]}, {what}")


def _maps(model, images, args):
    """Return (layers, maps) of ``minivit.analysis.attention_maps``, one image at a time: weights are large."""
    import numpy as np

    from minivit.analysis.attention_maps import attention_maps, rollout_maps

    maps = []
    for start in range(len(images)):
        image = images[start : start + 1]
        layers, found = rollout_maps(model, image) if args.rollout else attention_maps(model, image, args.layer)
        maps.append(found)
    return layers, np.concatenate(maps)


def _arrange(names, views, each_head):
    """Return rows and titles for ``save_attention``: a column for each network, or else one for each head."""
    from minivit.analysis.attention_plots import Row

    labels, pixels, *_ = views[0].images
    if not each_head:
        rows = [Row(labels[i], pixels[i], [view.maps[i, 0] for view in views]) for i in range(len(labels))]
        return rows, [f"{name}\n{view.what}" for name, view in zip(names, views)]
    rows = [
        Row(f"{labels[i]}\n{name}\nlayer {view.layers[0]}", view.images.pixels[i], list(view.maps[i]))
        for i in range(len(labels))
        for name, view in zip(names, views)
    ]
    return rows, [f"head {head}" for head in range(max(len(row.maps) for row in rows))]


if __name__ == "__main__":
    command.run("attention", main)
