"""What is on disk is whole, whatever happened while it was written."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vidstill.config import Run, resolve
from vidstill.reporting.log import Log
from vidstill.training.checkpoint import (
    TrainingError,
    open_folder,
    read_checkpoint,
    write_checkpoint,
)


def a_run(tmp_path: Path, *settings: str) -> Run:
    return resolve(None, ["--out", str(tmp_path), "--name", "r", *settings])


def test_a_run_that_was_begun_under_former_names_goes_on(tmp_path: Path) -> None:
    run = Run(name="r", out=tmp_path, clip={"sampling": "timed_window", "views": "torch"})
    with open_folder(run) as folder:
        config = folder / "config.yaml"
        former = config.read_text().replace("timed_window", "window").replace("views: torch", "views: exact")
        assert "sampling: window" in former and "views: exact" in former
        config.write_text(former)
        write_checkpoint(folder, {"step": 1})
    with open_folder(run):
        assert "timed_window" in config.read_text()


def test_a_longer_run_is_told_the_way_on(tmp_path: Path) -> None:
    """What the message says to add makes a run that is taken."""
    with open_folder(a_run(tmp_path, "--train.epochs", "8")) as folder:
        write_checkpoint(folder, {"step": 1})

    def told(*settings: str) -> list[str]:
        with pytest.raises(TrainingError) as error, open_folder(a_run(tmp_path, *settings)):
            pass
        return str(error.value).splitlines()

    (line,) = told("--train.epochs", "12")
    assert "is a run of 8 epochs" in line and line.endswith(" --name r-12 to train 12 from the start")
    (folder / "best.safetensors").write_bytes(b"")
    (line,) = told("--train.epochs", "12")
    found = re.search(r"add to the command (--name .*) to train its best model for 12 more", line)
    assert found
    run = a_run(tmp_path, "--train.epochs", "12", *shlex.split(found[1]))
    assert (run.name, run.model.weights, run.train.epochs) == ("r-12", str(folder), 12)
    with open_folder(run):
        pass
    assert "other settings (train.epochs 8 → 4)" in told("--train.epochs", "4")[0]
    assert "other settings (" in told("--train.epochs", "12", "--seed", "3")[0]


def test_other_settings_are_refused_once_training_has_begun(tmp_path: Path) -> None:
    with open_folder(a_run(tmp_path, "--data.root", "wrong")):
        pass  # nothing trained: the data were not there
    run = a_run(tmp_path, "--data.root", "right")
    with open_folder(run) as folder:
        write_checkpoint(folder, {"step": 1})
    with open_folder(a_run(tmp_path, "--data.root", "right", "--train.workers", "0")):
        pass  # changes nothing that is computed
    before = (folder / "config.yaml").read_text()
    with (
        pytest.raises(TrainingError, match=r"other settings \(data.root '.*right' → '.*other'\)"),
        open_folder(a_run(tmp_path, "--data.root", "other")),
    ):
        pass
    assert (folder / "config.yaml").read_text() == before != ""
    older = before.replace("  multi_label: false\n", "")  # written before there was such a setting
    assert older != before
    (folder / "config.yaml").write_text(older)
    with open_folder(a_run(tmp_path, "--data.root", "right")):
        pass
    (folder / "config.yaml").write_text(older)
    with (
        pytest.raises(TrainingError, match=r"multi_label False → True"),
        open_folder(a_run(tmp_path, "--data.root", "right", "--data.multi_label", "true")),
    ):
        pass


def test_a_full_disk_while_saving_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    """A process whose files may not grow past 100 kB stands in for the full disk."""
    script = f"""
import resource, torch
from pathlib import Path
from vidstill.files import WriteError
from vidstill.training.checkpoint import write_checkpoint
folder = Path({str(tmp_path)!r})
write_checkpoint(folder, {{"step": 1, "weights": torch.zeros(10)}})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_checkpoint(folder, {{"step": 2, "weights": torch.zeros(1_000_000)}})
except WriteError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "the one before is intact" in done.stdout
    assert len(done.stdout.strip().splitlines()) == 1
    saved = read_checkpoint(tmp_path)
    assert saved is not None
    assert saved["step"] == 1
    assert not list(tmp_path.glob("*.partial"))


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"step": 1})
    path = tmp_path / "last.pt"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(TrainingError, match="delete it to start over"):
        read_checkpoint(tmp_path)


def test_no_checkpoint_is_a_fresh_start(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path) is None


def test_a_checkpoint_cannot_execute_anything(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    torch.save({"step": Evil()}, tmp_path / "last.pt")
    with pytest.raises(TrainingError, match="cannot be read"):
        read_checkpoint(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    first, second = open_folder(a_run(tmp_path)), open_folder(a_run(tmp_path), wait=0)
    with first, pytest.raises(TrainingError, match="another process"), second:
        pass


def test_the_log_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"step": n}) + "\n" for n in range(5))
    (tmp_path / "metrics.jsonl").write_text(lines + '{"step": 5, "lo')  # killed in the middle of a line
    log = Log(tmp_path, keep=lambda row: row["step"] <= 2)
    log.write({"step": 3})
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [0, 1, 2, 3]
