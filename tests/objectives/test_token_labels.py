"""Token labels: targets and loss against loops, and what does not fit is said."""

import copy
import json
from typing import Any

import pytest
import torch

from vidstill.config import Model, TokenLabels, resolve
from vidstill.models.registry import create_model
from vidstill.models.weights import load
from vidstill.objectives.token_labels import (
    TokenLabels as Objective,
)
from vidstill.objectives.token_labels import fewer_steps, load_annotator, token_label_loss, token_targets
from vidstill.training.run import train

MICRO: dict[str, Any] = {
    "video_size": (8, 64, 64), "embed_dims": (8, 16, 16, 16), "num_heads": (1, 2, 2, 2), "depths": (1, 2, 1, 1),
    "local_sizes": ((2, 4, 4), (4, 2, 2), (4, 2, 2), (4, 1, 1)),
    "fine_pysizes": ((4, 4, 4), (2, 2, 2), (2, 1, 1), (4, 1, 1)), "coarse_pysizes": ((2, 1, 1),) * 4,
}  # fmt: skip


def micro(classes: int = 7, **options: Any) -> Any:
    torch.manual_seed(classes)
    return create_model("dualformer_tiny", classes, **{**MICRO, **options})


def batch() -> dict[str, Any]:
    clips = torch.randn(2, 8, 64, 64, 3, generator=torch.Generator().manual_seed(0)).permute(0, 4, 1, 2, 3)
    return {"clips": clips, "targets": torch.tensor([1, 4])}


@pytest.mark.parametrize("only", [False, True])
def test_targets_against_a_loop(only: bool) -> None:
    logits = torch.tensor([[3.0, -1.0, 2.0, 0.5, 2.0], [-1.0, -2.0, -3.0, -4.0, -5.0]])
    targets = token_targets(logits, top=2, topk_only=only)
    for row, target in zip(logits, targets, strict=True):
        least = sorted(row.tolist())[-2]
        raised = [value if value >= least else (float("-inf") if only else 0.0) for value in row.tolist()]
        torch.testing.assert_close(target, torch.tensor(raised).softmax(0))
    assert token_targets(logits, top=9).shape == logits.shape


def test_steps() -> None:
    labels = torch.arange(6.0).view(1, 6, 1)
    assert fewer_steps(labels, 3).flatten().tolist() == [0.5, 2.5, 4.5]
    assert fewer_steps(labels, 3, "released").flatten().tolist() == [1.5, 2.5, 3.5]
    with pytest.raises(ValueError, match="sees 6 time steps, the student 4"):
        fewer_steps(labels, 4)


def test_gamma_weighs_the_terms() -> None:
    torch.manual_seed(0)
    logits, tokens, labels = torch.randn(2, 7), torch.randn(2, 3, 7), torch.randn(2, 3, 7)
    targets = torch.tensor([0, 6])
    terms = token_label_loss(logits, tokens, labels, targets, gamma=0.25)
    dense = -(token_targets(labels) * tokens.log_softmax(-1)).sum(-1).mean()
    clip = -logits.log_softmax(-1)[torch.arange(2), targets].mean()
    torch.testing.assert_close(terms["loss"], 0.25 * clip + 0.75 * dense)


def test_the_annotator_is_frozen_and_unregistered() -> None:
    annotator = micro()
    objective = Objective(micro(token_head=True), annotator, TokenLabels()).train()
    before = copy.deepcopy(annotator.state_dict())
    objective(batch())["loss"].backward()
    assert not annotator.training and all(p.grad is None for p in annotator.parameters())
    assert all(torch.equal(before[key], value) for key, value in annotator.state_dict().items())
    assert all(name.startswith("model.") for name, _ in objective.named_parameters())
    assert all(p.grad is not None for p in objective.parameters())


@pytest.mark.parametrize(
    ("student", "annotator", "message"),
    [
        ({}, {}, "--model.options '{token_head: true}'"),
        ({"token_head": True, "classes": 5}, {}, "knows 7 classes, the student 5"),
    ],
)
def test_models_that_do_not_fit(student: dict[str, Any], annotator: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(micro(**student), micro(**annotator), TokenLabels())
    with pytest.raises(ValueError, match="vfl_net does not label tokens"):
        Objective(micro(token_head=True), create_model("vfl_net", 7, width=8), TokenLabels())


def test_annotators_are_loaded_strictly(tmp_path: Any) -> None:
    device = torch.device("cpu")
    with pytest.raises(ValueError, match=r"--token_labels\.annotator\.weights"):
        load_annotator(TokenLabels(), ["a"] * 7, device)
    source, path = micro(), tmp_path / "annotator.pth"
    torch.save({"state_dict": source.state_dict()}, path)
    settings = TokenLabels(annotator=Model(name="dualformer_tiny", options=MICRO, weights=str(path)))
    x = batch()["clips"]
    loaded: Any = load_annotator(settings, ["a"] * 7, device)
    torch.testing.assert_close(loaded.annotate(x), source.eval().annotate(x), rtol=1e-4, atol=1e-6)
    torch.save({"state_dict": {"other": torch.zeros(2)}}, path)
    with pytest.raises(ValueError, match="holds weights of another network"):
        load_annotator(settings, ["a"] * 7, device)


def test_a_whole_run(small: list[str], tmp_path: Any) -> None:
    """Train, test and load: the annotator is nowhere in the saved model."""
    options = {**MICRO, "video_size": (4, 64, 64), "local_sizes": ((2, 4, 4), (2, 2, 2), (2, 2, 2), (2, 1, 1))}
    options |= {"fine_pysizes": ((2, 4, 4), (1, 2, 2), (1, 1, 1), (2, 1, 1)), "coarse_pysizes": ((1, 1, 1),) * 4}
    classes = 8
    path = tmp_path / "annotator.pth"
    torch.save({"state_dict": micro(classes, **options).state_dict()}, path)
    about = {"name": "dualformer_tiny", "options": options, "weights": str(path)}
    settings = [
        *small, "--objective", "token_labels", "--token_labels.annotator", json.dumps(about),
        "--model.name", "dualformer_tiny", "--model.options", json.dumps({**options, "token_head": True}),
        "--clip.sampling", "sample_frames", "--clip.interval", "1", "--clip.size", "64",
        "--optim.schedule", "epoch_cosine", "--optim.multipliers", "{backbone: {lr: 0.1}}", "--train.epochs", "1",
        "--augment.mixup", "0", "--augment.cutmix", "0",
    ]  # fmt: skip
    folder = train(resolve(None, settings))
    model: Any = load(folder)
    assert model.num_classes == classes and model.token_head
    assert not any("annotator" in key or "teacher" in key for key in model.state_dict())
