"""Distillation losses against formulas written in another way; the objective and its teachers."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vidstill
from vidstill.config import Clip
from vidstill.config import Distil as Settings
from vidstill.models.weights import save
from vidstill.objectives.distil import (
    Distil,
    correlation_distance,
    decoupled_kl,
    distillation_loss,
    feature_distance,
    kl_on_logits,
    standardised,
)
from vidstill.objectives.teachers import Teacher, load_teachers

CPU = torch.device("cpu")
NARROW = {"depths": [1, 1], "focal_levels": [1, 1], "focal_windows": [3, 3], "drop_path_rate": 0, "init_std": 0.15}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def logits() -> tuple[Tensor, Tensor, Tensor]:
    return 3 * torch.randn(6, 7), 4 * torch.randn(6, 7), torch.randint(7, (6,))


def test_kl_is_the_mean_divergence_times_the_square_of_the_temperature() -> None:
    student, teacher, _ = logits()
    q, p = (np.exp(v.double().numpy() / 5) for v in (teacher, student))
    q, p = q / q.sum(1, keepdims=True), p / p.sum(1, keepdims=True)
    assert kl_on_logits(student, teacher, 5).item() == pytest.approx(25 * (q * np.log(q / p)).sum(1).mean(), rel=1e-5)


def test_decoupled_terms_with_their_natural_weights_are_the_kl() -> None:
    """KL = KL(label or not) + (1 - q_label) KL(others): eq. 6 of the paper, clip by clip."""
    student, teacher, labels = logits()
    for s, t, label in zip(student, teacher, labels, strict=True):
        share = 1 - F.softmax(t / 2, -1)[label].item()
        decoupled = decoupled_kl(s[None], t[None], label[None], 2, beta=share)
        assert decoupled.item() == pytest.approx(kl_on_logits(s[None], t[None], 2).item(), rel=1e-4)


def test_correlations_against_numpy() -> None:
    student, teacher, _ = logits()
    p, q = (F.softmax(v / 3, -1).double().numpy() for v in (student, teacher))
    classes = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    clips = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    assert correlation_distance(student, teacher, 3).item() == pytest.approx(9 * (classes + clips), rel=1e-4)


def test_standardised_logits_have_no_mean_and_unit_deviation() -> None:
    student, teacher, labels = logits()
    np.testing.assert_allclose(standardised(student).mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(standardised(student).std(1, correction=0), 1, rtol=1e-5)
    options = {"alpha": 0.5, "temperature": 2.0, "standardise": True}
    scaled = distillation_loss(student, 7 * teacher + 3, labels, **options)
    torch.testing.assert_close(scaled, distillation_loss(student, teacher, labels, **options))


@pytest.mark.parametrize("loss", ["kl", "dkd", "dist"])
@pytest.mark.parametrize("soft", [False, True])
def test_a_student_that_agrees_pays_for_the_labels_alone(loss: str, soft: bool) -> None:
    student, _, labels = logits()
    targets = F.one_hot(labels, 7) * 0.9 + 0.1 / 7 if soft else labels
    terms = distillation_loss(student, student.clone(), targets, alpha=0.3, temperature=4, loss=loss)
    assert terms["kd"].item() == pytest.approx(0, abs=1e-4)
    assert terms["loss"].item() == pytest.approx(0.7 * F.cross_entropy(student, targets).item(), rel=1e-3)


def test_feature_distance_is_two_minus_twice_the_cosine() -> None:
    a, b = torch.randn(2, 5, 3, 4, 4), torch.randn(2, 5, 3, 4, 4)
    cosine = np.mean([
        np.dot(x, y) / np.linalg.norm(x) / np.linalg.norm(y)
        for x, y in zip(a.movedim(1, -1).reshape(-1, 5).numpy(), b.movedim(1, -1).reshape(-1, 5).numpy(), strict=True)
    ])  # fmt: skip
    assert feature_distance(a, b).item() == pytest.approx(2 - 2 * cosine, rel=1e-5)


def test_a_finer_teacher_is_averaged_and_a_coarser_one_drawn_up() -> None:
    student = torch.randn(2, 5, 3, 4, 4)
    finer = student.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
    assert feature_distance(student, finer).item() == pytest.approx(0, abs=1e-6)
    assert feature_distance(torch.ones(1, 5, 4, 4, 4), torch.full((1, 5, 2, 2, 2), 3.0)).item() == pytest.approx(0)


def network(width: int, **options: object) -> nn.Module:
    model = vidstill.create_model("vfl_net", 4, width=width, **NARROW, **options)
    model.classes, model.input = list("abcd"), Clip(frames=4, size=32)
    return model


def batch(*teachers: Tensor) -> dict[str, object]:
    clips = torch.randn(3, 3, 4, 32, 32)
    return {"clips": clips, "targets": torch.tensor([0, 1, 2]), "teacher_clips": list(teachers) or [clips], "number": 0}


def test_the_teacher_is_no_part_of_the_module_and_saves_no_bytes() -> None:
    teacher = Teacher(network(16), "t", "0")
    objective = Distil(network(8), [teacher], Settings(teacher=["t"])).train()
    assert all(name.startswith("model.") for name in objective.state_dict())
    weights = {id(parameter) for parameter in teacher.model.parameters()}
    saved: list[Tensor] = []
    given = batch()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        with torch.enable_grad():
            taught, _ = objective._ask(given)
        assert not saved
        objective(given)["loss"].backward()
    assert saved and not any(id(tensor) in weights for tensor in saved)
    assert not taught.requires_grad and not teacher.model.training
    assert all(parameter.grad is not None for parameter in objective.parameters())


def test_every_term_is_added_with_its_weight_and_adapters_learn() -> None:
    settings = Settings(teacher=["t"], beta=0.3, gamma=0.2, stages=[0, -1], features={"stage1": "stage2"},
                        feature_weight=0.1)  # fmt: skip
    objective = Distil(network(8), [Teacher(network(12), "t", "0")], settings)
    shapes = {name: tuple(adapter.weight.shape) for name, adapter in objective.adapters.items()}
    narrow, wide = (12, 8, 1, 1, 1), (24, 16, 1, 1, 1)
    assert shapes == {"spatial0": narrow, "spatial-1": wide, "temporal0": narrow, "temporal-1": wide,
                      "stage1": (24, 8, 1, 1, 1)}  # fmt: skip
    terms = objective(batch())
    parts = 0.2 * terms["kd"] + 0.8 * terms["ce"]
    parts = parts + 0.3 * terms["spatial"] + 0.2 * terms["temporal"] + 0.1 * terms["features"]
    torch.testing.assert_close(terms["loss"], parts)
    terms["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.adapters.parameters())


def test_a_student_of_the_same_weights_is_at_no_distance() -> None:
    model = network(8)
    settings = Settings(teacher=["t"], alpha=1, beta=1, gamma=1, features={"stage1": "stage1"})
    twin = network(8)
    twin.load_state_dict(model.state_dict())
    terms = Distil(model.eval(), [Teacher(twin, "t", "0")], settings)(batch())
    assert terms["loss"].item() == pytest.approx(0, abs=1e-4)


def test_several_teachers_are_averaged_by_their_shares() -> None:
    teachers = [Teacher(network(8), "a", "0"), Teacher(network(12), "b", "1")]
    one, other = torch.randn(3, 3, 4, 32, 32), torch.randn(3, 3, 6, 40, 40)
    objective = Distil(network(8), teachers, Settings(teacher=["a", "b"], teacher_weights=[1, 3]))
    taught, _ = objective._ask(batch(one, other))
    expected = 0.25 * teachers[0].model(one) + 0.75 * teachers[1].model(other)
    torch.testing.assert_close(taught, expected.detach(), atol=1e-5, rtol=1e-4)


def saved_model(folder: Path, classes: list[str]) -> str:
    model = vidstill.create_model("vfl_net", len(classes), width=8, **NARROW)
    model.classes = classes
    save(model, folder / "best")
    return str(folder)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a", "b", "x"], r"only in the data: \['c'\], only in the model: \['x'\]"),
        (["a", "b"], "the data has 3 classes, the model 2"),
    ],
)
def test_a_teacher_of_other_classes_is_refused(tmp_path: Path, classes: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_teachers(Settings(teacher=[saved_model(tmp_path, classes)]), ["a", "b", "c"], Clip(), CPU)


def test_a_teacher_of_another_order_answers_in_the_students(tmp_path: Path) -> None:
    source = saved_model(tmp_path, ["c", "a", "b"])
    (teacher,) = load_teachers(Settings(teacher=[source]), ["a", "b", "c"], Clip(), CPU)
    clips = torch.randn(1, 3, 4, 32, 32)
    assert teacher.model.classes == ["a", "b", "c"]
    torch.testing.assert_close(teacher.model(clips), vidstill.load(source)(clips)[:, [1, 2, 0]])


def test_a_released_file_needs_its_network_and_its_head(tmp_path: Path) -> None:
    network = vidstill.create_model("vfl_net", 3, width=8, **NARROW)
    path = tmp_path / "released.pth"
    torch.save({"model": network.state_dict()}, path)
    with pytest.raises(ValueError, match=r"needs its recipe: nearest is the recipe \w+, .*model\.options"):
        load_teachers(Settings(teacher=[str(path)]), list("abc"), Clip(), CPU)
    named = {"teacher": [str(path)], "teacher_model": {"name": "vfl_net", "options": {"width": 8, **NARROW}}}
    (teacher,) = load_teachers(Settings(**named), list("abc"), Clip(frames=4), CPU)
    assert teacher.model.classes == list("abc") and teacher.model.input.frames == 4
    with pytest.raises(ValueError, match="classifier"):
        load_teachers(Settings(**named), list("abcd"), Clip(), CPU)
    headless = {key: value for key, value in network.state_dict().items() if not key.startswith("head")}
    torch.save(headless, path)
    with pytest.raises(ValueError, match=r"lacks 2 weights.*head"):
        load_teachers(Settings(**named), list("abc"), Clip(), CPU)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher_weights": [1, 2]}, "give one each"),
        ({"cache": "c", "beta": 1}, "logits only"),
        ({"kl": "released", "loss": "dkd"}, "kl alone"),
        ({"loss": "dist", "standardise": True}, "correlations"),
    ],
)
def test_contradictions_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(teacher=["t"], **options)


def test_remote_teachers_are_told_apart_and_named_by_their_whole_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files of one repository, each with its description; what is downloaded is what is hashed."""
    for name in ("one", "other"):
        model = vidstill.create_model("vfl_net", 3, width=8, **NARROW)
        model.classes = list("abc")
        save(model, tmp_path / name)
    asked: list[tuple[str, str]] = []

    def download(repository: str, name: str) -> str:
        asked.append((repository, name))
        return str(tmp_path / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    sources = ["hf://owner/repo/one.safetensors", "hf://owner/repo/other.safetensors"]
    teachers = load_teachers(Settings(teacher=sources), list("abc"), Clip(), CPU)
    digests = [hashlib.sha256((tmp_path / f"{name}.safetensors").read_bytes()).hexdigest() for name in ("one", "other")]
    assert [teacher.sha256 for teacher in teachers] == [digest[:16] for digest in digests]
    assert [teacher.source for teacher in teachers] == sources
    assert set(asked) == {("owner/repo", f"{name}.{suffix}") for name in ("one", "other")
                          for suffix in ("safetensors", "json")}  # fmt: skip
    again = vidstill.load(Path(sources[0]))  # a Path has lost a slash
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in teachers[0].model.state_dict().items())
