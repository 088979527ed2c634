"""What distillation is worth: teacher, student alone and distilled student, over seeds.

    python benchmarks/distil_proof.py TEACHER_RECIPE STUDENT_RECIPE [--seeds 3] [--folds 1] [--out FOLDER]
        [--section.key value …]

Settings hold for all runs. The student's recipe says how it is distilled (`distil:`) and serves for both students, with
the same seed, epochs and clips. A finished run is kept. Ends with the table of `vidstill bench` over all run folders.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import vidstill


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("student")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=1, help="how many of the recipe's folds to hold out in turn")
    parser.add_argument("--out", type=Path, default=Path("runs/proof"))
    options, settings = parser.parse_known_args()
    folders = []
    for number in range(options.seeds * options.folds):
        fold, seed = divmod(number, options.seeds)

        def run(recipe: str, name: str, *more: str, fold: int = fold, seed: int = seed, number: int = number) -> Path:
            own = ["--seed", str(seed), "--data.fold", str(fold + 1), "--out", str(options.out)]
            if "--data.root" not in settings:  # the embedded data, made anew by every seed
                own += ["--data.root", str(options.out / f"embedded-{seed}")]
            resolved = vidstill.resolve(recipe, [*own, "--name", f"{name}-s{number}", *settings, *more])
            if not (resolved.folder / "report.html").exists():
                vidstill.train(resolved)
            print(resolved.folder, flush=True)
            return resolved.folder

        teacher = run(options.teacher, "teacher")
        alone = run(options.student, "alone")
        distilled = run(options.student, "distilled", "--objective", "distil", "--distil.teacher", str(teacher))
        folders += [teacher, alone, distilled]
    bench = [sys.executable, "-m", "vidstill", "bench", *map(str, folders), "--out", str(options.out)]
    subprocess.run(bench, check=True)


if __name__ == "__main__":
    main()
