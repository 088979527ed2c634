"""Files that are whole or not there, and locks, under several processes that may be killed."""

import contextlib
import csv
import errno
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.files import STALE, BusyError, WriteError, as_text, atomic, from_text, locked, read_csv, write_csv

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def test_a_failed_write_leaves_the_file_before(tmp_path: Path) -> None:
    target = tmp_path / "last.pt"
    target.write_bytes(b"before")
    with pytest.raises(WriteError, match=r"is intact; free the disk"), atomic(target) as file:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert target.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_whole_write_replaces_it(tmp_path: Path) -> None:
    target = tmp_path / "x"
    for content in (b"one", b"two"):
        with atomic(target) as file:
            file.write(content)
        assert target.read_bytes() == content


@pytest.mark.parametrize("inside", [KeyboardInterrupt, KeyError])
def test_what_stops_a_write_leaves_nothing(tmp_path: Path, inside: type[BaseException]) -> None:
    with pytest.raises(inside), atomic(tmp_path / "x"):
        raise inside
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_said_without_advice_on_disks(tmp_path: Path) -> None:
    with pytest.raises(WriteError) as caught, atomic(tmp_path / "no" / "x"):
        pass
    assert str(caught.value) == f"cannot write {tmp_path / 'no' / 'x'}: No such file or directory"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_a_plain_write(tmp_path: Path, mask: int) -> None:
    plain, whole, before = tmp_path / "plain", tmp_path / "whole", os.umask(mask)
    try:
        plain.write_bytes(b"")
        with atomic(whole):
            pass
        assert stat.S_IMODE(whole.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
        whole.chmod(0o640)
        with atomic(whole):
            pass
        assert stat.S_IMODE(whole.stat().st_mode) == 0o640
    finally:
        os.umask(before)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path, there: bool) -> None:
    link, real = tmp_path / "link", tmp_path / "far" / "real"
    real.parent.mkdir()
    if there:
        real.write_bytes(b"before")
    link.symlink_to(real)
    with atomic(link) as file:
        file.write(b"after")
    assert link.is_symlink() and real.read_bytes() == b"after"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["far", "link", "real"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with atomic(pipe) as file:
        file.write(b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_long_names_are_written(tmp_path: Path) -> None:
    with atomic(tmp_path / ("é" * 125 + ".json")) as file:
        file.write(b"x")


def write_and_read(path: Path, letter: int, seconds: float) -> None:
    """Exits with an error where it reads anything but a whole file of one writer."""
    until, whole = time.monotonic() + seconds, 200_000
    while time.monotonic() < until:
        with atomic(path) as file:
            file.write(bytes([letter]) * (whole // 2))
            file.write(bytes([letter]) * (whole // 2))
        read = path.read_bytes()
        if len(read) != whole or len(set(read)) != 1:
            raise AssertionError(f"{len(read)} bytes of {set(read)}")


def test_several_writers_never_tear_a_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    processes = [context.Process(target=write_and_read, args=(tmp_path / "x", 65 + n, 0.6)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_killed_writers_left_goes_after_a_day(tmp_path: Path) -> None:
    script = f"""
    import os, signal
    from pathlib import Path
    from vidstill.files import atomic
    with atomic(Path({str(tmp_path / "x")!r})) as file:
        os.kill(os.getpid(), signal.SIGKILL)
    """
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", textwrap.dedent(script)]).returncode == -signal.SIGKILL
    old, young = tmp_path.iterdir()
    mine = tmp_path / "mine.partial"  # a person's own file
    mine.write_bytes(b"")
    for path in (old, mine):
        os.utime(path, (time.time() - STALE - 60,) * 2)
    with atomic(tmp_path / "y"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {young.name, mine.name, "y"}


def test_a_second_holder_is_refused_in_one_line(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(BusyError, match=r"^somebody is here$"),
        locked(tmp_path, 0, "somebody is here"),
    ):
        pass
    with locked(tmp_path, 0):
        pass


def test_a_holder_that_ends_in_time_is_waited_for(tmp_path: Path) -> None:
    with held_by_a_process(tmp_path, release_after=0.3):
        began = time.monotonic()
        with locked(tmp_path, wait=10):
            assert time.monotonic() - began < 5


def test_files_have_locks_of_their_own(tmp_path: Path) -> None:
    with locked(tmp_path / "one.json", 0), locked(tmp_path / "two.json", 0), locked(tmp_path, 0):
        assert not (tmp_path / "one.json").exists()


def test_where_there_cannot_be_a_lock_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"cannot lock .*: No such file"), locked(tmp_path / "no" / "x"):
        pass


@contextlib.contextmanager
def held_by_a_process(folder: Path, release_after: float = 60.0) -> Iterator[subprocess.Popen[str]]:
    """A process that holds `folder` and has two forked workers that outlive it; it prints their numbers."""
    script = f"""
    import os, sys, time
    from pathlib import Path
    from vidstill.files import locked
    with locked(Path({str(folder)!r}), 0):
        for _ in range(2):
            if not os.fork():
                os.write(1, f"{{os.getpid()}}\\n".encode())  # in one piece
                time.sleep(60)
                os._exit(0)
        time.sleep({release_after})
    time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    workers = [int(process.stdout.readline()) for _ in range(2)]
    try:
        yield process
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)  # raises where it is not there any more, and the test tested nothing
        process.kill()
        process.communicate()


@needs_fork
def test_forked_workers_do_not_keep_the_lock_of_a_killed_process(tmp_path: Path) -> None:
    with held_by_a_process(tmp_path) as process:
        with pytest.raises(BusyError), locked(tmp_path, 0):
            pass
        process.kill()
        process.wait()
        with locked(tmp_path, 0):
            pass


@needs_fork
def test_a_forked_worker_that_leaves_the_block_does_not_give_the_lock_away(tmp_path: Path) -> None:
    with locked(tmp_path, 0):
        child = os.fork()
        if not child:
            with contextlib.suppress(KeyError), locked(tmp_path / "other", 0):
                raise KeyError
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(BusyError), locked(tmp_path, 0):
            pass


def hold(path: Path, pipe: Connection) -> None:
    with locked(path, 0):
        pipe.send("held")
        pipe.recv()


@pytest.mark.parametrize("ending", [lambda process, pipe: process.kill(), lambda process, pipe: pipe.send("end")])
def test_spawned_processes_exclude_each_other(tmp_path: Path, ending: Callable[[Any, Connection], None]) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(tmp_path, theirs))
    process.start()
    assert ours.recv() == "held"
    with pytest.raises(BusyError), locked(tmp_path, 0):
        pass
    ending(process, ours)
    process.join()
    with locked(tmp_path, 0):
        pass


def test_windows_locks_do_the_same(tmp_path: Path) -> None:
    """With a stand-in for `msvcrt.locking`, which excludes by process, and without `fcntl`."""
    script = f"""
    import errno, os, sys, types
    from pathlib import Path
    taken = set()
    def locking(descriptor, mode, size):
        file = os.fstat(descriptor).st_ino
        if file in taken:
            raise OSError(errno.EACCES, "Permission denied")
        taken.add(file)
    sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
    sys.modules["fcntl"] = None
    sys.platform = "win32"
    from vidstill.files import BusyError, locked
    with locked(Path({str(tmp_path)!r}), 0):
        try:
            with locked(Path({str(tmp_path)!r}), 0):
                pass
        except BusyError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.stdout == f"another process uses {tmp_path}: wait for it\n", done.stderr


def test_nothing_else_locks_by_fcntl() -> None:
    """Which would keep the package from other systems."""
    import vidstill

    source = Path(vidstill.__file__).parent
    assert [path.name for path in source.rglob("*.py") if "fcntl" in path.read_text(encoding="utf-8")] == ["files.py"]


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"]


def test_no_cell_of_a_csv_begins_like_a_formula(tmp_path: Path) -> None:
    names = [*FORMULAS, "'=quoted", "''@", "'plain'", "walk; run", 'a "b", c', "-1.5"]
    write_csv(tmp_path / "x.csv", [names, *([name, -1.5, 3] for name in names)])
    with (tmp_path / "x.csv").open(newline="") as file:
        written = list(csv.reader(file))
    for cell in [*written[0], *(row[0] for row in written[1:])]:
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert read_csv(tmp_path / "x.csv") == [names, *([name, "-1.5", "3"] for name in names)]


@given(st.text(st.sampled_from("'=+-@\t\ra1 ,"), max_size=6))
def test_any_text_comes_back(text: str) -> None:
    assert from_text(as_text(text)) == text
    assert not as_text(text).startswith(("=", "+", "-", "@", "\t", "\r"))
