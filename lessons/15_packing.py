"""Packing a binary network: a file over ten times smaller, and logits equal bit for bit.

Read before: lessons 13 and 14.
Takes: 60 s on two cores (--quick 8 s).
Paper: Rastegari, Ordonez, Redmon & Farhadi 2016, "XNOR-Net" (arXiv 1603.05279), section 3, for
what a network of bits saves; Le & Li 2023 (arXiv 2306.16678) for the network.
"""

# %%
import hashlib
import json
import tempfile
import zlib
from pathlib import Path

import numpy as np
from lesson import Lesson

import minivit
from minivit import nn
from minivit.errors import MinivitError
from minivit.kernels.bits import pack_signs
from minivit.kernels.blas_threads import single_threaded_blas
from minivit.kernels.threads import num_threads, set_num_threads
from minivit.models.packing import pack
from minivit.training.optimizers import AdamW

lesson = Lesson(__file__)
rng = np.random.default_rng(0)

# %% [markdown]
# ## A network to pack
#
# In training, a "binary" weight is a float of 32 bits: the latent weight, whose sign the
# product uses (lesson 12). Nothing is small yet and nothing is fast. When training is over,
# the latent weights have done their work, and what is left of each is one bit.
#
# A few steps of training are enough for this lesson. They make every constant of the network
# a different number, as in a real one, and the running statistics of BatchNorm too.

# %%
data = lesson.data(lesson.choose(quick=400, full=4000), lesson.choose(quick=400, full=2000))
mean, std = (np.float32(s)[:, None, None] for s in (data.mean, data.std))


def normalised(split):
    return (np.float32(split.images) / 255 - mean) / std


model = minivit.create_model(
    "binary_vit", img_size=32, num_classes=data.num_classes, depths=(1, 1, 1, 1), seed=0
)
optimizer = AdamW(model.named_parameters(), lr=2e-3, weight_decay=0.0)
train_images, test_images = normalised(data.train), normalised(data.test)
for start in range(0, len(data.train), 40):
    batch = slice(start, start + 40)
    logits = model(minivit.Tensor(train_images[batch]))
    loss = minivit.cross_entropy(logits, data.train.labels[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
model.eval()


def answers(network):
    """The logits of all test images, 50 at once."""
    with minivit.no_grad():
        batches = np.split(test_images, range(50, len(test_images), 50))
        return np.concatenate([network(minivit.Tensor(x)).data for x in batches])


expected = answers(model)

# %% [markdown]
# ## What can become bits, and what cannot
#
# Weights of `BinaryLinear` and `BinaryConv2d` become bits, and one scale for each output. All
# else stays as it is: BatchNorm, RPReLU and shifts (a few numbers a channel), the patch
# embedding, position tables, the classifier. So the network shrinks by less than 32: the bits
# soon are the smaller part.

# %%
binary_layers = [m for m in model.modules() if isinstance(m, nn.BinaryLinear | nn.BinaryConv2d)]
binary_weights = sum(layer.weight.size for layer in binary_layers)
scales = sum(len(layer.weight.data) for layer in binary_layers)
numbers = sum(array.size for array in model.state_dict().values())
float_bytes = 4 * numbers
parts = {
    "binary weights": binary_weights / 8,
    "their scales": 4 * scales,
    "position tables": 4 * sum(p.size for n, p in model.named_parameters() if "pos_embed" in n),
    "classifier": 4 * (model.head.weight.size + model.head.bias.size),
}
parts["all else"] = 4 * (numbers - binary_weights + scales) - sum(list(parts.values())[1:])
print(f"{numbers:,} numbers, {float_bytes:,} bytes; {binary_weights:,} are binary weights. Packed:")
for name, size in parts.items():
    print(f"  {name:16} {size:>10,.0f} bytes, {size / sum(parts.values()):4.0%}")

# %% [markdown]
# ## One unit on bits
#
# Remember the unit of lesson 14: $\mathrm{RPReLU}(\mathrm{BN}(\mathrm{sign}(x + s)\,W_b^T) + x)$.
# On bits, the product becomes $K - 2\,\mathrm{popcount}$, an integer; and then everything
# follows in floats, in *the order and the rounding of the network in floats*. We demand not
# closeness but equality of every bit.


# %%
def bit_unit(unit):
    """What packing takes from a trained unit of equal widths: words, and vectors of floats."""
    W = unit.layer.binary_weight().data
    norm, act = unit.norm, unit.act
    rstd = (1 / np.sqrt(norm.running_var.data + norm.eps)).astype(np.float32)
    return {
        "words": pack_signs(W), "K": W.shape[1], "shift": unit.shift.data,
        "scale": np.abs(W).max(axis=1),  # in each row all absolute values are the scale
        "mean": norm.running_mean.data, "slope": rstd * norm.weight.data, "bias": norm.bias.data,
        "shift_in": act.shift_in.data, "prelu": act.slope.data, "shift_out": act.shift_out.data,
    }  # fmt: skip


def product(x, u):
    """The integers sign(x + shift) times the signs of the weights, by XNOR and popcount."""
    words = pack_signs(x, u["shift"])
    differ = np.bitwise_count(words[:, None, :] ^ u["words"][None, :, :])
    return u["K"] - 2 * differ.sum(axis=-1, dtype=np.int32)


def on_bits(x, u):
    y = product(x, u).astype(np.float32) * u["scale"]
    y = (y - u["mean"]) * u["slope"] + u["bias"]
    t = (y + x) - u["shift_in"]
    return np.where(t > 0, t, u["prelu"] * t) + u["shift_out"]


block = model.blocks[2]
tokens = rng.standard_normal((1, 500, 128)).astype(np.float32)
with minivit.no_grad():
    in_floats = block.proj(minivit.Tensor(tokens)).data[0]
unit = bit_unit(block.proj)
assert np.array_equal(on_bits(tokens[0], unit), in_floats)
print(f"\na unit on bits: all {in_floats.size:,} results equal those in floats, bit for bit")

# %% [markdown]
# Why so strict? Textbooks fold scale and BatchNorm into one factor and one term, which saves
# an operation and is the same in exact arithmetic. In floats, the last digits differ:

# %%
factor = unit["scale"] * unit["slope"]
term = unit["bias"] - unit["mean"] * unit["slope"]
kept = (product(tokens[0], unit).astype(np.float32) * unit["scale"] - unit["mean"]) * unit["slope"]
kept = kept + unit["bias"]
folded = product(tokens[0], unit).astype(np.float32) * factor + term
differ = np.mean(folded != kept)
assert 0.05 < differ and np.abs(folded - kept).max() < 1e-5 * np.abs(kept).max()
print(f"folded constants: {differ:.0%} of the results differ, by at most "
      f"{np.abs(folded - kept).max():.0e}")

# %% [markdown]
# That would be nothing, did no sign follow. Where a number lies so near to zero that its last
# digits decide, the sign turns over, and the next product changes by 2, a step as large as
# any. Let us move a constant of every BatchNorm (the bias, or the running mean) to the next
# larger or smaller float, and look at the logits. Nearly always they follow in the last digit.
# Now and then there is an image where one sign turns over, and they jump.

# %%
state = model.state_dict()
norms = [name.removesuffix(".running_mean") for name in state if name.endswith(".running_mean")]
moved = []
for constant in ("bias", "running_mean"):
    for towards in (-np.inf, np.inf):
        names = [f"{norm}.{constant}" for norm in norms]
        nudged = {name: np.nextafter(state[name], np.float32(towards)) for name in names}
        model.load_state_dict(state | nudged)
        moved.append(np.abs(answers(model) - expected).max(axis=1) / expected.std())
model.load_state_dict(state)
moved = np.concatenate(moved)
print(f"one digit in {len(norms)} BatchNorms: logits move by {np.median(moved):.0e} of their "
      f"standard deviation in the median, by more than 1e-05 for "
      f"{np.count_nonzero(moved > 1e-5)} of {len(moved)} answers, by at most {moved.max():.0e}")

# %% [markdown]
# With folded constants, "the packed network is the trained network" would hold for nearly all
# images, and no test could tell the rare accident from a bug. With equality, one assertion is
# enough. `pack` turns the layers of a network into packed ones, in place:

# %%
with tempfile.TemporaryDirectory() as folder:
    minivit.save(Path(folder) / "floats.npz", model)
    checkpoint_bytes = (Path(folder) / "floats.npz").stat().st_size
    packed = pack(minivit.load(Path(folder) / "floats.npz"))  # pack works in place

assert np.array_equal(answers(packed), expected)
with minivit.no_grad():
    for size in (1, 7):
        few = minivit.Tensor(test_images[:size])
        assert np.array_equal(packed(few).data, model(few).data)
print(f"packed network: all {expected.size:,} logits equal, bit for bit")
try:
    packed.train()
    raise AssertionError("a packed network must not train")
except MinivitError as error:
    print(f"packed.train(): {error}")

# %% [markdown]
# ## The file
#
# `minivit.save` writes a packed network as one file. Nothing in it is magic but its first 16
# bytes: then come a checksum of all the rest, and deflated parts, first JSON that lists the
# arrays, then all words, all floats, all counters. We read it by hand.
#
# Floats are stored as *byte planes*: first the lowest bytes of all numbers, ..., at last the
# highest ones, with sign and exponent. The numbers of a network are of similar size, so that
# deflate finds the same few highest bytes again and again; when they lie among the noise of
# the others, it finds less.


# %%
def inflate(body):
    stream = zlib.decompressobj()
    return stream.decompress(body), stream.unused_data


def from_planes(content, dtype):
    size = np.dtype(dtype).itemsize
    planes = np.frombuffer(content, np.uint8).reshape(size, -1)
    return np.ascontiguousarray(planes.T).view(dtype).ravel()


def read_packed(content):
    """Name -> array."""
    magic, digest, body = content[:16], content[16:48], content[48:]
    assert magic == b"\x89minivit packed\n"
    assert digest == hashlib.sha256(body).digest()
    header, body = inflate(body)
    listed, arrays = json.loads(header)["arrays"], {}
    for dtype in ("<u8", "<f4", "<i8"):
        part, body = inflate(body)
        flat, start = from_planes(part, dtype), 0
        for name, _, shape in (entry for entry in listed if entry[1] == dtype):
            size = int(np.prod(shape))
            arrays[name] = flat[start : start + size].reshape(shape)
            start += size
    return arrays


folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "network.packed"
minivit.save(path, packed)
content = path.read_bytes()
arrays, state = read_packed(content), packed.state_dict()
assert arrays.keys() == state.keys()
assert all(np.array_equal(arrays[name], state[name]) for name in state)
assert sum(a.size for a in arrays.values() if a.dtype == np.uint64) * 64 >= binary_weights
assert float_bytes > 10 * len(content)
print(f"\ncheckpoint {checkpoint_bytes:,} bytes, its numbers {float_bytes:,}; packed file "
      f"{len(content):,}: 1/{float_bytes / len(content):.1f}")

floats = np.concatenate([a.ravel() for a in arrays.values() if a.dtype == np.float32])
words = np.concatenate([a.ravel() for a in arrays.values() if a.dtype == np.uint64])
planes = floats.view(np.uint8).reshape(-1, 4).T.tobytes()
deflated = {name: len(zlib.compress(raw, 9)) / len(raw)
            for name, raw in (("words", words.tobytes()), ("floats", floats.tobytes()),
                              ("planes", planes))}
print(f"deflate leaves {deflated['words']:.0%} of the bits, {deflated['floats']:.0%} of the floats "
      f"as they are, {deflated['planes']:.0%} of them as byte planes")
assert deflated["planes"] < deflated["floats"] and deflated["words"] > 0.9

# %% [markdown]
# ## Damage
#
# What does one wrong bit do? Often nothing that one would see. We turn over one bit of the
# words, in memory: nothing complains, and the network answers, with slightly other logits.

# %%
damaged = {name: array.copy() for name, array in state.items()}
name = next(n for n in reversed(damaged) if n.endswith("fc2.words"))
damaged[name][0, 0] ^= np.uint64(1)
packed.load_state_dict(damaged)
wrong = answers(packed)
packed.load_state_dict(state)
print(f"one bit of {name} turned over: logits change by up to "
      f"{np.abs(wrong - expected).max():.1e}, and nothing complains")
assert not np.array_equal(wrong, expected)

# %% [markdown]
# Nobody would notice such a file. That is what the checksum is for: SHA-256 of everything
# behind it. Below, a file is cut at many places, and single bits are turned over, also in the
# checksum itself and in the first bytes. Each of them must be refused, by a message in one line.


# %%
def refused(damaged_content):
    path.write_bytes(damaged_content)
    try:
        minivit.load(path)
    except MinivitError as error:
        return "\n" not in str(error) and str(error)
    return False


trials = lesson.choose(quick=150, full=2000)
lengths = [0, 1, 16, 47, 48, 49, len(content) - 1, *rng.integers(0, len(content), trials)]
bits = [*range(0, 48 * 8, 5), *rng.integers(0, 8 * len(content), trials)]
for length in lengths:
    assert refused(content[:length])
for bit in bits:
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    message = refused(bytes(flipped))
    assert message
assert refused(content + b"\0")
assert not refused(content)
print(f"{len(lengths)} cut files and {len(bits)} files with one wrong bit: all refused:")
print(f"  {message[message.index(path.name):]}")
folder.cleanup()

# %% [markdown]
# A checksum protects from accidents, not from malice: who changes a file on purpose computes
# its checksum anew. Against that, reading trusts nothing else either: no pickles, no part may
# unfold to more than the file states (`minivit/training/packed_file.py`).
#
# ## Speed
#
# Images a second, on one thread. The network in floats also multiplies signs, but as floats.


# %%
def images_per_second(network, batch):
    return batch / lesson.seconds_of(network, minivit.Tensor(test_images[:batch]))


threads = num_threads()
set_num_threads(1)
with minivit.no_grad(), single_threaded_blas():
    speed = {b: [images_per_second(net, b) for net in (model, packed)] for b in (1, 32)}
set_num_threads(threads)
print()
for batch, (floats_speed, bits_speed) in speed.items():
    print(f"batch {batch:2}: {floats_speed:6.0f} images/s in floats, {bits_speed:6.0f} on bits, "
          f"{bits_speed / floats_speed:.1f} times as fast")

# %%
figure, panels = lesson.figure(1, 3, figsize=(14, 3.8))
if figure:
    colours = ["#2166ac"] + ["#d6604d"] * 4
    bars = panels[0].barh(list(parts), [size / 1e3 for size in parts.values()], color=colours)
    panels[0].bar_label(bars, fmt="%.0f", padding=3)
    panels[0].invert_yaxis()
    panels[0].margins(x=0.15)
    panels[0].set(xlabel="kilobytes, before deflate: bits blue, floats red",
                  title=f"{float_bytes / 1e3:.0f} kB become {len(content) / 1e3:.0f} kB")
    halves = zip(np.split(moved, 2), ("bias", "running mean"), ("#67a9cf", "#2166ac"))
    for i, (half, label, colour) in enumerate(halves):
        case = i * len(half) + np.arange(len(half))
        panels[1].semilogy(case, np.maximum(half, 1e-9), ".", color=colour, ms=4, label=label)
    panels[1].set(xlabel="all images; constants moved down, then up",
                  ylabel="logits move by (standard deviations)",
                  title="One digit in every BatchNorm")
    panels[1].legend(frameon=False, title="moved ($10^{-9}$: no change)")
    panels[1].grid(alpha=0.3)
    names = [f"batch {b}, {form}" for b in speed for form in ("in floats", "on bits")]
    bars = panels[2].barh(names, np.ravel(list(speed.values())), color=["#999999", "#2166ac"] * 2)
    panels[2].bar_label(bars, fmt="%.0f", padding=3)
    panels[2].invert_yaxis()
    panels[2].margins(x=0.15)
    panels[2].set(xlabel="images a second, one thread", title="Speed")
    lesson.save(figure, "packed")

# %% [markdown]
# The published network, at 224 pixels, has 21.2 million binary weights among 22.6 million
# numbers. From what the parts weigh, one can say what its file will have:

# %%
published = minivit.create_model("binary_vit", seed=None)
total = sum(a.size for a in published.state_dict().values())
layers = [m for m in published.modules() if isinstance(m, nn.BinaryLinear | nn.BinaryConv2d)]
binary = sum(layer.weight.size for layer in layers)
scales = sum(len(layer.weight.data) for layer in layers)
print(f"\nBinaryViT at 224 pixels: {4e-6 * total:.1f} MB in float32; {binary / 8e6:.2f} MB of bits "
      f"and {4e-6 * (total - binary + scales):.2f} MB of floats, which deflate a little")
assert (total, binary) == (22_618_037, 21_196_800)

# %% [markdown]
# Exercises: `lessons/exercises/15.py`, checked by `python -m lessons check 15`. The command is
# `python -m minivit.pack CHECKPOINT -o FILE --verify`. Lesson 16 is about making such loops fast.

# %%
lesson.passed(
    "packed logits equal the simulated ones bit for bit, and damaged files are refused",
    logits=expected.size,
    size=f"1/{float_bytes / len(content):.1f}",
    refused=len(lengths) + len(bits) + 1,
    times_as_fast=" and ".join(f"{b / a:.1f} (batch {n})" for n, (a, b) in speed.items()),
)
