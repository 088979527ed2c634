"""Distillation's settings one at a time, on the embedded data: test top-1 of the student.

    python benchmarks/distil_ablation.py TEACHER [--recipe demo_student] [--seeds 1] [--out FOLDER]
        [--section.key value …]

TEACHER is the run folder of `vidstill train demo`. Prints a markdown row per variant, mean ± deviation over seeds.
Further settings hold for all variants, e.g. --distil.loss dkd for another comparison of logits.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import vidstill

PLAIN = {"alpha": 0.5, "temperature": 4.0, "beta": 0.0, "gamma": 0.0}
VARIANTS: dict[str, dict[str, object]] = {
    "alone": {},
    **{f"α {alpha}": {"alpha": alpha} for alpha in (0.2, 0.5, 0.9)},
    **{f"τ {temperature:g}": {"temperature": temperature} for temperature in (1.0, 10.0)},
    "β 1": {"beta": 1.0},
    "γ 1": {"gamma": 1.0},
    "β 1, γ 1": {"beta": 1.0, "gamma": 1.0},
    "β 1, γ 1, α 0": {"alpha": 0.0, "beta": 1.0, "gamma": 1.0},
    "β 2, γ 2, α 0": {"alpha": 0.0, "beta": 2.0, "gamma": 2.0},
    "β 2, γ 2, α 0.2": {"alpha": 0.2, "beta": 2.0, "gamma": 2.0},
    "β 2, γ 2": {"beta": 2.0, "gamma": 2.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--recipe", default="demo_student")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    options, settings = parser.parse_known_args()
    print("| α 0.5, τ 4, β 0, γ 0, but | test top-1 | runs |\n|---|---|---|", flush=True)
    for number, (label, changed) in enumerate(VARIANTS.items()):
        chosen = {**PLAIN, **changed}
        distil = [token for key, value in chosen.items() for token in (f"--distil.{key}", str(value))]
        if label != "alone":
            distil += ["--objective", "distil", "--distil.teacher", str(options.teacher)]
        scores = []
        for seed in range(options.seeds):
            own = ["--seed", str(seed), "--out", str(options.out), "--name", f"{number}-s{seed}"]
            folder = vidstill.train(vidstill.resolve(options.recipe, [*own, *settings, *distil]))
            rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            scores.append(100 * next(row["top1"] for row in rows if row["split"] == "test"))
        spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
        print(f"| {label} | {statistics.mean(scores):.1f}{spread} | {len(scores)} |", flush=True)


if __name__ == "__main__":
    main()
