"""BinaryViT and DeiT-S in PyTorch, for evaluation: the yardsticks of ``packed_inference.py``.

BinaryViT (Le & Li, arXiv 2306.16678) is simulated in float32, as its authors do: signs are floats, and their products
are those of library kernels. Weights are made binary once, beforehand, where the authors' code does so in every pass.
DeiT-S (Touvron et al., arXiv 2012.12877) is the full-precision network that it replaces. Parameters bear minivit's
names, so that ``load_state_dict`` carries the weights across.
"""

import torch
import torch.nn.functional as F
from torch import nn

BINARY_VIT = {"dims": (64, 128, 256, 512), "depths": (3, 4, 8, 4), "ratios": (8, 8, 4, 4), "reductions": (8, 4, 1, 1)}


# ---- BinaryViT -----------------------------------------------------------------------------------------------------


def sign(x):
    """+1 where x >= 0, else -1."""
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


class Affine(nn.Module):
    """x * scale + shift for each channel."""

    def __init__(self, dim):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        return torch.addcmul(self.shift, x, self.scale)


class RPReLU(nn.Module):
    """PReLU between two shifts."""

    def __init__(self, dim):
        super().__init__()
        self.shift_in, self.shift_out = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.slope = nn.Parameter(torch.full((dim,), 0.25))

    def forward(self, x):
        return F.prelu((x - self.shift_in).flatten(0, 1), self.slope).view(x.shape) + self.shift_out


class TokenBatchNorm(nn.BatchNorm1d):
    """BatchNorm of the channels of (B, N, C)."""

    def forward(self, x):
        return super().forward(x.flatten(0, 1)).view(x.shape)


class Unit(nn.Module):
    """RPReLU(BatchNorm(layer(sign(x + shift))) + shortcut(x)); with a grid, the layer is a 2x2 convolution."""

    def __init__(self, dim, out, grid=None):
        super().__init__()
        self.grid = grid
        self.shift = nn.Parameter(torch.zeros(dim))
        self.layer = nn.Linear(dim, out, bias=False) if grid is None else nn.Conv2d(dim, out, 2, stride=2, bias=False)
        self.norm, self.act = TokenBatchNorm(out), RPReLU(out)

    def binarize(self):
        weight = self.layer.weight.flatten(1)
        centred = weight - weight.mean(1, keepdim=True) if self.grid is None else weight
        binary = weight.abs().mean(1, keepdim=True) * sign(centred)
        self.layer.weight.copy_(binary.view(self.layer.weight.shape))

    def forward(self, x):
        y = sign(x + self.shift)
        if self.grid is None:
            y = self.layer(y)
        else:
            y, x = on_grid(self.layer, y, self.grid), pool(x, self.grid, 2)
        y, before, after = self.norm(y), x.shape[-1], y.shape[-1]
        shortcut = x.repeat(1, 1, after // before) if after >= before else x.unflatten(-1, (after, -1)).mean(-1)
        return self.act(y + shortcut)


def on_grid(layer, x, grid):
    """Apply a layer of images to tokens (B, N, C); channels stay last in memory."""
    return layer(x.transpose(1, 2).unflatten(2, grid)).flatten(2).transpose(1, 2)


def pool(x, grid, size):
    """Means of cells of size x size tokens."""
    return on_grid(lambda image: F.avg_pool2d(image, size), x, grid)


class Attention(nn.Module):
    """Attention of signs; its probabilities become 0 or a level."""

    def __init__(self, dim, heads, grid, reduction):
        super().__init__()
        self.heads, self.grid, self.reduction = heads, grid, reduction
        self.reduce = Unit(dim, dim) if reduction > 1 else None
        self.q, self.k, self.v = Unit(dim, dim), Unit(dim, dim), Unit(dim, dim)
        self.q_shift, self.k_shift, self.v_shift = (nn.Parameter(torch.zeros(dim)) for _ in range(3))
        self.att_prob_clip = nn.Parameter(torch.tensor(0.005))
        self.norm, self.act = TokenBatchNorm(dim), RPReLU(dim)

    def forward(self, x):
        u = x if self.reduce is None else self.reduce(pool(x, self.grid, self.reduction))
        q, k, v = self.q(x), self.k(u), self.v(u)
        a, b, c = (
            sign(y + shift).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for y, shift in ((q, self.q_shift), (k, self.k_shift), (v, self.v_shift))
        )
        p = (a @ b.transpose(-1, -2) * a.shape[-1] ** -0.5).softmax(-1)
        p = (p / self.att_prob_clip > 0.5).to(p.dtype) * self.att_prob_clip
        context, coarse = (p @ c).transpose(1, 2).flatten(2), k + v
        if self.reduce is not None:
            cells = tuple(side // self.reduction for side in self.grid)
            coarse = on_grid(lambda image: F.interpolate(image, scale_factor=self.reduction), coarse, cells)
        return self.act(self.norm(context) + q + coarse)


class Pooling(nn.Module):
    """Means of 3 and of 5 tokens along columns and rows, each with its affine layer."""

    def __init__(self, dim, grid):
        super().__init__()
        self.grid = grid
        self.h3, self.w3, self.h5, self.w5 = (Affine(dim) for _ in range(4))

    def forward(self, x):
        windows = {(3, 1): self.h3, (1, 3): self.w3, (5, 1): self.h5, (1, 5): self.w5}
        return sum(
            affine(on_grid(lambda i, s=size: F.avg_pool2d(i, s, 1, (s[0] // 2, s[1] // 2)), x, self.grid))
            for size, affine in windows.items()
        )


class BinaryMlp(nn.Module):
    """Two binary units."""

    def __init__(self, dim, ratio):
        super().__init__()
        self.fc1, self.fc2 = Unit(dim, ratio * dim), Unit(ratio * dim, dim)

    def forward(self, x):
        return self.fc2(self.fc1(x))


class BinaryBlock(nn.Module):
    """Attention and its output unit, then the MLP beside the pooling branches."""

    def __init__(self, dim, ratio, grid, reduction):
        super().__init__()
        self.norm1, self.norm2 = TokenBatchNorm(dim), TokenBatchNorm(dim)
        self.attn, self.proj = Attention(dim, dim // 64, grid, reduction), Unit(dim, dim)
        self.mlp, self.affine1, self.affine2 = BinaryMlp(dim, ratio), Affine(dim), Affine(dim)
        self.pool = Pooling(dim, grid)

    def forward(self, x):
        x = x + self.affine1(self.proj(self.attn(self.norm1(x))))
        z = self.norm2(x)
        return x + self.affine2(self.mlp(z)) + self.pool(z)


class Downsample(nn.Module):
    """A binary unit that halves the grid, between a BatchNorm and new positions."""

    def __init__(self, dim, out, grid):
        super().__init__()
        self.norm0, self.unit = TokenBatchNorm(dim), Unit(dim, out, grid)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid[0] * grid[1] // 4, out))

    def forward(self, x):
        return self.unit(self.norm0(x)) + self.pos_embed


class PatchEmbed(nn.Module):
    """Images (B, 3, H, W) -> tokens (B, N, dim)."""

    def __init__(self, dim, size):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, size, stride=size)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class BinaryViT(nn.Module):
    """Images (B, 3, 224, 224) -> logits (B, 1000). Call ``binarize`` once the weights are loaded."""

    def __init__(self):
        super().__init__()
        dims, depths, grids = BINARY_VIT["dims"], BINARY_VIT["depths"], [(side, side) for side in (56, 28, 14, 7)]
        self.patch_embed, self.norm_pre = PatchEmbed(dims[0], 4), TokenBatchNorm(dims[0])
        self.pos_embed = nn.Parameter(torch.zeros(1, 56 * 56, dims[0]))
        stages = zip(dims, depths, BINARY_VIT["ratios"], grids, BINARY_VIT["reductions"])
        self.blocks = nn.ModuleList(
            BinaryBlock(dim, ratio, grid, reduction)
            for dim, depth, ratio, grid, reduction in stages
            for _ in range(depth)
        )
        self.downsamples = nn.ModuleList(map(Downsample, dims, dims[1:], grids))
        self.norm, self.head = TokenBatchNorm(dims[-1]), nn.Linear(dims[-1], 1000)

    @torch.no_grad()
    def binarize(self):
        for module in self.modules():
            if isinstance(module, Unit):
                module.binarize()

    def forward(self, x):
        x = self.norm_pre(self.patch_embed(x)) + self.pos_embed
        blocks = iter(self.blocks)
        for stage, depth in enumerate(BINARY_VIT["depths"]):
            x = self.downsamples[stage - 1](x) if stage else x
            for _ in range(depth):
                x = next(blocks)(x)
        return self.head(self.norm(x).mean(1))


# ---- DeiT-S --------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Pre-norm transformer block with PyTorch's own attention kernel."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x):
        b, n, dim = x.shape
        q, k, v = self.attn["qkv"](self.norm1(x)).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, dim)
        x = x + self.attn["proj"](y)
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class DeiTSmall(nn.Module):
    """Images (B, 3, 224, 224) -> logits (B, 1000)."""

    def __init__(self, dim=384, depth=12, heads=6):
        super().__init__()
        self.patch_embed = PatchEmbed(dim, 16)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 197, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, 1000)

    def forward(self, x):
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), self.patch_embed(x)], dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])
