"""The whole story on data that the package makes itself: teacher, student alone, distilled student."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vidstill.config import resolve
from vidstill.data.annotations import read_annotations
from vidstill.inference.overlay import annotate
from vidstill.inference.predictor import Predictor
from vidstill.reporting.bench import bench
from vidstill.training.run import train


def run_demo(out: Path, seed: int, report: Callable[[dict[str, Any]], None], say: Callable[[str], None]) -> Path:
    """Make the embedded data, train and test the demo's recipes, compare them, label one test video.

    Returns the path of the distilled student's report.
    """
    shared = ["--out", str(out), "--seed", str(seed), "--data.root", str(out / "embedded")]
    say("1 of 3: the teacher")
    teacher = train(resolve("demo", shared), report)
    say("2 of 3: a smaller student, alone")
    alone = train(resolve("demo_student", shared), report)
    say("3 of 3: the same student, taught")
    run = resolve("demo_student", [*shared, "--objective", "distil", "--distil.teacher", str(teacher)])
    student = train(run, report)
    rows, page = bench([teacher, alone, student], out=out / "bench", report=report)
    sample = read_annotations(run.data, run.seed).splits["test"][0]
    prediction = Predictor(student).predict(sample.path)
    annotated = student / "prediction.mp4"
    annotate(sample.path, prediction, annotated)
    (name, score), *_ = prediction.top()
    say(f"{sample.path} shows {name} ({100 * score:.0f} %); annotated: {annotated}")
    for row in rows:
        say(f"{row.name}: top-1 {row.top1[0]:.1f} %")
    say(f"the three compared: {page}")
    return student / "report.html"
