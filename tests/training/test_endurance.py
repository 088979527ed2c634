"""Runs that are killed again and again, a disk that is full, and many clips: nothing is lost and nothing grows."""

import gc
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import vidstill
from vidstill.config import Augment, Clip, resolve
from vidstill.data.annotations import Sample
from vidstill.data.dataset import TrainClips
from vidstill.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

THREADS = {**os.environ, "OMP_NUM_THREADS": "1"}
LIGHT = [
    "--model.name",
    "slowfast_shufflenetv2",
    "--model.options",
    "{width: 0.25, dropout: 0, alpha: 2}",
    "--clip.frames",
    "8",
]
RUNS = {
    "loader processes": ["--train.workers", "2"],
    "averaged weights": ["--train.ema", "0.9", "--train.accumulate", "2", "--augment.erase", "0.5"],
    "cached logits": ["--objective", "distil", "--distil.cache_epochs", "2"],
    "multigrid": [*LIGHT, "--train.batch", "2", "--multigrid.long", "--multigrid.short", "--multigrid.norm_batch", "4",
                  "--augment.crop", "scaled", "--augment.scales", "[36, 44]", "--optim.schedule", "steps",
                  "--optim.milestones", "[0, 2]", "--optim.factors", "[1, 0.1]"],
}  # fmt: skip
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def assert_same_run(one: Path, other: Path) -> None:
    a, b = read_checkpoint(one), read_checkpoint(other)
    assert a is not None and b is not None and (a["step"], a["best"]) == (b["step"], b["best"])
    for name, saved in a["weights"].items():
        for key, value in saved["model"].items():
            assert torch.equal(value, b["weights"][name]["model"][key]), key
    for name in ("predictions.csv", "best.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize("name", RUNS)
def test_stopped_at_random_moments_it_ends_with_the_same_bits(
    small: list[str], teacher: Path, tmp_path: Path, name: str
) -> None:
    settings = [*small, "--train.epochs", "4", "--train.save_every", "2", *RUNS[name]]
    if "distil" in settings:
        settings += ["--distil.teacher", str(teacher)]

    def of(run: str) -> list[str]:
        cache = ["--distil.cache", str(tmp_path / f"cache-{run}")] if "distil" in settings else []
        return [*settings, *cache, "--name", run]

    whole = vidstill.train(resolve(None, of("whole")))
    broken, rng = tmp_path / "broken", random.Random(name)
    command = [sys.executable, "-m", "vidstill", "train", *of("broken")]
    interrupted = 0
    for _ in range(10):
        process = subprocess.Popen(command, env=THREADS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (broken / "train.log").exists() and process.poll() is None:
            time.sleep(0.005)
        began = (broken / "train.log").stat().st_size
        while (broken / "train.log").stat().st_size == began and process.poll() is None:
            time.sleep(0.005)  # imports take longer than the run
        time.sleep(rng.uniform(0, 1.2))
        process.send_signal(rng.choice(SIGNALS))
        interrupted += process.wait() != 0
        if (saved := read_checkpoint(broken)) is not None and saved["step"] >= 12:
            break
    subprocess.run(command, env=THREADS, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert interrupted >= 2, "the run ended before it was stopped"
    assert_same_run(whole, broken)


def test_a_full_disk_is_said_and_the_run_goes_on_where_there_is_room(small: list[str], tmp_path: Path) -> None:
    whole = vidstill.train(resolve(None, [*small, "--name", "whole"]))
    command = [sys.executable, "-m", "vidstill", "train", *small, "--name", "full"]
    most = (whole / "last.pt").stat().st_size // 2

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    done = subprocess.run(command, env=THREADS, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 1
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("vidstill: "))
    assert "cannot write" in line and "last.pt" in line
    assert not [*(tmp_path / "full").glob("*.partial")]
    subprocess.run(command, env=THREADS, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert_same_run(whole, tmp_path / "full")


def test_memory_does_not_grow_with_the_clips(embedded: Path) -> None:
    samples = [Sample(path, 0) for path in sorted((embedded / "train").rglob("*.mp4"))]
    clips = TrainClips(samples, Clip(frames=8, size=32), Augment(randaugment="rand-m9-n2-mstd0.5-inc1", erase=0.5), 0)

    def read(epochs: range) -> int:
        for epoch in epochs:
            clips.__getitems__([(epoch, index) for index in range(len(samples))])
        gc.collect()
        return 4096 * int(Path("/proc/self/statm").read_text().split()[1])

    if not Path("/proc/self/statm").exists():
        pytest.skip("this system does not say how much memory a process has")
    before = read(range(40))
    assert read(range(40, 240)) - before < 16e6, f"{200 * len(samples)} clips"
