"""Video-FocalNet and VFL-Net: spatio-temporal focal modulation on frame tokens.

Video-FocalNets (ICCV 2023, arXiv 2307.06947) and DVFL-Net (arXiv 2507.12426), whose student is VFL-Net. A block is
y = x + modulation(norm(x)), then y + MLP(norm(y)), and the modulation of tokens x, at L focal levels,

    q, s, g = split(x W + b)                         # per token: query, spatial context, L + 1 gates
    t, g′ = split(x W′ + b′)                         # temporal context and its gates
    for l in 1 … L:
        s = GELU(depthwise convolution l of s over H×W);  S += g_l ⊙ s
        t = GELU(dense convolution l of t over T);        R += g′_l ⊙ t
    S += g_{L+1} ⊙ GELU(mean of s over H×W);  R += g′_{L+1} ⊙ GELU(mean of t over T)
    M_s, M_t = h(S), h′(R)                           # the modulators
    return (q ⊙ M_s ⊙ M_t) W″ + b″

B clips, T time steps (frames / tubelet), H×W grid of a stage, C its channels, L focal levels.
Tokens are (B,T,H,W,C) from the stem to the head: whatever a layer wants to see — (BT,C,H,W) for a spatial
convolution, (B,C,T,HW) for a temporal one — is a channels-last view of that memory, never a copy.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidstill.models.adapt import Report
from vidstill.models.focal_packing import Weights, frames_at_once, pack_weights
from vidstill.models.layers import (
    EPS,
    MLP,
    DropPath,
    Layer,
    Packs,
    conv_depthwise,
    conv_strided,
    conv_temporal,
    dense,
    pack_strided,
    recompute,
)
from vidstill.models.model import VideoModel
from vidstill.models.registry import register_model

_BLOCK = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.")


class FocalModulation(Packs, nn.Module):
    """x (B,T,H,W,C) → q ⊙ M_s ⊙ M_t, projected: the formula at the top."""

    tap: Callable[[str, Tensor], None] | None = None
    packed: Weights | None = None  # made by the block, which knows how many frames come at once

    def __init__(
        self, width: int, window: int, levels: int, drop: float = 0.0, norm: bool = False, normalise: bool = False
    ) -> None:
        super().__init__()
        self.width, self.levels, self.normalise = width, levels, normalise
        sizes = [window + 2 * level for level in range(levels)]
        self.f = nn.Linear(width, 2 * width + levels + 1)
        self.h = nn.Conv2d(width, width, 1)
        self.proj = nn.Linear(width, width)
        self.focal_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, k, padding=k // 2, groups=width, bias=False)) for k in sizes
        )
        self.f_temporal = nn.Linear(width, width + levels + 1)
        self.h_temporal = nn.Conv1d(width, width, 1)
        self.focal_layers_temporal = nn.ModuleList(
            nn.Sequential(nn.Conv1d(width, width, k, padding=k // 2, bias=False)) for k in sizes
        )
        self.ln = nn.LayerNorm(width, eps=EPS) if norm else nn.Identity()
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.spatial(x.flatten(0, 1), *self.temporal(x)).view(x.shape)

    def temporal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B,T,H,W,C) → M_t (B·T,H,W,C) and the gates (B·T,H,W,L+1) of the spatial contexts."""
        w, frames = self.packed or self.weights(), x.flatten(0, 1)
        gates, gates_t = dense(frames, *w.gates).chunk(2, -1)
        context = x if w.context_t is None else dense(frames, *w.context_t).view(x.shape)
        contexts = []
        for convolution in w.convolutions_t:
            context = conv_temporal(context, convolution)
            contexts.append(context)
        total = self._gather(contexts, context.mean(1, keepdim=True), gates_t.unflatten(0, x.shape[:2]))
        m_t = dense(total.flatten(0, 1), *w.h_t)
        if self.tap is not None:
            self.tap("temporal", m_t.permute(0, 3, 1, 2))
            self.tap("gates_temporal", gates_t.unflatten(0, x.shape[:2]).permute(0, 2, 3, 4, 1).flatten(0, 2))
        return m_t, gates

    def spatial(self, x: Tensor, m_t: Tensor, gates: Tensor, plus: Tensor | None = None) -> Tensor:
        """x, m_t (N,H,W,C) of any frames → the modulated and projected query, same shape; `plus` is added to it."""
        w = self.packed or self.weights()
        context, contexts = dense(x, *w.context), []
        for convolution in w.convolutions:
            context = conv_depthwise(context, convolution)
            contexts.append(context)
        total = self._gather(contexts, context.mean((1, 2), keepdim=True), gates)
        if self.tap is None:
            product = dense(x, *w.query, times=dense(total, *w.h, times=m_t))
        else:
            m_s = dense(total, *w.h)
            self.tap("spatial", m_s.permute(0, 3, 1, 2))
            self.tap("gates", gates.permute(0, 3, 1, 2))
            product = dense(x, *w.query) * m_s * m_t
        return self.drop(dense(self.ln(product), *w.proj, plus=plus))

    def _gather(self, contexts: list[Tensor], mean: Tensor, gates: Tensor) -> Tensor:
        """Σ_l context_l · gate_l + GELU(mean) · gate_L, over (L+1) where the modulator is normalised."""
        *each, last = gates.split(1, -1)
        total = F.gelu(mean) * last
        for context, gate in zip(contexts, each, strict=True):
            total = total.addcmul_(context, gate)
        return total / (self.levels + 1) if self.normalise else total

    def weights(self) -> Weights:
        """Views of the parameters. Weights are cut, not results: every convolution gets contiguous input."""
        c, gates = self.width, self.levels + 1
        w_q, w_s, w_gates = self.f.weight.split((c, c, gates))
        b_q, b_s, b_gates = self.f.bias.split((c, c, gates))
        w_t, w_gates_t = self.f_temporal.weight.split((c, gates))
        b_t, b_gates_t = self.f_temporal.bias.split((c, gates))
        return Weights(
            gates=(torch.cat([w_gates, w_gates_t]), torch.cat([b_gates, b_gates_t])),
            query=(w_q, b_q),
            context=(w_s, b_s),
            convolutions=_kernels(self.focal_layers),
            h=(self.h.weight.flatten(1), self.h.bias),
            proj=(self.proj.weight, self.proj.bias),
            context_t=(w_t, b_t),
            h_t=(self.h_temporal.weight.flatten(1), self.h_temporal.bias),
            convolutions_t=[kernel.unsqueeze(-1) for kernel in _kernels(self.focal_layers_temporal)],
        )


def _kernels(layers: nn.ModuleList) -> list[Tensor]:
    """In the released names a convolution is entry 0 of a sequence with its activation."""
    return [layer[0].weight for layer in layers]  # type: ignore[index]


class Block(Packs, nn.Module):
    """(B,T,H,W,C) → same: modulation and MLP, each with norm, layer scale, stochastic depth and residual."""

    packed: int | None = None  # how many frames go through it at once

    def __init__(
        self,
        width: int,
        mlp_ratio: float,
        drop: float,
        drop_path: float,
        layerscale: float | None,
        postln: bool,
        **options: Any,
    ) -> None:
        super().__init__()
        self.postln = postln
        if layerscale is None:
            self.gamma_1 = self.gamma_2 = None
        else:
            self.gamma_1 = nn.Parameter(torch.full((width,), layerscale))
            self.gamma_2 = nn.Parameter(torch.full((width,), layerscale))
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.modulation = FocalModulation(width, drop=drop, **options)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = MLP(width, int(width * mlp_ratio), drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        at_once = self.prepacked(*x.shape[1:4])
        y = x if self.postln else self.norm1(x)
        m_t, gates = self.modulation.temporal(y)
        rows = [x.flatten(0, 1), y.flatten(0, 1), m_t, gates]
        if at_once is None or at_once >= len(m_t) or self.modulation.tap is not None:
            return self._frames(*rows).view(x.shape)
        parts = [self._frames(*part) for part in zip(*(row.split(at_once) for row in rows), strict=True)]
        return torch.cat(parts, out=m_t).view(x.shape)  # nobody needs m_t any more

    def _frames(self, x: Tensor, y: Tensor, m_t: Tensor, gates: Tensor) -> Tensor:
        """What every frame goes through alone: x its tokens, y what the modulation sees of them, (N,H,W,C)."""
        x = self._add(x, functools.partial(self.modulation.spatial, y, m_t, gates), self.norm1, self.gamma_1)
        return self._add(x, functools.partial(self.mlp, x if self.postln else self.norm2(x)), self.norm2, self.gamma_2)

    def _add(self, x: Tensor, layer: Callable[..., Tensor], norm: nn.Module, gamma: Tensor | None) -> Tensor:
        if self.packed is not None and not self.postln and gamma is None:
            return layer(plus=x)
        y = norm(layer()) if self.postln else layer()
        return x + self.drop_path(y if gamma is None else gamma * y)

    def pack(self, steps: int, height: int, width: int) -> int:
        at_once = frames_at_once(self.mlp.fc1.weight, height * width, steps)
        self.modulation.packed = pack_weights(self.modulation.weights(), steps, at_once, height, width)
        return at_once


class Embed(Packs, nn.Module):
    """A strided convolution and its norm: pixels → tokens of the first stage, or tokens → half the grid."""

    def __init__(
        self, channels: int, width: int, kernel: int, stride: int, padding: int, tubelet: int, norm: bool
    ) -> None:
        super().__init__()
        self.proj: nn.Conv2d | nn.Conv3d
        if tubelet == 1:
            self.proj = nn.Conv2d(channels, width, kernel, stride, padding)
        else:
            size = (tubelet, kernel, kernel)
            self.proj = nn.Conv3d(
                channels, width, size, stride=(tubelet, stride, stride), padding=(0, padding, padding)
            )
        self.norm = nn.LayerNorm(width, eps=EPS) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B,T,H,W,C) → (B,T',H',W',C')."""
        if isinstance(self.proj, nn.Conv3d):
            return self.norm(self.proj(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1).contiguous())
        weight, bias = self.prepacked(*x.shape[1:4]) or (self.proj.weight, self.proj.bias)
        y = conv_strided(x.flatten(0, 1), weight, bias, self.proj.stride[0], int(self.proj.padding[0]))
        return self.norm(y.unflatten(0, x.shape[:2]))

    def pack(self, steps: int, height: int, width: int) -> Layer:
        assert isinstance(self.proj, nn.Conv2d)
        return pack_strided(self.proj, steps, height, width)


class Stage(nn.Module):
    """Blocks on one grid, then the embedding into the next one, except in the last stage."""

    is_stage = True

    def __init__(self, blocks: Sequence[Block], downsample: Embed | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor, checkpointing: bool = False) -> tuple[Tensor, Tensor]:
        """(B,T,H,W,C) → what the blocks made of it, and the same after the embedding into the next grid."""
        for block in self.blocks:
            x = recompute(block, block, x) if checkpointing and torch.is_grad_enabled() else block(x)
        return x, x if self.downsample is None else self.downsample(x)


class VideoFocalNet(VideoModel):
    """Four stages of spatio-temporal focal modulation; any frame count and any frame size from 32 pixels.

    width: channels of the first stage (`embed_dim`), doubled by every stage; depths: blocks per stage; focal_levels
    and focal_windows: per stage; tubelet_size: frames per time step; init_std: of linear weights, 0.02 as released,
    where ImageNet weights follow; narrow networks from scratch need about 0.15, or the product of modulators stays
    near zero for hundreds of steps. Raises ValueError for options that contradict.
    """

    channel_axis = -1

    def __init__(
        self,
        num_classes: int,
        *,
        width: int,
        depths: Sequence[int],
        in_channels: int = 3,
        mlp_ratio: float = 4.0,
        focal_levels: Sequence[int] = (2, 2, 2, 2),
        focal_windows: Sequence[int] = (3, 3, 3, 3),
        use_conv_embed: bool = False,
        use_layerscale: bool = False,
        layerscale_value: float = 1e-4,
        use_postln: bool = False,
        use_postln_in_modulation: bool = False,
        normalize_modulator: bool = False,
        tubelet_size: int = 1,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        patch_norm: bool = True,
        init_std: float = 0.02,
    ) -> None:
        super().__init__()
        _check_options(width, depths, focal_levels, focal_windows, use_conv_embed, tubelet_size)
        self.in_channels, self.tubelet_size, self.depths = in_channels, tubelet_size, tuple(depths)
        widths = [width * 2**i for i in range(len(depths))]
        stem, down = ((7, 4, 2), (3, 2, 1)) if use_conv_embed else ((4, 4, 0), (2, 2, 0))  # kernel, stride, padding
        self.embeddings = [stem, *[down] * (len(depths) - 1)]
        self.patch_embed = Embed(in_channels, width, *stem, tubelet_size, patch_norm)
        self.pos_drop = nn.Dropout(drop_rate)
        rates = iter([drop_path_rate * n / max(1, sum(depths) - 1) for n in range(sum(depths))])
        self.layers = nn.ModuleList()
        for i, depth in enumerate(depths):
            blocks = [
                Block(
                    widths[i],
                    mlp_ratio,
                    drop_rate,
                    next(rates),
                    layerscale_value if use_layerscale else None,
                    use_postln,
                    window=focal_windows[i],
                    levels=focal_levels[i],
                    norm=use_postln_in_modulation,
                    normalise=normalize_modulator,
                )
                for _ in range(depth)
            ]
            last = i == len(depths) - 1
            self.layers.append(Stage(blocks, None if last else Embed(widths[i], widths[i + 1], *down, 1, norm=True)))
        self.norm = nn.LayerNorm(widths[-1], eps=EPS)
        self.init_std = init_std
        self.cam_layer = f"layers/{len(depths) - 1}/blocks/{depths[-1] - 1}"
        self.reset_classifier(num_classes)
        self.apply(self._initialise)

    def _logits(self, clips: Tensor) -> Tensor:
        x = self._embed(clips)
        for stage in self.layers:
            _, x = stage(x, self.checkpointing)
        return self._classify(x)

    def _features(self, clips: Tensor) -> dict[str, Tensor]:
        """`stem` and `stage1` … `stage4`, before the embedding into the next grid."""
        x = self._embed(clips)
        features = {"stem": x}
        for number, stage in enumerate(self.layers, 1):
            features[f"stage{number}"], x = stage(x, self.checkpointing)
        return {name: feature.permute(0, 4, 1, 2, 3) for name, feature in features.items()}

    def _head(self, features: dict[str, Tensor]) -> Tensor:
        return self._classify(features[f"stage{len(self.layers)}"].permute(0, 2, 3, 4, 1))

    def _embed(self, clips: Tensor) -> Tensor:
        return self.pos_drop(self.patch_embed(clips.permute(0, 2, 3, 4, 1)))

    def _classify(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x).mean((2, 3)).mean(1))

    def reset_classifier(self, num_classes: int) -> None:
        self.head: nn.Module = nn.Identity()
        if num_classes:
            self.head = nn.Linear(
                self.norm.normalized_shape[0], num_classes, device=self.norm.weight.device, dtype=self.norm.weight.dtype
            )
            self._initialise(self.head)
        self.num_classes, self.classes = num_classes, None

    def _initialise(self, module: nn.Module) -> None:
        """Linear: normal of deviation `init_std`, bias 0. Norms and convolutions keep PyTorch's own."""
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=self.init_std)
            nn.init.zeros_(module.bias)

    def adapt_weights(self, state: dict[str, Tensor], head: str, report: Report) -> dict[str, Tensor]:
        """A 2-D FocalNet gives everything spatial, spec of the releases: temporal weights and head stay the model's,
        a stem of tubelets is the mean of t equal frames, blocks that this model lacks are left. A video file says by
        the rank of its stem what tubelet it was trained with, and the model follows unless it was told another.
        """
        stem = state.get("patch_embed.proj.weight")
        own = self.state_dict()
        if stem is None or not any(".modulation." in key for key in state):
            return state
        if any("_temporal" in key for key in state):
            self._follow_tubelet(stem.shape[2] if stem.ndim == 5 else 1, report)
            return state
        report.notes.append("a 2-D FocalNet: spatial weights are copied, temporal ones stay as the model has them")
        if head != "fresh" and self.num_classes:
            raise ValueError(
                f'{report.source} is a 2-D FocalNet, whose classifier does not fit videos: pass head="fresh"'
            )
        report.kept |= {key: "temporal" for key in own if "_temporal" in key}
        report.kept |= {key: "classifier of videos" for key in self.head_keys if key in own}
        for key in [*state]:
            stage, block = (int(n) for n in found.groups()) if (found := _BLOCK.match(key)) else (0, -1)
            if key in self.head_keys:
                report.ignored[key] = "classifier of images"
            elif stage < len(self.depths) and block >= self.depths[stage]:
                report.ignored[key] = "block that the model does not have"
        state = {key: value for key, value in state.items() if key not in report.ignored}
        if self.tubelet_size > 1 and stem.ndim == 4:
            t = self.tubelet_size
            state["patch_embed.proj.weight"] = stem.unsqueeze(2).repeat(1, 1, t, 1, 1) / t
            report.resized["patch_embed.proj.weight"] = f"repeated over {t} frames, divided by {t}"
        return state

    def _follow_tubelet(self, tubelet: int, report: Report) -> None:
        if tubelet == self.tubelet_size:
            return
        if "tubelet_size" in self.options or self.embeddings[0][0] != 4:
            raise ValueError(
                f"{report.source} was trained with tubelet_size {tubelet}, the model has {self.tubelet_size}: "
                f"build it with tubelet_size={tubelet}"
            )
        width, norm = self.patch_embed.proj.out_channels, self.patch_embed.norm
        embed = Embed(self.in_channels, width, *self.embeddings[0], tubelet, norm=False)
        embed = embed.to(self.patch_embed.proj.weight)
        embed.norm = norm
        self.patch_embed, self.tubelet_size, self.options["tubelet_size"] = embed, tubelet, tubelet
        report.notes.append(f"tubelet_size {tubelet} taken from the file")

    def _grids(self, sides: Sequence[int]) -> list[tuple[int, ...]]:
        """Height and width of every stage's grid for frames of that size."""
        grids = []
        for kernel, stride, padding in self.embeddings:
            sides = tuple((side + 2 * padding - kernel) // stride + 1 for side in sides)
            grids.append(sides)
        return grids

    def check_clip(self, frames: int, height: int, width: int) -> None:
        if frames == 0 or frames % self.tubelet_size:
            raise ValueError(f"{frames} frames: give a multiple of the tubelet size, {self.tubelet_size}")
        if min(self._grids((height, width))[-1]) < 1:
            raise ValueError(f"frames of {height}x{width} pixels are too small: give at least 32 pixels a side")


def _check_options(
    width: int, depths: Sequence[int], levels: Sequence[int], windows: Sequence[int], conv_embed: bool, tubelet: int
) -> None:
    if width < 1 or tubelet < 1:
        raise ValueError(f"width {width}, tubelet_size {tubelet}: both must be at least 1")
    if not len(depths) == len(levels) == len(windows):
        raise ValueError(
            "depths, focal_levels and focal_windows need one entry per stage, "
            f"got {len(depths)}, {len(levels)} and {len(windows)}"
        )
    if any(window % 2 == 0 or window < 1 for window in windows):
        raise ValueError(f"focal_windows {list(windows)}: windows must be odd, e.g. 3 or 5")
    if any(level < 0 for level in levels):
        raise ValueError(f"focal_levels {list(levels)}: levels must be 0 or more")
    if conv_embed and tubelet > 1:
        raise ValueError(
            f"use_conv_embed has no tubelets: set tubelet_size 1 (got {tubelet}) or leave use_conv_embed off"
        )


def _build(num_classes: int, options: dict[str, Any], **variant: Any) -> VideoFocalNet:
    return VideoFocalNet(num_classes, **{**variant, **options})


@register_model
def vfl_net(num_classes: int = 400, **options: Any) -> VideoFocalNet:
    """22 M parameters: the student of DVFL-Net (*nano* in its code); HMDB51 82.7, UCF101 88.4 when distilled."""
    return _build(num_classes, options, width=96, depths=(1, 1, 2, 1), drop_path_rate=0.2)


@register_model
def video_focalnet_tiny(num_classes: int = 400, **options: Any) -> VideoFocalNet:
    """49 M parameters; K400 79.8 with 16 frames."""
    return _build(num_classes, options, width=96, depths=(2, 2, 6, 2), drop_path_rate=0.2)


@register_model
def video_focalnet_small(num_classes: int = 400, **options: Any) -> VideoFocalNet:
    """88 M parameters; K400 81.4 with 16 frames."""
    return _build(num_classes, options, width=96, depths=(2, 2, 18, 2), drop_path_rate=0.3)


@register_model
def video_focalnet_base(num_classes: int = 400, **options: Any) -> VideoFocalNet:
    """157 M parameters; K400 83.6, K600 86.7, SSv2 71.1 with 16 frames."""
    return _build(num_classes, options, width=128, depths=(2, 2, 18, 2), drop_path_rate=0.5)


class Modulators:
    """What the focal modulation of one block computed, as the published figures draw it."""

    spatial: Tensor  # M_s (B·T,C,H,W)
    temporal: Tensor  # M_t (B·T,C,H,W)
    gates: Tensor  # (B·T,L+1,H,W)
    gates_temporal: Tensor  # (B·H·W,L+1,T), rows ordered (b,h,w)


@contextlib.contextmanager
def capture_modulators(model: nn.Module) -> Iterator[dict[str, Modulators]]:
    """Modulators and gates of every block, by block name, filled by each forward inside the `with`.

    >>> with capture_modulators(model) as captured:
    ...     logits = model(clips)
    >>> captured["layers.3.blocks.0"].spatial.shape  # (B·T,C,H,W)
    """
    captured: dict[str, Modulators] = {}
    tapped = {name: module for name, module in model.named_modules() if isinstance(module, FocalModulation)}
    if not tapped:
        raise ValueError(f"{type(model).__name__} has no focal modulation to capture; give a Video-FocalNet or VFL-Net")
    for name, module in tapped.items():
        module.tap = functools.partial(setattr, captured.setdefault(name.removesuffix(".modulation"), Modulators()))
    try:
        yield captured
    finally:
        for module in tapped.values():
            module.tap = None


def modulator_map(modulator: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """(N,C,h,w) → (N,1,h,w): how strongly each place is modulated, the L2 norm over channels.

    With `size` (H,W) it is drawn up bilinearly to (N,1,H,W). For the product of both modulators give M_s · M_t.
    """
    norm = torch.linalg.vector_norm(modulator.float(), dim=1, keepdim=True)
    return norm if size is None else F.interpolate(norm, size, mode="bilinear", align_corners=False)
