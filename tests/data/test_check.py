"""A data set of sound, short, damaged and broken videos: each is found, with its reason, and the rest goes on."""

import csv
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import get_args

import av
import numpy as np
import pytest

from vidstill.config import Clip, resolve
from vidstill.data import sampling as sampler
from vidstill.data.annotations import Annotations, Sample, read_annotations
from vidstill.data.check import Finding, check, check_data, write_findings
from vidstill.data.lists import read_rows
from vidstill.files import WriteError


def make_video(path: Path, frames: int, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (frames, 48, 64, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for pixels in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos") / "with space"
    for n, frames in enumerate((20, 21, 22, 23)):
        make_video(root / f"walk/{n}.avi", frames, n)
    make_video(root / "run/short é.avi", 5, 9)
    make_video(root / "run/one.avi", 1, 10)
    whole = root / "run/cut.avi"
    make_video(whole, 40, 11)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (root / "run/text.mp4").write_text("this is no video\n" * 100)
    (root / "run/empty.mp4").touch()
    return root


def test_everything_broken_is_named_with_its_reason(folder: Path, tmp_path: Path) -> None:
    events: list[dict[str, object]] = []
    run = resolve(None, ["--data.root", str(folder), "--clip.frames", "8"])
    checked = check_data(run, workers=2, out=tmp_path / "new folder/broken.csv", report=events.append)
    kinds = {finding.sample.path.name: finding.kind for finding in checked.findings}
    assert kinds == {
        "empty.mp4": "broken", "text.mp4": "broken", "short é.avi": "short", "one.avi": "short", "cut.avi": "differs",
    }  # fmt: skip
    assert [finding.kind for finding in checked.findings] == ["broken", "broken", "differs", "short", "short"]
    assert checked.fatal and "broken: 2 videos: not one frame decodes" in checked.summary()
    assert events[-1] == {"what": "decoding", "done": 9, "total": 9} and len(events) == 9

    with (tmp_path / "new folder/broken.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {Path(row["path"]).name: row["problem"].split(":")[0] for row in rows} == kinds
    assert all(row["label"] == "run" for row in rows)
    assert any(row["problem"].endswith("frames decode, 40 are declared") for row in rows)
    assert "short: 5 frames, a clip takes 11" in [row["problem"] for row in rows]


def test_dense_clips_need_their_whole_span(folder: Path) -> None:
    annotations = read_annotations(resolve(None, ["--data.root", str(folder)]).data)
    annotations.splits = {"train": [s for s in annotations.splits["train"] + annotations.splits["val"] if s.label == 1]}
    short = check(annotations, 1, clip=Clip(frames=8, interval=3, sampling="dense"))
    assert sorted(finding.reason for finding in short) == ["20 frames, a clip takes 22", "21 frames, a clip takes 22"]


def test_a_killed_worker_costs_at_most_its_video(folder: Path) -> None:
    samples = [Sample(path, 0) for path in sorted((folder / "walk").iterdir())]
    seen: list[int] = []

    def progress(done: int, total: int) -> None:
        seen.append(done)
        if done == 1:
            for process in multiprocessing.active_children():
                os.kill(process.pid or 0, signal.SIGKILL)

    findings = check(Annotations(["walk", "run"], {"train": samples}), 1, progress, clip=Clip())
    assert seen == [1, 2, 3, 4]
    assert [finding.reason for finding in findings] in ([], ["crashed (signal SIGKILL)"])


def test_videos_in_two_splits_are_decoded_once(folder: Path) -> None:
    samples = [Sample(path, 0) for path in sorted((folder / "walk").iterdir())]
    totals: set[int] = set()
    check(
        Annotations(["a", "b"], {"train": samples, "val": samples}),
        1,
        lambda done, total: totals.add(total),
        clip=Clip(),
    )
    assert totals == {4}


def test_a_missing_video_is_broken_and_fatal(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(f"{folder}/walk/0.avi,walk\n{folder}/walk/1.avi,run\ngone.avi,run\n")
    checked = check_data(resolve(None, ["--data.root", str(tmp_path)]), workers=1, out=tmp_path / "broken.csv")
    assert [(finding.sample.path.name, finding.kind) for finding in checked.findings] == [("gone.avi", "broken")]
    assert "error: train: 1 of 3 videos are missing" in checked.summary()


def test_a_sound_data_set(folder: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for n, label in enumerate(("a", "b")):
            (tmp_path / split / label).mkdir(parents=True)
            shutil.copy(folder / f"walk/{n + 2 * (split == 'val')}.avi", tmp_path / split / label / "x.avi")
    checked = check_data(resolve(None, ["--data.root", str(tmp_path)]), workers=1, out=tmp_path / "broken.csv")
    assert not checked.fatal
    assert checked.summary() == "train 2, val 2 videos in 2 classes\nevery video decodes, nothing is suspicious"
    assert (tmp_path / "broken.csv").read_text() == "path,label,problem\n"


def test_findings_that_cannot_be_written_leave_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "broken.csv"
    annotations = Annotations(["walk", "run"], {})
    write_findings(annotations, [Finding(Sample(Path("a, b.mp4"), 1), "broken", 'no "video"')], path)
    before = path.read_text()
    assert list(csv.reader(before.splitlines()))[1] == ["a, b.mp4", "run", 'broken: no "video"']

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="No space left"):
        write_findings(annotations, [], path)
    assert path.read_text() == before and list(tmp_path.iterdir()) == [path]


def test_real_edge_cases(shared_data: Path, tmp_path: Path) -> None:
    run = resolve(None, ["--data.root", str(shared_data / "clips/decode_edge"), "--clip.frames", "1"])
    checked = check_data(run, workers=2, out=tmp_path / "broken.csv")
    kinds = {finding.sample.path.name: finding.kind for finding in checked.findings}
    assert kinds == {"corrupted.mp4": "damaged"}  # discard_first_keyframe.mp4 hides its first frames on purpose


def test_declared_and_decoded_frames_of_packed_bitstreams(shared_data: Path) -> None:
    """The manifest counts both with another reader."""
    with (shared_data / "clips/manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["path"].startswith("ut_interaction/pushing/")]
    samples = [Sample(shared_data / "clips" / row["path"], 0) for row in rows]
    findings = check(Annotations(["a", "b"], {"train": samples}), 2, clip=Clip())
    assert {finding.sample.path: finding.reason for finding in findings} == {
        sample.path: f"{row['frames']} frames decode, {row['declared_frames']} are declared"
        for sample, row in zip(samples, rows, strict=True)
        if row["frames"] != row["declared_frames"]
    }
    assert {finding.kind for finding in findings} == {"harmless"}


def declare(path: Path, frames: int) -> None:
    """Another number of frames in the header of an AVI file."""
    content = bytearray(path.read_bytes())
    at = content.index(b"strh") + 40  # dwLength
    content[at : at + 4] = frames.to_bytes(4, "little")
    path.write_bytes(content)


def test_one_truncation_among_many_miscounts_is_what_is_seen(folder: Path, tmp_path: Path) -> None:
    for n in range(10):
        target = tmp_path / "videos" / ("walk" if n % 2 else "run") / f"{n}.avi"
        target.parent.mkdir(parents=True, exist_ok=True)
        make_video(target, 20 + n, n)
        declare(target, 20 + n + (1, 2, -1, -2)[n % 4])
    shutil.copy(folder / "run/cut.avi", tmp_path / "videos/run/cut.avi")
    make_video(tmp_path / "videos/walk/joined.avi", 30, 20)
    declare(tmp_path / "videos/walk/joined.avi", 12)
    run = resolve(None, ["--data.root", str(tmp_path / "videos"), "--clip.frames", "8"])
    checked = check_data(run, workers=2, out=tmp_path / "broken.csv")
    assert [finding.kind for finding in checked.findings] == ["differs", "differs", *["harmless"] * 10]
    assert [f.sample.path.name for f in checked.findings[:2]] == ["cut.avi", "joined.avi"]
    lines = checked.summary().splitlines()
    assert lines[1].startswith("differs: 2 videos: far from the declared") and "cut.avi: " in lines[1]
    assert lines[2].startswith("harmless: 10 videos") and lines[2].endswith("nothing to do") and len(lines) == 3
    with (tmp_path / "broken.csv").open(newline="") as file:
        assert "cut.avi" in next(csv.DictReader(file))["path"]


def test_harmless_findings_alone_are_no_cause_for_alarm(tmp_path: Path) -> None:
    for n in range(10):
        make_video(tmp_path / "videos" / "ab"[n % 2] / f"{n}.avi", 20, n)
        declare(tmp_path / "videos" / "ab"[n % 2] / f"{n}.avi", 21)
    checked = check_data(resolve(None, ["--data.root", str(tmp_path / "videos")]), workers=1, out=tmp_path / "x.csv")
    assert not checked.fatal and checked.summary().endswith("every video decodes, nothing is suspicious")


@pytest.mark.parametrize("sampling", get_args(Clip.model_fields["sampling"].annotation))
def test_a_video_is_short_where_the_sampling_would_repeat_frames(
    folder: Path, sampling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidstill.data.check.isolated", lambda task, items, *_: enumerate(map(task, items)))
    clip = Clip(frames=7, interval=3, sampling=sampling)
    samples = [Sample(path, 0) for path in sorted((folder / "walk").iterdir())]  # 20 to 23 frames
    found = {finding.sample.path.name for finding in check(Annotations(["a", "b"], {"train": samples}), 1, clip=clip)}
    repeats = {
        f"{n - 20}.avi"
        for n in (20, 21, 22, 23)
        if len(set(sampler.test_indices(n, clip, 1)[0].tolist())) < clip.frames
    }
    assert repeats <= found
    if clip.spans:
        assert found == set()


def test_a_pipe_is_said_at_once(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.avi")
    (tmp_path / "all.csv").write_text(f"{folder}/walk/0.avi,a\npipe.avi,b\n{folder}/walk/1.avi,b\n" * 2)
    run = resolve(None, ["--data.root", str(tmp_path / "all.csv")])
    begin = time.monotonic()
    checked = check_data(run, workers=1, out=tmp_path / "x.csv")
    assert time.monotonic() - begin < 30  # not a minute
    assert checked.fatal and "no files to read" in checked.summary()
    (finding,) = (finding for finding in checked.findings if finding.kind == "broken")
    assert (finding.sample.path.name, finding.reason) == ("pipe.avi", "is a named pipe, no video file")


def test_class_names_that_are_formulas_are_no_formulas_in_the_csv_and_read_back(tmp_path: Path) -> None:
    names = ["=1+1", "@x", "+up;-down", "walk"]
    root = tmp_path / "videos"
    for name in names:
        (root / name).mkdir(parents=True)
        for n in range(5):
            (root / name / f"{n}.avi").write_text(f"no video {name} {n}")
    checked = check_data(resolve(None, ["--data.root", str(root)]), workers=2, out=tmp_path / "broken.csv")
    assert len(checked.findings) == 20
    with (tmp_path / "broken.csv").open(newline="") as file:
        assert not [cell for row in csv.reader(file) for cell in row if cell[:1] in "=+-@"]
    assert {row.label for row in read_rows(tmp_path / "broken.csv", tmp_path)} == set(names)


def test_check_starts_without_torch() -> None:
    """Its processes start in half a second; with torch it would be seconds."""
    code = "import sys, vidstill.data.check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
