"""Training samples per second and core: vidstill against the released Video-FocalNet recipe, written out below.

    python benchmarks/loader.py [--clips FOLDER] [--rounds 7]

CPU time of one thread, files opened for each sample, rounds alternated, medians. The made videos resemble UCF101 and
Kinetics files; `--clips` adds the first videos of a folder.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch.utils.data import DataLoader, Dataset
from videos import K340, K720, UCF, machine, make

from vidstill.config import Augment, Clip
from vidstill.data.sampling import train_indices
from vidstill.data.transforms import random_resized_crop, train_clip
from vidstill.video.decode import probe, read_frames

CLIP, AUGMENT = Clip(), Augment()
VIDEOS = (".avi", ".mp4", ".mkv", ".webm", ".mov", ".mpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="folder of real videos")
    parser.add_argument("--most", type=int, default=4, help="how many of them")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=4, help="per round and method")
    options = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    print(f"`python benchmarks/loader.py {' '.join(sys.argv[1:])}` on {machine()}\n")
    with tempfile.TemporaryDirectory() as folder:
        videos = {
            f"{made.name}, {path.stat().st_size * 8 * made.fps / made.frames / 1e6:.2f} Mb/s": (path, goal)
            for made, goal in ((UCF, "D1 ≥ 4"), (K340, "D2 ≥ 2"), (K720, ""))
            for path in [make(made, Path(folder))]
        }
        videos |= {name: (path, "") for name, path in videos_below(options.clips, options.most).items()}
        compare_samples(videos, options.rounds, options.samples)
        compare_readers(videos, options.rounds, options.samples)
    compare_transport(options.rounds)


def videos_below(folder: Path | None, most: int) -> dict[str, Path]:
    """The first `most` videos in `folder`, named by what they are."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEOS) if folder else []
    infos = {path: probe(path) for path in found[:most]}
    return {f"{p.name}, {i.codec} {i.width}x{i.height}, {i.frames} frames": p for p, i in infos.items()}


def compare_samples(videos: dict[str, tuple[Path, str]], rounds: int, samples: int) -> None:
    """Whole training samples: 8 frames over the video, crop 224, flip, jitter, grey."""
    print("| video | released, ms | vidstill, ms | samples/s/core | ratio | goal |\n|---|---|---|---|---|---|")
    for name, (path, goal) in videos.items():
        released, ours = medians(
            [
                lambda seed, path=path: released_sample(path, np.random.RandomState(seed)),
                lambda seed, path=path: train_clip(path, CLIP, AUGMENT, np.random.RandomState(seed))[0],
            ],
            rounds,
            samples,
        )
        print(
            f"| {name} | {released:.1f} | {ours:.1f} | {1e3 / ours:.0f} | {released / ours:.2f} | {goal} |", flush=True
        )


def compare_readers(videos: dict[str, tuple[Path, str]], rounds: int, samples: int) -> None:
    """D4: cropping, resizing and converting against decoding alone, plainly or only what the frames need.

    The needed decoding also bounds the ratio of whole samples: less cannot be decoded without changing the frames.
    """
    print("\n| video | plain decode, ms | needed decode, ms | reader, ms | reader / needed | goal |")
    print("|---|---|---|---|---|---|")
    for name, (path, _) in videos.items():
        info = probe(path)
        crop = info.width // 8, info.height // 8, 7 * info.width // 8, 7 * info.height // 8
        plain, needed, reader = medians(
            [
                lambda seed, path=path, info=info: decode_only(path, info.frames, seed),
                # A few pixels of each frame: what remains is opening and decoding.
                lambda seed, path=path, info=info: read_clip(path, info.frames, (0, 0, 16, 16), 8, seed),
                lambda seed, path=path, info=info, crop=crop: read_clip(path, info.frames, crop, CLIP.size, seed),
            ],
            rounds,
            samples,
        )
        ratio = reader / needed
        print(f"| {name} | {plain:.1f} | {needed:.1f} | {reader:.1f} | {ratio:.2f} | D4 ≤ 1.25 |", flush=True)


def compare_transport(rounds: int, batches: int = 24, batch: int = 8) -> None:
    """D5: one worker hands over batches; CPU time of both processes, the consumer copying each batch once."""
    clips = {
        "float32 (T,3,S,S)": torch.rand(CLIP.frames, 3, CLIP.size, CLIP.size),
        "uint8 (T,S,S,3)": torch.zeros(CLIP.frames, CLIP.size, CLIP.size, 3, dtype=torch.uint8),
    }
    times: dict[str, list[float]] = {name: [] for name in clips}
    for _ in range(rounds):
        for name, clip in clips.items():
            idle = transport_time(clip, 1, batch)  # starting and ending the worker
            times[name].append(1e3 * (transport_time(clip, 1 + batches, batch) - idle) / (batches * batch))
    slow, fast = (statistics.median(values) for values in times.values())
    print("\n| payload | float32, ms per clip | uint8, ms per clip | ratio | goal |\n|---|---|---|---|---|")
    print(f"| DataLoader, 1 worker, batches of {batch} | {slow:.2f} | {fast:.2f} | {slow / fast:.2f} | D5 ≥ 3 |")


def medians(methods: Sequence[Callable[[int], object]], rounds: int, samples: int) -> list[float]:
    """CPU milliseconds per call of each method, all of them with the same seeds; the first round is not counted."""
    times: list[list[float]] = [[] for _ in methods]
    for turn in range(rounds + 1):
        for method, taken in zip(methods, times, strict=True):
            started = time.process_time()
            for sample in range(samples):
                method(turn * samples + sample)
            taken.append(1e3 * (time.process_time() - started) / samples)
    return [statistics.median(taken[1:]) for taken in times]


def released_sample(path: Path, rng: np.random.RandomState) -> np.ndarray:
    """The released recipe, step by step: float32 (T,3,S,S)."""
    position = random.Random(int(rng.randint(2**31)))
    with av.open(str(path)) as container:
        frames = container.streams.video[0].frames
    pictures = decode_wanted(path, train_indices(frames or probe(path).frames, CLIP, rng))
    pictures = [resize_short_side(picture, 256) for picture in pictures]
    height, width = pictures[0].shape[:2]
    x1, y1, x2, y2 = random_resized_crop(height, width, AUGMENT.scale, AUGMENT.ratio, rng, position)
    pictures = [cv2.resize(picture[y1:y2, x1:x2], (CLIP.size, CLIP.size)) for picture in pictures]
    if rng.random_sample() < AUGMENT.flip:
        pictures = [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures]
    if rng.random_sample() < AUGMENT.jitter:
        pictures = [pil_jitter(picture, rng) for picture in pictures]
    if rng.random_sample() < AUGMENT.grey:
        pictures = [cv2.cvtColor(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) for p in pictures]
    mean, scale = np.float64(CLIP.mean).reshape(1, -1), 1 / np.float64(CLIP.std).reshape(1, -1)
    normalised = []
    for picture in pictures:
        values = picture.astype(np.float32)
        cv2.subtract(values, mean, values)
        cv2.multiply(values, scale, values)
        normalised.append(values)
    return np.ascontiguousarray(np.stack(normalised).transpose(0, 3, 1, 2))


def decode_wanted(path: Path, indices: np.ndarray) -> list[np.ndarray]:
    """Plain decoding up to the last wanted frame; the wanted ones as full RGB pictures."""
    wanted, last = set(indices.tolist()), int(indices.max())
    found: dict[int, np.ndarray] = {}
    for number, frame in enumerate(decode(path)):
        if number in wanted:
            found[number] = frame.to_ndarray(format="rgb24")
        if number == last:
            break
    return [found[min(index, max(found))] for index in indices.tolist()]


def decode(path: Path) -> Iterator[av.VideoFrame]:
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"  # threads would cost more CPU time
        yield from container.decode(video=0)


def resize_short_side(picture: np.ndarray, short_side: int) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = short_side / min(height, width)
    return cv2.resize(picture, (int(width * scale + 0.5), int(height * scale + 0.5)), interpolation=cv2.INTER_LINEAR)


def pil_jitter(picture: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """torchvision's ColorJitter(0.4, 0.4, 0.2, 0.1) of a PIL image."""
    image = Image.fromarray(picture)
    for operation in rng.permutation(4):
        if operation == 0:
            image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.6, 1.4))
        elif operation == 1:
            image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.6, 1.4))
        elif operation == 2:
            image = ImageEnhance.Color(image).enhance(rng.uniform(0.8, 1.2))
        else:
            hue, saturation, value = image.convert("HSV").split()
            turned = np.array(hue, dtype=np.uint8)
            turned += np.int16(rng.uniform(-0.1, 0.1) * 255).astype(np.uint8)
            image = Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
    return np.array(image)


def decode_only(path: Path, frames: int, seed: int) -> None:
    last = int(train_indices(frames, CLIP, np.random.RandomState(seed)).max())
    for number, _ in enumerate(decode(path)):
        if number == last:
            break


def read_clip(path: Path, frames: int, box: tuple[int, int, int, int], size: int, seed: int) -> None:
    indices = train_indices(frames, CLIP, np.random.RandomState(seed))
    read_frames(path, indices, box=box, size=(size, size))


class Repeated(Dataset[torch.Tensor]):
    """The same clip again and again: nothing but its transport costs time."""

    def __init__(self, clip: torch.Tensor, length: int) -> None:
        self.clip, self.length = clip, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.clip


def transport_time(clip: torch.Tensor, batches: int, batch: int) -> float:
    """CPU seconds, of this process and its worker, to hand over `batches` and to copy each once."""
    started = cpu_time()
    for payload in DataLoader(Repeated(clip, batches * batch), batch_size=batch, num_workers=1):
        payload.clone()
    return cpu_time() - started


def cpu_time() -> float:
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
