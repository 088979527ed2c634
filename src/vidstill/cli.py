"""The command line: verbs → functions, no logic. Each imports what it needs when it runs."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from vidstill.config import ConfigError, recipe_names, resolve
from vidstill.files import atomic
from vidstill.terminal import UnforeseenError, closed_streams, foreseen, keep_traceback, one_line, plain, whole_output
from vidstill.terminal import complain as _complain
from vidstill.terminal import say as _say

Settings = Annotated[tuple[str, ...], tyro.conf.Suppress]


def demo(*, out: Path = Path("runs"), seed: int = 0) -> None:
    """Make a small data set, train a teacher, a student alone and a taught one, test, compare, label a video.

    Args:
        out: folder of the run folders
        seed: of the data, the weights and the order
    """
    with _goes_on(lambda: True):
        from vidstill.demo import run_demo

        with _progress() as report:
            page = run_demo(out, seed, report, _say)
    _last(page)


def train(
    recipe: tyro.conf.Positional[str | None] = None, *, print_config: bool = False, settings: Settings = ()
) -> None:
    """Train a recipe, test the best model and write the report. An interrupted run, started again, goes on exactly.

    Every setting can be given as --section.key value, e.g.
    vidstill train ucf101_vfl_net --data.root videos --train.devices 1

    Args:
        recipe: a name from `vidstill recipes` or a YAML file; without one the settings alone count
        print_config: show every resolved setting and stop
    """
    run = resolve(recipe, settings)
    if print_config:
        sys.stdout.write(run.to_yaml())
        return
    with _goes_on((run.folder / "last.pt").exists, log=run.folder / "train.log"):
        from vidstill.training.run import train as start

        with _progress() as report:
            folder = start(run, report)
    _last(folder / "report.html")


def distill(
    recipe: tyro.conf.Positional[str | None] = None,
    *,
    teacher: tuple[str, ...] = (),
    print_config: bool = False,
    settings: Settings = (),
) -> None:
    """Train a recipe's model as the student of a trained teacher, e.g.
    vidstill distill ucf101_dvfl_net --teacher runs/ucf101_video_focalnet_base --data.root videos

    Args:
        recipe: a name from `vidstill recipes` or a YAML file; the run of a plain recipe is named <recipe>-distil
        teacher: run folders or model files; the logits of several are averaged
        print_config: show every resolved setting and stop
    """
    named = ["--distil.teacher", dumps(teacher)] if teacher else []
    train(recipe, print_config=print_config, settings=("--objective", "distil", *named, *settings))


def test(
    model: tyro.conf.Positional[str | None] = None,
    *,
    clips: int | None = None,
    crops: Literal[1, 3] | None = None,
    predictions: Annotated[tuple[Path, ...], tyro.conf.arg(name="from")] = (),
    weights: tuple[float, ...] = (),
    out: Path = Path("ensemble.csv"),
    settings: Settings = (),
) -> None:
    """Test a model on the test videos of its run, or on others given as --data.root, --data.format and so on.

    Args:
        model: run folder or .safetensors file
        clips: temporal views of each video; default the recipe's
        crops: spatial views of each clip; default the recipe's
        predictions: no model, but predictions.csv of earlier tests: scored again, several averaged
        weights: one for each of them
        out: where their average goes
    """
    if (model is None) != bool(predictions):
        raise ConfigError("vidstill test takes either a model or --from predictions.csv …")
    if predictions:
        from vidstill.evaluation.predictions import ensemble, read_predictions, write_predictions

        scored = ensemble([read_predictions(path) for path in predictions], weights)
        write_predictions(out, scored)
        _say(scored.summary())
        return _last(out)
    assert model is not None
    from vidstill.tasks.testing import test as start

    with _progress() as report:
        folder, result = start(model, settings, clips=clips, crops=crops, report=report)
    _say(result.summary())
    _last(folder / "report.html")


def predict(
    sources: tyro.conf.Positional[tuple[str, ...]],
    *,
    model: str,
    top_k: int = 5,
    window: float | None = None,
    stride: float | None = None,
    json: str | None = None,
    video: Path | None = None,
    seconds: float | None = None,
) -> None:
    """Label files, folders, globs, URLs or a camera (camera:0) over sliding windows.

    Args:
        sources: what to label
        model: run folder or .safetensors file
        top_k: classes shown in the terminal for each source
        window: seconds that one score looks at; default the usual length of the training videos, or a clip's length
        stride: seconds between the starts of two windows; default half a window
        json: write the scores of every class to this file, or to the terminal with "-"
        video: write the annotated video (.mp4 or .gif) of a single source here
        seconds: stop after so much of each source; a camera needs it, or Ctrl-C
    """
    from vidstill.inference.live import is_live
    from vidstill.inference.overlay import annotate, record
    from vidstill.inference.predictor import Predictor
    from vidstill.inference.predictor import predict as label

    if video is not None and len(sources) > 1:
        raise ConfigError(f"--video shows one source, {len(sources)} are given: give one file or camera")
    options: dict[str, Any] = {"window": window, "stride": stride, "seconds": seconds}
    with _progress() as report:
        if video is not None and is_live(sources[0]):
            failures: Sequence[ValueError] = []
            predictions = [record(Predictor(model), sources[0], video, top_k=top_k, report=report, **options)]
        else:
            predictions, failures = label(model, *sources, report=report, **options)
        if len(predictions) > 1 and video is not None:
            raise ConfigError(f"--video shows one source, {len(predictions)} were labelled: give one file")
        if video is not None and predictions and not is_live(sources[0]):
            annotate(predictions[0].source, predictions[0], video, top_k=top_k, report=report)
    if json == "-":
        _write_json(json, [prediction.to_dict() for prediction in predictions])
    elif predictions:
        _say(_prediction_table(predictions, top_k))
    for failure in failures:
        _complain(str(failure))
    if json not in (None, "-") and predictions:
        _write_json(str(json), [prediction.to_dict() for prediction in predictions])
        _last(Path(str(json)))
    if video is not None and predictions:
        _last(video)
    if failures:
        raise SystemExit(1)


def explain(
    what: tyro.conf.Positional[Literal["gradcam", "modulators", "gates", "kernels", "tokens"]],
    video: tyro.conf.Positional[str | None] = None,
    *,
    model: str,
    out: Path | None = None,
    layer: str | None = None,
    target: str | None = None,
    layout: Literal["over", "beside"] = "over",
    kind: Literal["spatial", "temporal", "both"] = "both",
) -> None:
    """Picture what a model looks at: gradcam of any model; modulators, gates and kernels of focal ones; token labels.

    Args:
        what: gradcam: evidence for a class; modulators: how strongly each place is modulated; gates: of the last block;
            kernels: of each stage (needs no video); tokens: the class of every token (DualFormer)
        video: what the model looks at
        model: run folder or .safetensors file
        out: .png (a sheet of frames or a figure); gradcam and modulators also .gif or .mp4; default explain-<what>.png
        layer: gradcam: path of a layer, e.g. layers/2; default the model's own choice
        target: gradcam: name or number of the class; default the likeliest
        layout: gradcam: heat over the frame or beside it
        kind: modulators as .gif or .mp4: which ones, or their product
    """
    from vidstill.explain.gradcam import write_grad_cam
    from vidstill.explain.modulators import write_gates, write_kernels, write_modulators
    from vidstill.explain.token_labels import write_token_labels
    from vidstill.models.weights import load

    network, path = load(model), out or Path(f"explain-{what}.png")
    if what == "kernels":
        write_kernels(network, path)
    elif video is None:
        raise ConfigError(f"explain {what} looks at a video: vidstill explain {what} VIDEO --model …")
    elif what == "gradcam":
        number = None if target is None else _class_number(target, network.classes or [])
        write_grad_cam(network, video, path, layer=layer, target=number, layout=layout)
    elif what == "modulators":
        write_modulators(network, video, path, kind=kind)
    elif what == "gates":
        write_gates(network, video, path)
    else:
        write_token_labels(network, video, path)
    _last(path)


def _class_number(given: str, classes: Sequence[str]) -> int:
    """Of a class by name or number. Raises ValueError that suggests a name."""
    if given in classes:
        return list(classes).index(given)
    if given.isdigit():
        return int(given)
    near = difflib.get_close_matches(given, classes, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(classes[:5])} …"
    raise ValueError(f"no class {given!r}: {hint}")


def check(
    data: tyro.conf.Positional[Path],
    *,
    workers: int | None = None,
    out: Path = Path("broken.csv"),
    settings: Settings = (),
) -> None:
    """Decode every video of a data set, look for leaks and labelling errors.

    Args:
        data: folder or csv; more about it as --data.format, --data.classes and so on
        workers: processes; default one per core
        out: csv of the videos with something to say about them, the worst first
    """
    from vidstill.data.check import check_data

    with _progress() as report:
        found = check_data(
            resolve(None, ["--data.root", str(data), *settings]), workers=workers, out=out, report=report
        )
    _say(found.summary())
    _last(out)
    if found.fatal:
        raise SystemExit(1)


def info(
    what: tyro.conf.Positional[str],
    *,
    sample: int = 1000,
    workers: int | None = None,
    settings: Settings = (),
) -> None:
    """Tell what a data set, a trained model, a recipe or a network is: videos and classes; parts and their cost.

    Args:
        what: folder or csv of videos, more about it as --data.format and so on; run folder or .safetensors file;
            recipe; network
        sample: videos of a data set whose headers are read, spread evenly over it; 0 for all
        workers: processes that read them; default one per core
    """
    from vidstill.reporting.info import DETAILS
    from vidstill.reporting.info import info as tell

    with _progress() as report:
        told = tell(what, settings, sample=sample, workers=workers, report=report)
    for one in told:
        _say(one if isinstance(one, str) else _shown(one, DETAILS))


def browse(
    data: tyro.conf.Positional[Path | None] = None,
    *,
    recipe: str | None = None,
    rows: int = 8,
    out: Path = Path("browse.png"),
    settings: Settings = (),
) -> None:
    """Picture what training sees: clips of its first batch, cropped, coloured and blended, as a sheet and moving.

    Args:
        data: folder or csv; more about it as --data.format, --data.classes and so on; default the recipe's own
        recipe: whose clips and augmentation, a name from `vidstill recipes` or a YAML file; settings change them
        rows: clips that are shown
        out: .png; the moving clips lie beside it as .gif
    """
    from vidstill.explain.browse import browse as picture

    root = [] if data is None else ["--data.root", str(data)]
    with _progress() as report:
        written = picture(resolve(recipe, [*root, *settings]), out, rows=rows, report=report)
    for path in written:
        _last(path)


def bench(
    sources: tyro.conf.Positional[tuple[str, ...]] = (),
    *,
    models: str | None = None,
    out: Path = Path("bench"),
    device: str = "cpu",
    frames: int | None = None,
    size: int | None = None,
    threads: int | None = None,
    repeats: int = 10,
    bf16: bool = False,
) -> None:
    """Compare models: accuracy, size, GMACs, milliseconds per clip, memory; as table, chart and page.

    Args:
        sources: run folders or .safetensors files, of which those that differ in the seed alone are one row; recipes by
            name, shell pattern ("k400_*") or .yaml file, with random weights at the clip of their test
        models: registered models too, by shell pattern; all of them where no source is given
        out: folder of bench.html, bench.md, bench.csv and pareto.svg
        device: cpu, cuda, cuda:1, or meta for sizes and GMACs alone
        frames: frames of the clip; default each model's own
        size: side of the clip in pixels; default each model's own
        threads: of the CPU; default as many as pay, found by measuring
        repeats: forwards that the time is the median of
        bf16: measure in bfloat16
    """
    from vidstill.reporting.bench import DETAILS, notes, table
    from vidstill.reporting.bench import bench as compare

    with _progress() as report:
        rows, page = compare(
            sources, models, out=out, device=device, frames=frames, size=size, threads=threads, repeats=repeats,
            bf16=bf16, report=report,
        )  # fmt: skip
    _say(_shown(table(rows), DETAILS))
    for note in notes(rows):
        _say(note)
    _last(page)


def models(pattern: tyro.conf.Positional[str] = "*", *, page: Path | None = None) -> None:
    """List the models, and what was published with which network, clip and cost.

    Args:
        pattern: name or shell pattern of models and recipes, e.g. "*focal*" or k400_slowfast_r50
        page: nothing is listed; all tables go into this Markdown page, between its two marks
    """
    from vidstill.reporting.models import DETAILS, tables, write_page

    if page is not None:
        write_page(page)
        return _last(page)
    for table in tables(pattern):
        _say(_shown(table, DETAILS))


def recipes() -> None:
    """List the shipped recipes; each file says what was published for it."""
    from vidstill.config import RECIPES

    for name in recipe_names():
        first = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
        sys.stdout.write(f"{name:36} {first.lstrip('# ')}\n")


VERBS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (demo, train, distill, test, predict, explain, check, info, browse, bench, models, recipes)
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    verb, *rest = [argument for argument in given if argument != "--debug"] or ["--help"]
    with whole_output():
        if verb in ("-h", "--help"):
            sys.stdout.write(_overview())
        elif verb not in VERBS:
            _complain(f"no command {verb!r}; there are {', '.join(VERBS)}")
            raise SystemExit(2)
        elif code := _run(verb, rest, debug="--debug" in given):
            raise SystemExit(code)


def _run(verb: str, arguments: list[str], debug: bool) -> int:
    """The exit code of a verb, after a line about what went wrong."""
    function, log = VERBS[verb], None
    try:
        if "settings" in inspect.signature(function).parameters:
            settings, arguments = _split_settings(function, arguments)
            function = functools.partial(function, settings=settings)
        tyro.cli(function, prog=f"vidstill {verb}", args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
        return 0
    except KeyboardInterrupt as stopped:
        _complain(str(stopped) or "stopped")
        return 130
    except Exception as caught:
        if isinstance(caught, BrokenPipeError) and closed_streams():
            raise
        error = caught.__cause__ if isinstance(caught, UnforeseenError) and caught.__cause__ else caught
        log = caught.log if isinstance(caught, UnforeseenError) else None
        kept = None
        if debug:
            traceback.print_exception(error)
        elif not foreseen(error):
            kept = keep_traceback(error, log)
        _complain(one_line(error) + (f"; the traceback is in {kept}, --debug shows it" if kept else ""))
        return 2 if isinstance(error, ConfigError) else 1


@contextlib.contextmanager
def _goes_on(saved: Callable[[], bool], log: Path | None = None) -> Iterator[None]:
    """For a run that starts where it stopped, if something is `saved`, and keeps a `log`."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; the same command goes on from here" if saved() else "stopped") from None
    except Exception as error:
        if log is None or foreseen(error):
            raise
        raise UnforeseenError(log) from error


def _split_settings(function: Callable[..., None], arguments: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Arguments that are not the verb's own are settings of the run (`--train.batch 4`, `--name x`), as are all the
    pairs after OpenMMLab's `--cfg-options`."""
    own = {name.replace("_", "-") for name in inspect.signature(function).parameters if name != "settings"}
    settings: list[str] = []
    rest: list[str] = []
    option = ""  # a setting that may have a value next
    for argument in arguments:
        if argument.startswith("--"):
            key = argument[2:].partition("=")[0].replace("_", "-")
            is_own = key in own | {"help", "from"}
            option = "" if is_own or "=" in argument else key
            (rest if is_own else settings).append(argument)
        elif option and (option != "cfg-options" or "=" in argument):
            settings.append(argument)
            option = option if option == "cfg-options" else ""
        else:
            rest.append(argument)
    return tuple(settings), rest


def _overview() -> str:
    lines = [f"  {name:9} {(inspect.getdoc(verb) or '').splitlines()[0]}\n" for name, verb in VERBS.items()]
    debug = "With any command: --debug shows the traceback of an error.\n"
    return f"usage: vidstill COMMAND [--help] [--debug] …\n\n{''.join(lines)}\n{debug}"


def _shown(columns: Mapping[str, Sequence[Any]], details: Sequence[str]) -> Any:
    """Columns of cells as a table for the terminal, without `details` where that is too narrow."""
    from rich.console import Console
    from rich.table import Table

    console, drawn = Console(), Table()
    unbounded = console.options.update(max_width=10_000)
    for left_out in ((), details):
        kept = {title: column for title, column in columns.items() if title not in left_out}
        drawn = Table(*kept, box=None, header_style="bold")
        drawn.columns[0].no_wrap = True
        for cells in zip(*kept.values(), strict=True):
            drawn.add_row(*(cell.shown for cell in cells))
        if console.measure(drawn, options=unbounded).maximum <= console.width:
            break
    return drawn


def _last(path: Path) -> None:
    """Where the output went, said once by a run of many processes."""
    if all(os.environ.get(rank, "0") == "0" for rank in ("RANK", "LOCAL_RANK", "NODE_RANK")):
        sys.stdout.write(f"{plain(str(path))}\n")


def _write_json(target: str, value: Any) -> None:
    """A file, or "-" for the terminal, in characters that any has. What is not Unicode in a name is escaped."""
    if target == "-":
        sys.stdout.write(dumps(value, indent=1) + "\n")
    else:
        with atomic(Path(target)) as file:
            file.write(dumps(value, indent=1, ensure_ascii=False).encode(errors="backslashreplace") + b"\n")


def _prediction_table(predictions: Sequence[Any], top_k: int) -> Any:
    from rich.table import Table

    table = Table("class", "score", "next", "source", box=None, header_style="bold")
    table.columns[-1].overflow = "fold"
    for prediction in predictions:
        (first, score), *others = prediction.top(top_k)
        table.add_row(
            first, f"{score:.3f}", "  ".join(f"{name} {s:.3f}" for name, s in others), plain(prediction.source)
        )
    return table


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[dict[str, Any]], None]]:
    """A bar for each {"what", "done", "total", "detail"} that is reported; what the library logs goes above it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, transient=True) as progress, _logged_to(progress.console):
        tasks: dict[str, Any] = {}

        def report(event: dict[str, Any]) -> None:
            what, finished = plain(event["what"]), event["done"] >= event["total"]
            if what not in tasks:
                tasks[what] = progress.add_task(what, detail="")
            progress.update(
                tasks[what], completed=event["done"], total=event["total"], detail=plain(event.get("detail", "")),
                visible=not finished,
            )  # fmt: skip

        yield report


@contextlib.contextmanager
def _logged_to(console: Any) -> Iterator[None]:
    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            style = "yellow" if record.levelno >= logging.WARNING else None
            console.print(
                plain(record.getMessage(), keep="\n"), style=style, markup=False, highlight=False, soft_wrap=True
            )

    logger, handler = logging.getLogger("vidstill"), Lines()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
