"""Reading a clip from the copies of `vidstill prepare cache` against reading it from the original (goal D3: >= 10 times
on H.264 of 340x256, better 30; size <= 8 times).

    python benchmarks/cache.py [--clips FOLDER] [--most 4] [--rounds 9]

Milliseconds of process time of one thread for one clip, file opened and closed each time, cropped and resized to uint8
RGB: best of alternating rounds, both sides through vidstill.video.decode.read_frames. "First look": with the index of
the file, as for every clip of a data set of more files than a process remembers (8192). `size` is copy / original,
`diff` the mean difference in grey levels; a copy with other frames stops. A second table has other encodings of the
340x256 clip.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from loader import videos_below
from videos import K340, K720, UCF, machine, make

from vidstill.data.cache import copy_video
from vidstill.video import index
from vidstill.video.decode import iter_frames, probe, read_frames

# codec, pixel format, quantiser scale, options of the encoder
ENCODINGS: dict[str, tuple[str, str, str, int | None, dict[str, str]]] = {
    "Motion JPEG, quality 2, mov": ("q2.mov", "mjpeg", "yuvj420p", 2, {}),
    "Motion JPEG, quality 4, mov": ("q4.mov", "mjpeg", "yuvj420p", 4, {}),
    "Motion JPEG, quality 4, avi": ("q4.avi", "mjpeg", "yuvj420p", 4, {}),
    "Motion JPEG, quality 4, mkv": ("q4.mkv", "mjpeg", "yuvj420p", 4, {}),
    "Motion JPEG, quality 8, mov": ("q8.mov", "mjpeg", "yuvj420p", 8, {}),
    "H.264, GOP 1, fastdecode": ("g1.mp4", "libx264", "yuv420p", None, {"g": "1", "tune": "fastdecode"}),
    "H.264, GOP 8, fastdecode": ("g8.mp4", "libx264", "yuv420p", None, {"g": "8", "bf": "0", "tune": "fastdecode"}),
    "H.264, GOP 16, fastdecode": ("g16.mp4", "libx264", "yuv420p", None, {"g": "16", "bf": "0", "tune": "fastdecode"}),
    "MPEG-4, GOP 1, quality 3": ("m4.avi", "mpeg4", "yuv420p", 3, {"g": "1"}),
    "uncompressed": ("raw.avi", "rawvideo", "yuv420p", None, {}),
}


def clips(frames: int) -> Iterator[tuple[str, list[int]]]:
    """Over the whole video; and stretches from a quarter of it."""
    start = frames // 4
    yield "8 over the video", sorted({int((i + 0.5) * frames / 8) for i in range(8)})
    for count, interval in ((8, 8), (16, 4), (32, 2)):
        yield f"{count} x {interval}", sorted({min(start + interval * i, frames - 1) for i in range(count)})


def best(rounds: int, **tasks: Callable[[], object]) -> dict[str, float]:
    """Least process time in ms of each task, all of them once a round."""
    times = dict.fromkeys(tasks, float("inf"))
    for _ in range(rounds):
        for name, task in tasks.items():
            begin = time.process_time()
            task()
            times[name] = min(times[name], 1e3 * (time.process_time() - begin))
    return times


def reader(path: Path, wanted: list[int], size: int, first: bool = False) -> Callable[[], object]:
    """Reads the middle three quarters of the frames, to `size`²."""
    info = probe(path)
    box = (info.width // 8, info.height // 8, info.width * 7 // 8, info.height * 7 // 8)

    def read() -> object:
        if first:
            index._scan.cache_clear()
        return read_frames(path, wanted, box=box, size=(size, size))

    return read


def difference(path: Path, copy: Path, wanted: list[int], side: int) -> float:
    """Mean of the absolute differences in grey levels. Raises ValueError where another frame comes."""
    short = min(side, probe(path).height, probe(path).width)
    one, other = (read_frames(each, wanted, short_side=short).astype(np.int16) for each in (path, copy))
    found = np.abs(one - other)
    if found.mean() > 10:
        raise ValueError(f"{copy} has other frames than {path}")
    return float(found.mean())


def compare(name: str, path: Path, side: int, size: int, folder: Path, rounds: int) -> None:
    copy = folder / f"{path.stem}_{side}.mov"
    copy_video(path, copy, side)
    frames, ratio = probe(path).frames, copy.stat().st_size / path.stat().st_size
    for clip, wanted in clips(frames):
        differs = difference(path, copy, wanted, side)
        ms = best(
            rounds,
            original=reader(path, wanted, size),
            copy=reader(copy, wanted, size),
            original_first=reader(path, wanted, size, first=True),
            copy_first=reader(copy, wanted, size, first=True),
        )
        print(
            f"{name[:34]:34} {side:4} {clip:16} {ms['original']:8.2f} {ms['copy']:7.2f} "
            f"{ms['original'] / ms['copy']:6.1f} {ms['original_first']:8.2f} {ms['copy_first']:7.2f} "
            f"{ms['original_first'] / ms['copy_first']:6.1f} {ratio:6.2f} {differs:5.2f}",
            flush=True,
        )


def encode(path: Path, out: Path, codec: str, pixels: str, quality: int | None, options: dict[str, str]) -> None:
    info = probe(path)
    flags = {} if quality is None else {"flags": "+qscale", "global_quality": str(118 * quality)}
    with av.open(str(out), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(info.fps).limit_denominator(1001), options=options | flags)
        stream.width, stream.height, stream.pix_fmt = info.width, info.height, pixels
        if quality is not None:
            stream.codec_context.qmin = stream.codec_context.qmax = quality
        for frame in iter_frames(path):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.pixels, "rgb24").reformat(format=pixels)))
        container.mux(stream.encode(None))


def compare_encodings(path: Path, folder: Path, rounds: int) -> None:
    files = {"the original": path, "prepare cache": folder / f"{path.stem}_256.mov"}
    for name, (file, *encoding) in ENCODINGS.items():
        files[name] = folder / file
        encode(path, files[name], *encoding)
    print(f"\n{'encoding':30} {'8 over':>7} {'16 x 4':>7} {'32 x 2':>7} {'scan':>6} {'size':>6} {'diff':>5}")
    lists = dict(clips(probe(path).frames))
    picked = ("8 over the video", "16 x 4", "32 x 2")
    ms = {clip: best(rounds, **{n: reader(f, lists[clip], 224) for n, f in files.items()}) for clip in picked}

    def scan(file: Path) -> Callable[[], object]:
        return lambda: (index._scan.cache_clear(), index.read_index(file))

    scans = best(rounds, **{name: scan(file) for name, file in files.items()})
    for name, file in files.items():
        size, differs = (
            file.stat().st_size / path.stat().st_size,
            difference(path, file, lists["8 over the video"], 256),
        )
        times = "".join(f"{ms[clip][name]:8.2f}" for clip in picked)
        print(f"{name:30}{times}{scans[name]:7.2f} {size:6.2f} {differs:5.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="folder of real videos")
    parser.add_argument("--most", type=int, default=4, help="how many of them")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"`python benchmarks/cache.py {' '.join(sys.argv[1:])}` on {machine()}\n")
    print(f"{'':34} {'':4} {'':16} {'ms of one clip':^23} {'ms, first look':^24}")
    print(f"{'video':34} {'side':4} {'clip':16} {'original':>8} {'copy':>7} {'ratio':>6} {'original':>8} {'copy':>7} "
          f"{'ratio':>6} {'size':>6} {'diff':>5}")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.clips:
            videos = [(label, path, 256, 224) for label, path in videos_below(options.clips, options.most).items()]
        else:
            made = {kind.file: make(kind, folder) for kind in (K340, UCF, K720)}
            videos = [
                ("H.264 340x256, GOP 250", made[K340.file], 256, 224),
                ("H.264 340x256, GOP 250", made[K340.file], 128, 112),
                ("MPEG-4 320x240, one key frame", made[UCF.file], 256, 224),
                ("H.264 1280x720, GOP 250", made[K720.file], 256, 224),
            ]
        for label, path, side, size in videos:
            compare(label, path, side, size, folder, options.rounds)
        if not options.clips:
            compare_encodings(made[K340.file], folder, options.rounds)


if __name__ == "__main__":
    main()
