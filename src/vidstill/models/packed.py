"""Models with a form for inference: prepacked weights, thrown away when the plain ones change."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from vidstill.models.layers import Packs, can_pack, keep_freed_memory
from vidstill.models.registry import VideoModel

log = logging.getLogger(__name__)


class PackedModel(Packs, VideoModel):
    """A VideoModel whose `pack` fills `packed` of its layers and of itself."""

    def pack(self) -> None:
        """Prepack the weights for clips like `input`; `packed` says for what, and is not None."""
        raise NotImplementedError

    def optimise_for_inference(self, bf16: bool = False) -> Self:
        """Give up gradients for speed, in place; eval mode.

        On x86 CPUs weights are prepacked for oneDNN, beside the released ones: up to three times the memory, logits
        equal to 1e-5. It fits clips like `input`, and is made anew for others. Elsewhere the plain layers stay. `bf16`
        runs in bfloat16 (logits to about 1 %, returned in the clips' dtype) unless the CPU would have to emulate it.
        `train()`, `to()` and loading weights go back to the plain layers.
        """
        self.eval()
        device = next(self.parameters()).device.type
        if bf16 and device == "cpu" and not can_pack(torch.bfloat16):
            log.warning("this CPU has no bfloat16 instructions: inference stays in float32, which is faster here")
        elif bf16:
            self.to(torch.bfloat16)
        if device == "cpu" and can_pack(next(self.parameters()).dtype):
            keep_freed_memory()
            self.pack()
        return self

    def train(self, mode: bool = True) -> Self:
        if mode:
            self._unpack()
        return super().train(mode)

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        self._unpack()
        return super().load_state_dict(*args, **options)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._unpack()
        return super()._apply(fn, recurse)

    def _unpack(self) -> None:
        if self.packed is not None:
            for module in self.modules():
                if isinstance(module, Packs):
                    module.packed = None

    def _gradients(self) -> contextlib.AbstractContextManager[None]:
        """Packed layers have none: they must not look as if they did."""
        return contextlib.nullcontext() if self.packed is None else torch.no_grad()

    def _as_weights(self, clips: Tensor) -> Tensor:
        """Clips in the dtype of the weights, which autocast would choose itself."""
        if clips.is_meta or not torch.is_autocast_enabled(clips.device.type):
            return clips.to(next(self.parameters()).dtype)
        return clips
