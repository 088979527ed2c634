"""Top-1 on small real data sets over seeds, for a video model and for a per-frame one of the same shape.

    python benchmarks/real_clips.py RECIPE --root FOLDER [--seeds 3] [--folds 1] [--section.key value …]

The per-frame model is the same network fed single frames (clip.frames 1), tested on as many frames of each video as
the video model sees, scores averaged. Prints a markdown row per model: mean and spread (standard deviation over seeds
and folds) of top-1 on the held-out part, beside chance.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import Counter
from pathlib import Path

import vidstill
from vidstill.config import resolve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--root", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=1, help="how many of the recipe's folds to hold out in turn")
    parser.add_argument("--out", default="runs/real")
    arguments, settings = parser.parse_known_args()
    frames = resolve(arguments.recipe, settings).clip.frames
    variants = {
        "video": [],
        "per frame": ["--clip.frames", "1", "--test.clips", str(frames), "--train.batch", str(8)],
    }
    print("| model | top-1 | runs | chance (largest class) |\n|---|---|---|---|")
    for label, extra in variants.items():
        scores, largest = [], []
        for fold in range(1, arguments.folds + 1):
            for seed in range(arguments.seeds):
                name = f"{Path(arguments.recipe).stem}-{label.replace(' ', '_')}-f{fold}-s{seed}"
                run = resolve(
                    arguments.recipe,
                    ["--data.root", arguments.root, "--data.fold", str(fold), "--seed", str(seed),
                     "--out", arguments.out, "--name", name, *settings, *extra],
                )  # fmt: skip
                folder = vidstill.train(run)
                rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
                scores.append(next(row["top1"] for row in reversed(rows) if row["split"] == "test"))
                annotations = vidstill.read_annotations(run.data, run.seed)
                held_out = annotations.splits.get("test") or annotations.splits["val"]
                largest.append(max(Counter(sample.label for sample in held_out).values()) / len(held_out))
        spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
        print(f"| {label} | {100 * statistics.mean(scores):.1f} ± {100 * spread:.1f} | {len(scores)} "
              f"| {100 * statistics.mean(largest):.1f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
