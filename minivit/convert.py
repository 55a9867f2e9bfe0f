"""``python -m minivit.convert``: weights from PyTorch or timm into a checkpoint, and back."""

import json
import math
import zipfile

from minivit import command
from minivit.errors import MinivitError, UsageError

ENTRY = "minivit"
"""Key in the header of a ``.safetensors`` file under which JSON says what model it holds."""
RESAMPLE = ("bicubic", "bicubic_antialias", "linear")

EPILOG = """\
what is read: .safetensors, .pth .pt .bin (with PyTorch installed), .npz (checkpoints, or plain arrays by name)
what is written: .npz (a checkpoint of minivit), .safetensors (names and shapes as timm has them)

examples:
  python -m minivit.convert deit_tiny_patch16_224.pth --model deit_tiny_patch16_224 -o deit_tiny.npz
  python -m minivit.convert model.safetensors --model deit_tiny_patch16_224 --img-size 384 -o deit_tiny_384.npz
  python -m minivit.convert model.safetensors --model deit_tiny_patch16_224 --num-classes 10 -o start.npz
  python -m minivit.convert runs/sl_vit-shapes10/best.npz -o sl_vit.safetensors
  python -m minivit.convert sl_vit.safetensors -o sl_vit.npz        what minivit wrote says itself which model it is

The last line of stdout is one JSON object: model, parameters, tensors, file, and the names of what was dropped (left
freshly initialised) and resampled. An output file that exists is replaced.
"""


def build_parser():
    """Return the parser of this command."""
    parser = command.Parser(
        "convert", description="Bring official PyTorch or timm weights into a checkpoint, and back.", epilog=EPILOG
    )
    parser.add_argument("file", metavar="FILE", help="weights, or a checkpoint")
    parser.add_argument("-o", "--out", required=True, metavar="OUT", help="file to write: *.npz or *.safetensors")
    model = parser.add_argument_group("the model (python -m minivit lists the names)")
    model.add_argument("--model", metavar="NAME", help="architecture (default: what FILE says, if it does)")
    model.add_argument("--num-classes", type=command.positive_int, metavar="N",
                       help="classes; where FILE has another number, its classifiers are dropped (default: FILE's)")
    model.add_argument("--img-size", type=command.image_size, metavar="N",
                       help="pixels a side, or HxW (default: what FILE says, or the model's own)")
    model.add_argument("--model-arg", dest="model_args", nargs="+", action="extend", default=[], type=command.key_value,
                       metavar="KEY=VALUE", help="constructor keywords, values as in JSON, such as depth=4")
    model.add_argument("--resample", choices=RESAMPLE, default=RESAMPLE[0], metavar="METHOD",
                       help=f"how position tables are brought to another image size: {', '.join(RESAMPLE)} "
                       "(default: %(default)s, as the official DeiT script does; timm's is bicubic_antialias)")
    return parser


def main(argv=None):
    """Run the command."""
    args = build_parser().parse_args(argv)
    if not args.out.endswith((".npz", ".safetensors")):
        raise UsageError(f"--out must end in .npz (a checkpoint) or .safetensors, not {args.out!r}")

    from pathlib import Path

    from minivit.models.transfer import transfer
    from minivit.training.report import note

    source, out = _read(Path(args.file)), Path(args.out)
    name = args.model or source.architecture
    if name is None:
        raise UsageError(f"{args.file} does not say which model it holds: add --model NAME")
    keywords = dict(args.model_args)
    if args.img_size is not None:
        keywords["img_size"] = args.img_size
    num_classes = args.num_classes or keywords.pop("num_classes", None)
    arguments = {}
    if name == source.architecture:
        source.check_sizes()  # a file may declare a network that no memory holds
        arguments = source.arguments
    try:
        found = transfer(
            source.weights, name, {**arguments, **keywords}, num_classes=num_classes, resample=args.resample
        )
    except UsageError:
        raise
    except MinivitError as error:
        raise MinivitError(f"{args.file}: {error}") from error

    if found.dropped:
        note(f"note: dropped {', '.join(found.dropped)}: not of {num_classes} classes, freshly initialised instead")
        source.data, source.class_names = None, ()
    for table, (old, new) in found.resampled.items():
        note(f"note: resampled {table} from {old} to {new} ({args.resample})")
    if out.exists():
        note(f"note: replacing {out}")
    _write(out, found.model, source)
    line = {
        "model": name,
        "parameters": found.model.num_parameters(),
        "tensors": len(found.model.state_dict()),
        "file": args.out,
        "dropped": found.dropped,
        "resampled": list(found.resampled),
    }
    print(f"{name}: {line['parameters']:,} parameters in {line['tensors']} tensors, written to {args.out}")
    print(json.dumps(line, allow_nan=False))


def _read(path):
    """What ``path`` holds, as a Checkpoint; its architecture is None where the file does not say it."""
    from minivit.models.weight_files import read_weights
    from minivit.training import checkpoint

    if _is_checkpoint(path):
        return checkpoint.read(path)
    arrays, metadata = read_weights(path)
    if ENTRY not in metadata:
        return checkpoint.Checkpoint(path, None, {}, arrays)
    try:
        said = json.loads(metadata[ENTRY])
        arguments, names = dict(said["arguments"]), tuple(map(str, said["class_names"]))
        if len(names) not in (0, arguments["num_classes"]):
            raise ValueError(f"it names {len(names)} classes, and has {arguments['num_classes']}")
        return checkpoint.Checkpoint(
            path, str(said["architecture"]), arguments, arrays, said["data"] and str(said["data"]), names,
            _per_channel(said["mean"], arguments), _per_channel(said["std"], arguments),
        )  # fmt: skip
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise MinivitError(f"{path}: its header does not say properly which model it holds ({error!r})") from error


def _per_channel(values, arguments):
    """``mean`` or ``std`` as a header has it: None, or a tuple of one finite number for each channel."""
    if values is None:
        return None
    if len(values) != arguments["in_chans"] or not all(math.isfinite(value) for value in values):
        raise ValueError(f"{values} are no numbers for {arguments['in_chans']} channels")
    return tuple(map(float, values))


def _write(path, model, source):
    """Write ``model`` to ``path``, with what ``source`` says about classes and normalisation."""
    from minivit.models.interop import to_timm
    from minivit.models.weight_files import write_safetensors
    from minivit.training import checkpoint
    from minivit.training.atomic import atomic_write

    about = {"data": source.data, "class_names": source.class_names, "mean": source.mean, "std": source.std}
    if path.suffix == ".npz":
        checkpoint.save(path, model, **about)
        return
    about = {"architecture": model.architecture, "arguments": model.arguments, **about}
    with atomic_write(path) as file:
        write_safetensors(file, to_timm(model.state_dict(), model), {ENTRY: json.dumps(about, allow_nan=False)})


def _is_checkpoint(path):
    """Whether ``path`` is a checkpoint of minivit, or was one before it was damaged."""
    from minivit.training.checkpoint import METADATA

    try:
        with zipfile.ZipFile(path) as archive:
            return METADATA in archive.namelist()
    except Exception:  # no zip at all, or none that is whole: the reader of its ending will say so
        return False


if __name__ == "__main__":
    command.run("convert", main)
