"""SL-ViT in PyTorch eager: the yardstick that ``train_step.py`` measures minivit against.

The network of Lee, Lee and Song, "Vision Transformer for Small-Size Datasets" (arXiv 2112.13492), written
the way an experienced PyTorch user would write it: library kernels throughout, nothing recomputed, and two
interchangeable forms of locality self-attention, so that the benchmark can keep the faster one. Parameters
bear minivit's names, so that ``load_state_dict`` carries the weights across.
"""

import torch
import torch.nn.functional as F
from torch import nn

MASKED = -987654321.0  # the authors' score for a token attending to itself; its softmax is exactly zero


class ShiftedPatchTokenization(nn.Module):
    """Image (B, C, H, W) with its four half-patch diagonal shifts -> tokens (B, N, D). Paper, section 3.1."""

    def __init__(self, patch_size, in_chans, embed_dim):
        super().__init__()
        self.patch_size = patch_size
        width = 5 * in_chans * patch_size**2
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, embed_dim)

    def forward(self, x):
        (B, C, H, W), P = x.shape, self.patch_size
        s = P // 2
        padded = F.pad(x, (s, s, s, s))
        corners = ((0, 0), (0, 2 * s), (2 * s, 0), (2 * s, 2 * s))
        x = torch.cat([x] + [padded[:, :, i : i + H, j : j + W] for i, j in corners], dim=1)
        x = x.view(B, 5 * C, H // P, P, W // P, P).permute(0, 2, 4, 3, 5, 1)  # channel varies fastest
        return self.proj(self.norm(x.reshape(B, (H // P) * (W // P), -1)))


class LocalitySelfAttention(nn.Module):
    """Attention with a learned scale per head and a masked diagonal. Paper, section 3.2."""

    def __init__(self, dim, num_heads, num_tokens, fused):
        super().__init__()
        self.num_heads = num_heads
        self.fused = fused
        self.scale = nn.Parameter(torch.full((num_heads,), (dim // num_heads) ** -0.5))
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        diagonal = torch.eye(num_tokens, dtype=torch.bool)
        bias = torch.zeros(num_tokens, num_tokens).masked_fill(diagonal, MASKED)
        self.register_buffer("diagonal", diagonal, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x):
        B, N, D = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        scale = self.scale.view(-1, 1, 1)
        if self.fused:
            x = F.scaled_dot_product_attention(q * scale, k, v, attn_mask=self.bias, scale=1.0)
        else:
            scores = (q * scale) @ k.transpose(-2, -1)
            x = scores.masked_fill_(self.diagonal, MASKED).softmax(dim=-1) @ v
        return self.proj(x.transpose(1, 2).reshape(B, N, D))


class Mlp(nn.Module):
    """Linear, GELU, linear on the last axis."""

    def __init__(self, dim, hidden_dim):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block: attention, then MLP, each added to its input."""

    def __init__(self, dim, num_heads, hidden_dim, num_tokens, fused):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = LocalitySelfAttention(dim, num_heads, num_tokens, fused)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, hidden_dim)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SLViT(nn.Module):
    """Images (B, 3, 32, 32) -> logits (B, num_classes), with SL-ViT's published sizes as defaults.

    ``fused`` selects ``F.scaled_dot_product_attention``; otherwise attention is two products and a softmax.
    """

    def __init__(
        self, num_classes=100, img_size=32, patch_size=4, embed_dim=192, depth=9, num_heads=12, fused=True
    ):
        super().__init__()
        num_tokens = (img_size // patch_size) ** 2 + 1
        self.patch_embed = ShiftedPatchTokenization(patch_size, 3, embed_dim)
        self.cls_token = nn.Parameter(torch.randn(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.randn(1, num_tokens, embed_dim))
        self.blocks = nn.Sequential(
            *(Block(embed_dim, num_heads, 2 * embed_dim, num_tokens, fused) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, x):
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(x)[:, 0]))
