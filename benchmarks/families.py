"""Every family on one small real data set: motion learned on the embedded data, then the real clips.

    python benchmarks/families.py RECIPE --root FOLDER [--only NAME …] [--teacher NAME] [--seeds 3] [--out FOLDER]
        [--section.key value …]

RECIPE says how a network is trained on the real clips, e.g. `ut_interaction`. Each network first trains on the embedded
data (recipe `demo`); from there it trains alone, and once more taught by --teacher as it trained with the same seed. In
what the families differ from the two recipes stands in FAMILIES. One thread and no loader process each, so that several
may run side by side with --only. A finished run is kept. Ends with the table of `vidstill bench` over all run folders.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import vidstill

DUALFORMER = """{video_size: [8, 40, 40], patch_size: [2, 4, 4], temporal_pooling: [2, 1, 1], embed_dims: [32, 64, 96],
    num_heads: [2, 4, 6], depths: [2, 2, 2], mlp_ratios: [2, 2, 2], local_sizes: [[4, 5, 5], [4, 5, 5], [4, 3, 3]],
    fine_pysizes: [[4, 5, 5], [4, 5, 5], [4, 2, 2]], coarse_pysizes: [[4, 1, 1], [4, 1, 1], [4, 1, 1]],
    drop_path_rate: 0, dropout_ratio: 0}"""
# The network, how it trains on the embedded data, and how on the real clips; the first is what both recipes hold.
FAMILIES: dict[str, tuple[list[str], list[str], list[str]]] = {
    "video_focalnet": ([], ["--train.epochs", "24"], []),
    "dualformer": (
        ["--model.name", "dualformer_tiny", "--model.options", DUALFORMER],
        ["--train.epochs", "40", "--optim.lr", "0.002", "--optim.warmup_epochs", "4"],
        ["--optim.lr", "0.001"],
    ),
    "slowfast_shufflenetv2": (
        ["--model.name", "slowfast_shufflenetv2", "--model.options", "{width: 0.25, dropout: 0}"],
        ["--clip.size", "64", "--train.epochs", "30"],
        [],
    ),
    "slowfast_mobilenetv2": (
        ["--model.name", "slowfast_mobilenetv2", "--model.options", "{width: 0.5, dropout: 0}"],
        ["--clip.size", "64", "--train.epochs", "20"],
        [],
    ),
}
TAUGHT = ["--objective", "distil", "--distil.alpha", "0.5", "--distil.temperature", "1"]
LIGHT = ["--train.workers", "0", "--train.threads", "1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--root", required=True)
    parser.add_argument("--only", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--teacher", default="video_focalnet", choices=FAMILIES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/families"))
    options, settings = parser.parse_known_args()

    def run(recipe: str, name: str, *more: str) -> Path:
        resolved = vidstill.resolve(recipe, ["--out", str(options.out), "--name", name, *LIGHT, *more])
        if not (resolved.folder / "report.html").exists():
            vidstill.train(resolved)
        print(resolved.folder, flush=True)
        return resolved.folder

    folders = []
    for name in options.only:
        network, embedded, real = FAMILIES[name]
        motion = run("demo", f"{name}-motion", "--data.root", str(options.out / "embedded"), "--augment.scale",
                     "[0.7, 1.0]", *network, *embedded)  # fmt: skip
        for seed in range(options.seeds):
            own = ["--data.root", options.root, "--seed", str(seed), "--model.weights", str(motion), *network, *real]
            folders.append(run(options.recipe, f"{name}-s{seed}", *own, *settings))
            if name != options.teacher:
                taught = [*TAUGHT, "--distil.teacher", str(options.out / f"{options.teacher}-s{seed}")]
                folders.append(run(options.recipe, f"{name}-by-{options.teacher}-s{seed}", *own, *taught, *settings))
    bench = [sys.executable, "-m", "vidstill", "bench", *map(str, folders), "--out", str(options.out)]
    subprocess.run(bench, check=True)


if __name__ == "__main__":
    main()
