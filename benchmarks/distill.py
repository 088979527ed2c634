"""A step of distillation: online teacher, cached logits, the student alone; and what the teacher keeps for gradients.

    python benchmarks/distill.py [--teacher video_focalnet_base] [--student vfl_net] [--frames 8] [--size 112]
        [--batch 2] [--rounds 5] [--device cpu]

Wall-clock medians of alternated rounds in one process, forward, backward and optimiser step. The bytes are those that
autograd saves during the teacher's forward.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from videos import machine

import vidstill
from vidstill.config import Clip, Optim
from vidstill.config import Distil as Settings
from vidstill.objectives.cache import LogitCache
from vidstill.objectives.distil import Distil
from vidstill.objectives.recognise import Recognise
from vidstill.objectives.teachers import Teacher
from vidstill.training.loop import train_step
from vidstill.training.optim import make_optimiser

CLASSES = 101


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="video_focalnet_base")
    parser.add_argument("--student", default="vfl_net")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    fabric = Fabric(accelerator=options.device, devices=1)
    clip = Clip(frames=options.frames, size=options.size)
    shape = (options.batch, options.frames, options.size, options.size, 3)
    clips = torch.randn(shape, device=fabric.device).permute(0, 4, 1, 2, 3)
    targets = torch.arange(options.batch, device=fabric.device)
    batch = {"clips": clips, "targets": targets, "teacher_clips": [clips], "number": 0}

    teacher = vidstill.create_model(options.teacher, CLASSES).to(fabric.device).eval().requires_grad_(False)
    teacher.input = clip
    settings = Settings(teacher=["benchmark"])
    student = vidstill.create_model(options.student, CLASSES).to(fabric.device)
    with tempfile.TemporaryDirectory() as folder:
        cache = LogitCache(Path(folder), {}, batches=1, batch=options.batch, classes=CLASSES, kept=32, rank=0)
        known = [Teacher(teacher, "benchmark", "")]
        objectives = {
            "online": Distil(student, known, settings),
            "cached": Distil(student, known, settings, cache),
            "student alone": Recognise(student),
        }
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.nbytes) or t, lambda t: t):
            objectives["online"]._ask(batch)
        flops = {}
        for name, model in (("teacher", teacher), ("student", student)):
            ghost = vidstill.create_model(model.name, CLASSES, device="meta").eval()
            with FlopCounterMode(display=False) as counter:
                ghost(torch.empty(clips.shape, device="meta"))
            flops[name] = counter.get_total_flops()
        times = measure(fabric, objectives, batch, options.rounds)
    print(f"`python benchmarks/distill.py {' '.join(sys.argv[1:])}` on {machine()}\n")
    print("| step | ms | of online |\n|---|---|---|")
    for name, ms in times.items():
        print(f"| {name} | {ms:.0f} | {times['online'] / ms:.2f} |")
    forward_only = 1 + flops["teacher"] / (3 * flops["student"])
    print(f"\nBytes saved by the teacher's forward: {sum(saved)}.")
    print(f"Multiply-adds, online step to that of the student (forward and twice it back): {forward_only:.2f}.")


def measure(
    fabric: Fabric, objectives: dict[str, torch.nn.Module], batch: dict[str, object], rounds: int
) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in objectives}
    ready = {}
    for name, objective in objectives.items():
        inner = make_optimiser(objective, Optim())
        ready[name] = fabric.setup_module(objective.train()), fabric.setup_optimizers(inner)
    for number in range(rounds + 1):  # the first warms up
        for name, (objective, optimiser) in ready.items():
            wait(batch["clips"])
            began = time.perf_counter()
            train_step(fabric, objective, optimiser, batch, clip_grad=5.0)
            wait(batch["clips"])
            if number:
                times[name].append(1000 * (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in times.items()}


def wait(tensor: object) -> None:
    if isinstance(tensor, Tensor) and tensor.is_cuda:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
