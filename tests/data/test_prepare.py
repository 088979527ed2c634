"""A prepared data set gives the same samples as its original, frame by frame; making one survives whatever happens."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest

from vidstill.config import Clip, Data, Run, resolve
from vidstill.data import cache, transforms
from vidstill.data.annotations import read_annotations
from vidstill.data.cache import prepare_cache
from vidstill.data.check import check
from vidstill.data.dataset import TrainClips
from vidstill.data.isolated import Lost
from vidstill.data.lists import read_rows
from vidstill.files import WriteError
from vidstill.video import index
from vidstill.video.decode import iter_frames, probe, read_frames
from vidstill.video.intra import IntraWriter
from vidstill.video.source import VideoError


def scene(frames: int, height: int, width: int, seed: int) -> Iterator[np.ndarray]:
    """A smooth ground that drifts and brightens, and a square that moves: every frame differs from every other."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for t in range(frames):
        waves = [np.sin(x / 11 + t / 5 + seed + c) + np.cos(y / 9 - t / 7 + 2 * c) for c in range(3)]
        picture = (90 + 30 * np.stack(waves, -1) + 40 * t / frames).astype(np.uint8)
        picture[5 + t % 20 : 17 + t % 20, 4 + 2 * t % 30 : 16 + 2 * t % 30] = 230
        yield picture


def make(
    path: Path, frames: int = 30, height: int = 48, width: int = 64, seed: int = 0, codec: str = "libx264",
    rate: Fraction = Fraction(25), **options: str,
) -> Path:  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for pixels in scene(frames, height, width, seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode(None))
    return path


def make_folder(path: Path, frames: int = 20) -> Path:
    path.mkdir(parents=True)
    for number, pixels in enumerate(scene(frames, 48, 64, 9), 1):
        cv2.imwrite(str(path / f"img_{number:05}.jpg"), pixels[..., ::-1])
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders: several containers, rates and sizes, a frame folder, names that differ in their suffix alone."""
    root = tmp_path_factory.mktemp("videos")
    make(root / "walk" / "a.mp4", seed=1, bf="2")
    make(root / "walk" / "a.avi", seed=2, codec="mpeg4")
    make(root / "walk" / "v_walk_g01_c01.mkv", seed=3, rate=Fraction(30000, 1001))
    make(root / "run fast" / "=b,c.mp4", seed=4, height=120, width=96)
    make(root / "run fast" / "d.webm", seed=5, codec="libvpx")
    make_folder(root / "run fast" / "e")
    return root


@pytest.fixture(scope="module")
def in_this_process() -> Iterator[list[Path]]:
    """Copies are made without other processes; what was copied."""
    copied: list[Path] = []

    def isolated(task: Any, items: Sequence[Any], seconds: Sequence[float], workers: int | None = None) -> Any:
        for position, item in enumerate(items):
            if task is cache._attempt:
                copied.append(item.path)
            try:
                yield position, task(item)
            except VideoError as error:
                yield position, Lost(str(error))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "isolated", isolated)
        yield copied


@pytest.fixture
def at_once(in_this_process: list[Path]) -> list[Path]:
    in_this_process.clear()
    return in_this_process


@pytest.fixture(scope="module")
def copy(videos: Path, in_this_process: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `videos`."""
    return prepare_cache(run_of(videos), tmp_path_factory.mktemp("copy")).folder


def run_of(root: Path, *settings: str) -> Run:
    return resolve(None, ["--data.root", str(root), *settings])


def told(run: Run, root: Path | None = None) -> Any:
    annotations = read_annotations(run.data if root is None else run.data.model_copy(update={"root": root}), run.seed)
    samples = {split: [(s.labels, s.group) for s in found] for split, found in annotations.splits.items()}
    return annotations.classes, samples, annotations.undivided


def batches(run: Run, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], list[np.ndarray]]:
    """What is read of which video for two epochs of training, and the clips."""
    read, clips = [], []

    def reading(video: Any, indices: np.ndarray, **options: Any) -> np.ndarray:
        read.append((indices.tolist(), options))
        return read_frames(video, indices, **options)

    with monkeypatch.context() as patch:
        patch.setattr(transforms, "read_frames", reading)
        samples = read_annotations(run.data, run.seed).splits["train"]
        loader = TrainClips(samples, run.clip, run.augment, seed=3)
        for epoch in range(2):
            batch = loader.__getitems__([(epoch, place) for place in range(len(samples))])
            assert not batch["unreadable"]
            clips.append(batch["clips"].numpy())
    return read, clips


@pytest.mark.parametrize("sampling", ["segments", "dense", "timed_window"])
def test_training_draws_the_same_samples(
    videos: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, sampling: str
) -> None:
    """Frames, boxes and all that is random; the pixels up to the encoding."""
    clip = ("--clip.sampling", sampling, "--clip.size", "32", "--clip.frames", "4", "--clip.interval", "3")
    before, clips = batches(run_of(videos, *clip), monkeypatch)
    after, copied = batches(run_of(copy, *clip), monkeypatch)
    assert after == before
    difference = np.abs(np.concatenate(clips).astype(int) - np.concatenate(copied))
    assert 0 < difference.mean() < 4


def test_a_smaller_side_moves_a_box_by_less_than_a_pixel(
    tmp_path: Path, at_once: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4"):
        make(tmp_path / "big" / name, height=180, width=240, seed=len(name) + int(name[2]))
    settings = ("--clip.size", "32", "--clip.frames", "4", "--data.folds", "2")
    prepare_cache(run_of(tmp_path / "big"), tmp_path / "out", side=90)
    before, clips = batches(run_of(tmp_path / "big", *settings), monkeypatch)
    after, copied = batches(run_of(tmp_path / "out", *settings), monkeypatch)
    assert [indices for indices, _ in after] == [indices for indices, _ in before]
    boxes = np.array([(one["box"], other["box"]) for (_, one), (_, other) in zip(before, after, strict=True)])
    assert np.abs(boxes[:, 0] / 2 - boxes[:, 1]).max() <= 1
    assert np.abs(np.concatenate(clips).astype(int) - np.concatenate(copied)).mean() < 6


@pytest.mark.parametrize(
    "settings",
    [(), ("--seed", "5"), ("--data.folds", "3", "--data.fold", "2"), ("--data.nested", "true", "--data.folds", "2"),
     ("--data.split", "group", "--data.group", "/(.)", "--data.folds", "3")],
)  # fmt: skip
def test_undivided_videos_are_divided_alike(videos: Path, copy: Path, settings: tuple[str, ...]) -> None:
    """By settings that are given after the copy was made."""
    assert told(run_of(videos, *settings)) == told(run_of(copy, *settings))


def test_the_copies(videos: Path, tmp_path: Path, at_once: list[Path]) -> None:
    made = prepare_cache(run_of(videos, "--data.fps", "12"), tmp_path / "out", side=64)
    assert made.videos == 6 and not made.kept
    before, after = (read_annotations(Data(root=root, fps=12)) for root in (videos, tmp_path / "out"))
    assert len({sample.path for found in after.splits.values() for sample in found}) == 6
    for split in ("train", "val"):
        for original, moved in zip(before.splits[split], after.splits[split], strict=True):
            one, other = probe(original.video), probe(moved.video)
            assert (other.frames, other.fps, other.ticks) == (one.frames, one.fps, one.ticks)
            short = min(one.height, one.width)
            assert min(other.height, other.width) == min(short, 64)
            times = [frame.seconds for frame in iter_frames(original.video)]
            assert np.allclose([frame.seconds for frame in iter_frames(moved.video)], times, atol=2e-4)
            pixels = read_frames(original.video, range(one.frames), short_side=min(short, 64)).astype(int)
            differences = np.abs(read_frames(moved.video, range(one.frames)) - pixels).mean((1, 2, 3))
            assert differences.max() < 5
            # no other frame is as near
            shifted = np.abs(read_frames(moved.video, range(one.frames - 1)) - pixels[1:]).mean((1, 2, 3))
            assert (shifted > differences[1:]).all()


def test_lists_of_it_are_plain_ones(copy: Path) -> None:
    rows = read_rows(copy / "all.csv", copy)
    assert (
        len(rows) == 6 and all(row.path.is_file() for row in rows) and {r.label for r in rows} == {"walk", "run fast"}
    )
    assert (copy / "classes.txt").read_text() == "run fast\nwalk\n"
    assert told(run_of(copy / "all.csv"))[1].keys() == {"train", "val"}


def test_labels_stay_the_ids_they_were(tmp_path: Path, at_once: list[Path]) -> None:
    """Ids of a list with names in a file beside it, in an order of its own; several labels of a video."""
    for name in "abc":
        make(tmp_path / "data" / f"{name}.mp4", seed=ord(name))
    (tmp_path / "data" / "names.txt").write_text("zebra\napple\nmango\n")
    (tmp_path / "data" / "train.csv").write_text("a.mp4,2\nb.mp4,0 2\n")
    (tmp_path / "data" / "val.csv").write_text("c.mp4,1\nb.mp4,0\n")
    settings = ("--data.multi_label", "true", "--data.classes", "names.txt")
    prepare_cache(run_of(tmp_path / "data", *settings), out := tmp_path / "out")
    expected = told(run_of(tmp_path / "data", *settings))
    assert expected[0] == ["zebra", "apple", "mango"]
    assert told(run_of(out, *settings)) == expected and told(run_of(out, "--data.multi_label", "true")) == expected
    assert len(at_once) == 3


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(13, 3)])
def test_of_a_file_with_stretches_alone_their_frames_are_kept(
    tmp_path: Path, at_once: list[Path], rate: Fraction
) -> None:
    """They are the frames of the same stretches of the original, found by the same times."""
    make(tmp_path / "data" / "long.mp4", frames=200, seed=1, bf="2", rate=rate)
    make(tmp_path / "data" / "other.mkv", seed=2, rate=rate)
    long = 200 / rate
    ends = [(0.2, 0.3), (0.25, 0.5), (0.8, 0.81)]
    lines = [f"long.mp4,{float(start * long):.3f},{float(end * long):.3f},x" for start, end in ends]
    lines += [f"long.mp4,{float(40 / rate)},{float(60 / rate)},y", f"long.mp4,{float(long) + 9},,y"]
    lines += ["other.mkv,,,x", f"other.mkv,0,{float(13 / rate)},y"]
    (tmp_path / "data" / "all.csv").write_text("\n".join(["path,start,end,label", *lines]))
    run = run_of(tmp_path / "data" / "all.csv", "--data.folds", "2")
    made = prepare_cache(run, out := tmp_path / "out")
    assert len(at_once) == made.videos == 2 and not made.kept and told(run) == told(run, out)
    assert 1 + 60 + 2 <= probe(out / "videos" / "long.mov").frames <= 1 + 62 + 4
    compared = 0
    for split, samples in read_annotations(run.data).splits.items():
        copies = read_annotations(Data(root=out, folds=2)).splits[split]
        for sample, moved in zip(samples, copies, strict=True):
            assert (moved.start, moved.end) == (sample.start, sample.end)
            if sample.start > long:
                with pytest.raises(VideoError, match="begins at"):
                    probe(moved.video)
                continue
            count = probe(sample.video).frames
            assert probe(moved.video).frames == count
            one, other = (read_frames(each.video, range(count)).astype(int) for each in (sample, moved))
            assert np.abs(one - other).mean((1, 2, 3)).max() < 5
            compared += 1
    assert compared == 6
    found = check(read_annotations(Data(root=out)), 1, clip=Clip(frames=2, interval=1, sampling="dense"))
    assert [finding.sample.start for finding in found if finding.kind != "short"] == [float(long) + 9]


def test_what_cannot_be_copied_keeps_its_original(
    videos: Path, tmp_path: Path, at_once: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(videos, root := tmp_path / "data")
    (root / "walk" / "text.mp4").write_text("no video")
    whole = make(root / "walk" / "cut.avi", frames=60, seed=7, codec="mpeg4", g="1").read_bytes()
    (root / "walk" / "cut.avi").write_bytes(whole[: len(whole) // 3] + bytes(2000) + whole[len(whole) // 3 + 2000 :])
    made = prepare_cache(run_of(root), out := tmp_path / "out")
    assert str(root / "walk" / "text.mp4") in made.kept and "read from their originals" in made.summary()
    run = run_of(root)
    assert told(run) == told(run, out)
    paths = {sample.path for found in read_annotations(Data(root=out)).splits.values() for sample in found}
    assert paths >= set(map(Path, made.kept)) and len(paths) == 8
    assert json.loads((out / "prepared.json").read_text())["kept"] == made.kept
    at_once.clear()
    prepare_cache(run, out)  # only they are tried again
    assert set(map(str, at_once)) == made.kept.keys()


def test_it_goes_on_where_it_stopped(videos: Path, tmp_path: Path, at_once: list[Path]) -> None:
    run, out = run_of(shutil.copytree(videos, tmp_path / "data")), tmp_path / "out"

    def stop(event: dict[str, Any]) -> None:
        if event["what"] == "copying" and event["done"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_cache(run, out, report=stop)
    with pytest.raises(ValueError, match="is not complete"):
        read_annotations(Data(root=out))
    (out / "videos" / ".123-0123456789abcdef.partial").write_text("of a process that was ended")
    with (out / "done.jsonl").open("a") as file:
        file.write('{"file": "videos/wal')
    assert len(at_once) == 2
    prepare_cache(run, out)
    assert len(at_once) == len(set(at_once)) == 6 and not list(out.rglob("*.partial"))
    at_once.clear()
    prepare_cache(run, out)
    assert not at_once
    (out / "videos" / "walk" / "a.mov").write_bytes(b"")
    make(tmp_path / "data" / "run fast" / "d.webm", seed=6, codec="libvpx")
    prepare_cache(run, out)
    assert sorted(path.name for path in at_once) in (["a.avi", "d.webm"], ["a.mp4", "d.webm"])
    at_once.clear()
    prepare_cache(run, out, side=32)
    assert len(at_once) == 6


def test_a_disk_too_small_is_told_first(
    videos: Path, tmp_path: Path, at_once: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000))
    with pytest.raises(ValueError, match=r"the copies take about \d+ kB, 10 kB are free"):
        prepare_cache(run_of(videos), tmp_path / "out")
    assert not at_once and not list((tmp_path / "out").rglob("*.mov"))


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of file sizes")
def test_a_disk_that_fills_up_stops_it(videos: Path, tmp_path: Path, at_once: list[Path]) -> None:
    """Else all further videos would be read from their originals, and nobody the wiser; it goes on when there is room
    again."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, limits[1]))
    try:
        with pytest.raises(WriteError, match=r"cannot write .*\.mov: File too large; free the disk and start again$"):
            prepare_cache(run_of(videos), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with pytest.raises(ValueError, match="is not complete"):
        read_annotations(Data(root=tmp_path / "out"))
    assert not list((tmp_path / "out").rglob("*.partial"))
    assert prepare_cache(run_of(videos), tmp_path / "out").videos == 6


def test_the_estimate_is_near(
    videos: Path, tmp_path: Path, at_once: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "vidstill")
    made = prepare_cache(run_of(videos), tmp_path / "out")
    (line,) = [record for record in caplog.records if "take about" in record.message]
    assert float(str(line.args[0]).split()[0]) * 1000 == pytest.approx(made.size, rel=0.4)  # type: ignore[index]


def test_folders_that_are_refused(videos: Path, tmp_path: Path, at_once: list[Path]) -> None:
    with pytest.raises(ValueError, match="lies in the data set"):
        prepare_cache(run_of(videos), videos / "cache")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(ValueError, match="holds something else"):
        prepare_cache(run_of(videos), tmp_path / "mine")
    with pytest.raises(ValueError, match="side 8: give"):
        prepare_cache(run_of(videos), tmp_path / "out", side=8)
    with pytest.raises(WriteError, match=r"cannot write .*out: Not a directory"):
        prepare_cache(run_of(videos), tmp_path / "mine" / "thesis.txt" / "out")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine", "thesis.txt"]


def test_the_fold_of_official_lists_is_held(tmp_path: Path, at_once: list[Path]) -> None:
    root = tmp_path / "ucf"
    for group in ("01", "02", "03"):
        make(root / "Archery" / f"v_Archery_g{group}_c01.avi", frames=12, seed=int(group), codec="mpeg4")
        make(root / "Biking" / f"v_Biking_g{group}_c01.avi", frames=12, seed=int(group) + 5, codec="mpeg4")
    (root / "classInd.txt").write_text("1 Biking\n2 Archery\n")
    for fold, held in (("01", "01"), ("02", "02")):
        for kind in ("train", "test"):
            groups = [held] if kind == "test" else [g for g in ("01", "02", "03") if g != held]
            lines = [f"{c}/v_{c}_g{g}_c01.avi {n}" for n, c in ((2, "Archery"), (1, "Biking")) for g in groups]
            (root / f"{kind}list{fold}.txt").write_text("\n".join(lines))
    first, second = (run_of(root, "--data.format", "ucf101", "--data.fold", fold) for fold in "12")
    prepare_cache(first, out := tmp_path / "out")
    assert told(first) == told(first, out) and told(first)[0] == ["Biking", "Archery"]
    with pytest.raises(ValueError, match=r"lists of data\.fold 1: prepare it again with --data\.fold 2"):
        told(second, out)
    at_once.clear()
    prepare_cache(second, out)
    assert not at_once and told(second) == told(second, out)


def test_an_index_in_the_header_is_that_of_the_packets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = list(scene(40, 49, 65, 0))  # odd sides
    with IntraWriter(path := tmp_path / "a.mov", 29.97, 7) as writer:
        for number, pixels in enumerate(frames):
            writer.write(pixels, number / 29.97)
    stated, plain = index.read_index(path), [frame.pixels for frame in iter_frames(path)]
    for wanted in ([0], [39, 3, 3, 38], list(range(40))):
        assert (read_frames(path, wanted) == np.stack([plain[number] for number in wanted])).all()
    monkeypatch.setattr(index, "_stated", lambda *of_file: None)
    index._scan.cache_clear()
    scanned = index.read_index(path)
    index._scan.cache_clear()
    assert (stated.info.fps, stated.info.ticks) == (29.97, 7)
    assert (stated.info.frames, stated.info.height, stated.info.width) == (40, 49, 65)
    assert (scanned.info.frames, scanned.info.height, scanned.info.width) == (40, 49, 65)
    assert stated.plan and scanned.plan and stated.stamps is not None
    for name in ("packet", "origin", "reference", "stamp", "position"):
        assert (getattr(stated.plan, name) == getattr(scanned.plan, name)).all(), name
    assert (stated.stamps == scanned.stamps).all() and (stated.keys == scanned.keys).all()


def test_damage_to_a_copy_is_not_passed_over(tmp_path: Path) -> None:
    """The frames before it come as they were; a file that was broken off is no video."""
    with IntraWriter(path := tmp_path / "a.mov", 25.0, 1) as writer:
        for number, pixels in enumerate(scene(30, 48, 64, 0)):
            writer.write(pixels, number / 25)
    position, data = int(index.read_index(path).plan.position[20]), path.read_bytes()  # type: ignore[union-attr, index]
    sound = read_frames(path, [19])
    path.write_bytes(data[:position] + bytes(300) + data[position + 300 :])
    assert (read_frames(path, [19]) == sound).all()
    with pytest.raises(VideoError, match="frame 20"):
        read_frames(path, [20])
    path.write_bytes(data[:position])
    with pytest.raises(VideoError):
        probe(path)


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(videos: Path, tmp_path: Path) -> None:
    """From the command line, with processes of its own; and what it says last."""
    command = [sys.executable, "-m", "vidstill", "prepare", "cache", str(videos), str(out := tmp_path / "out")]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while not list(out.rglob("*.mov")) and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(started.pid, signal.SIGKILL)
    started.communicate()
    copies = {path: path.stat().st_mtime_ns for path in out.rglob("*.mov")}
    done = subprocess.run([*command, "--workers", "2"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == [f"vidstill train … --data.root {out}", str(out)]
    assert told(run_of(videos)) == told(run_of(out)) and not list(out.rglob("*.partial"))
    entries = [json.loads(line) for line in (out / "done.jsonl").read_text().splitlines() if line.startswith("{")]
    unchanged = [path for path, made in copies.items() if path.stat().st_mtime_ns == made]
    assert len({entry["file"] for entry in entries}) == 6 and len(entries) <= 7 and len(unchanged) >= len(copies) - 2


@pytest.mark.slow
def test_a_model_scores_alike_on_both(embedded: Path, small: list[str], tmp_path: Path) -> None:
    from vidstill.tasks.testing import test
    from vidstill.training.run import train

    folder = train(resolve(None, small))
    prepare_cache(run_of(embedded), out := tmp_path / "cached")
    _, before = test(str(folder), ["--data.root", str(embedded)])
    _, after = test(str(folder), ["--data.root", str(out)])
    assert [sample.labels for sample in after.samples] == [sample.labels for sample in before.samples]
    assert np.abs(before.probabilities - after.probabilities).max() < 0.02
