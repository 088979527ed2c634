"""The command line as a person uses it: verbs, last lines, exit codes, one-line errors."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from vidstill.cli import VERBS, _write_json, main
from vidstill.files import read_csv


@pytest.fixture(scope="module")
def trained(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    main([
        "train", "--data.format", "folders", "--data.root", str(embedded), "--out", str(folder), "--name", "model",
        "--model.options", "{width: 8, depths: [1, 1], focal_levels: [1, 1], focal_windows: [3, 3]}",
        "--clip.size", "32", "--clip.frames", "4", "--optim.reference_batch", "null", "--train.batch", "4",
        "--train.epochs", "1", "--train.workers", "0", "--test.clips", "1", "--test.crops", "1",
    ])  # fmt: skip
    return folder / "model"


@pytest.fixture
def video(embedded: Path) -> str:
    return str(sorted((embedded / "test").rglob("*.mp4"))[0])


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.strip().splitlines()[-1]


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"  {verb} " in shown for verb in VERBS)


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in VERBS)])
def test_help_fits_the_terminal(
    arguments: list[str], columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with contextlib.suppress(SystemExit):
        main(arguments)
    shown = capsys.readouterr().out
    usage = [line for line in shown.splitlines() if line.startswith("usage:")]  # one line by tyro's own choice
    assert len(usage) == 1
    assert max(len(line) for line in shown.splitlines() if line not in usage) <= columns
    for verb in {"train", "distill"} & {*arguments}:  # the example can be copied as one line
        assert columns < 80 or re.search(rf"^vidstill {verb} .*--data.root videos", shown, re.M)


def test_a_mistyped_verb_is_corrected(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["trian"])
    assert "did you mean train?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["models"], ["recipes"], ["fly"], ["train", "demo", "--print-config"], ["train", "demo", "--x", "1"],
     *([verb, "--help"] for verb in VERBS)],
)  # fmt: skip
def test_light_verbs_answer_without_heavy_libraries(arguments: list[str]) -> None:
    """Which take seconds to load; these are to answer in half a one."""
    code = f"""
import sys
from vidstill.cli import main
try:
    main({arguments!r})
finally:
    sys.stderr.write(" ".join({{"torch", "numpy", "av", "cv2", "lightning_fabric"}} & {{*sys.modules}}) + "|")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "|", done.stderr


def test_a_run_is_tested_predicts_and_is_compared(
    trained: Path, video: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["test", str(trained), "--clips", "2"])
    assert last_line(capsys) == str(trained / "report.html")
    tested, average = str(trained / "predictions.csv"), str(tmp_path / "both.csv")
    main(["test", "--from", tested, tested, "--weights", "1", "2", "--out", average])
    assert last_line(capsys) == average
    steering = tmp_path / "a\x1b[2J\n\u202e\udcff.mp4"
    shutil.copy(video, steering)
    main(["predict", str(steering), "--model", str(trained)])
    shown = capsys.readouterr()
    assert "\\x1b[2J" in shown.out and not set(shown.out + shown.err) & set("\x1b\u202e\udcff")
    labels = tmp_path / "labels.json"
    main(["predict", video, "--model", str(trained), "--json", str(labels)])
    assert last_line(capsys) == str(labels)
    (prediction,) = json.loads(labels.read_text())
    assert prediction["source"] == video
    main(["bench", str(trained), "--out", str(tmp_path / "bench"), "--repeats", "1", "--threads", "1"])
    assert last_line(capsys) == str(tmp_path / "bench" / "bench.html")


def test_predictions_survive_missing_files_and_odd_names(
    trained: Path, video: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    try:
        shutil.copyfile(video, odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    labels = tmp_path / "labels.json"
    labels.write_text("old")
    with pytest.raises(SystemExit) as ended:
        main(["predict", "gone.mp4", os.fsdecode(odd), video, "--model", str(trained), "--json", str(labels)])
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert "gone.mp4: no such video" in said.err and said.out.strip().splitlines()[-1] == str(labels)
    first, second = json.loads(labels.read_bytes())
    assert (os.fsencode(first["source"]), second["source"]) == (odd, video)
    for prediction in (first, second):
        scores = [entry["score"] for entry in prediction["top"]]
        assert len(scores) == 8 and sum(scores) == pytest.approx(1, abs=1e-4), "every class"
    main(["predict", video, "--model", str(trained), "--json", "-", "--top-k", "1"])
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["top"] == second["top"] and shown["windows"] == second["windows"]


def test_a_class_folder_is_counted_and_listed(
    trained: Path, embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "windows.csv"
    arguments = ["predict", str(embedded / "test"), "--model", str(trained), "--top-k", "2", "--csv", str(out)]
    main(arguments)
    shown = capsys.readouterr().out
    header, *found = read_csv(out)
    assert header == ["source", "start", "end", "class", "score", "class_2", "score_2"] and len(found) == 8
    right = sum(Path(row[0]).parent.name == row[3] for row in found)
    assert f"{right} of 8 right ({100 * right / 8:.1f} %), by the folders that they lie in" in shown
    assert "weakest" in shown and f"{100 * float(found[0][4]):.1f} %" in shown
    main([*arguments, "--none-below", "1"])
    assert "0 of 8 right (0.0 %)" in capsys.readouterr().out
    assert {row[3] for row in read_csv(out)[1:]} == {"none of these"}


def test_a_trained_model_knows_below_which_score_it_is_none(
    trained: Path, video: str, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = json.loads((trained / "best.json").read_text())["metrics"]
    videos = round(metrics["top1"] * 8)
    assert metrics.get("none_below_videos", 0) == videos, "the right ones of 8 validation videos"
    arguments = ["predict", video, "--model", str(trained), "--json", "-", "--none-below"]
    main([*arguments, "0.3"])
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["none_below"] == 0.3
    assert shown["label"] == (shown["top"][0]["class"] if shown["top"][0]["score"] >= 0.3 else "none of these")


def test_a_long_video_is_listed_by_windows_and_frames(
    trained: Path, video: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, out = tmp_path / "windows.csv", tmp_path / "labels.json"
    windows = ["--window", "0.4", "--stride", "0.2", "--csv", str(table)]
    main(["predict", video, "--model", str(trained), "--top-k", "1", *windows])
    shown = capsys.readouterr().out
    found = read_csv(table)[1:]
    assert len(found) > 2
    for _, start, end, name, score in found:
        assert re.search(rf"{float(start):.1f}–{float(end):.1f} +{name} +{100 * float(score):.1f} %", shown)
    main(["predict", video, "--model", str(trained), "--frame-labels", str(out), "--frame-stride", "0.5"])
    assert last_line(capsys) == str(out)
    labels = json.loads(out.read_text())
    assert list(labels) == [str(number) for number in range(1, 13)] and set(labels["4"]) == {"1", "2", "3", "4", "5"}


def test_scores_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "labels.json"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match="No space left"):
        _write_json(str(path), [1])
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


def test_distill_names_the_run_after_its_objective(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["distill", str(trained / "config.yaml"), "--teacher", str(trained), "--out", str(tmp_path)])
    assert last_line(capsys) == str(tmp_path / "model-distil" / "report.html")


@pytest.mark.parametrize("what", ["gradcam", "modulators", "gates", "kernels"])
def test_explain_writes_pictures(
    what: str, trained: Path, video: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"{what}.png"
    main(["explain", what, video, "--model", str(trained), "--out", str(out)])
    assert last_line(capsys) == str(out)
    assert Image.open(out).width > 64


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fly"], 2, "no command 'fly'"),
        (["train", "no_such_recipe"], 2, "no recipe"),
        (["train", "demo", "--optim.rl", "1"], 2, "did you mean optim.lr?"),
        (["distill", "demo"], 2, "needs a teacher"),
        (["distill", "demo", "--teacher", "nowhere", "--print-config", "--objective", "recognise"], 2, "is given but"),
        (["test"], 2, "either a model or --from"),
        (["test", "nowhere"], 1, "no model at nowhere: give a run folder"),
        (["predict", "--model", "MODEL"], 2, "vidstill predict VIDEO"),
        (["predict", "VIDEO", "--model", "MODEL", "--top-k", "0"], 2, "at least one class"),
        (["predict", "a.mp4", "b.mp4", "--model", "MODEL", "--video", "c.mp4"], 2, "shows one source, 2 are given"),
        (["predict", "VIDEO", "VIDEO", "--model", "MODEL", "--show"], 2, "--show shows one source, 2 are given"),
        (["predict", "VIDEO", "--model", "MODEL", "--none-below", "x"], 1, "a score between 0 and 1, or auto"),
        (["predict", "VIDEO", "--model", "MODEL", "--frame-labels", "x.json", "--stride", "1"], 2, "out --stride"),
        (["predict", "camera:9", "--model", "MODEL", "--frame-labels", "x.json"], 1, "frames of a file are labelled"),
        (["explain", "gradcam", "--model", "MODEL"], 2, "looks at a video"),
        (["explain", "gradcam", "VIDEO", "--model", "MODEL", "--colours", "grey"], 1, "one of OpenCV's colour maps"),
        (["explain", "gradcam", "VIDEO", "--model", "MODEL", "--clips", "0"], 1, "take 1 or more"),
        (["explain", "gradcam", "VIDEO", "--model", "MODEL", "--target", "gro"], 1, "did you mean grow?"),
        (["explain", "gradcam", "VIDEO", "--model", "MODEL", "--layer", "layers/7"], 1, "layers has 0, 1"),
        (["explain", "tokens", "VIDEO", "--model", "MODEL"], 1, "take a DualFormer"),
    ],
)
def test_wrong_input_ends_in_one_line(
    arguments: list[str], code: int, message: str, trained: Path, video: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"MODEL": str(trained), "VIDEO": video}
    with pytest.raises(SystemExit) as ended:
        main([known.get(argument, argument) for argument in arguments])
    assert ended.value.code == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("vidstill: ") and message in line
