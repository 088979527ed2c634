"""ShuffleNet, ShuffleNetV2, MobileNetV2 and GhostNet in 3-D: two pathways with dual attention, and single streams.

Two pathways (CMDA, CVIU 2022, vol. 222, 103484): time is never halved. Single streams (Efficient-3DCNNs, ICCVW 2019,
arXiv 1904.02422): each stage halves time as well. Both are made of the same units; β is how many times fewer channels
the fast pathway has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidstill.config import Clip
from vidstill.models.convolution import BatchNorm3d, Chain, Conv3d, MaxPool, activate, avg_pool, conv_norm
from vidstill.models.model import Activation
from vidstill.models.pathways import CMDA, Features, Layers, PathwayNet, Stage, assemble, check_shares
from vidstill.models.registry import register_model
from vidstill.models.slowfast import kinetics_clip

ONE, SPATIAL, ALL = (1, 1, 1), (1, 2, 2), (2, 2, 2)  # strides
CUBE = (3, 3, 3)

SHUFFLENET = {  # channels of s1 … s4 by groups
    1: (24, 144, 288, 567),
    2: (24, 200, 400, 800),
    3: (24, 240, 480, 960),
    4: (24, 272, 544, 1088),
    8: (24, 384, 768, 1536),
}
SHUFFLENETV2 = {  # of s1 … s4 and the head by width
    0.25: (24, 32, 64, 128, 1024),
    0.5: (24, 48, 96, 192, 1024),
    1.0: (24, 116, 232, 464, 1024),
    1.5: (24, 176, 352, 704, 1024),
    2.0: (24, 224, 488, 976, 2048),
}
EVEN = {232: 240, 488: 496}  # widened where there is a fast pathway, so that an eighth of it is even
SHUFFLE_UNITS = (4, 8, 4)
MOBILENETV2 = (  # expansion, channels, units, stride of the first
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
GHOSTNET = (  # stages of rows: kernel, expanded channels, channels, squeeze-and-excitation, stride
    ((3, 16, 16, 0, 1),),
    ((3, 48, 24, 0, 2), (3, 72, 24, 0, 1)),
    ((5, 72, 40, 1, 2), (5, 120, 40, 1, 1)),
    (
        (3, 240, 80, 0, 2),
        (3, 200, 80, 0, 1),
        (3, 184, 80, 0, 1),
        (3, 184, 80, 0, 1),
        (3, 480, 112, 1, 1),
        (3, 672, 112, 1, 1),
    ),
    ((5, 672, 160, 1, 2), (5, 960, 160, 0, 1), (5, 960, 160, 1, 1), (5, 960, 160, 0, 1), (5, 960, 160, 1, 1)),
)


def norm(width: int) -> nn.BatchNorm3d:
    """Not a `subnorm.Norm`: multigrid leaves the norms of units whole, as released."""
    return BatchNorm3d(width)


def stem(channels: int, width: int, act: type[nn.Module] = nn.ReLU, *more: nn.Module) -> Chain:
    return Chain(Conv3d(channels, width, CUBE, SPATIAL), norm(width), act(inplace=True), *more)


def pointwise(channels: int, width: int, act: type[nn.Module] | None = nn.ReLU) -> list[nn.Module]:
    return [Conv3d(channels, width), norm(width), *([act(inplace=True)] if act else [])]


def depthwise(width: int, kernel: Sequence[int], stride: Sequence[int]) -> list[nn.Module]:
    return [Conv3d(width, width, kernel, stride, groups=width), norm(width)]


class Units(nn.Module):
    """In turn, under the released name."""

    def __init__(self, units: Sequence[nn.Module] | Chain) -> None:
        super().__init__()
        self.features = Chain(*units)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)


class ConvNorm(nn.Module):
    """Pointwise, with ReLU."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv, self.bn1 = Conv3d(channels, width), norm(width)

    def forward(self, x: Tensor) -> Tensor:
        return conv_norm(x, self.conv, self.bn1, "relu")


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channel g·n + i becomes i·groups + g, g counting the groups of n channels."""
    if groups == 1:
        return x
    x = x.permute(0, 2, 3, 4, 1)
    return x.unflatten(-1, (groups, -1)).transpose(-2, -1).flatten(-2).permute(0, 4, 1, 2, 3)


class ShuffleUnit(nn.Module):
    """Grouped bottleneck with a channel shuffle (ShuffleNet).

    With stride the shortcut is a pooled projection to half of `width`, and in a single stream the pooled input itself.
    Widths that the groups do not divide, as those of most fast pathways, are mended: the bottleneck is rounded up, and
    an outer convolution that cannot be grouped is not.
    """

    def __init__(self, channels: int, width: int, stride: Sequence[int], groups: int, *, single: bool = False) -> None:
        super().__init__()
        self.stride, self.groups = tuple(stride), groups
        halves = self.stride != ONE
        inner = -(-(width // (2 if halves and not single else 4)) // groups) * groups
        out = width - (channels if single else width // 2) if halves else width
        first = groups if channels != 24 and channels % groups == 0 else 1
        last = groups if out % groups == 0 else 1
        self.conv1 = Conv3d(channels, inner, groups=first)
        self.bn1 = norm(inner)
        self.conv2 = Conv3d(inner, inner, CUBE, stride, groups=inner)
        self.bn2 = norm(inner)
        self.conv3 = Conv3d(inner, out, groups=last)
        self.bn3 = norm(out)
        if halves:
            self.shortcut = Chain() if single else Chain(Conv3d(channels, width // 2))

    def forward(self, x: Tensor) -> Tensor:
        y = shuffle(conv_norm(x, self.conv1, self.bn1, "relu"), self.groups)
        y = conv_norm(y, self.conv2, self.bn2)
        if self.stride == ONE:
            return conv_norm(y, self.conv3, self.bn3, "relu", plus=x)
        y = torch.cat([conv_norm(y, self.conv3, self.bn3), avg_pool(self.shortcut(x), self.stride[0])], 1)
        return activate(y, "relu")


class ShuffleUnitV2(nn.Module):
    """Two branches of half the width, interleaved; without stride the first half goes through as it is."""

    def __init__(self, channels: int, width: int, stride: Sequence[int]) -> None:
        super().__init__()
        half = width // 2
        self.splits = tuple(stride) == ONE
        if not self.splits:
            self.banch1 = Chain(*depthwise(channels, CUBE, stride), *pointwise(channels, half))
        inner = half if self.splits else channels
        self.banch2 = Chain(*pointwise(inner, half), *depthwise(half, CUBE, stride), *pointwise(half, half))

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1) if self.splits else (self.banch1(x), x)
        branches = torch.stack((first.permute(0, 2, 3, 4, 1), self.banch2(second).permute(0, 2, 3, 4, 1)), -1)
        return branches.flatten(-2).permute(0, 4, 1, 2, 3)


class InvertedResidual(nn.Module):
    """Expansion, depth-wise convolution, projection; added to the input where shapes agree (MobileNetV2)."""

    def __init__(self, channels: int, width: int, stride: Sequence[int], expansion: int) -> None:
        super().__init__()
        hidden = round(channels * expansion)
        self.adds = tuple(stride) == ONE and channels == width
        expand = pointwise(channels, hidden, nn.ReLU6) if expansion != 1 else []
        self.conv = Chain(
            *expand, *depthwise(hidden, CUBE, stride), nn.ReLU6(inplace=True), *pointwise(hidden, width, None)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


class GhostModule(nn.Module):
    """Half of the channels by a convolution, the other half from those by a depth-wise one."""

    def __init__(self, channels: int, width: int, relu: bool) -> None:
        super().__init__()
        half, act = -(-width // 2), nn.ReLU if relu else None
        self.width = width
        self.primary_conv = Chain(*pointwise(channels, half, act))
        self.cheap_operation = Chain(*depthwise(half, CUBE, ONE), *([nn.ReLU(inplace=True)] if relu else []))

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary_conv(x)
        return torch.cat([x, self.cheap_operation(x)[:, : self.width - x.shape[1]]], 1)


class SqueezeExcite(nn.Module):
    """x ⊙ hard sigmoid of what two layers make of the channels' means."""

    def __init__(self, width: int) -> None:
        super().__init__()
        reduced = divisible(0.25 * width)
        self.conv_reduce = nn.Conv3d(width, reduced, 1)
        self.conv_expand = nn.Conv3d(reduced, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.conv_expand(F.relu(self.conv_reduce(x.mean((2, 3, 4), keepdim=True)))))


class GhostBottleneck(nn.Module):
    def __init__(self, channels: int, hidden: int, width: int, kernel: int, stride: int, excite: bool) -> None:
        super().__init__()
        self.stride = stride
        flat, strides = (1, kernel, kernel), (1, stride, stride)
        self.ghost1 = GhostModule(channels, hidden, relu=True)
        if stride > 1:
            self.conv_dw, self.bn_dw = depthwise(hidden, flat, strides)
        self.se = SqueezeExcite(hidden) if excite else nn.Identity()
        self.ghost2 = GhostModule(hidden, width, relu=False)
        if channels == width and stride == 1:
            self.shortcut = Chain()
        else:
            self.shortcut = Chain(*depthwise(channels, flat, strides), *pointwise(channels, width, None))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ghost1(x)
        if self.stride > 1:
            y = conv_norm(y, self.conv_dw, self.bn_dw)  # type: ignore[arg-type]
        return self.ghost2(self.se(y)) + self.shortcut(x)


def divisible(width: float) -> int:
    """To a multiple of 4, at least 4 and not below nine tenths."""
    rounded = max(4, int(width + 2) // 4 * 4)
    return rounded + 4 if rounded < 0.9 * width else rounded


class LightHead(nn.Module):
    """Each pathway through its layers, pooled, through its other layers; side by side → logits."""

    def __init__(
        self,
        width: int,
        num_classes: int,
        dropout: float,
        before: Mapping[str, nn.Module] | None = None,
        after: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.before, self.after = list(before or ()), list(after or ())
        for name, layer in {**(before or {}), **(after or {})}.items():
            self.add_module(name, layer)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, num_classes))

    def forward(self, x: Features) -> Tensor:
        x = [getattr(self, name)(y) for name, y in zip(self.before, x, strict=True)] if self.before else x
        x = [y.mean((2, 3, 4), keepdim=True) for y in x]
        x = [F.relu(getattr(self, name)(y)) for name, y in zip(self.after, x, strict=True)] if self.after else x
        return self.classifier(torch.cat(x, 1).flatten(1))


class LightSlowFast(PathwayNet):
    """Two light pathways with dual attention. 112² and 16 frames as released."""

    head_name = "head.classifier.1"

    def __init__(
        self,
        num_classes: int,
        stages: Sequence[Stage],
        head: Callable[..., nn.Module],
        cam_layer: str,
        *,
        in_channels: int = 3,
        alpha: int = 4,
        beta: int = 8,
        dropout: float = 0.5,
        activation: Activation = "softmax",
        reverse_channels: bool = False,
    ) -> None:
        check_shares(alpha, beta)
        steps, widths = assemble(stages, partial(CMDA, alpha=alpha, beta=beta), 2, in_channels)
        super().__init__(
            num_classes,
            steps,
            head(widths, num_classes, dropout),
            in_channels=in_channels,
            alpha=alpha,
            activation=activation,
            reverse_channels=reverse_channels,
        )
        self.cam_layer = cam_layer
        self.input = kinetics_clip(16, 2, 112)


class SingleStream(PathwayNet):
    """One stream that halves time too. 112² and 16 frames as released, colours 0 … 255 less their mean."""

    head_name = "classifier.1"

    def __init__(
        self,
        num_classes: int,
        steps: dict[str, nn.Module],
        width: int,
        cam_layer: str,
        *,
        in_channels: int = 3,
        dropout: float = 0.2,
    ) -> None:
        classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, num_classes))
        super().__init__(num_classes, steps, classifier, in_channels=in_channels, alpha=None)
        self.cam_layer = cam_layer
        mean = (114.7748, 107.7354, 99.475)
        self.input = Clip(
            frames=16, interval=1, size=112, sampling="dense_looped", views="pillow", mean=mean, std=(1, 1, 1)
        )

    def run(self, step: nn.Module, x: Features) -> Features:
        return [step(x[0])]

    def classify(self, x: Features) -> Tensor:
        return self.get_submodule("classifier")(x[0].mean((2, 3, 4)))


@register_model
def slowfast_shufflenet(
    num_classes: int = 400, *, width: float = 1.0, groups: int = 1, beta: int = 8, **options: Any
) -> LightSlowFast:
    """ShuffleNet in both pathways; K400 55.0 with width 2, 53.8 with width 2 and groups 3."""
    planes = [int(width * p) for p in _of(SHUFFLENET, "groups", groups)]
    shares = (1, beta)

    def first(pathway: int, channels: int) -> Layers:
        out = planes[0] // shares[pathway]
        return {"stem": stem(channels, out, nn.ReLU, MaxPool(CUBE, SPATIAL))}, out

    def stage(number: int, pathway: int, channels: int) -> Layers:
        out = planes[number] // shares[pathway]
        units = [
            ShuffleUnit(out if i else channels, out, ONE if i else SPATIAL, groups)
            for i in range(SHUFFLE_UNITS[number - 1])
        ]
        return {f"channel_{out}": Units(units)}, out

    def head(widths: Sequence[int], *rest: Any) -> LightHead:
        return LightHead(sum(widths), *rest)

    stages = [Stage("s1", first, "s1_fuse")]
    stages += [Stage(f"s{n + 1}", partial(stage, n), f"s{n + 1}_fuse") for n in (1, 2, 3)]
    return LightSlowFast(num_classes, stages, head, "s4_fuse", beta=beta, **options)


@register_model
def slowfast_shufflenetv2(
    num_classes: int = 400, *, width: float = 1.0, beta: int = 8, **options: Any
) -> LightSlowFast:
    """ShuffleNetV2 in both pathways; K400 28.8, 38.5 and 48.0 with width 0.25, 1 and 2."""
    *planes, last = (EVEN.get(p, p) for p in _of(SHUFFLENETV2, "width", width))
    shares = (1, beta)

    def first(pathway: int, channels: int) -> Layers:
        out = planes[0] // shares[pathway]
        return {"stem": stem(channels, out, nn.ReLU, MaxPool(CUBE, SPATIAL))}, out

    def stage(number: int, pathway: int, channels: int) -> Layers:
        out = planes[number] // shares[pathway]
        units = [
            ShuffleUnitV2(out if i else channels, out, ONE if i else SPATIAL) for i in range(SHUFFLE_UNITS[number - 1])
        ]
        return {f"channel_{out}": Units(units)}, out

    def head(widths: Sequence[int], num_classes: int, dropout: float) -> LightHead:
        before = {
            f"pathway{p}_conv1x1x1": Chain(Chain(*pointwise(channels, last // shares[p])))
            for p, channels in enumerate(widths)
        }
        return LightHead(last + last // beta, num_classes, dropout, before)

    stages = [Stage("s1", first, "s1_fuse")]
    stages += [Stage(f"s{n + 1}", partial(stage, n), f"s{n + 1}_fuse") for n in (1, 2, 3)]
    return LightSlowFast(num_classes, stages, head, "s4_fuse", beta=beta, **options)


@register_model
def slowfast_mobilenetv2(num_classes: int = 400, *, width: float = 1.0, beta: int = 8, **options: Any) -> LightSlowFast:
    """MobileNetV2 in both pathways; K400 48.1."""

    def first(pathway: int, channels: int) -> Layers:
        out = int(32 * (width / beta)) if pathway else int(32 * width)
        return {"stem": Units(stem(channels, out, nn.ReLU6))}, out

    def stage(rows: Sequence[tuple[int, int, int, int]], pathway: int, channels: int) -> Layers:
        units = []
        for expansion, plane, count, stride in rows:
            out = int(plane * width // beta) if pathway else int(plane * width)
            for i in range(count):
                units.append(InvertedResidual(channels, out, ONE if i or stride == 1 else SPATIAL, expansion))
                channels = out
        return {f"channel_{rows[0][1]}": Units(units)}, channels

    def head(widths: Sequence[int], num_classes: int, dropout: float) -> LightHead:
        last = int(1280 * width) if width > 1 else 1280
        outs = [last, last // beta]
        before = {
            f"pathway{p}_conv1x1x1": Chain(*pointwise(channels, outs[p], nn.ReLU6)) for p, channels in enumerate(widths)
        }
        return LightHead(sum(outs), num_classes, dropout, before)

    rows = MOBILENETV2
    stages = [
        Stage("s1", first),
        Stage("s2", partial(stage, rows[:2]), "s3_fuse"),  # there is no s3: the released names
        Stage("s4", partial(stage, rows[2:3]), "s4_fuse"),
        Stage("s5", partial(stage, rows[3:4]), "s5_fuse"),
        Stage("s6", partial(stage, rows[4:5])),
        Stage("s7", partial(stage, rows[5:6]), "s7_fuse"),
        Stage("s8", partial(stage, rows[6:7])),
    ]
    return LightSlowFast(num_classes, stages, head, "s8", beta=beta, **options)


@register_model
def slowfast_ghostnet(num_classes: int = 400, *, width: float = 1.0, beta: int = 8, **options: Any) -> LightSlowFast:
    """GhostNet in both pathways; K400 46.0. `activation="relu"` scores as the released test did."""

    def plane(value: int, pathway: int) -> int:
        return divisible(value * width // beta if pathway else value * width)

    def first(pathway: int, channels: int) -> Layers:
        out = plane(16, pathway)
        return {"stem": stem(channels, out)}, out

    def stage(rows: Sequence[tuple[int, int, int, int, int]], pathway: int, channels: int) -> Layers:
        units = []
        for kernel, hidden, out, excite, stride in rows:
            hidden, out = plane(hidden, pathway), plane(out, pathway)
            units.append(GhostBottleneck(channels, hidden, out, kernel, stride, bool(excite)))
            channels = out
        return {f"channel_{channels}": Units(units)}, channels

    def head(widths: Sequence[int], num_classes: int, dropout: float) -> LightHead:
        outs = [int(1280 * width), int(1280 * width // beta)]
        hidden = [plane(GHOSTNET[-1][-1][1], pathway) for pathway in (0, 1)]
        before, after = {}, {}
        for p, speed in enumerate(("slow", "fast")):
            before[f"stage5_conv_{speed}"] = ConvNorm(widths[p], hidden[p])
            after[f"conv_head_{speed}"] = nn.Conv3d(hidden[p], outs[p], 1)
        return LightHead(sum(outs), num_classes, dropout, before, after)

    stages = [Stage("s0", first)]
    stages += [
        Stage(f"s{n}", partial(stage, rows), f"s{n}_fuse" if n < 5 else None) for n, rows in enumerate(GHOSTNET, 1)
    ]
    return LightSlowFast(num_classes, stages, head, "s5", beta=beta, **options)


@register_model
def shufflenet_3d(
    num_classes: int = 400, *, width: float = 1.0, groups: int = 3, in_channels: int = 3, **options: Any
) -> SingleStream:
    """ShuffleNet; K400 51.1 with width 2."""
    planes = [int(width * p) for p in _of(SHUFFLENET, "groups", groups)]
    steps: dict[str, nn.Module] = {"conv1": stem(in_channels, planes[0]), "maxpool": MaxPool(CUBE, ALL)}
    for n, count in enumerate(SHUFFLE_UNITS, 1):
        units = [
            ShuffleUnit(planes[n if i else n - 1], planes[n], ONE if i else ALL, groups, single=True)
            for i in range(count)
        ]
        steps[f"layer{n}"] = Chain(*units)
    model = SingleStream(num_classes, steps, planes[-1], "layer3", in_channels=in_channels, **options)
    model.frames_in = 16  # halved four times, and shortcuts pool pairs
    return model


@register_model
def shufflenetv2_3d(
    num_classes: int = 400, *, width: float = 1.0, in_channels: int = 3, **options: Any
) -> SingleStream:
    """ShuffleNetV2; K400 24.1, 47.3 and 54.2 with width 0.25, 1 and 2."""
    *planes, last = _of(SHUFFLENETV2, "width", width)
    units = [
        ShuffleUnitV2(planes[n if i else n - 1], planes[n], ONE if i else ALL)
        for n, count in enumerate(SHUFFLE_UNITS, 1)
        for i in range(count)
    ]
    steps = {
        "conv1": stem(in_channels, planes[0]),
        "maxpool": MaxPool(CUBE, ALL),
        "features": Chain(*units),
        "conv_last": Chain(*pointwise(planes[-1], last)),
    }
    return SingleStream(num_classes, steps, last, "conv_last", in_channels=in_channels, **options)


@register_model
def mobilenetv2_3d(num_classes: int = 400, *, width: float = 1.0, in_channels: int = 3, **options: Any) -> SingleStream:
    """MobileNetV2; K400 38.5."""
    channels = int(32 * width)
    units: list[nn.Module] = [stem(in_channels, channels, nn.ReLU6)]
    for expansion, plane, count, stride in MOBILENETV2:
        for i in range(count):
            out = int(plane * width)
            units.append(InvertedResidual(channels, out, ONE if i or stride == 1 else ALL, expansion))
            channels = out
    last = int(1280 * width) if width > 1 else 1280
    units.append(Chain(*pointwise(channels, last, nn.ReLU6)))
    return SingleStream(num_classes, {"features": Chain(*units)}, last, "features", in_channels=in_channels, **options)


def _of(table: Mapping[Any, tuple[int, ...]], what: str, key: float) -> tuple[int, ...]:
    if key not in table:
        raise ValueError(f"{what} {key}: there are {', '.join(map(str, table))}")
    return table[key]
