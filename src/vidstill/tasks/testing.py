"""Testing a trained model: on its own test videos or on others, and where the result is kept."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from vidstill.config import Clip, ConfigError, Data, Run, resolve, validate
from vidstill.data.annotations import Annotations, read_annotations
from vidstill.devices import make_fabric, threads
from vidstill.files import atomic, locked
from vidstill.models.importing import IMPORTED
from vidstill.models.registry import VideoModel
from vidstill.models.released import released_settings
from vidstill.models.weights import load
from vidstill.overrides import put_all
from vidstill.reporting.log import Log
from vidstill.reporting.report import write_report
from vidstill.tasks.recognition import Recognition, log_problems
from vidstill.tasks.task import Report, Result, chosen_on_test, ignore, tested_split

log = logging.getLogger(__name__)

PLACES = {"root", "format", "train", "val", "test", "splits"}  # settings of `data` that say which videos are meant


def test(
    source: str | Path,
    settings: Sequence[str] = (),
    *,
    recipe: str | Path | None = None,
    clips: int | None = None,
    crops: Literal[1, 3] | None = None,
    report: Report = ignore,
) -> tuple[Path, Result]:
    """Test a run folder or a model file; returns the folder of the result, and the result.

    Without settings a run is tested on its own test videos (validation videos where there are none), with the views of
    its recipe; predictions.csv, the test's row of metrics.jsonl and report.html of the run are replaced. `data.…`
    settings name other videos: their test or validation videos, or all of them where they are not divided. `clip.…`
    settings change what the model is shown. The result of either goes to `tests/<name>` beside the model, where `name`
    is that of the data unless it is set. A released file is tested with the network, classes and views of its `recipe`,
    on the data of that unless others are named; the result goes to `tests/<file>-<name>`. Raises ConfigError where no
    videos or only training videos are named, or a class is unknown.
    """
    path = Path(source)
    home = path if path.is_dir() else path.parent
    own = resolve(home / "config.yaml") if (home / "config.yaml").exists() else None
    own = released_settings(recipe) if recipe else own
    model = load(path, recipe=recipe)
    given: dict[str, Any] = {}
    put_all(given, settings, Run)
    changed = _changed(own, given.get("data", {}))
    if own is None and not PLACES & changed:
        raise ConfigError(
            f"{source} stands alone, without the config.yaml of its run, which names videos: give --data.root VIDEOS"
        )
    elsewhere = own is None or bool(PLACES & changed)
    run = _settings(own, given, model, elsewhere)
    run.test.clips, run.test.crops = clips or run.test.clips, crops or run.test.crops
    fabric = make_fabric(run)
    fabric.launch()
    model.to(fabric.device)
    annotations = read_annotations(run.data, run.seed, known=model.classes)
    if model.classes is None and len(annotations.classes) != model.num_classes:
        raise ConfigError(f"the data has {len(annotations.classes)} classes, the model {model.num_classes}")
    whole = elsewhere and annotations.undivided and not {"fold", "nested"} & changed
    split = _choose(annotations, whole, run.data)
    log_problems(annotations, fabric)
    if elsewhere or changed:
        _warn_of_training_videos(annotations, split, own)
    if own is None and not given.get("test") and None in (clips, crops):
        views = f"{run.test.clips} × {run.test.crops}"
        log.info("the file does not tell the views of its recipe: %s; --clips and --crops choose others", views)
    clip = Clip.model_validate(model.input.model_dump() | given["clip"]) if given.get("clip") else None
    log.info("%d videos are tested: %s of %s", len(annotations.splits[split]), _SAID[split], run.data.root)
    task = Recognition(run, fabric, report, annotations)
    with threads(run.train.threads):
        result = task.test(model, split, report, clip)
    folder = home
    if fabric.is_global_zero:
        if elsewhere or changed or clip or recipe:
            name = given.get("name") or _name(run, clip, model.input, path.stem if recipe else "")
            folder = _folder_of(home / "tests", name, run)
        foreign = recipe or (home / IMPORTED).exists()  # by whatever it was chosen, not by us
        chosen = not (elsewhere or changed or foreign) and chosen_on_test(run, annotations.splits)
        with locked(folder, busy=f"another process writes into {folder}: wait for it, then test again"):
            record(folder, result, run, split=split, chosen=chosen)
            write_report(folder)
    return folder, result


_SAID = {"test": "the test videos", "val": "the validation videos", "all": "all videos"}


def record(folder: Path, result: Result, run: Run, *, split: str, chosen: bool) -> None:
    """The predictions, and the test's row in metrics.jsonl in place of an earlier one.

    `chosen`: the epoch was chosen on the very videos of this test, which the report then says.
    """
    result.write(folder)
    for path, reason in result.unreadable:
        log.warning("not tested: %s (%s)", path, reason)
    rows = Log(folder, keep=lambda row: row["split"] != "test")
    rows.write({
        "split": "test", "step": 0, "videos": result.videos, "tested_split": split, "chosen_on_test": chosen,
        "clips": run.test.clips, "crops": run.test.crops, **result.figures,
        "unreadable": len(result.unreadable), "unreadable_videos": result.unreadable,
    })  # fmt: skip


def _changed(own: Run | None, given: dict[str, Any]) -> set[str]:
    """Settings of `data` that are not as the run has them; all that are given where there is no run."""
    if own is None:
        return set(given)
    before, after = own.data.model_dump(), Data.model_validate(own.data.model_dump() | given).model_dump()
    before["root"], after["root"] = before["root"].absolute(), after["root"].absolute()
    return {name for name, value in after.items() if value != before[name]}


def _settings(own: Run | None, given: dict[str, Any], model: VideoModel, elsewhere: bool) -> Run:
    """The run's settings under those that are given. How the run divides its own data says nothing of other data."""
    values = own.model_dump(mode="json") if own else {}
    if elsewhere:
        data = own.data if own else Data(multi_label=model.activation == "sigmoid")
        values["data"] = {"on_error": data.on_error, "multi_label": data.multi_label}
    values["objective"] = "recognise"  # teachers have no part in a test
    values.pop("distil", None)
    for section, setting in given.items():
        both = isinstance(setting, dict) and isinstance(values.get(section), dict)
        values[section] = {**values[section], **setting} if both else setting
    return validate(values, "settings")


def _choose(annotations: Annotations, whole: bool, data: Data) -> str:
    """The split that is tested; `whole`: that of all videos, which is made here."""
    if whole:
        annotations.splits = {"all": [sample for samples in annotations.splits.values() for sample in samples]}
        return "all"
    split = tested_split(annotations.splits)
    if split is None:
        raise ConfigError(
            f"{data.root}: only training videos are named, and a figure on those says nothing; name videos to test on "
            "as --data.test"
        )
    return split


def _warn_of_training_videos(annotations: Annotations, split: str, own: Run | None) -> None:
    known: set[Path] = set()
    with contextlib.suppress(ValueError, OSError):  # the run's own data may be gone
        if own is not None:
            known = {sample.path.resolve() for sample in read_annotations(own.data, own.seed).splits["train"]}
    if seen := sum(sample.path.resolve() in known for sample in annotations.splits[split]):
        log.warning("%d of the tested videos are training videos of this run: the figure is too good", seen)


def _name(run: Run, clip: Clip | None, usual: Clip, file: str = "") -> str:
    """Of the folder of a result: the file where it is one of many, the data, and what of the clips is not as usual."""
    root = run.data.root.absolute()
    name = root.stem if root.is_file() else root.name
    name = f"{file}-{name}" if file else name
    if clip:
        changed = [f"{key}-{value}" for key, value in clip.model_dump().items() if value != getattr(usual, key)]
        name = "-".join([name, *changed])
    return re.sub(r"[^\w.+-]+", "_", name).strip("._") or "data"


def _folder_of(tests: Path, name: str, run: Run) -> Path:
    """`tests/name`, or with a number behind it where that holds a test by other settings."""
    text = run.model_copy(update={"name": name}).to_yaml()
    for number in range(1, 1000):
        folder = tests / (name if number == 1 else f"{name}-{number}")
        settings = folder / "config.yaml"
        if not settings.exists() or settings.read_text(encoding="utf-8") == text:
            break
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(settings) as file:
        file.write(text.encode())
    return folder
