"""Both losses against sums written out."""

import math

import pytest
import torch
from torch import nn

from vidstill.objectives.recognise import Recognise

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])


def test_one_label_is_a_cross_entropy_of_softmaxes() -> None:
    loss = Recognise(nn.Identity())({"clips": LOGITS, "targets": torch.tensor([0, 2])})["loss"].item()
    first, second = ([math.exp(x) for x in row] for row in LOGITS.tolist())
    assert loss == pytest.approx(-(math.log(first[0] / sum(first)) + math.log(second[2] / sum(second))) / 2)


def test_several_labels_are_a_binary_cross_entropy_of_sigmoids() -> None:
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.3, 0.7, 0.0]])
    loss = Recognise(nn.Identity(), multi_label=True)({"clips": LOGITS, "targets": targets})["loss"].item()
    terms = []
    for x, y in zip(LOGITS.flatten().tolist(), targets.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        terms.append(-(y * math.log(p) + (1 - y) * math.log(1 - p)))
    assert loss == pytest.approx(sum(terms) / 6)
