"""A test of 4 clips x 3 crops: one decoding pass per video against one per view.

    python benchmarks/views.py [--clips FOLDER] [--rounds 7]

CPU time of one thread, rounds alternated, medians. Both sides give the same twelve uint8 views, which is checked. An
item per view opens the file, decodes it up to the last frame that the view needs, resizes and crops.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import av
import cv2
import numpy as np
from loader import decode_wanted, medians, resize_short_side, videos_below
from videos import K340, K720, UCF, machine, make

from vidstill.config import Clip
from vidstill.data.sampling import test_indices
from vidstill.data.views import test_clips, view_boxes
from vidstill.video.decode import probe

CLIP, CLIPS, CROPS = Clip(), 4, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="folder of real videos")
    parser.add_argument("--most", type=int, default=2, help="how many of them")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    cv2.setNumThreads(0)
    print(f"`python benchmarks/views.py {' '.join(sys.argv[1:])}` on {machine()}\n")
    print("| video | item per view, ms | vidstill, ms | ratio | decoding passes | goal |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        videos = {made.name: make(made, Path(folder)) for made in (UCF, K340, K720)}
        for name, path in {**videos, **videos_below(options.clips, options.most)}.items():
            np.testing.assert_array_equal(one_pass(path), per_view(path))
            methods = [functools.partial(read, path) for read in (per_view, one_pass)]
            slow, fast = medians([lambda _, read=read: read() for read in methods], options.rounds, samples=1)
            passes = " → ".join(str(count_passes(read)) for read in methods)
            print(f"| {name} | {slow:.0f} | {fast:.0f} | {slow / fast:.1f} | {passes} | T1 ≥ 8, 1 pass |", flush=True)


def one_pass(path: Path) -> np.ndarray:
    return test_clips(path, CLIP, CLIPS, CROPS)


def per_view(path: Path) -> np.ndarray:
    """The twelve views, each read by itself."""
    indices = test_indices(probe(path).frames, CLIP, CLIPS)
    views = []
    for crop in range(CROPS):
        for clip in range(CLIPS):
            pictures = [resize_short_side(picture, CLIP.size) for picture in decode_wanted(path, indices[clip])]
            x1, y1, x2, y2 = view_boxes(*pictures[0].shape[:2], CLIP.size, CROPS)[crop]
            views.append([picture[y1:y2, x1:x2] for picture in pictures])
    return np.array(views)


def count_passes(read: Callable[[], np.ndarray]) -> int:
    """How often a file whose index is known is opened and decoded to make its views."""
    with mock.patch.object(av, "open", wraps=av.open) as opened:
        read()
    return opened.call_count


if __name__ == "__main__":
    main()
