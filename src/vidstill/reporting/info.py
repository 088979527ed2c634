"""What a data set, a recipe, a registered network or a trained model is, as lines and tables for a terminal."""

from __future__ import annotations

import difflib
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from vidstill.config import Clip, ConfigError, recipe_names, resolve
from vidstill.data.facts import SAMPLE, DataFacts, data_facts, shared_sources
from vidstill.data.rows import is_video_name
from vidstill.evaluation.anatomy import Part, parts
from vidstill.evaluation.metrics import headline, per_cent
from vidstill.labels import class_names
from vidstill.models.catalogue import CATALOGUE, CLASSES, Configuration, configurations
from vidstill.models.registry import VideoModel, create_model
from vidstill.models.weights import describe, fetch, load
from vidstill.reporting.folder import read_rows, tested_row
from vidstill.reporting.tables import Cell, Table, amount, digits, text
from vidstill.video.decode import probe
from vidstill.video.frame_folder import is_frame_folder

ALL_CLASSES, FEW = 30, 10  # classes that are listed one by one; else so many of the largest and the smallest
USUAL = 3  # values of a kind that are listed, the most usual first
LONGEST_LIST = 200  # letters of a list that is cut
RELEASED = {".pth", ".pyth", ".pt", ".th", ".tar", ".ckpt", ".pkl"}  # files of weights that others made
DETAILS = ("kind",)  # columns for which a terminal may be too narrow

Said = str | Table


def info(
    what: str,
    settings: Sequence[str] = (),
    *,
    recipe: str | None = None,
    sample: int = SAMPLE,
    workers: int | None = None,
    report: Callable[[dict[str, Any]], None] = lambda event: None,
) -> list[Said]:
    """What `what` is: a run folder, a model file or `hf://` address, a released file with its `recipe`, a video, a
    recipe or a registered network, else a folder or list of videos. A file or folder of that name goes before a recipe
    and a network.

    `settings` are more about data, a recipe or a network; `sample`, `workers` and `report` are of `data_facts`. Raises
    ValueError for something else, ConfigError for settings of a trained model, which has its own.
    """
    path = Path(what).expanduser()
    saved = what.startswith("hf:") or path.suffix == ".safetensors" or (path / "best.safetensors").is_file()
    if saved or (path.suffix == ".json" and path.with_suffix(".safetensors").is_file()):
        if settings:
            raise ConfigError(f"{what} is a trained model, which has its own settings: leave out {settings[0]}")
        return _of_trained(what, recipe)
    if recipe or (path.suffix in RELEASED and path.is_file()):
        return _of_trained(what, recipe)
    if path.suffix in (".yaml", ".yml"):
        return _of_recipe(what, settings)
    if (path / "config.yaml").is_file():  # a run that has not finished an epoch
        return _of_recipe(str(path / "config.yaml"), settings)
    if (path.is_file() and is_video_name(path.name)) or is_frame_folder(path):
        return [_of_video(path)]
    if path.exists():
        run = resolve(None, ["--data.root", what, *settings])
        return data_tables(data_facts(run, sample=sample, workers=workers, report=report), what)
    if what in recipe_names():
        return _of_recipe(what, settings)
    if what in CATALOGUE:
        model = create_model(what, device="meta", **resolve(None, ["--model.name", what, *settings]).model.options)
        used = [name for name, row in configurations(what).items() if row.model == what]
        return model_tables(model, {"recipes": _cut(used)})
    near = difflib.get_close_matches(what, [*CATALOGUE, *recipe_names()], 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"{what} is no folder or list of videos, run folder, model file, recipe or network{hint}")


def data_tables(facts: DataFacts, what: str) -> list[Said]:
    """The splits, the videos and the classes of a data set, and what is to be said about them."""
    said: list[Said] = [_splits(facts), *_division(facts), _videos(facts, what), *_classes(facts)]
    said += [f"note: {note}" for note in facts.annotations.notes]
    if facts.missing:
        said.append(f"missing: {facts.missing} files are not there")
    for video, reason in [*facts.unreadable.items()][:USUAL]:
        said.append(f"unreadable: {video}: {reason}")
    if len(facts.unreadable) > USUAL:
        said.append(f"unreadable: {len(facts.unreadable) - USUAL} more")
    return [*said, f"headers alone were read: `vidstill check {what}` decodes every video and looks for leaks"]


def model_tables(model: VideoModel, about: dict[str, str]) -> list[Said]:
    """The parts of a model, and what is known `about` it besides."""
    found = parts(model)
    clip = model.input
    gmacs, parameters = sum(one.gmacs for one in found), sum(one.numel() for one in model.parameters())
    rows = {
        "options": _cut([f"{name} {value}" for name, value in model.options.items()]),
        "parameters": f"{digits(parameters / 1e6)} M, {digits(parameters * 4 / 1e6)} MB as float32",
        "multiply-adds": f"{digits(gmacs)} G for one clip",
        "clip": _clip(clip),
        "scores": f"{model.num_classes} classes, {model.activation}" + (
            f": {_cut(model.classes)}" if model.classes else ""
        ),
        **about,
    }  # fmt: skip
    shown = {name: value for name, value in rows.items() if value}
    return [_facts("network", model.name, shown), _parts(found)]


def _of_video(path: Path) -> Table:
    found = probe(path)
    turned = f", turned by {found.rotation}°" if found.rotation else ""
    rate = f"{found.fps:.5g} frames per second" + (" assumed" if path.is_dir() else "")
    told = {
        "length": f"{found.seconds:.2f} s, {found.frames} frames",
        "rate": rate,
        "size": f"{found.width}x{found.height}{turned}",
        "codec": found.codec,
    }
    return _facts("video", str(path), told)


def _of_trained(what: str, recipe: str | None) -> list[Said]:
    if recipe is not None:
        return model_tables(load(what, recipe=recipe), {"recipe": recipe, "file": _file(fetch(what))})
    about, weights = describe(what)
    model = load(what)
    figures = {**about.get("metrics", {})}
    rows = read_rows(weights.parent / "metrics.jsonl") if (weights.parent / "metrics.jsonl").is_file() else []
    test = tested_row(rows) if weights.stem == "best" else {}
    told = {
        "validated": _figures(figures),
        "tested": f"{_figures(test)} on {test.get('videos', '?')} videos" if headline(test) else "",
        **{name: _value(value) for name, value in about.get("provenance", {}).items()},
        "file": _file(weights),
    }
    return model_tables(model, told)


def _file(weights: Path) -> str:
    return f"{weights}, {digits(weights.stat().st_size / 1e6)} MB"


def _of_recipe(recipe: str, settings: Sequence[str]) -> list[Said]:
    """The network of a recipe with as many classes as its data set has, at the clip of its test."""
    run, known = resolve(recipe, settings), configurations(recipe).get(recipe)
    classes = CLASSES[known.data] if known else 400
    names = class_names(run.data.classes) if run.data.classes else None
    model = create_model(run.model.name, len(names) if names else classes, device="meta", **run.model.options)
    model.input = run.clip.model_copy(update={"size": run.test.size or run.clip.size})
    model.classes = names
    if known and not settings:
        model.input = run.clip.model_copy(update={"frames": known.frames, "size": known.size})
    if run.data.multi_label:
        model.activation = "sigmoid"
    training = f"{run.train.epochs} epochs of {run.train.batch} clips a step"
    if (processes := run.train.devices * run.train.nodes) > 1:
        training += f" on {processes} devices"
    weights = f"{run.model.weights}" if run.model.weights else "random at first"
    return model_tables(model, {"published": _published(known), "training": training, "weights": weights})


def _published(known: Configuration | None) -> str:
    if known is None or not known.source:
        return ""
    figure = f"{known.figure} % top-1, {known.views} views" if known.figure else "no figure"
    return f"{figure}; {known.source}" + (f"; {known.remark}" if known.remark else "")


def _clip(clip: Clip) -> str:
    step = "" if clip.spans else f", interval {clip.interval}"
    rate = f" at {clip.fps:g} fps" if clip.fps else ""
    usual = f"; usual video {clip.seconds:.1f} s" if clip.seconds else ""
    return f"{clip.frames} frames of {clip.size}², {clip.sampling}{step}{rate}{usual}"


def _parts(found: Sequence[Part]) -> Table:
    rows: list[tuple[str, Part]] = []
    for part in found:
        rows.append((part.path, part))
        rows += [(f"  {one.path.removeprefix(f'{part.path}.')}", one) for one in part.inside]
    whole = sum(part.gmacs for part in found)
    places = max(0, 3 - math.floor(math.log10(whole))) if whole else 0  # so that the least of them are told apart
    return {
        "part": [text(name + (f" ×{one.count}" if one.count > 1 else "")) for name, one in rows],
        "kind": [text(one.kind) for _, one in rows],
        "parameters": [_count(one.parameters) for _, one in rows],
        "GMACs": [Cell(f"{one.gmacs:.{places}f}", one.gmacs) if one.gmacs else text("") for _, one in rows],
        "hands on": [text(", ".join(map(_shape, one.outputs))) for _, one in rows],
    }


def _shape(shape: Sequence[int]) -> str:
    """Channels × frames × height × width, the last two together where they are alike."""
    if len(shape) == 4 and shape[2] == shape[3]:
        return f"{shape[0]}×{shape[1]}×{shape[2]}²"
    return "×".join(map(str, shape))


def _splits(facts: DataFacts) -> Table:
    """Of the videos whose headers were read the seconds are known; those of a split are reckoned from their mean."""
    splits = facts.annotations.splits
    sources = [len({one.group for one in samples if one.group}) for samples in splits.values()]
    seconds, exact = [], facts.asked == facts.videos
    for samples in splits.values():
        read = [facts.headers[one.video].seconds for one in samples if one.video in facts.headers]
        seconds.append(statistics.mean(read) * len(samples) if read else 0.0)
    sizes = [sum(facts.sizes.get(path, 0) for path in {one.path for one in samples}) for samples in splits.values()]
    return {
        "split": [text(name) for name in splits],
        "videos": [_count(len(samples)) for samples in splits.values()],
        "classes": [_count(len({label for one in samples for label in one.labels})) for samples in splits.values()],
        "sources": [_count(count) for count in sources],
        "length": [text(("" if exact else "about ") + _duration(total)) for total in seconds],
        "MB": [amount(size, scale=1e-6) for size in sizes],
    }


def _division(facts: DataFacts) -> list[str]:
    """Where the splits come from, and what a division by source would do."""
    splits = facts.annotations.splits
    lines = []
    if facts.annotations.undivided:
        lines.append("the videos come undivided: data.split, data.folds and data.fold make the splits above")
    if "train" in splits:
        for name in splits.keys() - {"train"}:
            if shared := shared_sources(splits[name], splits["train"]):
                lines.append(f"{shared} sources of {name} are in train too, which makes its figure too good")
    if facts.grouped:
        sizes = ", ".join(f"{name} {count}" for name, count in facts.grouped.items())
        lines.append(f"--data.split group keeps sources together: {sizes}")
    elif facts.annotations.undivided and not facts.sources:
        lines.append("no sources are known: if several videos are of one recording, --data.group tells which")
    return lines


def _videos(facts: DataFacts, what: str) -> Table:
    headers = [*facts.headers.values()]
    read = f"{len(headers)} of {facts.asked}"
    if facts.asked < facts.videos:
        read = f"{len(headers)} of {facts.asked} tried, spread evenly over {facts.videos:,} videos"
    rows = {"headers read": read}
    if headers:
        shapes = Counter(f"{one.width}×{one.height}" for one in headers)
        widths, heights = [one.width for one in headers], [one.height for one in headers]
        extent = f"{min(widths)}–{max(widths)} × {min(heights)}–{max(heights)}"
        sizes = f"{_usual(shapes)}; {extent}" if len(shapes) > USUAL else _usual(shapes)
        rows |= {
            "seconds": _spread([one.seconds for one in headers]),
            "frames": _spread([one.frames for one in headers]),
            "size": f"{len(shapes)} sizes, {extent}" if len(shapes) > len(headers) / 2 > USUAL else sizes,
            "frames per second": _usual(Counter(f"{one.fps:.4g}" for one in headers)),
            "codec": _usual(Counter(one.codec for one in headers)),
        }
    if turned := sum(one.rotation != 0 for one in headers):
        rows["turned"] = f"{turned} videos are shown turned, as their headers say"
    if sources := facts.sources:
        most = sources.most_common(1)[0]
        rows["sources"] = f"{len(sources)}, the largest {most[0]} with {most[1]} videos"
    return _facts("videos", what, rows)


def _classes(facts: DataFacts) -> list[Said]:
    names, counts = facts.annotations.classes, facts.class_counts()
    totals = [sum(counts[split][label] for split in counts) for label in range(len(names))]
    order = [*range(len(names))]
    said: list[Said] = []
    if len(names) > ALL_CLASSES:
        ranked = sorted(order, key=lambda label: -totals[label])
        order = ranked[:FEW] + ranked[-FEW:]
    whole = sum(totals)
    said.append({
        "class": [text(names[label]) for label in order],
        **{split: [_count(count[label]) for label in order] for split, count in counts.items()},
        "share": [text(per_cent(totals[label] / whole)) for label in order],
    })  # fmt: skip
    if len(order) < len(names):
        said.append(f"the {FEW} largest and {FEW} smallest of {len(names)} classes")
    base = counts.get("train", totals)
    where = "training videos" if "train" in counts else "videos"
    least, most = min(base), max(base)
    largest = f"{names[base.index(most)]} has {most} {where}, {names[base.index(least)]} {least}"
    if least == most:
        said.append(f"balanced: every class has {most} {where}")
    else:
        said.append(f"imbalance {most / least:.1f} : 1: {largest}" if least else f"imbalance: {largest}")
    return said


def _facts(title: str, about: str, rows: dict[str, str]) -> Table:
    """Two columns, what and how."""
    return {title: [text(name) for name in rows], about: [text(value) for value in rows.values()]}


def _count(number: int) -> Cell:
    return Cell(f"{number:,}", number) if number else text("")


def _figures(metrics: dict[str, Any]) -> str:
    names = {"top1": "top-1", "top5": "top-5", "mAP": "mAP"}
    return ", ".join(f"{shown} {per_cent(metrics[name])}" for name, shown in names.items() if name in metrics)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return _cut([f"{name} {one}" for name, one in value.items()])
    return _cut([_value(one) for one in value]) if isinstance(value, list) else str(value)


def _spread(values: Sequence[float]) -> str:
    form = ",.1f" if isinstance(values[0], float) else ",.0f"
    least, most, median = (format(value, form) for value in (min(values), max(values), statistics.median(values)))
    return least if least == most else f"{least} to {most}, median {median}"


def _usual(counts: Counter[str]) -> str:
    """The most usual values, each with how many have it."""
    if len(counts) == 1:
        return next(iter(counts))
    listed = ", ".join(f"{value} ({count})" for value, count in counts.most_common(USUAL))
    return listed + (f" and {len(counts) - USUAL} more" if len(counts) > USUAL else "")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.0f} h"


def _cut(items: Iterable[str], letters: int = LONGEST_LIST) -> str:
    """As many as fit, and how many there are besides."""
    names, shown = [*items], ""
    for number, name in enumerate(names):
        longer = f"{shown}, {name}" if shown else name
        if number and len(longer) > letters:
            return f"{shown} and {len(names) - number} more"
        shown = longer
    return shown
