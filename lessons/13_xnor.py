"""Products of signs: K - 2 popcount(a xor b) is exact, and one 64-bit word holds 64 of them.

Read before: lesson 12.
Takes: 20 s on two cores (--quick 3 s).
Paper: Rastegari, Ordonez, Redmon & Farhadi 2016, "XNOR-Net" (arXiv 1603.05279), section 3.
"""

# %%
import math

import minivit

# isort: split
# NumPy comes after minivit, which picks the BLAS kernels for this processor.
import numpy as np
from lesson import Lesson

from minivit import nn
from minivit.kernels.bits import pack_signs
from minivit.kernels.blas_threads import single_threaded_blas
from minivit.kernels.threads import num_threads, set_num_threads
from minivit.kernels.xnor import BinaryMatrix, binary_attention_values, xnor_gemm
from minivit.nn.init import uniform_fan_in

lesson = Lesson(__file__)
rng = np.random.default_rng(0)

# %% [markdown]
# ## Two signs
#
# Two signs have the product $+1$ if they are equal, and $-1$ if they differ. Write $+1$ as the
# bit 1 and $-1$ as the bit 0; then "they differ" is XOR. (Its opposite is XNOR, which gave the
# method its name.) Of $K$ products, let $d$ be $-1$. The others, $K - d$, are $+1$, so that
#
# $$ a \cdot b \;=\; (K - d) - d \;=\; K - 2\,\mathrm{popcount}(a \oplus b), $$
#
# where popcount is the number of bits that are 1. There are no multiplications left, and no
# rounding either. For short rows we can try *all* pairs, with Python's integers as the bits:

# %%
pairs = 0
for K in range(1, 7):
    for a in range(2**K):
        for b in range(2**K):
            signs_a = [1 if a >> j & 1 else -1 for j in range(K)]
            signs_b = [1 if b >> j & 1 else -1 for j in range(K)]
            dot = sum(x * y for x, y in zip(signs_a, signs_b))
            assert dot == K - 2 * (a ^ b).bit_count()
            pairs += 1
print(f"all {pairs} pairs of up to 6 signs: the sum of products is K - 2 popcount(a xor b)")

# %% [markdown]
# ## 64 signs to a word
#
# A processor has no cheaper numbers than words of 64 bits, so we fill them: sign $j$ becomes
# bit $j \bmod 64$ of word $\lfloor j / 64 \rfloor$. Most $K$ are no multiple of 64. Then the
# last word has bits to spare, and they are 0 in *both* rows. XOR makes them 0 again, and
# popcount does not see them. But the $K$ of the formula is the number of signs, not of bits.
#
# Zero has no sign and a bit has no third value, so something must be decided: here 0 is $+1$
# (and -0.0, which equals it, too).


# %%
def pack(x):
    """The signs of rows x (R, K) as words (R, W) of uint64, W = K / 64 rounded up."""
    R, K = x.shape
    bits = np.zeros((R, -(-K // 64) * 64), bool)
    bits[:, :K] = x >= 0
    return np.packbits(bits, axis=1, bitorder="little").view("<u8")


def sign_products(a, b, K):
    """All products of rows of signs, given as words (M, W) and (N, W): integers (M, N)."""
    differ = np.bitwise_count(a[:, None, :] ^ b[None, :, :])
    return K - 2 * differ.sum(axis=-1, dtype=np.int32)


def signs(x):
    return np.where(x >= 0, np.float32(1), np.float32(-1))


# %% [markdown]
# Every $K$ from 1 to 257, which is one more than four words: against the product in floats,
# which is exact too, because whole numbers up to $2^{24}$ are; and against minivit's packing
# and its kernel `xnor_gemm`. Not "close": equal.

# %%
for K in range(1, 258):
    x = rng.standard_normal((5, K)).astype(np.float32)
    y = rng.standard_normal((7, K)).astype(np.float32)
    x[0, 0], x[1, 0] = 0.0, -0.0
    a, b = pack(x), pack(y)
    product = sign_products(a, b, K)
    assert np.array_equal(product, signs(x) @ signs(y).T)
    assert np.array_equal(a, pack_signs(x)) and np.array_equal(b, pack_signs(y))
    assert np.array_equal(product, xnor_gemm(a, BinaryMatrix(b, K)))
    forgotten = sign_products(a, b, 64 * a.shape[1])  # bits counted in place of signs
    assert np.array_equal(forgotten - product, np.full((5, 7), -K % 64))
print(f"K = 1 ... {K}: equal to the product in floats, and to minivit's, bit for bit")

# %% [markdown]
# ## The other product: {0, 1} times signs
#
# In attention, probabilities become 0 or 1 (times one learned level), and the values are signs.
# Zeros take no part. Among the ones of a mask $m$, popcount$(m \wedge v)$ values are $+1$, and
# all others of popcount$(m)$ are $-1$:
#
# $$ m \cdot v = 2\,\mathrm{popcount}(m \wedge v) - \mathrm{popcount}(m). $$


# %%
def masked_products(mask, values):
    """Products of masks with signs, as words (M, W) and (N, W): integers (M, N)."""
    plus = np.bitwise_count(mask[:, None, :] & values[None, :, :]).sum(-1, dtype=np.int32)
    return 2 * plus - np.bitwise_count(mask).sum(-1, dtype=np.int32)[:, None]


for keys in (1, 16, 64, 65, 196):
    mask = rng.random((6, keys)) < 0.3
    values = rng.standard_normal((8, keys)).astype(np.float32)
    m, v = pack(mask - 0.5), pack(values)  # True becomes 0.5, whose bit is 1
    product = masked_products(m, v)
    assert np.array_equal(product, mask @ signs(values).T)
    # minivit's kernel has axes for images and heads: one image, one head.
    assert np.array_equal(product, binary_attention_values(m[None, None], v[None, None])[0, :, 0])
print("masks times signs: the same")

# %% [markdown]
# ## What signs leave of a product
#
# XNOR-Net replaces a row $w$ of weights by $\alpha\,\mathrm{sign}(w)$. The best $\alpha$ is the
# mean of $|w|$: in
#
# $$ \lVert w - \alpha\,\mathrm{sign}(w) \rVert^2
#    = \lVert w \rVert^2 - 2 \alpha \lVert w \rVert_1 + K \alpha^2 $$
#
# the derivative by $\alpha$ is zero at $\lVert w \rVert_1 / K$. How much of $x \cdot w$ is left?
# For independent normal numbers, $E|x| = \sqrt{2/\pi}$, and each side that becomes signs
# multiplies the correlation with the true product by it: $0.80$ for weights alone, $2/\pi
# \approx 0.64$ for both. That is far from nothing, for 1 bit of 32. (XNOR-Net scales the inputs
# too, by the mean of $|x|$; BinaryViT, and so this lesson, does not.)

# %%
K = 256
x, w = rng.standard_normal((2, 600, K)).astype(np.float32)
alpha = np.abs(w).mean(axis=1)
errors = [((w - f * alpha[:, None] * signs(w)) ** 2).sum() for f in (0.98, 1, 1.02)]
assert errors[1] < min(errors[0], errors[2])

true = (x @ w.T).ravel()
both = (signs(x) @ (alpha[:, None] * signs(w)).T).ravel()
weights_only = (x @ (alpha[:, None] * signs(w)).T).ravel()
r_weights, r_both = (np.corrcoef(true, other)[0, 1] for other in (weights_only, both))
theory = math.sqrt(2 / math.pi)
print(f"correlation with x.w: signs for weights {r_weights:.3f} (theory {theory:.3f}), "
      f"for both {r_both:.3f} (theory {theory**2:.3f})")
assert abs(r_weights - theory) < 0.02 and abs(r_both - theory**2) < 0.02

# %% [markdown]
# With the scale we have minivit's binary linear layer. Its weights are centred before the sign
# is taken, so that each row has about as many $+1$ as $-1$; the scale is that of the weights
# as they are. Its input is signs already. The layer multiplies in floats, because training
# needs gradients (lesson 12), and ours on bits. Both give the same whole number times the same
# scale: the results are equal to the last digit.

# %%
layer = nn.BinaryLinear(200, 96, init=uniform_fan_in(rng))
latent = layer.weight.data
scale = np.abs(latent).mean(axis=1, dtype=np.float64).astype(np.float32)
centred = latent - latent.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
x = rng.standard_normal((50, 200)).astype(np.float32)

on_bits = sign_products(pack(x), pack(centred), 200).astype(np.float32) * scale
in_floats = layer(minivit.Tensor(signs(x))).data
assert np.array_equal(on_bits, in_floats)
print(f"binary linear layer {latent.shape}: bits and floats give the same {on_bits.size} numbers")

# %% [markdown]
# ## What it costs
#
# The weights take a 32nd of the bytes. Each word of two rows needs one XOR, one popcount and one
# addition, where floats need 64 multiplications with additions: papers count a product of signs
# as 1/64 of an operation. That is not the speed to expect. A floating-point unit works on 16
# floats at once (with vectors of 512 bits). The 512 products of signs in such a vector would take
# it 32 instructions, and take three on bits (where the processor has a vector popcount; AVX-512
# has, AVX2 must look bits up in a table). So expect about ten times the speed, and up to twice
# that on a processor that starts more of these three at once than multiplications.
#
# Let us measure, on one thread: products of 512 rows with 512 rows, by NumPy's `@` in floats,
# by our `sign_products`, and by minivit's kernel. Packing the activations has to be done anew
# for every product, so the kernel is timed with and without.


# %%
def pack_and_multiply(x, matrix):
    return xnor_gemm(pack_signs(x), matrix)


rows, threads = 512, num_threads()
widths = lesson.choose(quick=[64, 256, 1024, 4096], full=[2**i for i in range(6, 14)])
forms = ("floats, BLAS", "bits, NumPy", "bits, minivit, with packing", "bits, minivit")
times = {form: [] for form in forms}
set_num_threads(1)
with single_threaded_blas():
    for K in widths:
        x, y = rng.standard_normal((2, rows, K)).astype(np.float32)
        sx, sy, a, b = signs(x), signs(y), pack(x), pack(y)
        matrix = BinaryMatrix(b, K)
        calls = (
            (np.matmul, sx, sy.T),
            (sign_products, a, b, K),
            (pack_and_multiply, x, matrix),
            (xnor_gemm, a, matrix),
        )
        assert b.nbytes * 32 == y.nbytes
        for measured, (function, *arguments) in zip(times.values(), calls):
            assert np.array_equal(function(*arguments), sx @ sy.T)
            measured.append(lesson.seconds_of(function, *arguments))
set_num_threads(threads)

print(f"\n{rows} x {rows} products, milliseconds" + "".join(f"{f'K = {K}':>12}" for K in widths))
for name, measured in times.items():
    print(f"{name:34}" + "".join(f"{1e3 * t:12.3f}" for t in measured))
ratios = [f / b for f, b in zip(times["floats, BLAS"], times["bits, minivit"])]
print(f"{'times as fast as floats':34}" + "".join(f"{r:12.1f}" for r in ratios))

# %% [markdown]
# The idea alone is not fast: our NumPy line writes every XOR and every count to memory. The
# kernel keeps the counts of a tile of the result in registers until the last word, and writes
# each of them once (`minivit/kernels/xnor.py`; lesson 16 is about that art). For small $K$
# there is little to count and much to write, and so the gain grows with $K$.

# %%
figure, panels = lesson.figure(1, 2, figsize=(10.5, 4.2))
if figure:
    some = rng.choice(true.size, 3000, replace=False)
    panels[0].scatter(true[some], both[some], s=4, alpha=0.5, color="#2166ac", linewidths=0)
    panels[0].axline((0, 0), slope=1, color="black", lw=0.8, ls="--", label="equal")
    panels[0].set(
        xlabel="$x \\cdot w$, 256 products in floats",
        ylabel="$\\alpha\\,(K - 2\\,\\mathrm{popcount}(a \\oplus b))$",
        title=f"What is left of a product: correlation {r_both:.2f}",
    )
    panels[0].legend(frameon=False)
    styles = zip(("#b2182b", "#999999", "#67a9cf", "#2166ac"), "so^v")
    for (name, measured), (colour, marker) in zip(times.items(), styles):
        gigas = [1e-9 * rows * rows * K / t for K, t in zip(widths, measured)]
        panels[1].loglog(widths, gigas, f"{marker}-", color=colour, label=name)
    panels[1].set(
        xlabel="$K$, signs in a row", ylabel="$10^9$ products of signs a second",
        title=f"{rows} x {rows} products on one thread",
    )
    panels[1].set_xticks(widths, widths)
    panels[1].minorticks_off()
    panels[1].grid(alpha=0.3)
    panels[1].legend(frameon=False, fontsize=9)
    lesson.save(figure, "products")

# %% [markdown]
# Exercises: `lessons/exercises/13.py`, checked by `python -m lessons check 13`.

# %%
lesson.passed(
    "products of signs are K - 2 popcount(a xor b), bit for bit",
    every_K_up_to=257,
    correlation_left=f"{r_both:.2f}",
    bytes_of_weights="1/32",
    times_as_fast=f"{ratios[0]:.1f} (K = {widths[0]}) to {ratios[-1]:.1f} (K = {widths[-1]})",
)
