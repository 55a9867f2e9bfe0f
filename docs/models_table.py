"""Writes docs/models.md: what every model costs, beside the published figures. ``make docs`` runs it.

Parameters and multiply-adds are counted by ``minivit.analysis.cost`` while an image runs through the model. Published
figures stand below as they were printed; an asterisk marks those quoted from memory of the paper.
"""

import math
from pathlib import Path
from typing import NamedTuple

from minivit.analysis.cost import measure
from minivit.models import create_model, list_models

TARGET = Path(__file__).with_name("models.md")

INTRODUCTION = """\
# Models and what they cost

Written by `make docs` ([models_table.py](models_table.py)). Parameters and FLOPs are those of minivit, counted while
an image runs through the model; `python -m minivit.profile --model NAME` shows them layer by layer. A FLOP is one
multiplication with its addition, as in the papers: matrix products, with both products of attention, and convolutions
count; biases, softmax, normalisation, activations and pooling do not. Figures of others stand beside ours. Where
ours, rounded or cut to the printed digits, differ by 0.05 % or more, the note says by how much. Accuracies are others'
too: top-1 in percent. An asterisk marks figures that are quoted from memory of the paper.
"""


class Model(NamedTuple):
    """A model in the size it is made for, ImageNet's by and large, and what others printed about it."""

    name: str
    parameters: str = ""
    gflops: str = ""
    top1: str = ""
    note: str = ""


class SmallModel(NamedTuple):
    """A model of Lee, Lee & Song (2021) at one image size: counts of the authors' code, FLOPs of their README."""

    name: str
    parameters: str
    mflops: str
    top1: str
    readme: str = ""
    note: str = ""


class BinaryModel(NamedTuple):
    """A binary network at 224 pixels, and what its paper printed: OPs and FLOPs in units of 10^8, top-1."""

    name: str
    entries: str  # of the authors' state dict, with the counters of BatchNorm
    flops: str = ""
    ops: str = ""
    top1: str = ""
    note: str = ""


VIT = [
    Model("vit_tiny_patch16_224", "5.8M", "1.254", "73.75"),
    Model("vit_tiny_patch16_384", "5.8M", "", "78.22"),
    Model("vit_small_patch32_224", "22,878,952", "1.143", "73.47"),
    Model("vit_small_patch32_384", "", "", "79.58"),
    Model("vit_small_patch16_224", "22.2M", "4.599", "80.46"),
    Model("vit_small_patch16_384", "22.2M", "", "83.73"),
    Model("vit_base_patch32_224", "88,224,232", "4.409", "79.13"),
    Model("vit_base_patch32_384", "", "", "83.59"),
    Model("vit_base_patch16_224", "86M", "17.564", "83.96"),
    Model("vit_base_patch16_384", "86M", "", "85.49"),
    Model("vit_base_patch8_224"),
    Model("vit_large_patch32_384"),
    Model("vit_large_patch16_224", "307M", "61.555", "83.98", "timm's has 304,326,632 too"),
    Model("vit_large_patch16_384", "307M", "", "85.59"),
]

DEIT = [
    Model("deit_tiny_patch16_224", "5M", "1.254", "72.2"),
    Model("deit_small_patch16_224", "22M", "4.599", "79.8"),
    Model("deit_base_patch16_224", "86M", "17.564", "81.8"),
    Model("deit_base_patch16_384", "86M", "55.484", "83.1"),
    Model("deit_tiny_distilled_patch16_224", "6M", "1.261", "74.5"),
    Model("deit_small_distilled_patch16_224", "22M", "4.624", "81.2"),
    Model("deit_base_distilled_patch16_224", "87M", "17.657", "83.4"),
    Model("deit_base_distilled_patch16_384", "87M", "55.591", "84.5"),
]

CAIT = [
    Model("cait_xxs24_224", "12.0M*", "2.5*", "78.4"),
    Model("cait_xxs24_384", "12.0M*", "9.5*", "80.9"),
    Model("cait_xxs36_224", "17.3M*", "3.8*", "79.7"),
    Model("cait_xxs36_384", "17.3M*", "14.2*", "82.2"),
    Model("cait_xs24_224", "", "", "82.0*"),
    Model("cait_xs24_384", "27M", "19.3", "84.1"),
    Model("cait_xs36_224", "38.6M*"),
    Model("cait_xs36_384", "38.6M*"),
    Model("cait_s24_224", "47M", "9.4", "83.5"),
    Model("cait_s24_384", "47M", "32.2", "85.1"),
    Model("cait_s36_224", "", "", "84.0*"),
    Model("cait_s36_384", "68M", "48.0", "85.4"),
    Model("cait_s48_224", "89.5M*"),
    Model("cait_s48_384", "89.5M*"),
    Model("cait_m24_224", "185.9M*"),
    Model("cait_m24_384", "185.9M*"),
    Model("cait_m36_224"),
    Model("cait_m36_384", "271M", "173.3", "86.1"),
    Model("cait_m48_224"),
    Model("cait_m48_384"),
    Model("cait_m48_448", "356M", "329.6", "86.5"),
]

PIT = [
    Model("pit_ti_224", "4,847,272", "0.699", "72.93"),
    Model("pit_xs_224", "10,618,888", "1.395", "78.20"),
    Model("pit_s_224", "23,461,912", "2.871", "81.11"),
    Model("pit_b_224", "73,764,840", "12.402", "82.46"),
    Model("pit_ti_distilled_224", "5,104,336", "", "74.28"),
    Model("pit_xs_distilled_224", "11.00M", "", "79.17"),
    Model("pit_s_distilled_224", "24,039,056", "", "81.83"),
    Model("pit_b_distilled_224", "74.79M", "", "83.77"),
]

SWIN = [
    Model("swin_tiny_patch4_window7_224", "28,288,354", "4.491", "81.2"),
    Model("swin_small_patch4_window7_224", "49,606,258", "8.741", "83.2"),
    Model("swin_base_patch4_window7_224", "87,768,224", "15.431", "83.5"),
    Model("swin_large_patch4_window7_224", "196,532,476", "34.476", "86.3", "accuracy after ImageNet-22k"),
]

T2T = [
    Model("t2t_vit_7", "4,255,694", "1.1", "71.7"),
    Model("t2t_vit_10", "5,834,702", "1.5", "75.2"),
    Model("t2t_vit_12", "6,887,374", "1.8", "76.5"),
    Model("t2t_vit_14", "21,465,806", "4.8", "81.5"),
    Model("t2t_vit_19", "39,085,070", "8.5", "81.9"),
    Model("t2t_vit_24", "64,000,974", "13.8", "82.3"),
    Model("t2t_vit_t_14", "21,465,422", "6.1", "81.7"),
    Model("t2t_vit_t_19", "39,084,686", "9.8", "82.4"),
    Model("t2t_vit_t_24", "64,000,590", "15.0", "82.6"),
]

TEACHERS = [
    Model("regnety_002", "3,162,996", "0.200"),
    Model("regnety_004", "4,344,144", "0.402"),
    Model("regnety_160", "83,590,140", "15.912", "82.9"),
    Model("regnety_nano"),
    Model("regnety_mini"),
    Model("resnet20", "272,474"),
    Model("resnet32", "466,906"),
    Model("resnet56", "855,770"),
    Model("resnet110", "1,730,714"),
]

SMALL_32 = [
    SmallModel("vit", "2,709,796", "187.73", "73.81"),
    SmallModel("t_vit", "", "", "74.35"),
    SmallModel("m_vit", "", "", "74.34"),
    SmallModel("l_vit", "2,709,904", "", "74.87"),
    SmallModel("s_vit", "2,747,140", "", "76.29"),
    SmallModel("sl_vit", "2,747,248", "190.09", "76.92"),
    SmallModel("t2t", "6,509,210", "457.23", "77.00"),
    SmallModel("sl_t2t", "6,530,211", "462.54", "77.36"),
    SmallModel("cait", "9,037,988", "595.71", "76.89"),
    SmallModel("sl_cait", "9,075,436", "598.07", "80.32"),
    SmallModel("pit", "7,007,236", "274.42", "74.99"),
    SmallModel("sl_pit", "8,676,664", "317.90", "79.00"),
    SmallModel("swin", "7,107,838", "240.98", "76.87"),
    SmallModel("sl_swin", "8,596,816", "279.91", "79.99"),
]

SMALL_64 = [
    SmallModel("vit", "2,756,744", "189.52", "57.07", "189.8"),
    SmallModel("t_vit", "", "", "57.95"),
    SmallModel("m_vit", "", "", "58.29"),
    SmallModel("l_vit", "2,756,852", "", "58.50"),
    SmallModel("s_vit", "2,906,120", "", "60.67"),
    SmallModel("sl_vit", "2,906,228", "198.96", "61.07", "199.2"),
    SmallModel("t2t", "6,659,262", "636.35", "60.57", "643.0"),
    SmallModel("sl_t2t", "6,680,264", "657.58", "61.83", "671.4", "their plot says 7.1M parameters"),
    SmallModel("cait", "9,084,936", "597.50", "64.37", "613.8"),
    SmallModel("sl_cait", "9,234,416", "606.94", "67.18", "623.3"),
    SmallModel("pit", "7,049,192", "275.35", "60.25", "279.2"),
    SmallModel("sl_pit", "8,732,804", "322.37", "62.91", "322.9"),
    SmallModel("swin", "7,149,794", "241.90", "60.87", "242.3"),
    SmallModel("sl_swin", "8,652,956", "284.37", "64.95", "284.9", "their plot says 10.2M parameters"),
]

BINARY = [
    BinaryModel("binary_deit_cls", "22,406,369", "", "", "48.5*"),
    BinaryModel("binary_deit_gap", "22,405,601", "", "", "56.4*"),
    BinaryModel("binary_deit_branches", "22,442,465", "", "", "60.2*"),
    BinaryModel("binary_deit_affine", "22,460,897", "", "", "61.8*"),
    BinaryModel("binary_deit", "22,460,897", "", "", "61.8*", "the same as `binary_deit_affine`"),
    BinaryModel("binary_vit", "22,618,037", "0.19*", "0.79*", "67.7*"),
    BinaryModel("binary_vit_star", "22,614,901", "", "", "70.6*", "full-precision down-sampling"),
]

IMAGENET_HEAD = ("model", "pixels", "parameters", "published", "GFLOPs", "published", "top-1", "note")
IMAGENET = {
    "ViT (Dosovitskiy et al. 2020)": (VIT, """\
Parameters in millions: Steiner et al. (2021, arXiv 2106.10270); exact ones, and GFLOPs: timm's models, counted by the
same rule. Accuracies: theirs, pre-trained on ImageNet-21k for 300 epochs, then adapted."""),
    "DeiT (Touvron et al. 2020)": (DEIT, """\
Parameters and accuracies: the paper's (arXiv 2012.12877, Table 5), which cuts the millions rather than round them.
GFLOPs: timm's models, counted by the same rule; the paper gives none."""),
    "CaiT (Touvron et al. 2021)": (CAIT, """\
Parameters and GFLOPs: the authors' README (arXiv 2103.17239). Accuracies: theirs, with distillation. The head mixing
of talking heads is counted: without it XXS-24 has 2.49 GFLOPs and not 2.52. The authors' counts differ from ours by up
to 1 %, by a rule that we do not know."""),
    "PiT (Heo et al. 2021)": (PIT, """\
Parameters and GFLOPs: timm's models, counted by the same rule. Accuracies: the authors' weights, as timm evaluated
them."""),
    "Swin Transformer (Liu et al. 2021)": (SWIN, """\
Parameters and GFLOPs: timm's models, counted by the same rule. Accuracies: the authors' README."""),
    "T2T-ViT (Yuan et al. 2021)": (T2T, """\
Parameters: the trainable ones of the authors' code, exactly. GFLOPs and accuracies: their README."""),
    "CNN teachers": (TEACHERS, """\
RegNetY (Radosavovic et al. 2020, arXiv 2003.13678): parameters and GFLOPs of timm's models, counted by the same rule;
accuracy: the DeiT paper's. Two small ones are of minivit's own. ResNet for 32 pixels and 10 classes (He et al. 2015,
arXiv 1512.03385), with 1x1 convolutions in its shortcuts: parameters from the shapes of the layers."""),
}

SMALL_HEAD = (
    "model", "parameters", "authors' code", "MFLOPs", "authors' code", "with LayerNorm", "README", "top-1", "note",
)  # fmt: skip
SMALL = {
    "At 32 pixels, 100 classes (accuracy: CIFAR-100)": (SMALL_32, 32, 100),
    "At 64 pixels, 200 classes (accuracy: Tiny-ImageNet)": (SMALL_64, 64, 200),
}

SMALL_TEXT = """\
## For small data sets (Lee, Lee & Song 2021)

arXiv 2112.13492. Parameters and MFLOPs of the authors' code were counted by running it. The FLOPs of their README are
for 64 pixels, and are multiply-adds plus one operation for each element that a LayerNorm gives: by that rule ViT,
SL-ViT, SL-PiT, Swin and SL-Swin agree. T2T, CaiT and plain PiT they counted by another one. Accuracies are the paper's.
"""


BINARY_HEAD = (
    "model", "parameters", "binary weights", "state entries", "authors' code", "10^6 BOPs", "10^8 FLOPs", "published",
    "10^8 OPs", "published", "top-1", "note",
)  # fmt: skip
BINARY_TEXT = """\
## Binary networks (Le & Li 2023)

BinaryViT (arXiv 2306.16678) and the binary DeiT-S from which it is built up: class token, global average pooling,
pooling branches, affine layers, pyramid; at 224 pixels. A BOP is one multiplication with its addition on single bits,
in binary layers and in both products of attention. FLOPs are multiply-adds in full precision, and one multiplication
for each element of an affine layer: the paper does not say how it counts, but with these both its figures come out.
OPs = BOPs / 64 + FLOPs. State entries are parameters with the running statistics and counters of BatchNorm; the paper's
22.6M parameters are these. Accuracies are the paper's.
"""
SMALL_BINARY_HEAD = (
    "model", "pixels", "widths", "patch", "parameters", "binary weights", "10^6 BOPs", "10^6 FLOPs", "10^6 OPs",
)  # fmt: skip
SMALL_BINARY = [(name, size, classes) for name in ("binary_deit", "binary_vit", "binary_vit_star")
                for size, classes in ((32, 100), (64, 200))]  # fmt: skip
SMALL_BINARY_TEXT = """\
At 32 pixels (100 classes) and 64 pixels (200 classes), by the rule that `minivit/models/binary_sizes.py` states:
"""


def binary_line(row):
    """The line of a BinaryModel."""
    count = measure(create_model(row.name, seed=None)).total()
    entries, flops, ops = count.parameters + count.buffers, count.flops / 1e8, count.ops / 1e8
    note = _note(
        ("entries", entries, row.entries), ("FLOPs", flops, row.flops), ("OPs", ops, row.ops), row.note
    )  # fmt: skip
    return _line(
        f"`{row.name}`", f"{count.parameters:,}", f"{count.binary_weights:,}", f"{entries:,}", row.entries,
        f"{count.bops / 1e6:,.0f}", f"{flops:.3f}", row.flops, f"{ops:.3f}", row.ops, row.top1, note,
    )  # fmt: skip


def small_binary_line(name, img_size, num_classes):
    """The line of a binary network whose sizes follow from those of the images."""
    model = create_model(name, seed=None, img_size=img_size, num_classes=num_classes)
    count = measure(model).total()
    widths = ", ".join(str(width) for _, width in model.config.stages)
    millions = (f"{number / 1e6:,.2f}" for number in (count.bops, count.flops, count.ops))
    return _line(
        f"`{name}`", str(img_size), widths, str(model.config.patch_size), f"{count.parameters:,}",
        f"{count.binary_weights:,}", *millions,
    )  # fmt: skip


def imagenet_line(row):
    """The line of a Model."""
    model = create_model(row.name, seed=None)
    count = measure(model).total()
    note = _note(("parameters", count.parameters, row.parameters), ("FLOPs", count.macs / 1e9, row.gflops), row.note)
    pixels = "x".join(map(str, sorted(set(model.config.image_shape))))
    gflops = f"{count.macs / 1e9:.3f}"
    return _line(f"`{row.name}`", pixels, f"{count.parameters:,}", row.parameters, gflops, row.gflops, row.top1, note)


def small_line(row, img_size, num_classes):
    """The line of a SmallModel."""
    count = measure(create_model(row.name, seed=None, img_size=img_size, num_classes=num_classes)).total()
    mflops, with_norm = count.macs / 1e6, (count.macs + count.norm_elements) / 1e6
    note = _note(
        ("parameters", count.parameters, row.parameters), ("FLOPs", mflops, row.mflops),
        ("README", with_norm, row.readme), row.note,
    )  # fmt: skip
    return _line(
        f"`{row.name}`", f"{count.parameters:,}", row.parameters, f"{mflops:.2f}", row.mflops,
        f"{with_norm:.2f}", row.readme, row.top1, note,
    )  # fmt: skip


def document():
    """The whole text of docs/models.md."""
    parts = [INTRODUCTION]
    for title, (rows, sources) in IMAGENET.items():
        parts += [f"## {title}\n", sources + "\n", *_table(IMAGENET_HEAD, map(imagenet_line, rows))]
    parts += [BINARY_TEXT, *_table(BINARY_HEAD, map(binary_line, BINARY))]
    small_lines = (small_binary_line(*sizes) for sizes in SMALL_BINARY)
    parts += [SMALL_BINARY_TEXT, *_table(SMALL_BINARY_HEAD, small_lines), SMALL_TEXT]
    for title, (rows, *sizes) in SMALL.items():
        parts += [f"### {title}\n", *_table(SMALL_HEAD, (small_line(row, *sizes) for row in rows))]
    others = sorted(set(list_models()) - listed())
    if others:
        parts += ["## Further models\n", *_table(IMAGENET_HEAD, (imagenet_line(Model(name)) for name in others))]
    return "\n".join(parts).rstrip() + "\n"


def listed():
    """The names of all models that the tables above know."""
    tables = [BINARY, *(rows for rows, *_ in (*IMAGENET.values(), *SMALL.values()))]
    return {row.name for rows in tables for row in rows}


def _table(head, lines):
    return [_line(*head), _line(*["---"] * len(head)), *lines, ""]


def _line(*cells):
    return f"| {' | '.join(cells)} |"


def _note(*comparisons_and_text):
    """``"FLOPs -0.7 %; text"`` from (label, ours, what others printed) and a text."""
    *comparisons, text = comparisons_and_text
    parts = [f"{label} {gap}" for label, ours, printed in comparisons if (gap := difference(ours, printed))]
    return "; ".join([*parts, text] if text else parts)


def difference(ours, printed):
    """How far ``ours`` is from a printed figure, as "-0.7 %"; "" where that is 0.0, rounded or cut it agrees, or there
    is none."""
    digits = printed.rstrip("*").replace(",", "")
    if not digits:
        return ""
    if digits.endswith("M"):
        ours, digits = ours / 1e6, digits[:-1]
    places = len(digits.partition(".")[2])
    cut = math.floor(ours * 10**places) / 10**places
    if digits in (f"{ours:.{places}f}", f"{cut:.{places}f}"):
        return ""
    gap = f"{ours / float(digits) - 1:+.1%}"
    return "" if gap in ("+0.0%", "-0.0%") else gap.replace("%", " %")


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
    print(f"wrote {TARGET.relative_to(Path.cwd()) if TARGET.is_relative_to(Path.cwd()) else TARGET}")
