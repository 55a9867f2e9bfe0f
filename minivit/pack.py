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
weights that training changes are not in it, so keep the checkpoint. An output file that exists is replaced.
The last line of stdout is one JSON object: checkpoint_bytes are those of the network's weights in float32, without the
state of a run, and ratio is how many times smaller the packed file is.
"""


def build_parser():
    """Return the parser of this command."""
    parser = command.Parser(
        "pack", description="Write a trained binary network as one small file of bits.", epilog=EPILOG
    )
    parser.add_argument("checkpoint", metavar="CKPT", help="a binary network, such as runs/.../best.npz")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="packed file to write")
    parser.add_argument("--verify", action="store_true",
                        help="compare the logits of what was written with the checkpoint's")  # fmt: skip
    command.add_threads_option(parser)
    return parser


def main(argv=None):
    """Run the command."""
    args = build_parser().parse_args(argv)
    command.set_threads(args.threads)

    from pathlib import Path

    from minivit.models.packing import pack
    from minivit.nn.packed import PackedUnit
    from minivit.training import checkpoint
    from minivit.training.report import note

    saved, out = checkpoint.read(args.checkpoint), Path(args.out)
    if saved.packed:
        raise MinivitError(f"{args.checkpoint} is packed already")
    if out.exists() and os.path.samefile(out, saved.path):
        raise UsageError("-o names the checkpoint itself, whose latent weights would be lost: name another file")
    model = saved.build()
    float_bytes = sum(array.nbytes for array in model.state_dict().values())
    expected = _logits(model) if args.verify else None
    pack(model)
    replaced = out.exists()
    checkpoint.save(
        out, model, data=saved.data, class_names=saved.class_names, mean=saved.mean, std=saved.std
    )
    if replaced:
        note(f"note: replaced {out}")
    size = out.stat().st_size
    result = {
        "model": saved.architecture,
        "file": args.out,
        "bytes": size,
        "checkpoint_bytes": float_bytes,
        "ratio": round(float_bytes / size, 2),
        "binary_weights": sum(m.k * len(m.words.data) for m in model.modules() if isinstance(m, PackedUnit)),
    }
    print(f"{saved.architecture}: {float_bytes:,} bytes become {size:,}, one in {result['ratio']}, in {out}")
    if args.verify:
        result["largest_difference"] = _compare(_logits(checkpoint.load(out)), expected, out)
        print(f"logits of {IMAGES} random images differ by at most {result['largest_difference']:.1e}")
    print(json.dumps(result, allow_nan=False))


def _logits(model):
    """Logits (IMAGES, classes) of random images, one after the other: an array."""
    import numpy as np

    from minivit.tensor import Tensor, no_grad

    rng, shape = np.random.default_rng(0), (1, model.config.in_chans, *model.config.image_shape)
    with no_grad(), np.errstate(over="ignore", invalid="ignore"):
        return np.concatenate([model(Tensor(rng.standard_normal(shape, np.float32))).data for _ in range(IMAGES)])


def _compare(found, expected, path):
    """Return the largest difference of logits. Raises MinivitError where they, or the decisions, are not the same."""
    import numpy as np

    if not np.isfinite(expected).all():
        raise MinivitError("the network gives numbers that are not finite, so that there is nothing to verify")
    difference = float(np.abs(found - expected).max())
    flips = int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
    if flips or not difference <= TOLERANCE:
        raise MinivitError(
            f"{path} is written, but do not use it: its logits differ by up to {difference:.1e}, and {flips} of "
            f"{len(expected)} decisions"
        )
    return difference


if __name__ == "__main__":
    command.run("pack", main)
