"""Charts are sound XML, show what they are given and nothing else."""

import base64
import io
import itertools
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vidstill.evaluation.charts import HEIGHT, WIDTH, confusion_chart, line_chart, reliability_chart, ticks
from vidstill.evaluation.metrics import reliability


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def of_class(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [node for node in root.iter() if node.get("class") == name]


@given(st.floats(-1e6, 1e6), st.floats(1e-4, 1e6), st.integers(2, 10))
def test_ticks_are_round_even_and_span_the_data(low: float, width: float, about: int) -> None:
    high = low + width
    found = ticks(low, high, about)
    step = found[1] - found[0]
    assert found[0] <= low + 1e-6 * step
    assert found[-1] >= high - 1e-6 * step
    assert len(found) <= about + 2
    np.testing.assert_allclose(np.diff(found), step, rtol=1e-6, atol=1e-9)
    digits = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(digits - nice) for nice in (1, 2, 2.5, 5, 10)) < 1e-3


@given(
    st.lists(st.floats(-100, 100) | st.just(math.nan) | st.just(math.inf), min_size=1, max_size=30),
    st.none() | st.just((-100.0, 100.0)),
)
def test_every_finite_value_is_drawn_inside_the_chart(values: list[float], bounds: tuple[float, float] | None) -> None:
    svg = line_chart({"a & b": [(float(x + 1), y) for x, y in enumerate(values)]}, bounds, mark=1)
    finite = [y for y in values if math.isfinite(y)]
    if not finite:
        assert "nothing recorded" in svg
        return
    root = parse(svg)
    points = [tuple(map(float, pair.split(","))) for pair in of_class(root, "line0")[0].get("points", "").split()]
    assert len(points) == len(finite)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    ranked = sorted((value, -y) for value, (_, y) in zip(finite, points, strict=True))
    assert all(y2 >= y1 - 0.11 for (_, y1), (_, y2) in itertools.pairwise(ranked)), "higher values stand higher"


def test_a_single_epoch_is_a_visible_dot() -> None:
    root = parse(line_chart({"loss": [(1.0, 0.7)]}))
    assert len(of_class(root, "dot0")) == 1
    assert not of_class(root, "hover0")


@pytest.mark.parametrize("classes", [2, 9, 24, 25, 60])
def test_confusion_cells_are_the_counts(classes: int) -> None:
    rng = np.random.default_rng(classes)
    confusion = rng.integers(1, 4, (classes, classes)) * (rng.random((classes, classes)) < 0.5)
    confusion[0], confusion[1, 0] = 0, 2  # a class without videos, and a mistake for sure
    names = [f"<{n}> & {'long ' * 8}" if n % 2 else f"class {n}" for n in range(classes)]
    root = parse(confusion_chart(confusion, names))
    wrong = (confusion - np.diag(np.diag(confusion))) > 0
    assert len(of_class(root, "wrong")) == wrong.sum()
    assert len(of_class(root, "right")) == classes
    titles = [node.text or "" for node in root.iter() if node.tag == "title"]
    i, j = np.argwhere(wrong)[0]
    share = confusion[i, j] / confusion[i].sum()
    assert f"{names[i]} → {names[j]}: {confusion[i, j]} ({share:.0%})" in titles
    numbers = [int(node.text or "") for node in root.iter("text") if (node.text or "").isdigit()]
    assert sorted(numbers) == (sorted(confusion[confusion > 0].tolist()) if classes <= 24 else [])
    width, height = map(float, root.get("viewBox", "").split()[2:])
    for rect in root.iter("rect"):
        assert float(rect.get("x", "")) + float(rect.get("width", "")) <= width
        assert float(rect.get("y", "")) + float(rect.get("height", "")) <= height


def test_many_classes_are_one_picture_with_a_pixel_per_pair() -> None:
    confusion = np.diag(np.arange(400))
    confusion[7, 300] = 1
    root = parse(confusion_chart(confusion, [str(n) for n in range(400)]))
    (picture,) = root.iter("image")
    data = re.fullmatch(r"data:image/png;base64,(.+)", picture.get("href", ""))
    assert data
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1]))))
    assert pixels.shape == (400, 400, 4)
    visible = pixels[..., 3] > 60
    assert (visible == (confusion > 0)).all()
    assert (pixels[7, 300, :3] != pixels[7, 7, :3]).any(), "mistakes have another colour"


def test_calibration_bars_are_the_accuracies() -> None:
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(3), 200)
    labels = np.array([rng.choice(3, p=row) for row in scores])
    videos, sure, right = reliability(scores, labels, 10)
    root = parse(reliability_chart(videos, sure, right))
    bars, counts = of_class(root, "bar"), of_class(root, "count")
    assert len(bars) == len(counts) == (videos > 0).sum()
    heights = np.array([float(bar.get("height", "")) for bar in bars])
    shown = right[videos > 0]
    np.testing.assert_allclose(heights / heights.max(), shown / shown.max(), atol=0.01)
