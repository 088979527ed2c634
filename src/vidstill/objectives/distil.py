"""Distillation: what a teacher's logits, modulators and features teach a student.

Letters: B clips, K classes, C channels, T steps, H W the grid, τ temperature, p student's and q teacher's softmax.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidstill.config import Clip
from vidstill.config import Distil as Settings
from vidstill.models.focal import Modulators, capture_modulators
from vidstill.models.registry import VideoModel
from vidstill.objectives.cache import LogitCache
from vidstill.objectives.objective import Objective
from vidstill.objectives.teachers import Teacher


def kl_on_logits(
    student: Tensor, teacher: Tensor, temperature: float, kl: Literal["forward", "released"] = "forward"
) -> Tensor:
    """τ²/B · Σ q (log q − log p) with q, p the tempered softmax of teacher and student logits (B,K).

    `released` is what the DVFL-Net code computed, τ²/B · Σ q (log q − p): unbounded below and with next to no
    gradient; it exists to reproduce that code's numbers. Source: DVFL-Net (arXiv 2507.12426), loss figure and code.
    """
    log_q = F.log_softmax(teacher / temperature, dim=-1)
    log_p = F.log_softmax(student / temperature, dim=-1)
    entered = log_p if kl == "forward" else log_p.exp()
    return temperature**2 / len(student) * (log_q.exp() * (log_q - entered)).sum()


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    targets: Tensor,
    *,
    alpha: float,
    temperature: float,
    kl: Literal["forward", "released"] = "forward",
    loss: Literal["kl", "dkd", "dist"] = "kl",
    dkd_beta: float = 8.0,
    standardise: bool = False,
) -> dict[str, Tensor]:
    """α · KD + (1 − α) · cross-entropy, with its terms. `targets` are labels (B,) or probabilities (B,K)."""
    ce = F.cross_entropy(student, targets)
    s, t = (standardised(student), standardised(teacher)) if standardise else (student, teacher)
    if loss == "dkd":
        labels = targets if targets.ndim == 1 else targets.argmax(-1)
        kd = decoupled_kl(s, t, labels, temperature, dkd_beta)
    elif loss == "dist":
        kd = correlation_distance(s, t, temperature)
    else:
        kd = kl_on_logits(s, t, temperature, kl)
    return {"loss": alpha * kd + (1 - alpha) * ce, "kd": kd, "ce": ce}


def standardised(logits: Tensor) -> Tensor:
    """(B,K) with mean 0 and deviation 1 over the classes: the student need not copy the teacher's scale.

    Source: Logit Standardization in Knowledge Distillation (CVPR 2024), algorithm 1.
    """
    centred = logits - logits.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True).sqrt() + 1e-7)


def decoupled_kl(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, beta: float) -> Tensor:
    """τ²/B · Σ KL(label or not) + β · KL(among the other classes), each of tempered softmaxes; labels (B,).

    Blended clips count for the label with the larger share. Source: Decoupled Knowledge Distillation (CVPR 2022),
    eq. 7 with α = 1.
    """
    is_label = F.one_hot(labels, student.shape[-1]).bool()
    log_p, log_q = F.log_softmax(student / temperature, -1), F.log_softmax(teacher / temperature, -1)
    log_p_two, log_q_two = (
        torch.stack([v[is_label], v.masked_fill(is_label, -torch.inf).logsumexp(-1)], -1) for v in (log_p, log_q)
    )
    log_p_rest = log_p[~is_label].view(len(labels), -1).log_softmax(-1)
    log_q_rest = log_q[~is_label].view(len(labels), -1).log_softmax(-1)
    of_label = F.kl_div(log_p_two, log_q_two, reduction="batchmean", log_target=True)
    of_rest = F.kl_div(log_p_rest, log_q_rest, reduction="batchmean", log_target=True)
    return temperature**2 * (of_label + beta * of_rest)


def correlation_distance(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """τ² · (1 − r between the classes of a clip + 1 − r between the clips of a class), means of Pearson correlations.

    Source: Knowledge Distillation from A Stronger Teacher, DIST (NeurIPS 2022), eq. 8-10 with β = γ = 1.
    """
    p, q = F.softmax(student / temperature, -1), F.softmax(teacher / temperature, -1)
    between_classes, between_clips = 1 - _pearson(p, q).mean(), 1 - _pearson(p.T, q.T).mean()
    return temperature**2 * (between_classes + between_clips)


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    return F.cosine_similarity(a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True), dim=-1, eps=1e-8)


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over places of ‖ŝ − t̂‖² with vectors of unit length over channels; (B,C,T,H,W), equal B and C.

    The teacher's grid is averaged or interpolated to the student's. 0: same directions, 2: orthogonal ones.
    """
    if teacher.shape[2:] != student.shape[2:]:
        finer = all(t >= s for t, s in zip(teacher.shape[2:], student.shape[2:], strict=True))
        grid = student.shape[2:]
        teacher = F.interpolate(teacher.float(), grid, mode="area" if finer else "trilinear")
    return (F.normalize(student.float(), dim=1) - F.normalize(teacher.float(), dim=1)).square().sum(1).mean()


class Distil(Objective):
    """`model` learns from labels and frozen teachers.

    A batch holds `clips` (B,C,T,H,W), `targets` (B,) or (B,K), `teacher_clips` (one tensor per teacher, each in that
    teacher's format) and, with a cache, `number`, that of the batch. The logits of several teachers are averaged (the
    geometric mean of their predictions). `introduction` tells who teaches, for the provenance of the student.
    """

    def __init__(
        self, model: VideoModel, teachers: Sequence[Teacher], settings: Settings, cache: LogitCache | None = None
    ) -> None:
        super().__init__()
        self.model, self.settings, self.cache = model, settings, cache
        weights = settings.teacher_weights or [1.0] * len(teachers)
        self.teachers, self.shares = tuple(teachers), [weight / sum(weights) for weight in weights]
        self.introduction: list[dict[str, Any]] = []
        self.adapters = nn.ModuleDict(self._make_adapters())
        self._formats = () if cache and cache.complete else tuple(teacher.model.input for teacher in teachers)
        if not self._looks_inside:
            for teacher in teachers:
                teacher.model.optimise_for_inference()

    @property
    def formats(self) -> Sequence[Clip]:
        """Those of the teachers; none where the logits of every batch are cached."""
        return self._formats

    @property
    def provenance(self) -> dict[str, Any]:
        return {"teachers": self.introduction} if self.introduction else {}

    def batch_number(self, step: int) -> int:
        """With cached logits the same batches come again after some epochs."""
        return step if self.cache is None else step % self.cache.batches

    @property
    def _looks_inside(self) -> bool:
        return bool(self.settings.beta or self.settings.gamma or self.settings.features)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        student, inside = self._look(self.model, batch["clips"], list(self.settings.features))
        teacher, known = self._ask(batch)
        s = self.settings
        terms = distillation_loss(
            student, teacher.to(student), batch["targets"], alpha=s.alpha, temperature=s.temperature, kl=s.kl,
            loss=s.loss, dkd_beta=s.dkd_beta, standardise=s.standardise,
        )  # fmt: skip
        for term, weight, pairs in self._pairs():
            distances = [feature_distance(self._adapted(ours, inside[ours]), known[theirs]) for ours, theirs in pairs]
            terms[term] = torch.stack(distances).mean()
            terms["loss"] = terms["loss"] + weight * terms[term]
        return terms

    def _adapted(self, name: str, feature: Tensor) -> Tensor:
        return self.adapters[_key(name)](feature) if _key(name) in self.adapters else feature

    @torch.no_grad()
    def _ask(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Averaged logits (B,K) of the teachers, and what the one teacher has inside where that is compared."""
        if self.cache is not None and (kept := self.cache.read(batch["number"])) is not None:
            return kept.to(batch["clips"].device), {}
        total = torch.zeros(())
        inside: dict[str, Tensor] = {}
        for teacher, share, clips in zip(self.teachers, self.shares, batch["teacher_clips"], strict=True):
            bf16 = self.settings.precision == "bf16" or (self.settings.precision == "auto" and clips.is_cuda)
            with torch.autocast(clips.device.type, torch.bfloat16, enabled=bf16):
                logits, inside = self._look(teacher.model, clips, list(self.settings.features.values()))
            total = total.to(logits.device) + share * logits.float()
        if self.cache is not None:
            total = self.cache.write(batch["number"], total.cpu()).to(total.device)
        return total, inside

    def _look(self, model: VideoModel, clips: Tensor, taps: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits and, by name, what is compared: features, and `spatial-1`, `temporal-1`, … of the chosen stages."""
        captured: dict[str, Modulators] = {}
        with contextlib.ExitStack() as stack:
            if self.settings.beta or self.settings.gamma:
                captured = stack.enter_context(capture_modulators(model))
            logits, features = model.forward_with_features(clips) if taps else (model(clips), {})
        inside = {name: _tap(features, name) for name in taps}
        if captured:
            for stage in self.settings.stages:
                last = _stage(captured, stage)
                for kind in ("spatial", "temporal"):
                    inside[f"{kind}{stage}"] = getattr(last, kind).unflatten(0, (len(clips), -1)).transpose(1, 2)
        return logits, inside

    def _pairs(self) -> list[tuple[str, float, list[tuple[str, str]]]]:
        """Term, weight, and the pairs of names whose distance it is."""
        s = self.settings
        spatial, temporal = ([(f"{kind}{stage}",) * 2 for stage in s.stages] for kind in ("spatial", "temporal"))
        terms = [
            ("spatial", s.beta, spatial),
            ("temporal", s.gamma, temporal),
            ("features", s.feature_weight, [*s.features.items()]),
        ]
        return [term for term in terms if term[1] and term[2]]

    def _make_adapters(self) -> dict[str, nn.Module]:
        """A 1×1×1 convolution for each pair of other widths, found by running both models without memory."""
        if not self._looks_inside:
            return {}
        taps = [list(self.settings.features), list(self.settings.features.values())]
        widths = []
        for model, names in zip((self.model, self.teachers[0].model), taps, strict=True):
            shape = (1, 3, model.input.frames, model.input.size, model.input.size)
            ghost = copy.deepcopy(model).to("meta").eval()
            _, inside = self._look(ghost, torch.empty(shape, device="meta"), names)
            widths.append({name: value.shape[1] for name, value in inside.items()})
        student, teacher = widths
        pairs = [pair for _, _, pairs in self._pairs() for pair in pairs]
        return {
            _key(ours): nn.Conv3d(student[ours], teacher[theirs], 1)
            for ours, theirs in pairs
            if student[ours] != teacher[theirs]
        }


def _stage(captured: dict[str, Modulators], stage: int) -> Modulators:
    """The last block's modulators of a stage, from `layers.<stage>.blocks.<block>`."""
    stages = list({name.split(".")[1]: modulators for name, modulators in captured.items()}.values())
    if not -len(stages) <= stage < len(stages):
        raise ValueError(f"distil.stages {stage}: teacher and student need it, and one has {len(stages)} stages")
    return stages[stage]


def _tap(features: dict[str, Tensor], name: str) -> Tensor:
    if name not in features:
        raise ValueError(f"distil.features: no feature {name!r}, there are {', '.join(features)}")
    return features[name]


def _key(name: str) -> str:
    """Module names hold no dots."""
    return name.replace(".", "_")
