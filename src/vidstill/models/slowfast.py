"""SlowFast, Slow, I3D and C2D on ResNets, with and without non-local blocks, and SlowFast with dual attention.

SlowFast Networks (ICCV 2019, arXiv 1812.03982), Non-local Neural Networks (CVPR 2018, arXiv 1711.07971), CMDA
(CVIU 2022, vol. 222, 103484). Settings "per stage and pathway" are ((slow, fast) of s2, …, of s5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidstill.config import Clip
from vidstill.models.adapt import Report
from vidstill.models.convolution import Conv3d, MaxPool, conv_norm, tokens_of, untoken
from vidstill.models.model import Activation
from vidstill.models.pathways import (
    CMDA,
    Features,
    LateralFusion,
    Layers,
    PathwayNet,
    Stage,
    assemble,
    attend,
    check_shares,
)
from vidstill.models.registry import register_model
from vidstill.models.subnorm import Norm

PerStage = Sequence[Sequence[int]]

R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)
# Kernels along time of s1 … s5; several are taken by the blocks of the stage in turn.
KERNELS: dict[str, tuple[tuple[int, ...], ...]] = {
    "slow": ((1,), (1,), (1,), (3,), (3,)),
    "fast": ((5,), (3,), (3,), (3,), (3,)),
    "c2d": ((1,), (1,), (1,), (1,), (1,)),
    "i3d": ((5,), (3,), (3, 1), (3, 1), (1, 3)),
}
POOLED = ("c2d", "i3d")  # halve the frames after s2, unless told otherwise


class Stem(nn.Module):
    """Convolution of 7×7 and pooling: a quarter of the grid."""

    def __init__(self, channels: int, width: int, kernel: int) -> None:
        super().__init__()
        self.conv = Conv3d(channels, width, (kernel, 7, 7), (1, 2, 2))
        self.bn = Norm(width)
        self.pool = MaxPool((1, 3, 3), (1, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(conv_norm(x, self.conv, self.bn, "relu"))


class Bottleneck(nn.Module):
    """Along time, then over the grid, then back to the width; `plus` is added before the last ReLU."""

    def __init__(
        self, channels: int, inner: int, width: int, kernel: int, strides: tuple[int, int], groups: int, dilation: int
    ) -> None:
        super().__init__()
        first, second = strides
        self.a = Conv3d(channels, inner, (kernel, 1, 1), (1, first, first))
        self.a_bn = Norm(inner)
        self.b = Conv3d(inner, inner, (1, 3, 3), (1, second, second), groups=groups, dilation=dilation)
        self.b_bn = Norm(inner)
        self.c = Conv3d(inner, width)
        self.c_bn = Norm(width)

    def forward(self, x: Tensor, plus: Tensor) -> Tensor:
        x = conv_norm(conv_norm(x, self.a, self.a_bn, "relu"), self.b, self.b_bn, "relu")
        return conv_norm(x, self.c, self.c_bn, "relu", plus)


class Block(nn.Module):
    """A residual block of `width` channels."""

    def __init__(
        self, channels: int, inner: int, width: int, kernel: int, stride: int, groups: int, dilation: int, early: bool
    ) -> None:
        super().__init__()
        self.projects = channels != width or stride != 1
        if self.projects:
            self.branch1 = Conv3d(channels, width, stride=(1, stride, stride))
            self.branch1_bn = Norm(width)
        strides = (stride, 1) if early else (1, stride)
        self.branch2 = Bottleneck(channels, inner, width, kernel, strides, groups, dilation)

    def forward(self, x: Tensor) -> Tensor:
        return self.branch2(x, plus=conv_norm(x, self.branch1, self.branch1_bn) if self.projects else x)


class NonLocal(nn.Module):
    """x + what every place gathers from all places of the pooled clip; time in `groups` parts by themselves."""

    def __init__(self, width: int, kind: str, pool: Sequence[int], groups: int) -> None:
        super().__init__()
        self.kind, self.groups = kind, groups
        self.conv_theta, self.conv_phi, self.conv_g = (Conv3d(width, width // 2, bias=True) for _ in range(3))
        self.conv_out = Conv3d(width // 2, width, bias=True)
        self.bn = Norm(width)
        self.pool = MaxPool(pool, pool)

    def forward(self, x: Tensor) -> Tensor:
        clips = _fold_time(x, self.groups)
        pooled = self.pool(clips)
        theta, phi, g = (
            tokens_of(layer(y)).unsqueeze(1)  # (B,1,THW,C/2)
            for layer, y in ((self.conv_theta, clips), (self.conv_phi, pooled), (self.conv_g, pooled))
        )
        if self.kind == "softmax":
            y = attend(theta, phi, g, theta.shape[-1] ** -0.5)
        else:  # θ(φᵀg): the n×m matrix is never made
            y = theta @ (phi.transpose(-2, -1) @ g / phi.shape[-2])
        y = conv_norm(untoken(y.squeeze(1), clips), self.conv_out, self.bn, plus=clips)
        return _unfold_time(y, self.groups)


def _fold_time(x: Tensor, groups: int) -> Tensor:
    """(B,C,T,H,W) → (B·g,C,T/g,H,W)."""
    return x.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1) if groups > 1 else x


def _unfold_time(x: Tensor, groups: int) -> Tensor:
    return x.unflatten(0, (-1, groups)).transpose(1, 2).flatten(2, 3) if groups > 1 else x


class Head(nn.Module):
    """Pathways pooled, side by side, → logits.

    `windows`, one (T,H,W) per pathway: in eval mode the scores of all places that a window can take are averaged, as
    the released test at a larger size than that of training; logits are then the inverse of the averaged scores.
    """

    def __init__(
        self,
        widths: Sequence[int],
        num_classes: int,
        dropout: float,
        windows: Sequence[Sequence[int]] | None,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.windows, self.activation = windows, activation
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(sum(widths), num_classes)

    def forward(self, x: Features) -> Tensor:
        if self.training or self.windows is None:
            return self.projection(self.dropout(torch.cat([feature.mean((2, 3, 4)) for feature in x], 1)))
        pooled = [F.avg_pool3d(y, tuple(window), stride=1) for y, window in zip(x, self.windows, strict=True)]
        logits = self.projection(torch.cat(pooled, 1).permute(0, 2, 3, 4, 1)).flatten(1, 3)  # (B,places,K)
        places = logits.shape[1]
        if places == 1 or not isinstance(self.projection, nn.Linear):
            return logits.mean(1)
        if self.activation == "softmax":
            return logits.log_softmax(-1).logsumexp(1) - torch.tensor(places).log()
        return logits.sigmoid().mean(1).logit()


class SlowFast(PathwayNet):
    """ResNets in one or two pathways.

    pathways: names of `KERNELS`, the slow one first; depths: blocks of s2 … s5; width: of the slow stem; alpha, beta:
    frames and channels of the fast pathway over those of the slow one; fusion: lateral (with fusion_ratio and
    fusion_kernel) or cmda. Per stage and pathway: temporal_blocks, how many blocks keep their kernel along time (None:
    all); strides; dilations; nonlocal_blocks, after which blocks one is inserted; nonlocal_pool; nonlocal_groups.
    groups: of the 3×3 convolutions; early_stride: on the first convolution of a block; pool_frames: halve the frames
    after s2; test_window: (frames, size) whose features the head averages at once in a test (see `Head`; None: all).
    """

    head_name = "head.projection"
    cam_layer = "s5"
    head: Head

    @property
    def activation(self) -> Activation:
        return self.head.activation

    @activation.setter
    def activation(self, name: Activation) -> None:
        self.head.activation = name

    def __init__(
        self,
        num_classes: int,
        *,
        in_channels: int = 3,
        pathways: Sequence[str] = ("slow", "fast"),
        depths: Sequence[int] = R50,
        width: int = 64,
        groups: int = 1,
        alpha: int = 4,
        beta: int = 8,
        fusion: Literal["lateral", "cmda"] = "lateral",
        fusion_ratio: int = 2,
        fusion_kernel: int = 7,
        temporal_blocks: PerStage | None = None,
        strides: PerStage = ((1, 1), (2, 2), (2, 2), (2, 2)),
        dilations: PerStage = ((1, 1), (1, 1), (1, 1), (1, 1)),
        early_stride: bool = False,
        pool_frames: bool | None = None,
        nonlocal_blocks: Sequence[Sequence[Sequence[int]]] = (((), ()), ((), ()), ((), ()), ((), ())),
        nonlocal_kind: Literal["softmax", "dot_product"] = "dot_product",
        nonlocal_pool: Sequence[Sequence[Sequence[int]]] = (((1, 2, 2), (1, 2, 2)),) * 4,
        nonlocal_groups: PerStage = ((1, 1),) * 4,
        dropout: float = 0.5,
        test_window: tuple[int, int] | None = None,
        activation: Activation = "softmax",
        reverse_channels: bool = False,
    ) -> None:
        _check_pathways(pathways)
        check_shares(alpha, beta)
        inner = width * groups
        kernels = [KERNELS[name] for name in pathways]
        shares = (1, beta)  # the fast pathway's widths are the slow one's over β
        pool_frames = pathways[0] in POOLED if pool_frames is None else pool_frames
        halved = 2 if pool_frames else 1

        def stem(pathway: int, channels: int) -> Layers:
            out = width // shares[pathway]
            return {"stem": Stem(channels, out, kernels[pathway][0][0])}, out

        def stage(number: int, pathway: int, channels: int) -> Layers:
            out = width * 4 * 2**number // shares[pathway]
            basis, depth = kernels[pathway][number + 1], depths[number]
            temporal = depth if temporal_blocks is None else temporal_blocks[number][pathway]
            layers: dict[str, nn.Module] = {}
            if number == 1 and pool_frames:
                layers["pool"] = MaxPool((2, 1, 1), (2, 1, 1))
            for i in range(depth):
                layers[f"res{i}"] = Block(
                    channels,
                    inner * 2**number // shares[pathway],
                    out,
                    basis[i % len(basis)] if i < temporal else 1,
                    1 if i else strides[number][pathway],
                    groups,
                    dilations[number][pathway],
                    early_stride,
                )
                if i in nonlocal_blocks[number][pathway]:
                    pool, parts = nonlocal_pool[number][pathway], nonlocal_groups[number][pathway]
                    layers[f"nonlocal{i}"] = NonLocal(out, nonlocal_kind, pool, parts)
                channels = out
            return layers, out

        windows = None
        if test_window is not None:
            frames, side = test_window[0] // halved, test_window[1] // 32
            times = [frames] if len(pathways) == 1 else [frames // alpha, frames]
            windows = [(time, side, side) for time in times]
        fuse: Callable[[int, int], nn.Module] = (
            partial(CMDA, alpha=alpha, beta=beta)
            if fusion == "cmda"
            else partial(LateralFusion, alpha=alpha, ratio=fusion_ratio, kernel=fusion_kernel)
        )
        stages = [Stage("s1", stem, "s1_fuse")]
        stages += [Stage(f"s{n + 2}", partial(stage, n), f"s{n + 2}_fuse" if n < 3 else None) for n in range(4)]
        steps, widths = assemble(stages, fuse, len(pathways), in_channels)
        super().__init__(
            num_classes,
            steps,
            Head(widths, num_classes, dropout, windows, activation),
            in_channels=in_channels,
            alpha=alpha if len(pathways) > 1 else None,
            activation=activation,
            reverse_channels=reverse_channels,
        )
        for module in self.modules():
            if isinstance(module, Bottleneck | NonLocal):
                nn.init.zeros_((module.c_bn if isinstance(module, Bottleneck) else module.bn).weight)

    def rename_weights(self, state: dict[str, Tensor], report: Report) -> dict[str, Tensor]:
        """Caffe2's names; what it keeps for its optimiser is left."""
        if "conv1_w" not in state:
            return state
        report.ignored |= dict.fromkeys(filter(_NOT_WEIGHTS.search, state), "of Caffe2's optimiser")
        report.notes.append("Caffe2 names")
        return {caffe2_name(blob): value for blob, value in state.items() if blob not in report.ignored}


_NOT_WEIGHTS = re.compile("momentum|lr|model_iter")
_LEAVES = {
    "w": "weight", "b": "bias", "bn_s": "bn.weight", "bn_b": "bn.bias", "bn_rm": "bn.running_mean",
    "bn_riv": "bn.running_var",
}  # fmt: skip
_BLOB = re.compile(
    r"(?P<fast>t_)?(?:"
    r"(?P<stem>(?:res_)?conv1)|"
    r"(?P<fusion>pool1|res(?P<fused>\d)_\d+_branch2c_bn)_subsample|"
    r"res(?P<stage>\d)_(?P<block>\d+)_branch(?P<branch>1|2[abc])|"
    r"nonlocal_conv(?P<nl_stage>\d)_(?P<nl_block>\d+)(?:_(?P<nl_conv>theta|phi|g|out))?|"
    r"(?P<head>pred))_(?P<leaf>w|b|bn_s|bn_b|bn_rm|bn_riv)"
)


def caffe2_name(blob: str) -> str:
    """The key of a Caffe2 blob, e.g. t_res2_0_branch2a_bn_s → s2.pathway1_res0.branch2.a_bn.weight."""
    found = _BLOB.fullmatch(blob)
    if found is None:
        return blob
    pathway, leaf = 1 if found["fast"] else 0, _LEAVES[found["leaf"]]
    if found["stem"]:
        return f"s1.pathway{pathway}_stem.{leaf if leaf.startswith('bn') else f'conv.{leaf}'}"
    if found["fusion"]:
        return f"s{found['fused'] or 1}_fuse.{leaf if leaf.startswith('bn') else f'conv_f2s.{leaf}'}"
    if found["nl_stage"]:
        convolution = f"conv_{found['nl_conv']}." if found["nl_conv"] else ""
        return f"s{found['nl_stage']}.pathway{pathway}_nonlocal{found['nl_block']}.{convolution}{leaf}"
    if found["head"]:
        return f"head.projection.{leaf}"
    branch = ".".join(found["branch"])  # 1, or 2.a, 2.b, 2.c
    joint = "_" if leaf.startswith("bn") else "."
    return f"s{found['stage']}.pathway{pathway}_res{found['block']}.branch{branch}{joint}{leaf}"


def _check_pathways(pathways: Sequence[str]) -> None:
    for name in pathways:
        if name not in KERNELS:
            raise ValueError(f"no pathway {name!r}: allowed are {', '.join(KERNELS)}")
    if not 1 <= len(pathways) <= 2:
        raise ValueError(f"{len(pathways)} pathways: give one, or slow and fast")


def _build(num_classes: int, options: dict[str, Any], clip: tuple[int, int, int], **variant: Any) -> SlowFast:
    model = SlowFast(num_classes, **{**variant, **options})
    frames, interval, size = clip
    model.input = kinetics_clip(frames, interval, size)
    return model


def kinetics_clip(frames: int, interval: int, size: int) -> Clip:
    """The window, the views and the normalisation of these releases: (x/255 − 0.45) / 0.225."""
    return Clip(
        frames=frames, interval=interval, size=size, sampling="timed_window", fps=30, views="torch",
        mean=(114.75, 114.75, 114.75), std=(57.375, 57.375, 57.375),
    )  # fmt: skip


def _one(*values: Any) -> tuple[tuple[Any], ...]:
    return tuple((value,) for value in values)


@register_model
def slowfast_r50(num_classes: int = 400, **options: Any) -> SlowFast:
    """8×8; K400 77.0 (4×16 with alpha=8, fusion_kernel=5: 75.6)."""
    return _build(num_classes, options, (32, 2, 224))


@register_model
def slowfast_r101(num_classes: int = 400, **options: Any) -> SlowFast:
    """8×8; K400 77.9; six of the 23 blocks of s4 keep their kernel along time."""
    blocks = ((3, 3), (4, 4), (6, 6), (3, 3))
    return _build(num_classes, options, (32, 2, 224), depths=R101, fusion_kernel=5, temporal_blocks=blocks)


@register_model
def slowfast_dual_r50(num_classes: int = 400, **options: Any) -> SlowFast:
    """SlowFast with dual attention (CMDA) for every lateral connection."""
    return _build(num_classes, options, (32, 2, 224), fusion="cmda")


_SINGLE: dict[str, Any] = {
    "strides": _one(1, 2, 2, 2),
    "dilations": _one(1, 1, 1, 1),
    "nonlocal_blocks": _one((), (), (), ()),
    "nonlocal_kind": "softmax",
}


@register_model
def slow_r50(num_classes: int = 400, **options: Any) -> SlowFast:
    """8×8; K400 74.8 (4×16: 72.7)."""
    return _build(num_classes, options, (8, 8, 224), pathways=("slow",), **_SINGLE)


@register_model
def c2d_r50(num_classes: int = 400, **options: Any) -> SlowFast:
    """8×8. `pool_frames=False` for the released file, which does not pool along time; K400 67.2."""
    return _build(num_classes, options, (8, 8, 224), pathways=("c2d",), **_SINGLE)


@register_model
def i3d_r50(num_classes: int = 400, **options: Any) -> SlowFast:
    """8×8; K400 73.5 (with non-local blocks 74.0)."""
    return _build(num_classes, options, (8, 8, 224), pathways=("i3d",), **_SINGLE)
