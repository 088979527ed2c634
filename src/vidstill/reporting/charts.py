"""Charts as SVG text, coloured by the style sheet of the page they stand in."""

from __future__ import annotations

import base64
import io
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from PIL import Image

from vidstill.evaluation.metrics import confusion_shares, per_cent

Series = dict[str, list[tuple[float, float]]]
Box = tuple[float, float, float, float]  # left, top, right, bottom

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 26
PARETO_WIDTH, PARETO_HEIGHT = 560, 380
DOT = 4.5  # radius
LINES = 3  # the style sheet has that many colours
CHARACTER = 6.3  # mean width of a character of the labels, which are 11 px high
LONGEST_NAME = 26  # characters of a class beside the confusion matrix; the whole name is shown on hovering
NUMBERED, NAMED = 24, 60  # classes: with more the cells have no numbers; with more still there are no names, one image
RIGHT_COLOUR, WRONG_COLOUR = (59, 130, 246), (239, 83, 70)  # of that image, on a light page or a dark one


def line_chart(
    series: Series, bounds: tuple[float, float] | None = None, mark: float | None = None, unit: str = ""
) -> str:
    """Lines over whole numbers (epochs), {name: [(x, y)]}; values that are not finite are left out.

    `bounds` are the lowest and highest y, by default those of the data; a dotted line marks the x of `mark`.
    """
    points = [(x, y) for line in series.values() for x, y in line if math.isfinite(y)]
    if not points:
        return '<p class="none">nothing recorded</p>'
    low, high = bounds or _span([y for _, y in points])
    rows = ticks(low, high)
    if bounds is None:
        low, high = min(low, rows[0]), max(high, rows[-1])
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    if first == last:
        first, last = first - 0.5, last + 0.5

    def across(x: float) -> float:
        return LEFT + (x - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)

    drawn = [_grid(down(y), _number(y, rows) + unit) for y in rows]
    columns = sorted({round(x) for x in ticks(first, last, 6)})
    drawn += [_text(across(x), HEIGHT - 8, str(x), "middle") for x in columns if first <= x <= last]
    if mark is not None and first <= mark <= last:
        drawn.append(f'<path class="mark" d="M{across(mark):.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
    for number, (name, line) in enumerate(series.items()):
        places = [(across(x), down(y), x, y) for x, y in line if math.isfinite(y)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in places)
        drawn.append(f'<polyline class="line{number}" points="{path}"/>')
        for x, y, epoch, value in places:
            shown = "dot" if len(places) == 1 else "hover"  # a line of one point would not be seen
            told = f"<title>{escape(name)}, epoch {epoch:g}: {value:.4g}{unit}</title>"
            drawn.append(f'<circle class="{shown}{number}" cx="{x:.1f}" cy="{y:.1f}" r="4">{told}</circle>')
    return _svg(WIDTH, HEIGHT, drawn)


class Point(NamedTuple):
    """A model in a chart of accuracy over cost."""

    name: str
    x: float
    y: float
    deviation: float = 0.0  # of y


def pareto_chart(
    series: Mapping[str, Sequence[Point]], across: str, width: int = PARETO_WIDTH, height: int = PARETO_HEIGHT
) -> str:
    """Per cent over a positive cost named `across`, on a log axis; a staircase joins each series' best for their cost.

    A name stands where it hides neither point nor line nor another name, with a thin line where that is not beside its
    point; one that finds no such place is shown on hovering only, as all are. Points without a finite cost are left
    out.
    """
    shown = {name: [p for p in points if 0 < p.x < math.inf and math.isfinite(p.y)] for name, points in series.items()}
    shown = {name: points for name, points in shown.items() if points}
    points = [point for of_one in shown.values() for point in of_one]
    if not points:
        return '<p class="none">no model with both an accuracy and a cost</p>'
    top, bottom, right = TOP + 18 * len(shown) + 6, height - 44, width - RIGHT
    first, last = min(p.x for p in points) / 1.4, max(p.x for p in points) * 1.4
    low, high = min(p.y - p.deviation for p in points) - 1, max(p.y + p.deviation for p in points) + 1
    rows = [y for y in ticks(low, high) if 0 <= y <= 100]

    def place(x: float, y: float) -> tuple[float, float]:
        share = math.log(x / first) / math.log(last / first)
        rise = (min(max(y, rows[0]), rows[-1]) - rows[0]) / (rows[-1] - rows[0])
        return LEFT + share * (right - LEFT), bottom - rise * (bottom - top)

    drawn = [_grid(place(first, y)[1], _number(y, rows) + "%", right) for y in rows]
    for tick in log_ticks(first, last):
        x, _ = place(tick, rows[0])
        drawn.append(f'<path class="grid" d="M{x:.1f} {top}V{bottom}"/>{_text(x, bottom + 16, f"{tick:g}", "middle")}')
    drawn.append(_text((LEFT + right) / 2, bottom + 36, escape(across), "middle"))
    taken: list[Box] = []
    for number, (name, of_one) in enumerate(shown.items()):
        dot, line, legend = f"dot{number % LINES}", f"line{number % LINES}", TOP + 18 * number + 4
        drawn.append(f'<circle class="{dot}" cx="{LEFT + 5}" cy="{legend}" r="{DOT}"/>')
        drawn.append(_text(LEFT + 15, legend + 4, escape(name), "start"))
        best = pareto_front(of_one)
        stairs = [*(place(p.x, p.y) for p in best), (right, place(best[-1].x, best[-1].y)[1])]
        steps = "".join(f"H{x:.1f}V{y:.1f}" for x, y in stairs[1:])
        drawn.append(f'<path class="{line} stairs" d="M{stairs[0][0]:.1f} {stairs[0][1]:.1f}{steps}"/>')
        for (x1, y1), (x2, y2) in itertools.pairwise(stairs):
            taken += [(x1, y1 - 1, x2, y1 + 1), (x2 - 1, y2, x2 + 1, y1)]
        for p in of_one:
            (x, y), (_, above), (_, below) = (place(p.x, p.y + sign * p.deviation) for sign in (0, 1, -1))
            spread = f" ± {p.deviation:.1f}" if p.deviation else ""
            told = f"<title>{escape(p.name)}: {p.y:.1f}{spread} %, {p.x:.3g} {escape(across)}</title>"
            kind = dot if p in best else f"{dot} dominated"
            drawn.append(f'<path class="{line} spread" d="M{x:.1f} {above:.1f}V{below:.1f}"/>' if spread else "")
            drawn.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{DOT}">{told}</circle>')
            taken += [(x - 1, above, x + 1, below), _around(x, y, DOT)]
    order = sorted(points, key=lambda p: (-p.y, p.x))  # the best find the best places
    drawn += _names([(p.name, *place(p.x, p.y)) for p in order], (LEFT, top, right, bottom), taken)
    return _svg(width, height, drawn)


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """Those that no other one beats in accuracy at the same cost or less, by rising cost."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y)):
        if not best or point.y > best[-1].y:
            best.append(point)
    return best


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between positive bounds, or round numbers where those are close together."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 2, 5)):
        found = [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]
        if len(found) >= 3:
            return found
    return [x for x in ticks(low, high) if low <= x <= high]


def standalone(charts: Sequence[str], style: str) -> str:
    """Charts side by side as the text of an SVG file with a style sheet of its own."""
    sizes = [[float(side) for side in chart.split('"', 2)[1].split()[2:]] for chart in charts]
    margin = 12.0
    width, height, left = sum(w for w, _ in sizes) + 2 * margin, max(h for _, h in sizes) + 2 * margin, margin
    placed = []
    for chart, (wide, high) in zip(charts, sizes, strict=True):
        box = f'x="{left:.0f}" y="{margin:.0f}" width="{wide:.0f}" height="{high:.0f}"'
        placed.append(chart.replace("<svg ", f"<svg {box} ", 1))
        left += wide
    ground = f'<rect width="{width:.0f}" height="{height:.0f}" rx="12" class="sheet"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}">'
        f"<style>{style}</style>{ground}{''.join(placed)}</svg>\n"
    )


def reliability_chart(videos: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray) -> str:
    """Accuracy in each bin of confidence against the dashed line of a calibrated model; below, how many videos."""
    bins, floor = len(videos), HEIGHT - BOTTOM
    base, band = floor - 40, (WIDTH - LEFT - RIGHT) / len(videos)  # the histogram is 32 px high

    def down(share: float) -> float:
        return TOP + (1 - share) * (base - TOP)

    drawn = [_grid(down(share), per_cent(share, 0)) for share in (0, 0.5, 1)]
    drawn += [
        _text(LEFT + share * band * bins, HEIGHT - 8, per_cent(share, 0), "middle") for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    for b in range(bins):
        if not videos[b]:
            continue
        left, tall = LEFT + b * band + 1, 32 * videos[b] / videos.max()
        said, right = per_cent(confidence[b], 0), per_cent(accuracy[b], 0)
        told = f"<title>{videos[b]:.0f} videos: said {said}, right in {right}</title>"
        box = f'x="{left:.1f}" width="{band - 2:.1f}"'
        drawn.append(
            f'<rect class="bar" {box} y="{down(accuracy[b]):.1f}" height="{base - down(accuracy[b]):.1f}">{told}</rect>'
            f'<rect class="count" {box} y="{floor - tall:.1f}" height="{tall:.1f}">{told}</rect>'
        )
    drawn.append(f'<path class="ideal" d="M{LEFT} {base}L{WIDTH - RIGHT} {TOP}"/>')
    return _svg(WIDTH, HEIGHT, drawn)


def confusion_chart(confusion: np.ndarray, names: Sequence[str]) -> str:
    """Counts (K,K), rows true, as coloured cells: what is right in one colour, what is wrong in another.

    The colour is the share of a row. Many classes (see NAMED) are drawn as one picture without names.
    """
    shares = confusion_shares(confusion)
    if len(names) > NAMED:
        return _confusion_picture(shares)
    count = len(names)
    cell = 48 if count <= 6 else 36 if count <= 12 else 27 if count <= NUMBERED else 14
    short = [_short(name) for name in names]
    longest = CHARACTER * max(len(name) for name in short)
    slope = 0.71 if count <= NUMBERED else 1.0  # names above the columns at 45°, or upright where columns are narrow
    left, top = longest + 14, slope * longest + 20
    side = count * cell
    drawn = []
    for i, name in enumerate(short):
        middle, full = (i + 0.5) * cell, f"<title>{escape(names[i])}</title>"
        drawn.append(_text(left - 8, top + middle + 4, escape(name) + full, "end"))
        turn = f'transform="translate({left + middle + 3:.1f} {top - 7:.1f}) rotate({-45 if slope < 1 else -90})"'
        drawn.append(f"<text {turn}>{escape(name)}{full}</text>")
    for i, j in np.ndindex(count, count):
        if not confusion[i, j] and i != j:
            continue
        x, y, kind = left + j * cell, top + i * cell, "right" if i == j else "wrong"
        share = per_cent(float(shares[i, j]), 0)
        told = f"<title>{escape(names[i])} → {escape(names[j])}: {confusion[i, j]} ({share})</title>"
        strength = 0.12 + 0.88 * shares[i, j] if confusion[i, j] else 0
        box = f'x="{x + 0.5:.1f}" y="{y + 0.5:.1f}" width="{cell - 1}" height="{cell - 1}" rx="{min(4, cell // 7)}"'
        drawn.append(f'<rect class="{kind}" {box} fill-opacity="{strength:.2f}">{told}</rect>')
        if confusion[i, j] and count <= NUMBERED:
            strong = ' class="strong"' if shares[i, j] > 0.55 else ' class="ink"'
            drawn.append(_text(x + cell / 2, y + cell / 2 + 4, str(confusion[i, j]), "middle", strong))
    drawn.insert(0, f'<rect class="ground" x="{left}" y="{top}" width="{side}" height="{side}" rx="6"/>')
    return _svg(left + side + slope * longest * (slope < 1) + 4, top + side + 4, drawn, natural=True)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers from `low` to `high` or a little beyond, about so many."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def data_uri(image: Image.Image, kind: str) -> str:
    """A PNG or JPEG for the `src` of an image."""
    file = io.BytesIO()
    image.save(file, kind, quality=82, optimize=True)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _confusion_picture(shares: np.ndarray) -> str:
    count = len(shares)
    pixels = np.empty((count, count, 4), np.uint8)
    pixels[..., :3] = np.where(np.eye(count, dtype=bool)[..., None], RIGHT_COLOUR, WRONG_COLOUR)
    pixels[..., 3] = np.rint(255 * (shares > 0) * (0.35 + 0.65 * shares))  # one video of many must be visible too
    side, left, top = 700, 40, 24
    drawn = [f'<rect class="ground" x="{left}" y="{top}" width="{side}" height="{side}"/>']
    drawn.append(
        f'<image class="pixels" x="{left}" y="{top}" width="{side}" height="{side}" '
        f'href="{data_uri(Image.fromarray(pixels, "RGBA"), "PNG")}"/>'
    )
    for number in (int(x) for x in ticks(0, count, 8) if x < count):
        place = (number + 0.5) / count * side
        drawn.append(_text(left - 6, top + place + 4, str(number), "end"))
        drawn.append(_text(left + place, top - 8, str(number), "middle"))
    return _svg(left + side + 4, top + side + 4, drawn, natural=True)


def _names(points: Sequence[tuple[str, float, float]], inside: Box, taken: list[Box]) -> Iterator[str]:
    """The names that find a place outside of what is `taken`, which grows by them."""
    crossings: list[Box] = []
    for name, x, y in points:
        short = _short(name)
        crossed = [*crossings, *(_around(at_x, at_y, DOT) for _, at_x, at_y in points if (at_x, at_y) != (x, y))]
        for box, away in _places(x, y, CHARACTER * len(short)):
            end_x, end_y = min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])
            steps = [n / 10 for n in range(1, 10)] if away else []
            leader = [_around(x + t * (end_x - x), y + t * (end_y - y), 2) for t in steps]
            if _outside(box, inside) or any(_overlap(box, other) for other in taken):
                continue
            if any(_overlap(part, other) for part in leader for other in crossed):
                continue
            crossings += [box, *leader]
            taken += [box, *leader]
            if away:
                yield f'<path class="leader" d="M{x:.1f} {y:.1f}L{end_x:.1f} {end_y:.1f}"/>'
            yield _text((box[0] + box[2]) / 2, box[3] - 3, escape(short), "middle", ' class="ink"')
            break


def _places(x: float, y: float, wide: float, tall: float = 13.0) -> Iterator[tuple[Box, bool]]:
    """Boxes for a name around its point, the best first; whether each is so far away that a line has to lead there."""
    straight, slanted = ((1, 0), (-1, 0), (0, -1), (0, 1)), ((0.7, 0.7), (0.4, 0.9), (0.9, 0.4))
    beside = DOT + 3
    for distance in (beside, 18.0, 32.0, 50.0, 72.0, 100.0):
        slants = ((side * dx, up * dy) for dx, dy in slanted for up in (-1, 1) for side in (1, -1))
        for across, down in itertools.chain(straight, slants):
            middle_x = x + distance * across + math.copysign(wide / 2, across) * (across != 0)
            middle_y = y + distance * down + math.copysign(tall / 2, down) * (down != 0)
            box = middle_x - wide / 2, middle_y - tall / 2, middle_x + wide / 2, middle_y + tall / 2
            yield box, distance > beside


def _around(x: float, y: float, radius: float) -> Box:
    return x - radius, y - radius, x + radius, y + radius


def _outside(box: Box, inside: Box) -> bool:
    return box[0] < inside[0] or box[1] < inside[1] or box[2] > inside[2] or box[3] > inside[3]


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _span(values: Sequence[float]) -> tuple[float, float]:
    """From zero where the data come near it, so that distances are not blown up."""
    low, high = min(values), max(values)
    low = 0.0 if 0 <= low < 0.5 * high else low
    if low == high:
        margin = abs(low) / 10 or 0.5
        return low - margin, high + margin
    return low, high


def _number(value: float, among: Sequence[float]) -> str:
    """With as many digits as tell it from its neighbours."""
    step = among[1] - among[0] if len(among) > 1 else abs(value) or 1.0
    if max(abs(value) for value in among) < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-") if value else "0"
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:.{digits + (round(step * 10**digits, 6) % 1 > 0)}f}"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1].rstrip()}…"


def _grid(y: float, label: str, right: float = WIDTH - RIGHT) -> str:
    return f'<path class="grid" d="M{LEFT} {y:.1f}H{right:g}"/>{_text(LEFT - 7, y + 4, label, "end")}'


def _text(x: float, y: float, text: str, anchor: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{attributes}>{text}</text>'


def _svg(width: float, height: float, parts: Sequence[str], natural: bool = False) -> str:
    """`natural`: at its own size where there is room for it, else as wide as there is room."""
    size = f' style="width:{width:.0f}px"' if natural else ""
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}"{size} role="img">{"".join(parts)}</svg>'
