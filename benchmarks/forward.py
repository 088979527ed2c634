"""Forward and training passes of the networks against a literal transcription of their formulas.

    python benchmarks/forward.py [--rounds 7] [--models vfl_net slowfast_ghostnet …] [--skip-training] [--memory]

One clip as in the catalogue (SlowFast on ResNets: 16×112²), one thread. Every variant lives alone in its own process;
the processes take turns, one pass each per round, and CPU time is counted, so that other work on the machine disturbs
all of them alike. Figures are medians over the rounds. Prints a Markdown table with the goals of fp32 (M1), bf16 (M2)
and the share of the machine's own matrix-product rate (M4). `--memory` instead compares what the attention of
SlowFast's fusion needs with an N×N matrix (M6).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import literal_dualformer
import torch
from literal import write_out
from torch import Tensor, nn
from torch.nn import functional as F

from vidstill.evaluation.cost import processor
from vidstill.models.catalogue import CATALOGUE
from vidstill.models.dualformer import DualFormer
from vidstill.models.focal import VideoFocalNet
from vidstill.models.layers import can_pack
from vidstill.models.registry import create_model

# 400 classes, by torch.utils.flop_counter
GFLOP = {
    "vfl_net": 54.28,
    "video_focalnet_tiny": 126.00,
    "dualformer_tiny": 119.72,
    "slowfast_r50": 12.59,
    "slowfast_dual_r50": 14.77,
    "slowfast_shufflenet": 0.74,
    "slowfast_shufflenetv2": 0.63,
    "slowfast_mobilenetv2": 1.09,
    "slowfast_ghostnet": 1.90,
    "shufflenetv2_3d": 0.37,
}
CLIPS = {"focal": (1, 8, 224, 224, 3), "dualformer": (1, 32, 224, 224, 3)}
LIGHT = (1, 16, 112, 112, 3)
MATRIX = 2048
# glibc keeps what it frees: the same setting as optimise_for_inference makes, given to the transcription.
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(512 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}


class Modulation(nn.Module):
    """Spatio-temporal focal modulation, step by step as it is written, permutes and all."""

    def __init__(self, width: int, window: int, levels: int) -> None:
        super().__init__()
        self.levels = levels
        sizes = [window + 2 * level for level in range(levels)]
        self.f = nn.Linear(width, 2 * width + levels + 1)
        self.h = nn.Conv2d(width, width, 1)
        self.proj = nn.Linear(width, width)
        self.focal_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, k, padding=k // 2, groups=width, bias=False), nn.GELU())
            for k in sizes
        )
        self.f_temporal = nn.Linear(width, width + levels + 1)
        self.h_temporal = nn.Conv1d(width, width, 1)
        self.focal_layers_temporal = nn.ModuleList(
            nn.Sequential(nn.Conv1d(width, width, k, padding=k // 2, bias=False), nn.GELU()) for k in sizes
        )

    def forward(self, x: Tensor, clips: int) -> Tensor:
        n, h, w, c = x.shape  # n = B·T
        t = n // clips

        y = x.view(clips, t, h, w, c).permute(0, 2, 3, 1, 4).reshape(clips * h * w, t, c)
        context, gates = torch.split(self.f_temporal(y).permute(0, 2, 1).contiguous(), (c, self.levels + 1), 1)
        total: Tensor | int = 0
        for level, layer in enumerate(self.focal_layers_temporal):
            context = layer(context)
            total = total + context * gates[:, level : level + 1]
        total = total + F.gelu(context.mean(2, keepdim=True)) * gates[:, self.levels :]
        m_t = self.h_temporal(total).view(clips, h, w, c, t).permute(0, 4, 3, 1, 2).reshape(n, c, h, w)

        y = self.f(x).permute(0, 3, 1, 2).contiguous()
        query, context, gates = torch.split(y, (c, c, self.levels + 1), 1)
        total = 0
        for level, layer in enumerate(self.focal_layers):
            context = layer(context)
            total = total + context * gates[:, level : level + 1]
        total = total + F.gelu(context.mean((2, 3), keepdim=True)) * gates[:, self.levels :]
        m_s = self.h(total)

        return self.proj((query * m_s * m_t).permute(0, 2, 3, 1).contiguous())


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.modulation = Modulation(width, window=3, levels=2)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, clips: int, height: int, width: int) -> Tensor:
        y = self.norm1(x).view(len(x), height, width, -1)
        x = x + 1.0 * self.modulation(y, clips).view(x.shape)
        return x + 1.0 * self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


class Embed(nn.Module):
    def __init__(self, channels: int, width: int, kernel: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, kernel, kernel)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        x = self.proj(x)
        return self.norm(x.flatten(2).transpose(1, 2)), x.shape[2], x.shape[3]


class Transcription(nn.Module):
    """Clips (B,T,3,H,W) → logits, in the layouts that the formulas name. State dict as released."""

    def __init__(self, width: int, depths: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.patch_embed = Embed(3, width, 4)
        self.layers = nn.ModuleList()
        for i, depth in enumerate(depths):
            stage, c = nn.Module(), width * 2**i
            stage.blocks = nn.ModuleList(Block(c) for _ in range(depth))
            stage.downsample = Embed(c, 2 * c, 2) if i < len(depths) - 1 else None
            self.layers.append(stage)
        self.norm = nn.LayerNorm(c)
        self.head = nn.Linear(c, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        clips = len(x)
        x, height, width = self.patch_embed(x.flatten(0, 1))
        for stage in self.layers:
            for block in stage.blocks:
                x = block(x, clips, height, width)
            if stage.downsample is not None:
                x, height, width = stage.downsample(x.transpose(1, 2).reshape(len(x), -1, height, width))
        return self.head(self.norm(x).mean(1).view(clips, -1, x.shape[-1]).mean(1))


def prepare(name: str, variant: str) -> tuple[nn.Module, Tensor]:
    """The variant's network and its clip, the same weights and pixels for all of them."""
    torch.manual_seed(0)
    family = CATALOGUE[name].module
    model = create_model(name, **({"drop_path_rate": 0.0} if family in CLIPS else {})).eval()
    frames = torch.randn(CLIPS.get(family, LIGHT))  # (B,T,H,W,3), as a loader gives it
    clips = frames.permute(0, 4, 1, 2, 3)
    if variant.startswith("transcription") and isinstance(model, DualFormer):
        literal = literal_dualformer.Transcription((64, 128, 256, 512), (2, 4, 8, 16), (2, 2, 10, 4), model.num_classes)
        literal.load_state_dict(model.state_dict())
        return literal.eval(), clips.contiguous()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm3d) and family not in CLIPS]
    for module in norms:  # not those of a fresh network, where much is 0
        nn.init.normal_(module.running_mean, std=0.1)  # type: ignore[arg-type]
        nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
        nn.init.uniform_(module.weight, 0.5, 1.5)
    if variant.startswith("transcription") and family not in CLIPS:
        write_out()
        return model, clips.contiguous()
    if variant.startswith("transcription"):
        assert isinstance(model, VideoFocalNet)
        reference = Transcription(model.patch_embed.norm.normalized_shape[0], model.depths, model.num_classes)
        reference.load_state_dict(model.state_dict())
        return reference.eval(), frames.permute(0, 1, 4, 2, 3).contiguous()
    if variant == "optimised":
        return model.optimise_for_inference(), clips
    if variant == "bf16":
        return model.optimise_for_inference(bf16=True), clips
    if variant == "bf16 emulated":
        return model.to(torch.bfloat16), clips
    return model, clips


def work(name: str, variant: str, logits: str) -> None:
    """One process: for every line on standard input a pass, for every pass its CPU seconds on standard output."""
    torch.set_num_threads(1)
    if name == "gemm":
        once = product(
            torch.bfloat16 if variant.endswith("bf16") else torch.float32, direct=variant.startswith("oneDNN")
        )
    else:
        model, clips = prepare(name, variant.removesuffix(" training"))
        if variant.endswith("training"):
            model.train()

            def once() -> None:
                model.zero_grad(set_to_none=True)
                model(clips).square().sum().backward()
        else:
            with torch.inference_mode():
                torch.save(model(clips), logits)

            def once() -> None:
                with torch.inference_mode():
                    model(clips)

    once()
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.process_time()
        once()
        print(time.process_time() - started, flush=True)


def product(dtype: torch.dtype, direct: bool) -> Any:
    """A square product, by torch.mm or by oneDNN with prepacked weights."""
    a, b = (torch.randn(MATRIX, MATRIX).to(dtype) for _ in range(2))
    if not direct:
        return lambda: torch.mm(a, b)
    packed = torch.ops.mkldnn._reorder_linear_weight(b, MATRIX)
    return lambda: torch.ops.mkldnn._linear_pointwise(a, packed, None, "none", [], "none")


class Worker:
    """A variant in its own process, measured on demand."""

    def __init__(self, name: str, variant: str, folder: Path) -> None:
        self.logits = folder / f"{name} {variant}.pt"
        setting = KEEP_MEMORY if variant.endswith("kept memory") else {}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", name, variant, str(self.logits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **setting},
        )
        self.seconds: list[float] = []
        self.read()

    def read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(self.process.args)} died")  # type: ignore[arg-type]
        return line

    def measure(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.seconds.append(float(self.read()))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def take_turns(name: str, variants: list[str], rounds: int, folder: Path) -> dict[str, Worker]:
    workers = {variant: Worker(name, variant, folder) for variant in variants}
    for _ in range(rounds):
        for worker in workers.values():
            worker.measure()
    for worker in workers.values():
        worker.close()
    return workers


def difference(reference: Worker, other: Worker) -> tuple[float, bool]:
    """Largest difference of the logits over the largest logit, and whether the first class is the same."""
    expected, given = torch.load(reference.logits).double(), torch.load(other.logits).double()
    return ((given - expected).abs().max() / expected.abs().max()).item(), bool(given.argmax() == expected.argmax())


def compare(name: str, rounds: int, training: bool, rates: dict[str, float], folder: Path) -> list[str]:
    bf16 = can_pack(torch.bfloat16)
    variants = ["transcription", "transcription, kept memory", "plain", "optimised", *(["bf16"] if bf16 else [])]
    workers = take_turns(name, variants, rounds, folder)
    base = workers["transcription"]
    rows = []
    for variant, worker in workers.items():
        error, same = difference(base, worker)
        rate = rates["bf16" if variant == "bf16" else "fp32"]
        share = GFLOP[name] / worker.median / rate
        rows.append(
            f"| {name} | {variant} | {1000 * worker.median:.0f} | {base.median / worker.median:.2f}× | "
            f"{share:.0%} | {error:.1e} | {'same' if same else 'OTHER'} |"
        )
    if not bf16 and name == "vfl_net":
        emulated = take_turns(name, ["bf16 emulated"], 1, folder)["bf16 emulated"]
        error, same = difference(base, emulated)
        rows.append(
            f"| {name} | bf16, emulated by this CPU | {1000 * emulated.median:.0f} | "
            f"{base.median / emulated.median:.2f}× | | {error:.1e} | {'same' if same else 'OTHER'} |"
        )
    if training:
        workers = take_turns(name, ["transcription training", "plain training"], rounds, folder)
        base = workers["transcription training"]
        for variant, worker in workers.items():
            ratio = base.median / worker.median
            rows.append(f"| {name} | {variant} step | {1000 * worker.median:.0f} | {ratio:.2f}× | | | |")
    return rows


def memory(places: int = 4 * 56 * 56, channels: int = 4) -> None:
    """Peak memory of one attention over the places of GhostNet's first fusion at 16×112², each in its own process."""
    matrix = places**2 * 4 / 1e6
    print(f"{places} places, {channels} channels; one N×N matrix: {matrix:.0f} MB")
    for variant in ("transcription", "plain"):
        script = (
            "import resource, sys, torch; sys.path.insert(0, sys.argv[1]); import literal\n"
            "from vidstill.models.pathways import PositionAttention\n"
            f"layer, x = PositionAttention({channels}), torch.randn(1, {channels}, 4, 56, {places // 224})\n"
            f"{'literal.write_out()' if variant == 'transcription' else ''}\n"
            "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3\n"
            "with torch.inference_mode():\n"
            "    layer(x[:, :, :1, :8]); before = peak(); layer(x); print(peak() - before)"
        )
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", script, str(Path(__file__).parent)]
        grown = float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
        print(f"{variant}: {grown:.1f} MB, {grown / matrix:.4f} of the matrix")
    print("Goal: M6 ≤ 1/20.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--models", nargs="+", default=["vfl_net", "video_focalnet_tiny"], choices=list(GFLOP))
    parser.add_argument("--skip-training", action="store_true")
    parser.add_argument("--memory", action="store_true", help="of the attention in SlowFast's fusion, nothing else")
    parser.add_argument("--worker", nargs=3, metavar=("NAME", "VARIANT", "LOGITS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(*options.worker)
        return
    if options.memory:
        memory()
        return
    bf16 = can_pack(torch.bfloat16)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        libraries = ["torch.mm fp32", "oneDNN fp32", *(["torch.mm bf16", "oneDNN bf16"] if bf16 else [])]
        workers = take_turns("gemm", libraries, options.rounds, folder)
        gemm = {library: 2 * MATRIX**3 / 1e9 / worker.median for library, worker in workers.items()}
        rates = {
            kind: max(rate for what, rate in gemm.items() if what.endswith(kind))
            for kind in ("fp32", "bf16")[: 1 + bf16]
        }
        rows = []
        for model in options.models:
            training = model == "vfl_net" and not options.skip_training
            rows += compare(model, options.rounds, training, rates, folder)
    rates_shown = ", ".join(f"{library} {rate:.0f}" for library, rate in gemm.items())
    print(f"{processor()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, one thread; ", end="")
    print(f"load {os.getloadavg()[0]:.1f}; {MATRIX}³ product, GFLOP/s: {rates_shown}\n")
    print("| model | variant | CPU ms | speed-up | of the faster product | max difference / max logit | top-1 |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    print("\nGoals: M1 optimised ≥ 1.6× (stretch 1.9×), difference ≤ 1e-5; M2 bf16 ≥ 2.8× (3.5×), ≤ 1e-2, same top-1; ")
    print("M4 share ≥ 65 % (75 %). Speed-ups are over the transcription alone in its process.")
    if not bf16:
        print("This CPU has no bfloat16 instructions: M2 can only be measured on one that has.")


if __name__ == "__main__":
    main()
