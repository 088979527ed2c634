"""DualFormer step by step as its formulas are written, permutes and all: the baseline of forward.py."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LocalAttention(nn.Module):
    def __init__(self, width: int, heads: int, window: tuple[int, int, int]) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, grid: tuple[int, int, int]) -> Tensor:
        (b, n, c), (d, h, w), (i, j, k) = x.shape, grid, self.window
        x = x.view(b, d // i, i, h // j, j, w // k, k, c).permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, i * j * k, c)
        q, key, v = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = attend(q, key, v).transpose(1, 2).reshape(x.shape)
        x = x.view(b, d // i, h // j, w // k, i, j, k, c).permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, n, c)
        return self.proj(x)


class GlobalAttention(nn.Module):
    def __init__(self, width: int, heads: int, fine: list[int], coarse: list[int] | None) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv, self.proj = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.pools = math.prod(fine) > 1
        if self.pools:
            self.sr = nn.Conv3d(width, width, fine, fine, groups=width)
            self.norm = nn.LayerNorm(width)
        self.coarse = coarse is not None
        if coarse is not None:
            first = nn.Conv3d(width, width, (1, 7, 7), (1, 7, 7), groups=width)
            second = nn.Conv3d(width, width, coarse, coarse, groups=width)
            self.lr = nn.Sequential(first, nn.BatchNorm3d(width), nn.ReLU(), second)

    def forward(self, x: Tensor, grid: tuple[int, int, int]) -> Tensor:
        b, n, c = x.shape
        q = self.q(x).reshape(b, n, self.heads, -1).permute(0, 2, 1, 3)
        y = x
        if self.pools:
            volume = x.permute(0, 2, 1).reshape(b, c, *grid)
            parts = [self.sr(volume).reshape(b, c, -1).permute(0, 2, 1)]
            if self.coarse:
                parts.append(self.lr(volume).reshape(b, c, -1).permute(0, 2, 1))
            y = self.norm(torch.cat(parts, 1))
        k, v = self.kv(y).reshape(b, -1, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(attend(q, k, v).transpose(1, 2).reshape(b, n, c))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1) @ v


class Block(nn.Module):
    def __init__(self, width: int, attention: nn.Module) -> None:
        super().__init__()
        self.attn, self.norm1, self.norm2 = attention, nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, volume: Tensor) -> Tensor:
        grid = tuple(volume.shape[2:])
        x = volume.flatten(2).transpose(1, 2)
        x = x + self.attn(self.norm1(x), grid)
        x = x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))
        return x.transpose(1, 2).reshape(volume.shape)


class Transcription(nn.Module):
    """Clips (B,3,T,H,W) of 32×224² → logits. State dict as released."""

    def __init__(
        self, widths: tuple[int, ...], heads: tuple[int, ...], depths: tuple[int, ...], num_classes: int
    ) -> None:
        super().__init__()
        self.backbone, self.cls_head = nn.Module(), nn.Module()
        fine = [[2, 8, 8], [2, 4, 4], [2, 2, 2], [1, 1, 1]]
        coarse = [[4, 2, 2], [4, 1, 1], None, None]
        self.backbone.patch_embeds, self.backbone.blocks = nn.ModuleList(), nn.ModuleList()
        self.backbone.pos_block = nn.ModuleList()
        for i, width in enumerate(widths):
            embed, patch = nn.Module(), [2, 4, 4] if i == 0 else [1, 2, 2]
            embed.proj = nn.Conv3d(widths[i - 1] if i else 3, width, patch, patch)
            embed.norm = nn.LayerNorm(width)
            self.backbone.patch_embeds.append(embed)
            attentions = [
                GlobalAttention(width, heads[i], fine[i], coarse[i])
                if j % 2
                else LocalAttention(width, heads[i], (8, 7, 7))
                for j in range(depths[i])
            ]
            self.backbone.blocks.append(nn.ModuleList(Block(width, attention) for attention in attentions))
            position = nn.Module()
            position.proj = nn.Sequential(nn.Conv3d(width, width, 3, padding=1, groups=width))
            self.backbone.pos_block.append(position)
        self.backbone.norm = nn.LayerNorm(widths[-1])
        self.cls_head.fc_cls = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        net = self.backbone
        for embed, blocks, position in zip(net.patch_embeds, net.blocks, net.pos_block, strict=True):
            x = embed.proj(x)
            x = embed.norm(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)
            for j, block in enumerate(blocks):
                x = block(x)
                x = x + position.proj(x) if j == 0 else x
        x = net.norm(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
        return self.cls_head.fc_cls(x.mean((2, 3, 4)))
