"""DualFormer: a four-stage pyramid Transformer whose blocks look near and far in turn.

DualFormer (ECCV 2022, arXiv 2112.04674). Even blocks attend inside non-overlapping windows, odd ones to a few pooled
tokens of the whole clip; a depth-wise convolution after the first block of a stage tells positions.
B clips, D×H×W grid of a stage (D = T / 2), C its channels, L tokens of a window, M pooled tokens, K classes.
Tokens are (B,D,H,W,C) throughout, so that a convolution sees them as channels-last (B,C,D,H,W) without a copy; only
windows are gathered and put back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidstill.config import Clip
from vidstill.models.adapt import Report
from vidstill.models.convolution import BatchNorm3d
from vidstill.models.layers import EPS, MLP, DropPath, Layer, Packs, dense, pack_dense, recompute
from vidstill.models.model import VideoModel
from vidstill.models.registry import register_model

Size = tuple[int, int, int]

NEAREST_COARSE = 7  # the first coarse convolution joins 1×7×7 tokens


class Attention(Packs, nn.Module):
    """Softmax attention over heads, without the choice of what attends to what."""

    packed: dict[str, Layer] | None = None

    def __init__(self, width: int, heads: int, scale: float | None, attn_drop: float, drop: float) -> None:
        super().__init__()
        self.heads, self.scale, self.attn_drop = heads, scale, attn_drop
        self.drop = nn.Dropout(drop)

    def linear(self, name: str, x: Tensor, plus: Tensor | None = None) -> Tensor:
        layer = getattr(self, name)
        weight, bias = self.packed[name] if self.packed else (layer.weight, layer.bias)
        return dense(x, weight, bias, plus=plus)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """q (N,L,heads,c), k and v (N,M,heads,c), mask of the keys that count → (N,L,C)."""
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        dropout = self.attn_drop if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout, scale=self.scale)
        return y.transpose(1, 2).flatten(2)

    def pack(self, tokens: int) -> dict[str, Layer]:
        layers = {name: layer for name, layer in self.named_children() if isinstance(layer, nn.Linear)}
        return {name: pack_dense((layer.weight, layer.bias), 1, tokens) for name, layer in layers.items()}


class LocalAttention(Attention):
    """Attention among the tokens of each window; a grid that windows do not fill is padded with tokens nobody sees."""

    def __init__(self, width: int, heads: int, window: Size, qkv_bias: bool, **options: Any) -> None:
        super().__init__(width, heads, **options)
        self.window = window
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """(B,D,H,W,C) → same; `plus` is added to it."""
        b, *grid, _ = x.shape
        self.prepacked(math.prod(grid))
        window = [min(side, tokens) for side, tokens in zip(self.window, grid, strict=True)]
        padding = [-tokens % side for side, tokens in zip(window, grid, strict=True)]
        mask = None
        if any(padding):
            x = _pad(x, padding)
            real = _pad(x.new_ones(1, *grid, 1, dtype=torch.bool), padding)
            mask = _windows(real, window).view(1, -1, 1, 1, math.prod(window)).expand(b, -1, -1, -1, -1).flatten(0, 1)
        padded = x.shape[1:4]
        tokens = _windows(x, window)  # (B·windows,L,C)
        qkv = self.linear("qkv", tokens).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.unbind(2)
        y = _from_windows(self.attend(q, k, v, mask), padded, window)
        if any(padding):
            y = y[:, : grid[0], : grid[1], : grid[2]]
        return self.drop(self.linear("proj", y, plus))


class GlobalAttention(Attention):
    """Attention of every token to pooled ones: a fine grid and, where `coarse` is given, a coarse one; without `fine`
    to all tokens."""

    def __init__(
        self, width: int, heads: int, fine: Size | None, coarse: Size | None, qkv_bias: bool, **options: Any
    ) -> None:
        super().__init__(width, heads, **options)
        self.q = nn.Linear(width, width, bias=qkv_bias)
        self.kv = nn.Linear(width, 2 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)
        self.sr = None if fine is None else nn.Conv3d(width, width, fine, fine, groups=width)
        self.norm = None if fine is None else nn.LayerNorm(width, eps=EPS)
        self.lr = None
        if fine is not None and coarse is not None:
            first = (1, NEAREST_COARSE, NEAREST_COARSE)
            self.lr = nn.Sequential(
                nn.Conv3d(width, width, first, first, groups=width),
                BatchNorm3d(width),
                nn.ReLU(),
                nn.Conv3d(width, width, coarse, coarse, groups=width),
            )

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """(B,D,H,W,C) → same; `plus` is added to it."""
        tokens = x.flatten(1, 3)
        self.prepacked(tokens.shape[1])
        q = self.linear("q", tokens).unflatten(-1, (self.heads, -1))
        k, v = self.linear("kv", self._pool(x)).unflatten(-1, (2, self.heads, -1)).unbind(2)
        y = self.attend(q, k, v).view(x.shape)
        return self.drop(self.linear("proj", y, plus))

    def _pool(self, x: Tensor) -> Tensor:
        """(B,D,H,W,C) → (B,M,C): fine tokens, then coarse ones."""
        if self.sr is None or self.norm is None:
            return x.flatten(1, 3)
        grid = x.permute(0, 4, 1, 2, 3)
        pooled = [_strided(self.sr, grid)]
        if self.lr is not None:
            near, norm, relu, far = self.lr
            pooled.append(_strided(far, relu(norm(_strided(near, grid)))))
        return self.norm(torch.cat([part.flatten(2).transpose(1, 2) for part in pooled], 1))


class Block(nn.Module):
    """(B,D,H,W,C) → same: attention and MLP, each with norm, stochastic depth and residual."""

    is_stage = True

    def __init__(self, width: int, attention: Attention, mlp_ratio: float, drop: float, drop_path: float) -> None:
        super().__init__()
        self.attn = attention
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = MLP(width, int(width * mlp_ratio), drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            x = self.attn(self.norm1(x), plus=x)
            return self.mlp(self.norm2(x), plus=x)
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Joins patches of pixels or tokens into one token each; sides that are no multiple of the patch are padded."""

    def __init__(self, channels: int, width: int, patch: Size) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels, width, patch, patch)
        self.norm = nn.LayerNorm(width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B,D,H,W,C) → (B,D',H',W',C')."""
        x = _pad(x, [-side % patch for side, patch in zip(x.shape[1:4], self.proj.stride, strict=True)])
        return self.norm(self.proj(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1))


class Position(nn.Module):
    """x (B,D,H,W,C) → x + its depth-wise 3×3×3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Conv3d(width, width, 3, padding=1, groups=width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.proj(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)


class Backbone(nn.Module):
    """Four stages; see DualFormer for the options."""

    def __init__(
        self,
        embed_dims: Sequence[int],
        num_heads: Sequence[int],
        depths: Sequence[int],
        mlp_ratios: Sequence[float],
        patches: Sequence[Size],
        windows: Sequence[Size],
        pools: Sequence[tuple[Size | None, Size | None]],
        drop_rate: float,
        drop_path_rate: float,
        in_channels: int,
        **options: Any,
    ) -> None:
        super().__init__()
        channels = [in_channels, *embed_dims]
        self.patch_embeds = nn.ModuleList(map(PatchEmbed, channels, embed_dims, patches))
        self.pos_drop = nn.Dropout(drop_rate)
        rates = iter([drop_path_rate * n / max(1, sum(depths) - 1) for n in range(sum(depths))])
        self.blocks = nn.ModuleList()
        for i, (width, heads) in enumerate(zip(embed_dims, num_heads, strict=True)):
            stage = nn.ModuleList()
            for j in range(depths[i]):
                if j % 2 == 0 and math.prod(windows[i]) > 1:
                    attention: Attention = LocalAttention(width, heads, windows[i], drop=drop_rate, **options)
                else:
                    attention = GlobalAttention(width, heads, *pools[i], drop=drop_rate, **options)
                stage.append(Block(width, attention, mlp_ratios[i], drop_rate, next(rates)))
            self.blocks.append(stage)
        self.norm = nn.LayerNorm(embed_dims[-1], eps=EPS)
        self.pos_block = nn.ModuleList(map(Position, embed_dims))

    def forward(self, clips: Tensor, checkpointing: bool = False) -> dict[str, Tensor]:
        """Clips (B,C,T,H,W) → `stem`, `stage1` … `stage4` and `features`, the normed last stage, each (B,D,H,W,C)."""
        x = clips.permute(0, 2, 3, 4, 1)
        stages: dict[str, Tensor] = {}
        parts: Any = zip(self.patch_embeds, self.blocks, self.pos_block, strict=True)
        for i, (embed, blocks, position) in enumerate(parts):
            x = self.pos_drop(embed(x))
            if i == 0:
                stages["stem"] = x
            for j, block in enumerate(blocks):
                x = recompute(block, block, x) if checkpointing and torch.is_grad_enabled() else block(x)
                x = position(x) if j == 0 else x
            stages[f"stage{i + 1}"] = x
        return {**stages, "features": self.norm(x)}


class Head(nn.Module):
    """Pooled features → class logits; with `tokens` an MLP that names every token, for training by token labels."""

    def __init__(self, width: int, dropout: float, tokens: bool) -> None:
        super().__init__()
        self.width, self.tokens = width, tokens
        self.dropout = nn.Dropout(dropout)

    def reset(self, num_classes: int, like: dict[str, Any]) -> None:
        c = self.width
        self.fc_cls: nn.Module = nn.Identity()
        if num_classes:
            self.fc_cls = layer = nn.Linear(c, num_classes, **like)
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        if self.tokens and num_classes:
            hidden: list[nn.Module] = []
            for inside, outside in ((c, 2 * c), (2 * c, 4 * c)):
                hidden += [nn.Linear(inside, outside, **like), nn.Dropout(self.dropout.p), nn.ReLU()]
            self.token_linear = nn.Sequential(*hidden, nn.Linear(4 * c, num_classes, **like))

    def forward(self, features: Tensor) -> Tensor:
        """(B,D,H,W,C) → (B,K)."""
        return self.fc_cls(self.dropout(features.flatten(1, 3).mean(1)))


class DualFormer(VideoModel):
    """Four stages of local and global attention; any frame count and size.

    Per stage: embed_dims, num_heads, depths, mlp_ratios, temporal_pooling (time steps joined, the first entry is
    patch_size[0]), local_sizes (the window; (1,1,1): only global attention), fine_pysizes and coarse_pysizes (pooled
    tokens of a clip of `video_size`, which alone fixes the pooling kernels). qk_scale None is head width^-0.5.
    token_head adds the MLP of token labelling, which only training uses. Raises ValueError for options that
    contradict.
    """

    input = Clip(frames=32, interval=2, sampling="sample_frames")
    head_keys = (
        "cls_head.fc_cls.weight",
        "cls_head.fc_cls.bias",
        "cls_head.token_linear.6.weight",
        "cls_head.token_linear.6.bias",
    )
    channel_axis = -1

    def __init__(
        self,
        num_classes: int,
        *,
        embed_dims: Sequence[int],
        num_heads: Sequence[int],
        depths: Sequence[int],
        in_channels: int = 3,
        video_size: Sequence[int] = (32, 224, 224),
        patch_size: Sequence[int] = (2, 4, 4),
        mlp_ratios: Sequence[float] = (4, 4, 4, 4),
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        temporal_pooling: Sequence[int] = (2, 1, 1, 1),
        local_sizes: Sequence[Sequence[int]] = ((8, 7, 7),) * 4,
        fine_pysizes: Sequence[Sequence[int]] = ((8, 7, 7), (8, 7, 7), (8, 7, 7), (16, 7, 7)),
        coarse_pysizes: Sequence[Sequence[int]] = ((4, 4, 4),) * 4,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        dropout_ratio: float = 0.5,
        token_head: bool = False,
    ) -> None:
        super().__init__()
        _check_options(
            embed_dims, num_heads, patch_size, video_size, depths=depths, mlp_ratios=mlp_ratios,
            temporal_pooling=temporal_pooling, local_sizes=local_sizes, fine_pysizes=fine_pysizes,
            coarse_pysizes=coarse_pysizes,
        )  # fmt: skip
        self.in_channels = in_channels
        self.patches = [_size(patch_size), *((steps, 2, 2) for steps in temporal_pooling[1:])]
        grids = _grids(video_size, self.patches)
        self.backbone = Backbone(
            embed_dims, num_heads, depths, mlp_ratios, self.patches,
            windows=[_size(window) for window in local_sizes],
            pools=list(map(_kernels, range(len(grids)), grids, fine_pysizes, coarse_pysizes)),
            drop_rate=drop_rate, drop_path_rate=drop_path_rate, in_channels=in_channels,
            qkv_bias=qkv_bias, scale=qk_scale, attn_drop=attn_drop_rate,
        )  # fmt: skip
        self.cls_head, self.token_head = Head(embed_dims[-1], dropout_ratio, token_head), token_head
        self.apply(self._initialise)
        self.reset_classifier(num_classes)
        self.cam_layer = f"backbone/blocks/{len(depths) - 1}/{depths[-1] - 1}"

    def _logits(self, clips: Tensor) -> Tensor:
        return self.cls_head(self._tokens(clips)["features"])

    def _features(self, clips: Tensor) -> dict[str, Tensor]:
        """`stem`, `stage1` … `stage4` and `features`, what the head pools."""
        return {name: stage.permute(0, 4, 1, 2, 3) for name, stage in self._tokens(clips).items()}

    def _head(self, features: dict[str, Tensor]) -> Tensor:
        return self.cls_head(features["features"].permute(0, 2, 3, 4, 1))

    def _tokens(self, clips: Tensor) -> dict[str, Tensor]:
        return self.backbone(clips, self.checkpointing)

    def forward_tokens(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B,K), and logits (B,D,h,w,K) of every token by the token head."""
        if not self.token_head:
            raise ValueError("this model has no token head: build it with token_head=True")
        with self.form():
            features = self._tokens(self.take(clips))["features"]
            return self.cls_head(features), self.cls_head.token_linear(features)

    def annotate(self, clips: Tensor) -> Tensor:
        """The classifier's logits (B,D,h,w,K) for every token: token labels for another model."""
        with self.form():
            return self.cls_head.fc_cls(self._tokens(self.take(clips))["features"])

    def reset_classifier(self, num_classes: int) -> None:
        weight = self.backbone.norm.weight
        self.cls_head.reset(num_classes, {"device": weight.device, "dtype": weight.dtype})
        self.num_classes, self.classes = num_classes, None

    def adapt_weights(self, state: dict[str, Tensor], head: str, report: Report) -> dict[str, Tensor]:
        """What a release lacks or has too much: an annotation model (`teacher.…`) is left out, as is a token head that
        this model does not have; counters of batch norms may be missing. An image model is inflated, and kernels that
        were made for another number of frames are resampled so that a still clip gives the same."""
        if teacher := [key for key in state if key.startswith("teacher.")]:
            report.notes.append(f"{len(teacher)} weights of the annotation model (teacher.…) are left out")
            state = {key: value for key, value in state.items() if key not in teacher}
        if not any(key.startswith("backbone.") for key in state):
            state = {key if key.startswith("cls_head.") else f"backbone.{key}": state[key] for key in state}
        own = self.state_dict()
        stem = state.get("backbone.patch_embeds.0.proj.weight")
        if stem is not None and stem.ndim == 4:
            state = self._inflate(state, own, head, report)
        for key in [key for key in state if ".token_linear." in key and key not in own]:
            report.ignored[key] = "token head, which only training uses"
            del state[key]
        for key in own.keys() - state.keys():
            if key.endswith("num_batches_tracked"):
                report.kept[key] = "not in the file"
            elif ".token_linear." in key:
                report.kept[key] = "token head, not in the file"
        for key in state.keys() & own.keys():
            if key.endswith((".sr.weight", ".lr.3.weight")) and state[key].shape[:2] == own[key].shape[:2]:
                if state[key].shape == own[key].shape:
                    continue
                steps, wanted = state[key].shape[2], own[key].shape[2]
                state[key] = _resample(state[key], wanted)
                report.resized[key] = f"{steps} time steps to {wanted}"
        return state

    def _inflate(
        self, state: dict[str, Tensor], own: dict[str, Tensor], head: str, report: Report
    ) -> dict[str, Tensor]:
        """A 2-D image model as a video model: kernels are repeated along time and divided by the repetitions."""
        report.notes.append("an image model: kernels are repeated along time, the classifier stays the model's own")
        if head != "fresh" and self.num_classes:
            raise ValueError(f'{report.source} is an image model, whose classifier does not fit videos: head="fresh"')
        report.kept |= {key: "classifier of videos" for key in own if key.startswith("cls_head.")}
        for key in [key for key in state if key.startswith("backbone.head.")]:
            report.ignored[key.removeprefix("backbone.")] = "classifier of images"
            del state[key]
        for key, value in own.items():
            if value.ndim != 5:
                continue
            if key in state:
                steps = value.shape[2]
                state[key] = state[key].unsqueeze(2).expand(-1, -1, steps, -1, -1) / steps
                report.resized[key] = f"repeated over {steps} time steps, divided by {steps}"
            elif key.endswith(".lr.3.weight"):  # image models pool once
                state[key] = torch.full_like(value, 1 / math.prod(value.shape[2:]))
                bias = key.replace("weight", "bias")
                state[bias] = torch.zeros_like(own[bias])
                report.resized |= {key: "mean over its kernel", bias: "zero"}
        return state

    def _initialise(self, module: nn.Module) -> None:
        """Linear: normal of deviation 0.02, bias 0. Norms and convolutions keep PyTorch's own."""
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _size(size: Sequence[int]) -> Size:
    d, h, w = size
    return d, h, w


def _grids(video_size: Sequence[int], patches: Sequence[Size]) -> list[Size]:
    """The token grid of every stage for clips of `video_size`."""
    grids, grid = [], _size(video_size)
    for patch in patches:
        grid = _over(grid, patch)
        grids.append(grid)
    return grids


def _over(a: Sequence[int], b: Sequence[int]) -> Size:
    return _size([x // y for x, y in zip(a, b, strict=True)])


def _kernels(stage: int, grid: Size, fine: Sequence[int], coarse: Sequence[int]) -> tuple[Size | None, Size | None]:
    """Pooling kernels of the fine tokens, and of the second convolution of the coarse ones, which two stages have."""
    near = _over(grid, fine)
    if math.prod(near) <= 1:
        return None, None
    if stage > 1:
        return near, None
    far = _over(_over(grid, coarse), (1, NEAREST_COARSE, NEAREST_COARSE))
    if 0 in far:
        raise ValueError(
            f"coarse_pysizes {list(coarse)} leave kernels of {'×'.join(map(str, _over(grid, coarse)))} on stage "
            f"{stage + 1}'s grid {'×'.join(map(str, grid))}: they need at least 1×7×7, take fewer coarse tokens"
        )
    return near, far


def _pad(x: Tensor, padding: Sequence[int]) -> Tensor:
    """(B,D,H,W,C) with zeros after its last depth, row and column."""
    d, h, w = padding
    return F.pad(x, (0, 0, 0, w, 0, h, 0, d)) if d or h or w else x


def _windows(x: Tensor, window: Sequence[int]) -> Tensor:
    """(B,D,H,W,C) → (B·windows,L,C)."""
    (b, d, h, w, c), (i, j, k) = x.shape, window
    return x.view(b, d // i, i, h // j, j, w // k, k, c).permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, i * j * k, c)


def _from_windows(x: Tensor, grid: Sequence[int], window: Sequence[int]) -> Tensor:
    """(B·windows,L,C) → (B,D,H,W,C)."""
    (d, h, w), (i, j, k) = grid, window
    parts = x.view(-1, d // i, h // j, w // k, i, j, k, x.shape[-1])
    return parts.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, d, h, w, x.shape[-1])


def _strided(convolution: Any, x: Tensor) -> Tensor:
    """A convolution of (B,C,D,H,W) whose kernel may be larger than the grid."""
    missing = [max(0, side - tokens) for side, tokens in zip(convolution.kernel_size, x.shape[2:], strict=True)]
    y: Tensor = convolution(_pad(x.permute(0, 2, 3, 4, 1), missing).permute(0, 4, 1, 2, 3))
    return y


def _resample(kernel: Tensor, steps: int) -> Tensor:
    """A kernel (C,1,k,h,w) for `steps` time steps: neighbours are summed, or each is shared out.

    Numbers of steps of which neither divides the other stay as they are, for the loader to refuse.
    """
    k = kernel.shape[2]
    if k % steps == 0:
        return kernel.unflatten(2, (steps, -1)).sum(3)
    return kernel.repeat_interleave(steps // k, 2) * (k / steps) if steps % k == 0 else kernel


def _check_options(
    embed_dims: Sequence[int],
    num_heads: Sequence[int],
    patch_size: Sequence[int],
    video_size: Sequence[int],
    **per_stage: Sequence[Any],
) -> None:
    counts = {"embed_dims": len(embed_dims), "num_heads": len(num_heads)}
    counts |= {name: len(values) for name, values in per_stage.items()}
    if len(set(counts.values())) > 1:
        given = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(f"every option of the stages needs one entry per stage, got {given}")
    for width, heads in zip(embed_dims, num_heads, strict=True):
        if width < 1 or heads < 1 or width % heads:
            raise ValueError(f"embed_dims {list(embed_dims)}, num_heads {list(num_heads)}: heads must divide the width")
    for name in ("local_sizes", "fine_pysizes", "coarse_pysizes"):
        if any(len(size) != 3 or min(size) < 1 for size in per_stage[name]):
            raise ValueError(f"{name} {list(per_stage[name])}: give depth, height and width, each at least 1")
    if min(per_stage["depths"]) < 1:
        raise ValueError(f"depths {list(per_stage['depths'])}: every stage needs at least one block")
    if list(patch_size[1:]) != [4, 4] or patch_size[0] < 1:
        raise ValueError(f"patch_size {list(patch_size)}: patches are 4×4 pixels of one or more frames, e.g. (2,4,4)")


def _build(num_classes: int, options: dict[str, Any], **variant: Any) -> DualFormer:
    return DualFormer(num_classes, **{**variant, **options})


@register_model
def dualformer_tiny(num_classes: int = 400, **options: Any) -> DualFormer:
    """22 M parameters; K400 79.5."""
    variant = {"embed_dims": (64, 128, 256, 512), "num_heads": (2, 4, 8, 16), "depths": (2, 2, 10, 4)}
    return _build(num_classes, options, **variant, drop_path_rate=0.1)


@register_model
def dualformer_small(num_classes: int = 400, **options: Any) -> DualFormer:
    """49 M parameters; K400 80.6, Diving48 81.8, HMDB51 76.4, UCF101 97.5."""
    variant = {"embed_dims": (96, 192, 384, 768), "num_heads": (3, 6, 12, 24), "depths": (2, 2, 18, 2)}
    return _build(num_classes, options, **variant, drop_path_rate=0.2)


@register_model
def dualformer_base(num_classes: int = 400, **options: Any) -> DualFormer:
    """87 M parameters; K400 81.1, K600 85.2."""
    variant = {"embed_dims": (128, 256, 512, 1024), "num_heads": (4, 8, 16, 32), "depths": (2, 2, 18, 2)}
    return _build(num_classes, options, **variant, drop_path_rate=0.3)
