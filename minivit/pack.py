"""``python -m minivit.pack``: a trained binary network as one small file of bits."""

import json
import os

from minivit import command
from minivit.errors import MinivitError, UsageError

IMAGES, TOLERANCE = 4, 1e-4
"""How many images verify a packed network, and by how much logits may differ."""

EPILOG = """\
examples:
  python -m minivit.pack runs/binary_vit-cifar100/best.npz -o binary_vit.packed --verify
  python -m minivit.evaluate binary_vit.packed
  python -m minivit.predict binary_vit.packed photo.jpg
  python -m minivit.profile binary_vit.packed --time --batch-size 1

The packed file holds each binary weight as one bit, and all other numbers exactly. It is for inference: the latent
weights that training changes are not in it, so keep the checkpoint. An older packed file of that name is replaced, with
--verify only by one that has passed; any other file is left alone.
The last line of stdout is one JSON object: checkpoint_bytes are those of the network's weights and buffers in float32,
like profile's weight_bytes, and ratio is how many times smaller the packed file is.
"""


def build_parser():
    """Return the parser of this command."""
    parser = command.Parser(
        "pack", description="Write a trained binary network as one small file of bits.", epilog=EPILOG
    )
    parser.add_argument("checkpoint", metavar="CKPT", help="a binary network, such as runs/.../best.npz")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="packed file to write")
    parser.add_argument("--verify", action="store_true",
                        help="write nothing unless the packed network's logits are the checkpoint's")  # fmt: skip
    command.add_threads_option(parser)
    return parser


def main(argv=None):
    """Run the command."""
    args = build_parser().parse_args(argv)
    command.set_threads(args.threads)

    from pathlib import Path

    from minivit.models.packing import pack
    from minivit.nn.packed import PackedUnit
    from minivit.training import checkpoint, packed_file
    from minivit.training.report import note

    saved, out = checkpoint.read(args.checkpoint), Path(args.out)
    if saved.packed:
        raise MinivitError(f"{args.checkpoint} is packed already")
    replaces = os.path.lexists(out)
    if replaces and (out.is_symlink() or not out.is_file() or not packed_file.is_packed(out)):
        raise UsageError(f"-o {args.out!r} is there and no regular packed file, so it stays: name another file")
    model = saved.build()
    float_bytes = 4 * sum(array.size for array in model.state_dict().values())
    expected = _logits(model) if args.verify else None
    verified = {}

    def verify(path):
        verified["largest_difference"] = _compare(_logits(checkpoint.load(path)), expected)

    pack(model)
    about = {"data": saved.data, "class_names": saved.class_names, "mean": saved.mean, "std": saved.std}
    checkpoint.save(out, model, **about, check=verify if args.verify else None)
    if replaces:
        note(f"note: replaced {command.printable(out)}")
    size = out.stat().st_size
    result = {
        "model": saved.architecture,
        "file": args.out,
        "bytes": size,
        "checkpoint_bytes": float_bytes,
        "ratio": round(float_bytes / size, 2),
        "binary_weights": sum(m.k * len(m.words.data) for m in model.modules() if isinstance(m, PackedUnit)),
        **verified,
    }
    ratio = f"one in {result['ratio']}"
    print(f"{saved.architecture}: {float_bytes:,} bytes become {size:,}, {ratio}, in {command.printable(out)}")
    if args.verify:
        print(f"logits of {IMAGES} random images differ by at most {result['largest_difference']:.1e}")
    print(json.dumps(result, allow_nan=False))


def _logits(model):
    """Logits (IMAGES, classes) of random images, one after the other: an array. Raises MinivitError: not finite."""
    import numpy as np

    from minivit.tensor import Tensor, no_grad

    rng, shape = np.random.default_rng(0), (1, model.config.in_chans, *model.config.image_shape)
    with no_grad(), np.errstate(over="ignore", invalid="ignore"):
        logits = np.concatenate([model(Tensor(rng.standard_normal(shape, np.float32))).data for _ in range(IMAGES)])
    if not np.isfinite(logits).all():
        raise MinivitError("the network gives numbers that are not finite, so that there is nothing to verify")
    return logits


def _compare(found, expected):
    """Return the largest difference of logits. Raises MinivitError where they, or the decisions, are not the same."""
    difference = float(abs(found - expected).max())
    flips = int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
    if flips or difference > TOLERANCE:
        raise MinivitError(
            f"nothing is written: the packed network's logits differ by up to {difference:.1e}, and {flips} of "
            f"{len(expected)} decisions"
        )
    return difference


if __name__ == "__main__":
    command.run("pack", main)
