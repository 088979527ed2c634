"""A run from settings to its folder: what is in it, how it goes on, how it fails."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

import vidstill
from vidstill.config import ConfigError, resolve
from vidstill.training.checkpoint import TrainingError, read_checkpoint
from vidstill.video.decode import VideoError

THREADS = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(settings: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "vidstill", "train", *settings]


def losses(folder: Path) -> list[tuple[object, ...]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["split"], row.get("step"), row["loss"], row.get("top1")) for row in rows]


def assert_same_run(one: Path, other: Path) -> None:
    assert losses(one) == losses(other)
    a, b = read_checkpoint(one), read_checkpoint(other)
    assert a is not None and b is not None
    assert a.keys() == b.keys()
    for key, value in a["weights"]["training"]["model"].items():
        assert torch.equal(value, b["weights"]["training"]["model"][key]), key
    assert (one / "predictions.csv").read_text() == (other / "predictions.csv").read_text()


def test_the_run_folder_is_complete_and_loads(small: list[str], tmp_path: Path) -> None:
    folder = vidstill.train(resolve(None, small))
    names = {path.name for path in folder.iterdir()}
    assert names >= {"config.yaml", "metrics.jsonl", "train.log", "last.pt", "best.safetensors", "best.json",
                     "predictions.csv", "report.html"}  # fmt: skip
    model = vidstill.load(folder)
    assert model.classes is not None
    assert model.input.frames == 4
    assert model.input.seconds is not None
    assert len(losses(folder)) == 5  # two epochs of train and val, one test
    assert vidstill.train(resolve(None, small)) == folder  # finished: tested again, not trained
    assert len(losses(folder)) == 5


def test_compiling_changes_nothing_but_the_time(any_objective: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = vidstill.train(resolve(None, any_objective))
    compiled: list[str] = []

    def traced(module: nn.Module) -> None:
        compiled.append(type(module).__name__)
        module._compiled_call_impl = torch.compile(module._call_impl, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", traced)
    other = vidstill.train(resolve(None, [*any_objective, "--name", "other", "--train.compile", "true"]))
    assert compiled
    for (*where, loss, _), (*expected, expected_loss, _) in zip(losses(other), losses(plain), strict=True):
        assert where == expected and loss == pytest.approx(expected_loss, rel=1e-3)


def saved_at(folder: Path) -> int:
    checkpoint = folder / "last.pt"
    return checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0


@pytest.mark.parametrize("workers", ["0", "2"])
def test_killed_at_any_moment_and_started_again_gives_the_same_bits(
    any_objective: list[str], tmp_path: Path, workers: str
) -> None:
    settings = [*any_objective, "--train.epochs", "3", "--train.save_every", "1", "--train.workers", workers,
                "--train.ema", "0.9", "--augment.erase", "0.5",
                "--model.options", "{width: 8, drop_rate: 0.1}"]  # fmt: skip
    whole = vidstill.train(resolve(None, [*settings, "--name", "whole"]))
    broken = tmp_path / "broken"
    for saves in (1, 3):  # so that training is really under way
        process = subprocess.Popen(command([*settings, "--name", "broken"]), env=THREADS, stdout=subprocess.DEVNULL)
        seen = {saved_at(broken)}
        while len(seen) <= saves and process.poll() is None:
            time.sleep(0.005)
            seen.add(saved_at(broken))
        process.send_signal(signal.SIGKILL)
        process.wait()
    saved = read_checkpoint(broken)
    assert saved is not None
    assert 0 < saved["step"] < 15, "the kills came too early or too late to test anything"
    subprocess.run(command([*settings, "--name", "broken"]), env=THREADS, check=True, stdout=subprocess.DEVNULL)
    assert_same_run(whole, broken)


def test_cached_logits_train_like_the_teacher_and_serve_a_second_student(
    small: list[str], teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 8 classes are kept, so that nothing is lost; one epoch comes three times."""
    settings = [*small, "--objective", "distil", "--distil.teacher", str(teacher), "--train.epochs", "3"]
    online = vidstill.train(resolve(None, [*settings, "--name", "online"]))
    cached = [*settings, "--distil.cache", str(tmp_path / "cache")]
    first = vidstill.train(resolve(None, [*cached, "--name", "first"]))
    assert losses(first)[0] == losses(online)[0]

    def never(*arguments: object) -> None:
        raise AssertionError("the teacher was asked again")

    monkeypatch.setattr("vidstill.objectives.cache.LogitCache.write", never)
    second = vidstill.train(resolve(None, [*cached, "--name", "second"]))
    assert_same_run(first, second)
    with pytest.raises(ValueError, match=r"other batches.*seed"):
        vidstill.train(resolve(None, [*cached, "--seed", "5", "--name", "third"]))


def test_the_run_says_who_taught(small: list[str], teacher: Path) -> None:
    folder = vidstill.train(resolve(None, [*small, "--objective", "distil", "--distil.teacher", str(teacher)]))
    (known,) = json.loads((folder / "best.json").read_text())["provenance"]["teachers"]
    assert known["source"] == str(teacher)
    assert known["sha256"] == hashlib.sha256((teacher / "best.safetensors").read_bytes()).hexdigest()[:16]
    run = resolve(None, small)
    videos = vidstill.read_annotations(run.data).splits["test"]
    assert known["top1"] == vidstill.evaluate(vidstill.load(teacher), videos, clips=2, crops=1).metrics.top1


def test_a_run_killed_before_its_first_checkpoint_begins_alike(small: list[str], teacher: Path, tmp_path: Path) -> None:
    """The teacher has been introduced already, which must not move what is drawn for the adapters."""
    taught = [*small, "--objective", "distil", "--distil.teacher", str(teacher), "--distil.beta", "0.5"]
    whole = vidstill.train(resolve(None, [*taught, "--name", "whole"]))
    again = tmp_path / "again"
    again.mkdir()
    (again / "teachers.json").write_bytes((whole / "teachers.json").read_bytes())
    assert_same_run(whole, vidstill.train(resolve(None, [*taught, "--name", "again"])))


def test_ctrl_c_saves_and_the_run_goes_on(small: list[str], tmp_path: Path) -> None:
    """As in a terminal, the signal goes to the loader processes too."""
    settings = [*small, "--train.epochs", "3", "--train.workers", "1"]
    whole = vidstill.train(resolve(None, [*settings, "--name", "whole"]))
    process = subprocess.Popen(
        command([*settings, "--name", "stopped"]), env=THREADS, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    while not (tmp_path / "stopped" / "last.pt").exists():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("the run finished before the signal reached it")
    assert process.returncode == 130
    assert "goes on from here" in errors
    subprocess.run(command([*settings, "--name", "stopped"]), env=THREADS, check=True, stdout=subprocess.DEVNULL)
    assert_same_run(whole, tmp_path / "stopped")


def test_fork_and_spawn_read_the_same_clips(small: list[str], tmp_path: Path) -> None:
    one, other = (
        vidstill.train(
            resolve(
                None, [*small, "--train.epochs", "1", "--train.workers", "1", "--train.start", start, "--name", start]
            )
        )
        for start in ("fork", "spawn")
    )
    assert_same_run(one, other)


def test_a_killed_loader_process_ends_in_one_line(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidstill.data import dataset

    monkeypatch.setattr(dataset, "train_clip", lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(TrainingError, match="loader process was killed"):
        vidstill.train(resolve(None, [*small, "--train.workers", "1", "--train.start", "fork"]))


@pytest.fixture
def one_broken(embedded: Path, tmp_path: Path) -> Path:
    """The embedded clips, one training and one test video replaced by text."""
    import shutil

    folder = tmp_path / "data"
    shutil.copytree(embedded, folder)
    for split in ("train", "test"):
        next(iter(sorted((folder / split).rglob("*.mp4")))).write_text("not a video")
    return folder


@pytest.mark.parametrize("policy", ["replace", "skip"])
def test_a_broken_video_is_counted_and_named(
    small: list[str], one_broken: Path, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = resolve(None, [*small, "--data.root", str(one_broken), "--data.on_error", policy])
    folder = vidstill.train(run)
    assert f"1 unreadable so far (on_error: {policy})" in (folder / "train.log").read_text()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["unreadable"] for row in rows if row["split"] == "train"][-1] == 1
    assert [row["unreadable"] for row in rows if row["split"] == "test"] == [1]


def test_a_broken_video_stops_where_asked(small: list[str], one_broken: Path) -> None:
    with pytest.raises(VideoError, match=r"\.mp4"):
        vidstill.train(resolve(None, [*small, "--data.root", str(one_broken), "--data.on_error", "raise"]))


def test_a_loss_that_is_not_finite_stops_the_run(small: list[str]) -> None:
    with pytest.raises(TrainingError, match=r"lower optim\.lr"):
        vidstill.train(
            resolve(None, [*small, "--optim.name", "sgd", "--optim.lr", "1e30", "--optim.clip_grad", "null"])
        )


def test_wrong_devices_are_refused(small: list[str]) -> None:
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        vidstill.train(resolve(None, [*small, "--train.accelerator", "auto", "--train.precision", "fp16"]))


def test_accumulated_batches_equal_one_large_batch(small: list[str]) -> None:
    plain = ["--augment.mixup", "0", "--augment.cutmix", "0", "--model.options", "{width: 8, drop_path_rate: 0}",
             "--train.epochs", "1", "--optim.name", "sgd", "--optim.schedule", "constant"]  # fmt: skip
    one = vidstill.train(resolve(None, [*small, *plain, "--train.batch", "8", "--name", "one"]))
    two = vidstill.train(
        resolve(None, [*small, *plain, "--train.batch", "4", "--train.accumulate", "2", "--name", "two"])
    )
    a, b = read_checkpoint(one), read_checkpoint(two)
    assert a is not None and b is not None
    for key, value in a["weights"]["training"]["model"].items():
        torch.testing.assert_close(value, b["weights"]["training"]["model"][key], atol=1e-5, rtol=1e-4)


def test_more_accumulation_than_batches_is_refused(small: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"train\.accumulate 99: an epoch has 4 batches"):
        vidstill.train(resolve(None, [*small, "--train.accumulate", "99"]))


LIGHT = ["--model.name", "slowfast_shufflenetv2", "--model.options", "{width: 0.25, dropout: 0}",
         "--clip.frames", "8", "--train.batch", "8", "--train.epochs", "1"]  # fmt: skip


def statistics_of(folder: Path) -> dict[str, torch.Tensor]:
    return {key: value for key, value in vidstill.load(folder).state_dict().items() if "running" in key}


@pytest.mark.parametrize("ema", [[], ["--train.ema", "0.9"]])
def test_precise_statistics_are_those_of_the_saved_weights(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: list[str]
) -> None:
    """Measured once more on the saved model with the same clips; of averaged weights too."""
    seen: list[torch.Tensor] = []
    from vidstill.training import loop

    measure = loop.precise_statistics

    def watched(model: nn.Module, batches: Iterable[torch.Tensor]) -> None:
        def kept() -> Iterator[torch.Tensor]:
            for clips in batches:
                seen.append(clips)
                yield clips

        measure(model, kept())

    monkeypatch.setattr(loop, "precise_statistics", watched)
    folder = vidstill.train(resolve(None, [*small, *LIGHT, *ema, "--train.precise_norms", "2"]))
    saved, again = statistics_of(folder), vidstill.load(folder).train()
    measure(again, seen)
    assert len(seen) == 2 and saved
    for key, value in saved.items():
        torch.testing.assert_close(value, again.state_dict()[key], atol=1e-5, rtol=1e-4)


def in_two_processes(settings: Sequence[str]) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
                "--rdzv-endpoint", "localhost:0", "-m", "vidstill", "train"]  # fmt: skip
    done = subprocess.run([*torchrun, *settings], env=THREADS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("precise", ["0", "2"])
def test_two_processes_validate_test_and_save_one_model_with_batch_norms(
    small: list[str], tmp_path: Path, precise: str
) -> None:
    """After one step: from then on a network with batch norm over a few places goes its own way by rounding alone."""
    settings = [*small, *LIGHT, "--train.precise_norms", precise]
    for strategy in ("ddp", "fsdp"):
        in_two_processes([*settings, "--train.strategy", strategy, "--name", strategy])
    assert losses(tmp_path / "ddp") == losses(tmp_path / "fsdp")
    a, b = read_checkpoint(tmp_path / "ddp"), read_checkpoint(tmp_path / "fsdp")
    assert a is not None and b is not None and a["step"] == 1
    for key, value in a["weights"]["training"]["model"].items():
        torch.testing.assert_close(value, b["weights"]["training"]["model"][key], atol=1e-6, rtol=1e-5)
    for strategy in ("ddp", "fsdp"):  # what was validated by both processes is what one process loads
        run = resolve(None, settings)
        val = vidstill.read_annotations(run.data).splits["val"]
        alone = vidstill.evaluate(vidstill.load(tmp_path / strategy), val, clips=1, crops=1).metrics
        validated = next(loss for split, _, loss, _ in losses(tmp_path / strategy) if split == "val")
        assert alone.loss == pytest.approx(validated, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_with_batch_norms_go_on_exactly(small: list[str], tmp_path: Path, strategy: str) -> None:
    """The statistics of every process come back, though the checkpoint holds those of one."""
    settings = [*small, *LIGHT, "--train.batch", "2", "--train.strategy", strategy, "--train.epochs", "2"]
    in_two_processes([*settings, "--name", "whole"])
    whole = read_checkpoint(tmp_path / "whole")
    assert whole is not None
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
         "--rdzv-endpoint", "localhost:0", "-m", "vidstill", "train", *settings, "--train.save_every", "1",
         "--name", "broken"], env=THREADS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    first = saved_at(tmp_path / "broken")
    while saved_at(tmp_path / "broken") == first and process.poll() is None:
        time.sleep(0.005)
    subprocess.run(["pkill", "--signal", "KILL", "--full", str(tmp_path)], check=True)  # the launcher and its ranks
    process.wait()
    saved = read_checkpoint(tmp_path / "broken")
    assert saved is not None and saved["step"] < whole["step"], "the kill came too late to test anything"
    in_two_processes([*settings, "--train.save_every", "1", "--name", "broken"])
    assert losses(tmp_path / "whole") == losses(tmp_path / "broken")
    after = read_checkpoint(tmp_path / "broken")
    assert after is not None
    for key, value in whole["weights"]["training"]["model"].items():
        assert torch.equal(value, after["weights"]["training"]["model"][key]), key


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_train_like_one(any_objective: list[str], tmp_path: Path, strategy: str) -> None:
    settings = [*any_objective, "--augment.mixup", "0", "--augment.cutmix", "0",
                "--model.options", "{width: 8, drop_path_rate: 0}", "--optim.name", "sgd"]  # fmt: skip
    one = vidstill.train(resolve(None, [*settings, "--train.batch", "4", "--name", "one"]))
    in_two_processes([*settings, "--train.batch", "2", "--train.strategy", strategy, "--name", "two"])
    for (split, step, loss, top1), (split2, step2, loss2, top12) in zip(
        losses(one), losses(tmp_path / "two"), strict=True
    ):
        assert (split, step, top1) == (split2, step2, top12)
        assert loss == pytest.approx(loss2, rel=2e-5)
    paths = [(folder / "predictions.csv").read_text().splitlines() for folder in (one, tmp_path / "two")]
    assert [line.split(",")[:3] for line in paths[0]] == [line.split(",")[:3] for line in paths[1]]


@pytest.mark.slow
def test_two_processes_share_a_cache_of_logits(small: list[str], teacher: Path, tmp_path: Path) -> None:
    settings = [*small, "--objective", "distil", "--distil.teacher", str(teacher), "--train.batch", "2",
                "--distil.cache", str(tmp_path / "cache"), "--train.strategy", "ddp"]  # fmt: skip
    in_two_processes([*settings, "--name", "first"])
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.npy")}
    assert written.keys() == {f"{what}{rank}.npy" for what in ("logits", "classes", "rows") for rank in (0, 1)}
    in_two_processes([*settings, "--name", "second"])
    assert losses(tmp_path / "first") == losses(tmp_path / "second")
    assert written == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.npy")}
    with pytest.raises(ValueError, match="processes 2 there, 1 here"):
        vidstill.train(resolve(None, [*settings, "--name", "alone"]))
