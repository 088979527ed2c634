"""The whole story on data that the package makes itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vidstill.config import resolve
from vidstill.data.annotations import read_annotations
from vidstill.inference.overlay import annotate
from vidstill.inference.predictor import Predictor
from vidstill.training.run import train


def run_demo(out: Path, seed: int, report: Callable[[dict[str, Any]], None], say: Callable[[str], None]) -> Path:
    """Make the embedded data, train and test the demo recipe, label one test video; returns the report's path."""
    run = resolve("demo", ["--out", str(out), "--seed", str(seed)])
    run.data.root = out / "embedded"
    folder = train(run, report)
    sample = read_annotations(run.data, run.seed).splits["test"][0]
    prediction = Predictor(folder).predict(sample.path)
    annotated = annotate(sample.path, prediction, folder / "prediction.mp4")
    (name, score), *_ = prediction.top()
    say(f"{sample.path} shows {name} ({score:.2f}); annotated: {annotated}")
    return folder / "report.html"
