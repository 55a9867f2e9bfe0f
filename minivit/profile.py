"""``python -m minivit.profile``: what a network costs, layer by layer."""

import json

from minivit import command

EPILOG = """\
examples:
  python -m minivit.profile --model sl_vit
  python -m minivit.profile --model deit_base_patch16_224 --img-size 384
  python -m minivit.profile --model binary_vit
  python -m minivit.profile --model vit --model-arg depth=4 embed_dim=96 --depth 1 --time
  python -m minivit.profile runs/sl_vit-shapes10/best.npz --time --threads 1
  python -m minivit.profile binary_vit.packed --time --batch-size 1

All numbers are for one image, counted while it runs through the network. A FLOP is one multiplication with its
addition, as in the papers, in matrix products (those of attention too) and convolutions; all else counts 0, pooling
too. In binary networks a BOP is such a pair on single bits, and multiplications by affine layers are FLOPs too, as in
BinaryViT's published figure; they are shown apart. Activations are all arrays made on the way, in float32: what a
training step without dropout keeps for its backward pass at most.
The last line of stdout is one JSON object: flops = multiply_adds + affine_multiplies, norm_elements the elements that
LayerNorm gives, ops = bops / 64 + flops, state_entries all numbers of the weights with their buffers; sizes are in
bytes, file_bytes that of the file given. The costs of a packed network are those of its architecture; --time runs its
bits.
"""


def build_parser():
    """Return the parser of this command."""
    parser = command.Parser(
        "profile", description="Count what a network costs: parameters, multiply-adds, memory.", epilog=EPILOG
    )
    what = parser.add_argument_group("network (python -m minivit lists the names)")
    what.add_argument("checkpoint", metavar="CKPT", nargs="?",
                      help="the network of this file, a checkpoint or a packed one, instead of --model")  # fmt: skip
    what.add_argument("--model", metavar="NAME", help="network")
    what.add_argument("--img-size", type=command.image_size, metavar="N",
                      help="pixels a side, or HEIGHTxWIDTH (default: the network's)")  # fmt: skip
    what.add_argument("--num-classes", type=command.positive_int, metavar="N",
                      help="classes (default: the network's)")  # fmt: skip
    what.add_argument("--model-arg", dest="model_args", nargs="+", action="extend", type=command.key_value, default=[],
                      metavar="KEY=VALUE", help="constructor keywords, values as in JSON, such as depth=4")  # fmt: skip
    table = parser.add_argument_group("table")
    table.add_argument("--depth", type=command.positive_int, default=2, metavar="N",
                       help="levels of modules to tell apart (default: 2)")  # fmt: skip
    table.add_argument("--unfold", action="store_true", help="a row for every block, equal ones too")
    speed = parser.add_argument_group("speed")
    speed.add_argument("--time", action="store_true", help="measure inference, with random weights unless packed")
    speed.add_argument("--batch-size", type=command.positive_int, default=32, metavar="N",
                       help="images at once for --time (default: 32)")  # fmt: skip
    command.add_threads_option(speed)
    return parser


def main(argv=None):
    """Run the command."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if (args.model is None) == (args.checkpoint is None):
        parser.error("name either a network, with --model, or a checkpoint")
    command.set_threads(args.threads)

    from minivit.analysis import cost, throughput
    from minivit.errors import MinivitError, UsageError
    from minivit.kernels.memory import keep_freed_memory
    from minivit.kernels.threads import num_threads
    from minivit.models import create_model
    from minivit.training import checkpoint

    name, arguments, saved = args.model, {}, None
    if args.checkpoint is not None:
        saved = checkpoint.read(args.checkpoint)
        name, arguments = saved.architecture, saved.arguments
    packed = saved is not None and saved.packed
    changes = command.model_keywords(args.model_args, img_size=args.img_size, num_classes=args.num_classes)
    if packed and changes:
        raise UsageError(f"{args.checkpoint} is packed: its {', '.join(changes)} cannot be changed")
    keep_freed_memory()
    try:
        bits = saved.build() if packed else None
        model = create_model(name, seed=0 if args.time else None, **(arguments | changes))
        network = cost.measure(model)
        speed = throughput.images_per_second(bits if packed else model, args.batch_size) if args.time else None
    except MemoryError as error:
        raise MinivitError(f"this machine has not the memory to run {name} at this size: {error}") from None

    total = network.total()
    height, width = model.config.image_shape
    print(f"{name}, one image of {height}x{width} pixels, {model.config.num_classes} classes")
    _print_table(list(cost.rows(network, args.depth, not args.unfold)), total)
    result = {
        "model": name,
        "img_size": height if height == width else [height, width],
        "parameters": total.parameters,
        "state_entries": total.parameters + total.buffers,
        "binary_weights": total.binary_weights,
        "flops": total.flops,
        "multiply_adds": total.macs,
        "affine_multiplies": total.affine_multiplies,
        "norm_elements": total.norm_elements,
        "bops": total.bops,
        "ops": total.ops,
        "weight_bytes": total.weight_bytes,
        "activation_bytes": total.activation_bytes,
    }
    if saved is not None:
        result["file_bytes"] = saved.path.stat().st_size
        print(f"{saved.path}: {result['file_bytes']:,} bytes{', packed' if packed else ''}")
    if args.time:
        result |= {"images_per_second": round(speed, 1), "batch_size": args.batch_size, "threads": num_threads()}
        print(f"{speed:,.1f} images/s, {args.batch_size} at once, threads: {num_threads()}")
    print(json.dumps(result))


def _print_table(rows, total):
    """Print rows of ``minivit.analysis.cost`` with their total."""
    bops = ("MBOPs", "share") if total.bops else ()
    head = ("layer", "output", "parameters", "MFLOPs", "share", *bops, "activations MB")
    body = [(row.name, " x ".join(map(str, row.output or ())), *_numbers(row.counts, total)) for row in rows]
    foot = ("total", "", *_numbers(total, total))
    widths = [max(map(len, column)) for column in zip(head, *body, foot, strict=True)]
    rule = "-" * (sum(widths) + 2 * len(widths) - 2)
    for line in (head, None, *body, None, foot):
        cells = (f"{cell:{'<' if i < 2 else '>'}{widths[i]}}" for i, cell in enumerate(line or ()))
        print("  ".join(cells) if line else rule)
    if any(row.name.endswith("(own)") for row in rows):
        print("(own): what a module does and holds itself, beside the layers below it")
    if any("-" in row.name for row in rows):
        print("with a dash, such as blocks.0-8: equal neighbours, added up (--unfold shows each)")
    if total.bops:
        _print_terms(total)


def _numbers(counts, total):
    bops = (f"{counts.bops / 1e6:,.2f}", f"{counts.bops / total.bops:.1%}") if total.bops else ()
    return (
        f"{counts.parameters:,}",
        f"{counts.flops / 1e6:,.2f}",
        f"{counts.flops / max(1, total.flops):.1%}",
        *bops,
        f"{counts.activation_bytes / 1e6:,.2f}",
    )


def _print_terms(total):
    """Print what the totals of a binary network are sums of."""
    others = total.parameters - total.binary_weights
    for name, number, terms in (
        ("parameters", total.parameters, f"{total.binary_weights:,} binary weights + {others:,} others"),
        ("state entries", total.parameters + total.buffers, f"parameters + {total.buffers:,} in buffers"),
        ("BOPs", total.bops, "one-bit multiply-adds"),
        ("FLOPs", total.flops, f"{total.macs:,} multiply-adds + {total.affine_multiplies:,} in affine layers"),
        ("OPs", total.ops, f"BOPs / 64 + FLOPs = {round(total.bops / 64):,} + {total.flops:,}"),
    ):
        print(f"{name:<13}  {number:>15,}  = {terms}")


if __name__ == "__main__":
    command.run("profile", main)
