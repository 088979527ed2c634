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

from vidstill.evaluation.metrics import reliability
from vidstill.reporting.charts import (
    HEIGHT,
    PARETO_HEIGHT,
    PARETO_WIDTH,
    WIDTH,
    Point,
    confusion_chart,
    line_chart,
    log_ticks,
    pareto_chart,
    pareto_front,
    reliability_chart,
    standalone,
    ticks,
)


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
    assert f"{names[i]} → {names[j]}: {confusion[i, j]} ({100 * share:.0f} %)" in titles
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


points = st.builds(
    Point, st.sampled_from(["a", "a & <b>", "long " * 9]), st.floats(1e-3, 1e5), st.floats(0, 100), st.floats(0, 5)
)


@given(st.lists(points, min_size=1, max_size=25))
def test_the_front_is_whom_nobody_beats(found: list[Point]) -> None:
    front = {(p.x, p.y) for p in pareto_front(found)}
    beaten = {(p.x, p.y) for p in found for q in found if q.x <= p.x and q.y >= p.y and (q.x, q.y) != (p.x, p.y)}
    assert front == {(p.x, p.y) for p in found} - beaten


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(points, max_size=6), min_size=1))
def test_names_of_a_pareto_chart_hide_nothing(series: dict[str, list[Point]]) -> None:
    svg = pareto_chart(series, "GMACs & more")
    everyone = [p for of_one in series.values() for p in of_one]
    if not everyone:
        assert "no model" in svg
        return
    root = parse(svg)
    dots = [node for node in root.iter("circle") if node.find("title") is not None]
    assert len(dots) == len(everyone)
    places = [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in dots]
    assert all(0 <= x <= PARETO_WIDTH and 0 <= y <= PARETO_HEIGHT for x, y in places)
    names = of_class(root, "ink")
    boxes = [(float(n.get("x", "")), float(n.get("y", "")) - 3.5, 6.3 * len(n.text or "") / 2) for n in names]
    for (x1, y1, half1), (x2, y2, half2) in itertools.combinations(boxes, 2):
        assert abs(x1 - x2) >= half1 + half2 - 0.2 or abs(y1 - y2) >= 12.8, "names do not touch"
    for x, y, half in boxes:
        assert half - 0.1 <= x <= PARETO_WIDTH - half + 0.1
        assert not any(abs(x - px) < half and abs(y - py) < 6 for px, py in places), "nor hide a point"


def test_a_pareto_chart_says_what_it_shows() -> None:
    series = {"set": [Point("small", 1, 70, 1.5), Point("large", 100, 90), Point("slow", 200, 60)]}
    root = parse(pareto_chart(series, "ms"))
    titles = [node.text for node in root.iter("title")]
    assert titles == ["small: 70.0 ± 1.5 %, 1 ms", "large: 90.0 %, 100 ms", "slow: 60.0 %, 200 ms"]
    assert len(of_class(root, "dot0 dominated")) == 1
    assert {node.text for node in of_class(root, "ink")} == {"small", "large", "slow"}
    assert len(of_class(root, "line0 spread")) == 1
    x = [float(node.get("cx", "")) for node in root.iter("circle") if node.find("title") is not None]
    assert (x[2] - x[1]) / (x[1] - x[0]) == pytest.approx(math.log10(2) / 2, abs=0.01), "the axis is logarithmic"


@given(st.floats(1e-4, 1e5), st.floats(1.05, 1e4))
def test_ticks_of_a_log_axis_lie_on_it(low: float, ratio: float) -> None:
    found = log_ticks(low, low * ratio)
    assert found and all(low <= x <= low * ratio for x in found) and found == sorted(found)
    assert len(found) <= 16


def test_charts_that_stand_alone_carry_their_style() -> None:
    charts = [pareto_chart({"set": [Point("x", 2, 50)]}, across) for across in ("ms", "GMACs")]
    root = parse(standalone(charts, "svg text { fill: red }"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert (root.findtext("{*}style") or "").startswith("svg text")
    left = [float(chart.get("x", "")) for chart in root.findall("{*}svg")]
    assert left[1] - left[0] == PARETO_WIDTH
