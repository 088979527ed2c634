"""What a model is: what every one of them answers, how it is named and described in a file, its form for inference."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vidstill.config import Clip
from vidstill.models.adapt import Report
from vidstill.models.layers import can_pack, keep_freed_memory, set_packing

Activation = Literal["softmax", "sigmoid", "relu"]
LONGEST_NAME = 500  # letters of a class

log = logging.getLogger(__name__)


class SavedModel(nn.Module):
    """What `create_model` makes by name, and `save` and `load` write and read, whatever it answers."""

    name: str = ""
    options: dict[str, Any]  # of the constructor
    num_classes: int
    classes: list[str] | None = None  # names of the outputs
    input: Clip = Clip()  # what it wants to see

    def description(self) -> dict[str, Any]:
        """What a file says of the model beside its weights. Raises ValueError for what could not be loaded again."""
        if not self.name:
            raise ValueError(f"only a model made by create_model can be saved, this {type(self).__name__} has no name")
        check_classes(self.classes, self.num_classes)
        return {
            "architecture": {"name": self.name, "num_classes": self.num_classes, "options": self.options},
            "classes": self.classes,
            "input": self.input.model_dump(mode="json"),
        }

    def describe(self, about: dict[str, Any]) -> None:
        """Take over what `description` gave. Raises KeyError for what is missing, ValueError for what is wrong."""
        check_classes(about["classes"], self.num_classes)
        self.classes, self.input = about["classes"], Clip.model_validate(about["input"])


def check_classes(classes: Any, num_classes: int) -> None:
    """Raises ValueError for what are not the names of so many outputs."""
    if classes is None:
        return
    if not isinstance(classes, list):
        raise ValueError(f"class names are a list of texts, this is a {type(classes).__name__}")
    if len(classes) != num_classes:
        raise ValueError(f"the model has {num_classes} outputs but {len(classes)} class names: set model.classes")
    for number, name in enumerate(classes):
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
            what = f"a text of {len(name)} letters" if isinstance(name, str) else f"a {type(name).__name__}"
            raise ValueError(f"the name of class {number} is {what}: give a text of 1 to {LONGEST_NAME} letters")


class VideoModel(SavedModel):
    """What every registered classifier answers, whatever its family. C is `in_channels`, K `num_classes`.

    `forward(clips)` maps normalised clips (B,C,T,H,W) to logits (B,K) in their dtype, and is fastest where their memory
    is (B,T,H,W,C); `forward_features` names what is inside, and `forward_head` makes the logits of it. They raise
    ValueError for clips of another shape. A family writes `_logits`, `_features` and `_head`, which get checked clips
    in the dtype of the weights, and `check_clip` where not every frame count and size is possible.
    """

    in_channels: int = 3  # of a clip
    head_keys: tuple[str, ...] = ("head.weight", "head.bias")  # of the state dict, what depends on num_classes
    channel_axis: int = 1  # of the 5-D tensors that its layers hand on
    cam_layer: str = ""  # which layer Grad-CAM looks at unless told otherwise, parts separated by slashes
    activation: Activation = "softmax"  # that makes the scores of a view from its logits
    freeze_norms: bool = False  # batch norms keep their statistics in training too; their scales learn
    checkpointing: bool = False  # recompute activations in the backward pass: less memory, about a third more time
    packed_for: tuple[int, ...] | None = None  # T, H, W whose kernels the layers packed, () before the first clips

    def forward(self, clips: Tensor) -> Tensor:
        with self.form():
            return self._logits(self.take(clips)).to(clips.dtype)

    def forward_features(self, clips: Tensor) -> dict[str, Tensor]:
        """Stages and what else is worth a look by name, in the order of the network, each (B,C,T,h,w)."""
        with self.form():
            return self._features(self.take(clips))

    def forward_head(self, features: dict[str, Tensor]) -> Tensor:
        """What `forward_features` gave → logits (B,K)."""
        with self.form():
            return self._head(features)

    def forward_with_features(self, clips: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits and features of one pass."""
        features = self.forward_features(clips)
        return self.forward_head(features), features

    def _logits(self, clips: Tensor) -> Tensor:
        raise NotImplementedError

    def _features(self, clips: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    def _head(self, features: dict[str, Tensor]) -> Tensor:
        raise NotImplementedError

    def check_clip(self, frames: int, height: int, width: int) -> None:
        """Raises ValueError for a frame count or size that the network cannot take."""
        if not (frames and height and width):
            raise ValueError(f"clips of {frames} frames of {height}x{width} pixels are empty")

    def reset_classifier(self, num_classes: int) -> None:
        """A fresh head of `num_classes` outputs, without names; 0 leaves the pooled features."""
        raise NotImplementedError

    def stages(self) -> list[nn.Module]:
        """The parts that are compiled and sharded one by one, in order: layers with `is_stage`, none inside another."""
        return [module for module in self.modules() if getattr(module, "is_stage", False)]

    def seen_frames(self, frames: int) -> list[list[int]]:
        """Which of a clip's frames each pathway sees, in the order in which its layers hand on their tensors."""
        return [list(range(frames))]

    def adapt_weights(self, state: dict[str, Tensor], head: str, report: Report) -> dict[str, Tensor]:
        """What `load_weights` hands over, as this model wants it; says in `report` what was changed or left out."""
        return state

    def description(self) -> dict[str, Any]:
        return {**super().description(), "activation": self.activation}

    def describe(self, about: dict[str, Any]) -> None:
        super().describe(about)
        activation = about.get("activation", self.activation)
        if activation not in get_args(Activation):
            raise ValueError(f"activation {activation!r:.40}: allowed are {', '.join(get_args(Activation))}")
        self.activation = activation

    def optimise_for_inference(self, bf16: bool = False) -> Self:
        """Give up gradients for speed, in place; eval mode.

        On x86 CPUs layers prepack their weights for oneDNN, beside the plain ones, at the first clips and anew for
        clips of another shape: up to three times the memory, logits equal to 1e-5. Elsewhere the plain layers stay.
        `bf16` puts the weights in bfloat16 (logits to about 1 %, returned in the clips' dtype), unless it is a CPU that
        would have to emulate it. `train()`, `to()` and loading weights go back to the plain layers, and a copy has
        them; after another change of the weights call this again.
        """
        self.eval()
        self._plain()
        device = next(self.parameters()).device.type
        if bf16 and device == "cpu" and not can_pack(torch.bfloat16):
            log.warning("this CPU has no bfloat16 instructions: inference stays in float32, which is faster here")
        elif bf16:
            self.to(torch.bfloat16)
        if device == "cpu" and can_pack(next(self.parameters()).dtype):
            keep_freed_memory()
            set_packing(self, True)
            self.packed_for = ()
        return self

    def form(self) -> contextlib.AbstractContextManager[Any]:
        """Around every pass: packed layers have no gradients, and must not look as if they did, and one dtype."""
        if self.packed_for is None:
            return contextlib.nullcontext()
        stack = contextlib.ExitStack()
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast("cpu", enabled=False))
        return stack

    def take(self, clips: Tensor) -> Tensor:
        """Checked clips in the dtype of the weights, which autocast would choose itself."""
        if clips.ndim != 5 or clips.shape[1] != self.in_channels:
            raise ValueError(f"clips are (B,{self.in_channels},T,H,W), got {tuple(clips.shape)}")
        shape = tuple(clips.shape[2:])
        self.check_clip(*shape)
        if self.packed_for not in (None, shape):
            set_packing(self, True)  # kernels chosen for another grid take up to seven times as long
            self.packed_for = shape
        if clips.is_meta or not torch.is_autocast_enabled(clips.device.type):
            return clips.to(next(self.parameters()).dtype)
        return clips

    def _plain(self) -> None:
        if self.packed_for is not None:
            set_packing(self, False)
            self.packed_for = None

    def train(self, mode: bool = True) -> Self:
        if mode:
            self._plain()
        super().train(mode)
        for norm in self.modules() if self.freeze_norms else ():
            if isinstance(norm, _BatchNorm):
                norm.eval()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._plain()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        self._plain()  # also where a module around this one loads
        super()._load_from_state_dict(*args, **options)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "packed_for"}
