"""Networks of parallel pathways: the same clip at several frame rates and widths, and what passes between them.

SlowFast (ICCV 2019, arXiv 1812.03982) and its fusion by dual attention, CMDA (CVIU 2022, vol. 222, 103484).
B clips, T frames of the fast pathway, α times those of the slow one; C channels, β times fewer in the fast pathway.
Features are one (B,C,T,H,W) per pathway, the slow one first.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidstill.data.sampling import spread
from vidstill.models.adapt import Report, inflate
from vidstill.models.convolution import Conv3d, activate, conv_norm, max_pool, tokens_of, untoken
from vidstill.models.layers import recompute
from vidstill.models.megvii import from_megvii, is_megvii
from vidstill.models.model import Activation, VideoModel
from vidstill.models.subnorm import Norm, whole_state

Features = list[Tensor]
ATTENTION_WIDTH = 16  # fused attention of fewer channels is slower than with zeros beside them (CPU: by 1.3 to 1.5)
Layers = tuple[dict[str, nn.Module], int]  # named layers in turn, and the channels that come out


class Stage(NamedTuple):
    """What a stage does to each pathway, and the name of the fusion after it, if there is one."""

    name: str
    build: Callable[[int, int], Layers]  # pathway (0 slow, 1 fast), channels that come in
    fusion: str | None = None


class Pathways(nn.Module):
    """One stage of every pathway: features → features."""

    def __init__(self, built: Sequence[Layers]) -> None:
        super().__init__()
        self.widths = [width for _, width in built]
        for pathway, (layers, _) in enumerate(built):
            for name, layer in layers.items():
                self.add_module(f"pathway{pathway}_{name}", layer)

    def forward(self, x: Features) -> Features:
        x = [*x]
        for name, layer in self.named_children():
            pathway = int(name[len("pathway")])
            x[pathway] = layer(x[pathway])
        return x


class LateralFusion(nn.Module):
    """Fast → slow by a convolution with stride α along time; the fast pathway goes on as it is (SlowFast, §3.4)."""

    def __init__(self, slow: int, fast: int, *, alpha: int, ratio: int, kernel: int) -> None:
        super().__init__()
        self.widths = [slow + fast * ratio, fast]
        self.conv_f2s = Conv3d(fast, fast * ratio, (kernel, 1, 1), (alpha, 1, 1))
        self.bn = Norm(fast * ratio)

    def forward(self, x: Features) -> Features:
        slow, fast = x
        return [torch.cat([slow, conv_norm(fast, self.conv_f2s, self.bn, "relu")], 1), fast]


class ChannelAttention(nn.Module):
    """x ⊙ sigmoid of a convolution along the channels' means (ECA)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.conv(x.mean((2, 3, 4)).unsqueeze(1)).sigmoid()  # (B,1,C)
        return x * weights.view(*x.shape[:2], 1, 1, 1)


class PositionAttention(nn.Module):
    """γ · attention + x, every place of the clip to every other; scores are not scaled. Memory grows with T·H·W."""

    def __init__(self, width: int, reduction: int = 1) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))
        self.query_conv = Conv3d(width, width // reduction, bias=True)
        self.key_conv = Conv3d(width, width // reduction, bias=True)
        self.value_conv = Conv3d(width, width, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        width = channels if x.is_meta else max(channels, ATTENTION_WIDTH)  # zeros do not count as work
        layers = (self.query_conv, self.key_conv, self.value_conv)
        weight = torch.cat([F.pad(layer.weight.flatten(1), (0, 0, 0, width - len(layer.weight))) for layer in layers])
        bias = torch.cat([F.pad(layer.bias, (0, width - len(layer.bias))) for layer in layers])  # type: ignore[arg-type]
        query, key, value = F.linear(tokens_of(x), weight, bias).unsqueeze(1).chunk(3, -1)  # (B,1,THW,width)
        gathered = attend(query, key, value, 1.0).squeeze(1)[..., :channels]
        return torch.addcmul(x, self.gamma, untoken(gathered, x))


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """(B,1,n,C), (B,1,m,C), (B,1,m,C) → softmax(scale · Q Kᵀ) V, without the n×m matrix in memory."""
    return F.scaled_dot_product_attention(query, key, value, scale=scale)


class CMDA(nn.Module):
    """Fast → slow through channel attention and slow → fast through position attention, both from what comes in."""

    def __init__(self, slow: int, fast: int, *, alpha: int, beta: int, reduction: int = 1) -> None:
        super().__init__()
        self.alpha = alpha
        self.widths = [slow + fast, slow // beta + fast]
        self.attention_channel_f2s = ChannelAttention()
        self.bn_f2s = Norm(fast)
        self.downsample_c_of_slow = Conv3d(slow, slow // beta)
        self.attention_spatial_s2f = PositionAttention(slow // beta, reduction)
        self.bn_s2f = Norm(slow // beta)

    def forward(self, x: Features) -> Features:
        slow, fast = x
        steps = (self.alpha, 1, 1)
        to_slow = activate(self.bn_f2s(self.attention_channel_f2s(max_pool(fast, steps, steps))), "relu")
        to_fast = activate(self.bn_s2f(self.attention_spatial_s2f(self.downsample_c_of_slow(slow))), "relu")
        to_fast = to_fast.permute(0, 2, 3, 4, 1).repeat_interleave(self.alpha, 1).permute(0, 4, 1, 2, 3)
        return [torch.cat([slow, to_slow], 1), torch.cat([to_fast, fast], 1)]


@functools.lru_cache
def slow_frames(frames: int, alpha: int) -> tuple[int, ...]:
    """Which of the fast pathway's frames the slow one sees: spread from the first to the last, rounded down."""
    return tuple(spread(0, frames - 1, frames // alpha, frames).tolist())


def assemble(
    stages: Sequence[Stage], fusion: Callable[[int, int], nn.Module], pathways: int, in_channels: int
) -> tuple[dict[str, nn.Module], list[int]]:
    """Every stage of every pathway and, of two pathways, the fusions: modules in turn, and the channels at the end."""
    widths = [in_channels] * pathways
    steps: dict[str, nn.Module] = {}
    for stage in stages:
        steps[stage.name] = Pathways([stage.build(pathway, width) for pathway, width in enumerate(widths)])
        widths = steps[stage.name].widths  # type: ignore[assignment]
        if stage.fusion and pathways > 1:
            steps[stage.fusion] = fusion(*widths)
            widths = steps[stage.fusion].widths  # type: ignore[assignment]
    return steps, widths


def check_shares(alpha: int, beta: int) -> None:
    if alpha < 1 or beta < 1:
        raise ValueError(f"alpha {alpha}, beta {beta}: both must be at least 1")


class PathwayNet(VideoModel):
    """Steps in turn, features → features, then a head; the slow pathway's frames are taken inside.

    `alpha` None: one pathway. `activation` makes the scores of a view (see `evaluation.engine.fuse`).
    `reverse_channels` swaps RGB to BGR first.
    """

    head_name: str  # of the linear layer
    frames_in: int = 1  # the network takes multiples of so many, besides alpha
    cam_layer: str  # the last step whose features still have places

    def __init__(
        self,
        num_classes: int,
        steps: dict[str, nn.Module],
        head: nn.Module,
        *,
        in_channels: int,
        alpha: int | None,
        activation: Activation = "softmax",
        reverse_channels: bool = False,
    ) -> None:
        super().__init__()
        if reverse_channels and in_channels != 3:
            raise ValueError(f"reverse_channels swaps red and blue, in_channels is {in_channels}: leave it out")
        self.in_channels, self.alpha, self.reverse_channels = in_channels, alpha, reverse_channels
        self.steps = list(steps)
        for name, step in steps.items():
            self.add_module(name, step)
            step.is_stage = any(True for _ in step.parameters())  # type: ignore[assignment]
        self.add_module(self.head_name.partition(".")[0], head)
        self.activation = activation
        initialise(self)
        self.num_classes = num_classes
        if not num_classes:
            self.reset_classifier(0)

    def _logits(self, clips: Tensor) -> Tensor:
        x = self.pathways(clips)
        for name in self.steps:
            x = self._step(name, x)
        return self.classify(x)

    def _features(self, clips: Tensor) -> dict[str, Tensor]:
        """Every stage and fusion, `s1.0` of the slow and `s1.1` of the fast pathway."""
        x = self.pathways(clips)
        features: dict[str, Tensor] = {}
        for name in self.steps:
            x = self._step(name, x)
            features |= {f"{name}.{pathway}": feature for pathway, feature in enumerate(x)}
        return features

    def _head(self, features: dict[str, Tensor]) -> Tensor:
        last = self.steps[-1]
        return self.classify([features[f"{last}.{p}"] for p in range(1 if self.alpha is None else 2)])

    def classify(self, x: Features) -> Tensor:
        return self.get_submodule("head")(x)

    def run(self, step: nn.Module, x: Features) -> Features:
        return step(x)

    def _step(self, name: str, x: Features) -> Features:
        step = getattr(self, name)
        if self.checkpointing and torch.is_grad_enabled():
            return recompute(step, self.run, step, x)
        return self.run(step, x)

    def check_clip(self, frames: int, height: int, width: int) -> None:
        if frames % self.frames_in:
            raise ValueError(f"{frames} frames: give a multiple of {self.frames_in}")
        if self.alpha and frames % self.alpha:
            raise ValueError(f"{frames} frames: give a multiple of alpha, {self.alpha}")
        super().check_clip(frames, height, width)

    def pathways(self, clips: Tensor) -> Features:
        """The clip as each pathway sees it."""
        if self.reverse_channels:
            clips = clips.flip(1)
        clips = clips.contiguous(memory_format=torch.channels_last_3d)
        if self.alpha is None:
            return [clips]
        slow = torch.tensor(slow_frames(clips.shape[2], self.alpha), device=clips.device)
        return [clips.permute(0, 2, 3, 4, 1).index_select(1, slow).permute(0, 4, 1, 2, 3), clips]

    def seen_frames(self, frames: int) -> list[list[int]]:
        fast = list(range(frames))
        return [fast] if self.alpha is None else [list(slow_frames(frames, self.alpha)), fast]

    def reset_classifier(self, num_classes: int) -> None:
        old = self.get_submodule(self.head_name)
        if isinstance(old, nn.Linear):
            self.pooled, like = old.in_features, old.weight
        else:
            like = next(self.parameters())
        layer: nn.Module = nn.Identity()
        if num_classes:
            layer = nn.Linear(self.pooled, num_classes, device=like.device, dtype=like.dtype)
            initialise(layer)
        self.set_submodule(self.head_name, layer)
        self.num_classes, self.classes = num_classes, None

    @property
    def head_keys(self) -> tuple[str, ...]:  # type: ignore[override]
        return f"{self.head_name}.weight", f"{self.head_name}.bias"

    def adapt_weights(self, state: dict[str, Tensor], head: str, report: Report) -> dict[str, Tensor]:
        """Caffe2 names, split norms of multigrid training, and networks for images; counters may be missing."""
        own = self.state_dict()
        state = self.rename_weights(state, report)
        state, renamed = whole_state(state, own)
        if renamed:
            report.notes.append(f"{len(renamed)} statistics of split batch norms renamed, e.g. {renamed[0]}")
        if any(value.ndim == 4 for value in state.values()):
            classifier = {key: value for key, value in state.items() if key in self.head_keys}
            state = {**inflate(state, own, report), **classifier}  # another size there is for `load_weights` to judge
            report.kept = {key: why for key, why in report.kept.items() if key not in classifier}
            report.kept |= {key: "not in a network for images" for key in own if key not in state | report.kept}
        report.kept |= {key: "counter" for key in own if key not in state and key.endswith("num_batches_tracked")}
        return state

    def rename_weights(self, state: dict[str, Tensor], report: Report) -> dict[str, Tensor]:
        """Another library's names, where its releases of this network can be read."""
        if not is_megvii(state):
            return state
        report.notes.append("Megvii's ShuffleNetV2: channels in our order")
        slow = [
            name for name, _ in self.named_modules() if re.fullmatch(r"s[234]\.pathway0_channel_\d+\.features", name)
        ]
        if slow:
            return from_megvii(state, "s1.pathway0_stem", [(name, 0) for name in slow])
        return from_megvii(state, "conv1", [("features", 0), ("features", 4), ("features", 12)])


def initialise(module: nn.Module) -> None:
    """As the releases: Kaiming normal by fan-out for convolutions, N(0, 0.01²) for linear layers, biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
