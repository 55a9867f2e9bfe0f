"""``python -m minivit.convert``: weights from PyTorch or timm into a checkpoint, and back."""

import json
import zipfile

from minivit import command
from minivit.errors import MinivitError, UsageError

ENTRY = "minivit"
"""Key in the header of a ``.safetensors`` file under which JSON says what model it holds."""
RESAMPLE = ("bicubic", "bicubic_antialias", "linear")

EPILOG = """\
what is read: .safetensors, .pth .pt .bin .pth.tar (with PyTorch), .npz (checkpoints, or plain arrays by name)
what is written: .npz (a checkpoint of minivit), .safetensors (names and shapes as timm has them)

examples:
  python -m minivit.convert deit_tiny_patch16_224.pth --model deit_tiny_patch16_224 -o deit_tiny.npz
  python -m minivit.convert model.safetensors --model deit_tiny_patch16_224 --img-size 384 -o deit_tiny_384.npz
  python -m minivit.convert model.safetensors --model deit_tiny_patch16_224 --num-classes 10 -o start.npz
  python -m minivit.convert runs/sl_vit-shapes10/best.npz -o sl_vit.safetensors
  python -m minivit.convert sl_vit.safetensors -o sl_vit.npz        what minivit wrote says itself which model it is

The last line of stdout is one JSON object: model, parameters, tensors, file, and the names of what was dropped (left
freshly initialised) and resampled. An output file that exists is replaced. A file that unfolds to over a gibibyte, and
to over 20 times its own size, is refused.
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

    from pathlib import Path

    from minivit.training.report import note

    out = Path(args.out)
    if out.suffix not in (".npz", ".safetensors"):
        raise UsageError(f"--out must be NAME.npz (a checkpoint) or NAME.safetensors, not {args.out!r}")
    keywords = command.model_keywords(args.model_args, img_size=args.img_size, num_classes=args.num_classes)
    try:
        source = _read(Path(args.file))
        name = args.model or source.architecture
        found = _transfer(source, name, keywords, args.resample)
        if found.dropped:
            source.data, source.class_names = None, ()
        replaced = out.exists()
        _write(out, found.model, source)
    except MemoryError as error:
        raise MinivitError(f"this machine has not the memory to convert {args.file}: {error}") from None

    if found.dropped:
        classes = found.model.config.num_classes
        note(f"note: dropped {', '.join(found.dropped)}: not of {classes} classes, freshly initialised instead")
    for table, grids in found.resampled.items():
        old, new = (f"{rows}x{columns}" for rows, columns in grids)
        note(f"note: resampled {table} from {old} to {new} patches ({args.resample})")
    if replaced:
        note(f"note: replaced {out}")
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
        saved = checkpoint.read(path)
        if saved.packed:
            raise MinivitError(f"{path} is packed, its weights are only bits: convert the checkpoint it was made from")
        return saved
    arrays, metadata = read_weights(path)
    if ENTRY not in metadata:
        return checkpoint.Checkpoint(path, None, {}, arrays)
    try:
        said = {**json.loads(metadata[ENTRY]), "training": None}
        checkpoint.check_metadata(said)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MinivitError(f"{path}: its header does not say properly which model it holds ({error!r})") from error
    return checkpoint.Checkpoint(
        path, said["architecture"], said["arguments"], arrays, said["data"], tuple(said["class_names"]),
        said["mean"] and tuple(said["mean"]), said["std"] and tuple(said["std"]),
    )  # fmt: skip


def _transfer(source, name, keywords, resample):
    """Bring the weights of ``source`` into a model of that name. Returns a ``minivit.models.transfer.Transfer``."""
    from minivit.models.transfer import transfer

    if name is None:
        raise UsageError(f"{source.path} does not say which model it holds: add --model NAME")
    arguments = {}
    if name == source.architecture:
        source.check_sizes()  # a file may declare a network that no memory holds
        arguments = source.arguments
    try:
        return transfer(
            source.weights, name, {**arguments, **keywords},
            num_classes=keywords.get("num_classes"), resample=resample, grids=_position_grids(source),
        )  # fmt: skip
    except UsageError:
        raise
    except MinivitError as error:
        raise MinivitError(f"{source.path}: {error}") from error


def _position_grids(source):
    """Grids under the position tables of ``source``: name -> (rows, columns); {} where it does not say them."""
    from minivit.models.transfer import position_grids

    if source.architecture is None:
        return {}
    try:
        source.check_sizes()
        return position_grids(source.architecture, source.arguments)
    except MinivitError:  # what --model overrules need not make sense
        return {}


def _write(path, model, source):
    """Write ``model`` to ``path``, with what ``source`` says about classes and normalisation."""
    from minivit.models.interop import to_timm
    from minivit.models.weight_files import write_safetensors
    from minivit.training import checkpoint
    from minivit.training.atomic import atomic_write

    about = {"data": source.data, "class_names": source.class_names, "mean": source.mean, "std": source.std}
    network = {"architecture": model.architecture, "arguments": model.arguments}
    header = json.dumps({**network, **about}, allow_nan=False)
    try:
        checkpoint.check_metadata({**json.loads(header), "training": None})
    except ValueError as error:
        raise MinivitError(f"what {source.path} says does not fit the network of its weights: {error}") from error
    if path.suffix == ".npz":
        checkpoint.save(path, model, **about)
        return
    with atomic_write(path) as file:
        write_safetensors(file, to_timm(model.state_dict(), model), {ENTRY: header})


def _is_checkpoint(path):
    """Whether ``path`` is a checkpoint of minivit or a packed file, or was one before it was damaged."""
    from minivit.training.checkpoint import METADATA
    from minivit.training.packed_file import is_packed

    try:
        if is_packed(path):
            return True
        with zipfile.ZipFile(path) as archive:
            return METADATA in archive.namelist()
    except Exception:  # no zip at all, or none that is whole: the reader of its ending will say so
        return False


if __name__ == "__main__":
    command.run("convert", main)
