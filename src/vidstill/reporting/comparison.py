"""Models side by side: which runs are one row, what each row achieved and what it costs."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import logging
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vidstill.config import recipe_names, resolve
from vidstill.data.isolated import Lost, isolated
from vidstill.evaluation.cost import Cost, find_device, machine_load, measure
from vidstill.evaluation.metrics import headline, per_cent
from vidstill.models.catalogue import CATALOGUE, CLASSES, Configuration, configurations, matching
from vidstill.models.registry import VideoModel, create_model, list_models
from vidstill.models.released import recipe_classes
from vidstill.models.weights import describe, describes_itself, load
from vidstill.reporting.folder import read_rows, read_settings

log = logging.getLogger(__name__)

SEED = re.compile(r"-s\d+$")  # what tells the folders of one run with several seeds apart
PATIENCE = 3600.0  # seconds for one model
UNSTEADY = 0.2  # width of the median's interval over the median; a quiet machine stays below a tenth
BUSY = 0.9  # share of the time for which a quiet machine's forward has a core at least
NAME = "–"  # of a network that its file does not name


@dataclass
class Row:
    """A model of the comparison: a run, the runs of one recipe with several seeds, a recipe, or a registered name."""

    name: str
    model: str
    source: Path | None = None  # of the weights; None: random ones
    recipe: str | None = None  # whose network, at the clip of its test or of its published figure; of a released file
    top1: list[float] = field(default_factory=list)  # of the test, per cent, one of each seed
    mean_ap: list[float] = field(default_factory=list)  # instead, where videos have several classes
    tested: str = ""  # on what
    chosen_on_test: bool = False  # the epoch was chosen on these very videos
    published: Configuration | None = None  # where it has a figure, with this network and this clip
    teacher: str = ""
    cost: Cost | None = None

    @property
    def results(self) -> list[float]:
        return self.top1 or self.mean_ap

    @property
    def deviation(self) -> float:
        """Sample standard deviation over the seeds."""
        return statistics.stdev(self.results) if len(self.results) > 1 else 0.0


@dataclass
class _Run:
    """A trained model and what its folder says of it."""

    path: Path
    about: dict[str, Any]  # best.json
    settings: dict[str, Any]  # config.yaml, or nothing
    test: dict[str, Any]  # the test's row of metrics.jsonl, or nothing


def compare(
    sources: Sequence[str | Path] = (),
    models: str | None = None,
    *,
    recipe: str | None = None,
    device: str = "cpu",
    frames: int | None = None,
    size: int | None = None,
    threads: int | None = None,
    repeats: int = 10,
    bf16: bool = False,
    report: Callable[[dict[str, Any]], None] = lambda event: None,
) -> list[Row]:
    """The rows of `sources` (run folders, model files, released files of `recipe`, recipes by name or pattern) and of
    the registered models that match `models`, measured; without both, of all registered models.

    Every model is measured alone in a process of its own, one clip at a time, in its form for inference; `frames` and
    `size` take the place of its own. Runs are one row where their folders differ by a trailing `-s0`, `-s1`, … or
    their settings by the seed. What may have spoilt the times is logged. Raises ValueError for a source that is
    neither, an unknown model, device or number.
    """
    find_device(device)
    for name, value in (("frames", frames), ("size", size), ("threads", threads), ("repeats", repeats)):
        if value is not None and value < 1:
            raise ValueError(f"{name} {value}: give 1 or more")
    rows = _asked(sources, recipe, frames, size) + (_registered(models or "*") if models or not sources else [])
    load = machine_load()
    if device == "cpu" and load and load[0] > load[1]:
        log.warning("load %.1f on %d cores: other work runs here, times will be too long and scatter", *load)
    options = {"device": device, "frames": frames, "size": size, "threads": threads, "repeats": repeats, "bf16": bf16}
    done = 0
    # a process that has measured another model has a heap already; where nothing is computed that is of no account
    for together in [rows] if device == "meta" else [[row] for row in rows]:
        report({"what": "measuring", "done": done, "total": len(rows), "detail": together[0].name})
        jobs = [(row, options) for row in together]
        for place, outcome in isolated(_cost, jobs, [PATIENCE] * len(jobs), 1):
            row, done = together[place], done + 1
            if not isinstance(outcome, Lost):
                row.cost = outcome
                for doubt in doubts(outcome):
                    log.warning("%s: %s", row.name, doubt)
            elif len(rows) == 1:
                raise ValueError(f"{row.name} cannot be measured: {outcome.reason}")
            else:
                log.warning("%s cannot be measured: %s", row.name, outcome.reason)
            report({"what": "measuring", "done": done, "total": len(rows), "detail": row.name})
    for row in rows:
        if row.source and not row.recipe and not row.results:
            home = row.source if row.source.is_dir() else row.source.parent
            alone = not (home / "config.yaml").exists()
            command = f"vidstill test {row.source}{' --data.root VIDEOS' * alone}"
            log.warning("%s has no test result: `%s` makes one", row.name, command)
    return rows


def doubts(cost: Cost) -> list[str]:
    """Why its time may not be the model's own."""
    found: list[str] = []
    if cost.ms is None or cost.ms_low is None or cost.ms_high is None:
        return found
    if (scatter := (cost.ms_high - cost.ms_low) / cost.ms) > UNSTEADY:
        found.append(f"its times scatter by {per_cent(scatter, 0)}: measure on a quiet machine, with more --repeats")
    if cost.cpu_share is not None and cost.cpu_share < BUSY:
        found.append(f"it waited for a core {per_cent(1 - cost.cpu_share, 0)} of the time: other work runs here")
    if cost.one_thread_ms is not None and cost.one_thread_ms < BUSY * cost.ms:
        found.append(
            f"{cost.ms:.3g} ms on {cost.threads} threads, {cost.one_thread_ms:.3g} ms on one: leave out --threads, or "
            "give --threads 1"
        )
    return found


def _asked(sources: Sequence[str | Path], recipe: str | None, frames: int | None, size: int | None) -> list[Row]:
    """The rows of run folders, model files and recipes; a file or folder of that name goes before a recipe."""
    trained: list[str | Path] = []
    recipes: list[str] = []
    released: list[Row] = []
    for source in sources:
        yaml = str(source).endswith((".yaml", ".yml"))
        named = [str(source)] if yaml else fnmatch.filter(recipe_names(), str(source))
        if named and (yaml or not Path(source).exists()):
            recipes += named
        elif recipe and Path(source).exists() and not describes_itself(Path(source)):
            released.append(replace(_of_recipe(recipe, frames, size), name=Path(source).stem, source=Path(source)))
        elif Path(source).exists() or Path(source).suffix:
            trained.append(source)
        else:
            near = difflib.get_close_matches(str(source), recipe_names(), 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"{source} is neither a run folder nor a model file nor a recipe{hint}")
    if recipe and not released:
        raise ValueError(
            f"recipe {recipe} is for released files, and none is among what is to be compared: leave it out"
        )
    return _trained(trained) + released + [_of_recipe(recipe, frames, size) for recipe in dict.fromkeys(recipes)]


def _of_recipe(recipe: str, frames: int | None, size: int | None) -> Row:
    row, known = Row(recipe, resolve(recipe).model.name, recipe=recipe), configurations(recipe).get(recipe)
    if known and known.top1 is not None and frames in (None, known.frames) and size in (None, known.size):
        row.published = known
    return row


def _trained(paths: Sequence[str | Path]) -> list[Row]:
    """A row for each group of runs that differ in nothing but the seed."""
    runs: dict[Path, _Run] = {}
    for path in map(Path, paths):
        about, weights = describe(path)
        if not isinstance(about.get("architecture"), dict) or not isinstance(about.get("input"), dict):
            raise ValueError(f"{weights.with_suffix('.json')} does not describe a model: train it again")
        folder = weights.parent
        rows = read_rows(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else []
        settings = read_settings(folder / "config.yaml") if (folder / "config.yaml").exists() else {}
        test = next((row for row in reversed(rows) if row.get("split") == "test" and headline(row)), {})
        runs[weights.resolve()] = _Run(path, about, settings, test)
    groups: list[list[_Run]] = []
    for run in runs.values():
        if (group := next((group for group in groups if _alike(run, group[0])), None)) is not None:
            group.append(run)
        else:
            groups.append([run])
    homes = [_home(group[0].path) for group in groups]
    several = [len(group) > 1 for group in groups]
    names = _short_names([_without_seed(home) if more else home for home, more in zip(homes, several, strict=True)])
    return [_row(name, group) for name, group in zip(names, groups, strict=True)]


def _row(name: str, group: Sequence[_Run]) -> Row:
    first, tests = group[0], [run.test for run in group if run.test]
    classes = len(first.about.get("classes") or ())
    top1, mean_ap = ([100 * test[key] for test in tests if key in test] for key in ("top1", "mAP"))
    tested = f"{tests[0].get('videos', '?')} videos, {classes} classes" if tests else ""
    return Row(
        name,
        first.about["architecture"].get("name", NAME),
        first.path,
        top1=top1,
        mean_ap=mean_ap,
        tested=f"{tested}, mAP" if mean_ap else tested,
        chosen_on_test=any(test.get("chosen_on_test") is True for test in tests),
        teacher=", ".join(_teachers(first)),
    )


def _alike(one: _Run, other: _Run) -> bool:
    """The same network on the same classes, under names or with settings that differ by the seed alone."""
    if any(one.about.get(part) != other.about.get(part) for part in ("architecture", "classes")):
        return False
    if any(one.about["input"].get(part) != other.about["input"].get(part) for part in ("frames", "size")):
        return False
    if _without_seed(_home(one.path)) == _without_seed(_home(other.path)):
        return True
    return bool(one.settings) and _recipe(one.settings) == _recipe(other.settings)


def _recipe(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without the seed and without where things lie: embedded data are made from the seed, too."""
    kept = {name: value for name, value in settings.items() if name not in ("name", "out", "seed")}
    if kept.get("data", {}).get("format") == "synthetic":
        kept["data"] = {**kept["data"], "root": None}
    return kept


def _teachers(run: _Run) -> list[str]:
    """Names of the folders or files whose models taught this one, as the model file or the settings tell."""
    if run.settings.get("objective") != "distil":
        return []
    provenance = run.about.get("provenance", {})
    told = provenance.get("teachers") or run.settings.get("distil", {}).get("teacher") or []
    sources = [one["source"] if isinstance(one, dict) else one for one in ([told] if isinstance(told, str) else told)]
    return _short_names([_home(Path(source)) for source in sources])


def _without_seed(home: Path) -> Path:
    return home.with_name(SEED.sub("", home.name))


def _home(path: Path) -> Path:
    """What a model goes by: the folder of a run, else its file."""
    whole = path.resolve()
    return whole.parent if whole.stem == "best" else whole


def _short_names(homes: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    names: list[str] = []
    for depth in range(1, max((len(home.parts) for home in homes), default=0) + 1):
        names = [str(Path(*home.parts[-depth:])) for home in homes]
        if len(set(names)) == len(names):
            break
    return names


def _registered(pattern: str) -> list[Row]:
    if not (found := list(matching(pattern))):
        raise ValueError(f"no model matches {pattern!r}; known: {', '.join(CATALOGUE)}")
    return [Row(name, name) for name in found]


def _cost(job: tuple[Row, dict[str, Any]]) -> Cost:
    """Of a row's model, in a process that does nothing else."""
    row, options = job
    list_models()  # loads the code of the models, which is not what is measured
    place = "meta" if options["device"] == "meta" else None
    if row.recipe:
        make: Callable[[], VideoModel] = functools.partial(_build, row.recipe, place, row.source)
    elif row.source:
        make = functools.partial(load, row.source)
    else:
        make = functools.partial(create_model, row.model, device=place)
    return measure(make, **options)


def _build(recipe: str, device: str | None, weights: Path | None = None) -> VideoModel:
    """The network of a recipe with random weights or those of a released file, its `input` the clip of its test or of
    its published figure.

    A recipe of one's own without a class list has 400 classes.
    """
    run, known = resolve(recipe), configurations(recipe).get(recipe)
    frames, size = run.clip.frames, run.test.size or run.clip.size
    classes = len(recipe_classes(recipe, run) or range(400))
    if known:
        frames, size, classes = known.frames, known.size, CLASSES[known.data]
    if weights:
        model = load(weights, recipe=recipe)
    else:
        model = create_model(run.model.name, classes, device=device, **run.model.options)
    model.input = run.clip.model_copy(update={"frames": frames, "size": size})
    return model
