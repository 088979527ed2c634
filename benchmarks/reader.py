"""CPU time of vidstill's reader against bare decoding, one thread: ratios of one run (goal D4: <= 1.25, better 1.1).

    python benchmarks/reader.py [--clips FOLDER] [--rounds 9]

Milliseconds of process time for one clip, file opened and closed each time, median of alternating rounds:
  bare      PyAV decodes every frame up to the last wanted one and keeps none
  needed    the same, but only the packets that the wanted frames need
  plain     vidstill decodes every frame and draws the wanted ones: crop, 224x224, uint8 RGB
  read      vidstill.video.decode.read_frames: only what is needed, drawn likewise
  scan      the first look at a file, once per process and file
D4 = read / bare; over = read / needed, what is not decoding; gain = plain / read. Before a row is timed, its whole
frames are compared with a plain full decode, bit for bit.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
from videos import K340, K720, UCF, machine, make

from vidstill.video import decode, index
from vidstill.video.pixels import Draw

SUFFIXES = {".avi", ".mp4", ".mkv", ".mov", ".webm", ".mpg"}


def made(folder: Path) -> dict[str, Path]:
    kinds = {
        "H.264 340x256 GOP 250": K340,
        "H.264 340x256 GOP 30": replace(K340, file="short.mp4", options=K340.options | {"g": "30"}),
        "H.264 1280x720 GOP 250": K720,
        "MPEG-4 320x240 one key frame": UCF,
        "MPEG-4 320x240 GOP 12": replace(UCF, file="short.avi", options=UCF.options | {"g": "12"}),
    }
    return {name: make(kind, folder) for name, kind in kinds.items()}


def bare(path: Path, last: int) -> None:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.thread_count = "NONE", 1
        for number, _ in enumerate(container.decode(stream)):
            if number == last:
                return


def needed(path: Path, plan: index.Plan, wanted: list[int]) -> None:
    with index.open_video(path) as (container, stream):
        for number, _ in decode._planned(plan, container, stream, wanted):
            if number == wanted[-1]:
                return


def full(path: Path, wanted: list[int]) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        frames = enumerate(container.decode(video=0))
        return [frame.to_ndarray(format="rgb24") for number, frame in frames if number in wanted]


def alternate(rounds: int, **tasks: Callable[[], object]) -> dict[str, float]:
    """Median process time in ms of each task, all of them once a round."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            start = time.process_time()
            task()
            times[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def rescan(path: Path) -> None:
    index._scan.cache_clear()
    index.read_index(path)


def measure(path: Path, wanted: list[int], rounds: int) -> dict[str, float]:
    info, plan, *_ = index.read_index(path)
    whole = decode.read_frames(path, wanted)
    if info.rotation == 0 and not (whole == np.stack(full(path, wanted))).all():
        raise ValueError("frames differ from a plain decode")
    box = (info.width // 8, info.height // 8, info.width * 7 // 8, info.height * 7 // 8)
    slots = {number: [place] for place, number in enumerate(wanted)}
    ms = alternate(
        rounds,
        bare=lambda: bare(path, wanted[-1]),
        needed=lambda: needed(path, plan, wanted) if plan else bare(path, wanted[-1]),
        plain=lambda: decode._collect(path, slots, Draw(None, box, (224, 224)), None),
        read=lambda: decode.read_frames(path, wanted, box=box, size=(224, 224)),
    )
    return ms | alternate(rounds, scan=lambda: rescan(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="folder of videos, read as well")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    print(machine())
    print(f"{'file':34} {'clip':5} {'bare':>7} {'needed':>7} {'plain':>7} {'read':>7} {'scan':>6}    D4  over  gain")
    with tempfile.TemporaryDirectory() as folder:
        files = made(Path(folder))
        if arguments.clips:
            found = sorted(path for path in arguments.clips.rglob("*") if path.suffix.lower() in SUFFIXES)
            files |= {path.name[-34:]: path for path in found}
        for name, path in files.items():
            try:
                frames = index.read_index(path).info.frames
                start = min(frames // 4, max(0, frames - 61))
                clips = {
                    "tsn8": sorted({int((i + 0.5) * frames / 8) for i in range(8)}),
                    "16x4": sorted({min(start + 4 * i, frames - 1) for i in range(16)}),
                }
                for clip, wanted in clips.items():
                    ms = measure(path, wanted, max(arguments.rounds, 7))
                    times = "".join(f"{ms[key]:8.2f}" for key in ("bare", "needed", "plain", "read"))
                    ratios = ms["read"] / ms["bare"], ms["read"] / ms["needed"], ms["plain"] / ms["read"]
                    print(f"{name:34} {clip}{times}{ms['scan']:7.2f}" + "".join(f"{r:6.2f}" for r in ratios))
            except ValueError as error:
                print(f"{name:34} {error}")


if __name__ == "__main__":
    main()
