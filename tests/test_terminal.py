"""What reaches the terminal: no control characters, one line for an error, and the traceback where it is needed."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

import vidstill
from vidstill import cli
from vidstill.files import WriteError
from vidstill.terminal import Listed, foreseen, keep_traceback, one_line, plain, say

STEERING = "a\x1b[2J\x1b]0;title\x07\x9b31m\r\u202egpj.mp4"


@given(st.text())
def test_no_text_steers_the_terminal(text: str) -> None:
    shown = plain(text)
    shown.encode()  # raises for a lone surrogate
    assert all(letter.isprintable() or letter >= "\xa0" for letter in shown)
    assert not set(shown) & set("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def test_the_letters_of_all_languages_stay() -> None:
    for text in ("läuft.mp4", "走る　人.mp4", "جري", "👨‍👩‍👧 jump.mp4", "c:\\x\\n", "a\xa0b"):
        assert plain(text) == text
    assert plain("a\nb\udcff") == "a\\nb\\udcff"
    assert plain("a\nb\t", keep="\n") == "a\nb\\t"


def test_lines_and_tables_are_shown_plainly(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("class", "source")
    table.add_row("grow", STEERING)
    for shown in (f"12 videos\n{STEERING}", table):
        say(shown)
        out = capsys.readouterr().out
        assert "\\x1b[2J" in out and not set(out) & set("\x1b\x07\x9b\r\u202e")
        assert out.count("\n") > 1


@pytest.mark.parametrize("arguments", [["--help"], ["models"], ["recipes"], ["train", "demo", "--print-config"]])
def test_ascii_output_stops_no_verb(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    cli.main([*arguments, *(["--data.root=é…"] if "train" in arguments else [])])
    assert written.getvalue().isascii() and written.getvalue().count(b"\n") > 10


@pytest.mark.parametrize(
    "arguments", [["--help"], ["recipes"], ["models"], ["train", "--help"], ["train", "demo", "--print-config"]]
)
def test_a_reader_that_leaves_is_no_error(arguments: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "vidstill", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("verb", ["models", "recipes"])
def test_a_full_disk_behind_the_output_is_one_line(verb: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "vidstill", verb], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "No space left" in done.stderr


def raised(code: str, file: Path) -> BaseException:
    try:
        exec(compile(code, str(file), "exec"))
    except Exception as error:
        return error
    raise AssertionError(f"{code} raises nothing")


def test_what_this_package_raises_is_foreseen_and_what_it_runs_into_is_not() -> None:
    inside, outside = Path(vidstill.__file__).with_name("x.py"), Path(json.__file__)
    for code in ("raise ValueError('x')", "raise ImportError('install x')", "open('/no/such/file')"):
        assert foreseen(raised(code, inside)), code
    for code in ("int('x')", "import nowhere", "[][0]", "raise TypeError('x')", "assert False",
                 "import json; json.loads('{')", "import numpy; numpy.zeros(3).reshape(2)"):  # fmt: skip
        assert not foreseen(raised(code, inside)), code
    assert not foreseen(raised("raise ValueError('x')", outside))
    assert foreseen(raised("from vidstill.files import WriteError; raise WriteError('x')", outside))


def test_an_error_of_a_loader_process_is_its_own_line() -> None:
    from torch._utils import ExceptionWrapper

    try:
        raise WriteError("a.mp4: no frames: mend it")
    except WriteError:
        passed_on = ExceptionWrapper(sys.exc_info(), "in DataLoader worker process 0")
    with pytest.raises(WriteError) as caught:
        passed_on.reraise()
    assert one_line(caught.value) == "a.mp4: no frames: mend it"


def break_numpy(*arguments: object, **named: object) -> None:
    import numpy as np

    np.zeros(3).reshape(2)


def end(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return int(str(ended.value.code))


@pytest.mark.parametrize("verb", ["train", "models"])
def test_the_traceback_of_an_unforeseen_error_is_kept(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("vidstill.training.run.train", break_numpy)
    monkeypatch.setattr("vidstill.reporting.models.tables", break_numpy)
    arguments = ["train", "--out", str(tmp_path), "--name", "r"] if verb == "train" else ["models"]
    assert end(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    (log,) = tmp_path.glob("vidstill-*.log")
    assert line.startswith("vidstill: ValueError: cannot reshape array") and str(log) in line
    assert "np.zeros(3).reshape(2)" in log.read_text()
    if verb == "train":  # in a folder that has a log
        (tmp_path / "r").mkdir()
        (tmp_path / "r" / "train.log").write_text("began\n")
        assert end(arguments) == 1
        assert str(tmp_path / "r" / "train.log") in capsys.readouterr().err
        kept = (tmp_path / "r" / "train.log").read_text()
        assert kept.startswith("began\nTraceback") and "np.zeros(3).reshape(2)" in kept
    assert end([*arguments, "--debug"]) == 1
    assert "np.zeros(3).reshape(2)" in capsys.readouterr().err
    assert len([*tmp_path.glob("vidstill-*.log")]) == 1


def test_debug_shows_the_traceback_of_our_own_errors_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(["train", "--debug", "no_such"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown and shown.splitlines()[-1].startswith("vidstill: no recipe 'no_such'")


def test_where_no_traceback_can_be_kept_the_error_is_still_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/no/such/folder")
    assert keep_traceback(ValueError("x"), None) is None


@pytest.mark.parametrize(
    ("arguments", "saved", "message"),
    [
        (["train"], True, "stopped; the same command goes on from here"),
        (["train"], False, "stopped"),
        (["distill", "--teacher", "x"], True, "stopped; the same command goes on from here"),
        (["distill", "--teacher", "x"], False, "stopped"),
        (["demo"], False, "stopped; the same command goes on from here"),
        (["models"], True, "stopped"),
    ],
)
def test_only_what_goes_on_is_said_to(
    arguments: list[str],
    saved: bool,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    for function in ("training.run.train", "demo.run_demo", "reporting.models.tables"):
        monkeypatch.setattr(f"vidstill.{function}", stop)
    if saved:
        (tmp_path / "r").mkdir()
        (tmp_path / "r" / "last.pt").write_bytes(b"")
    where = ["--out", str(tmp_path), "--name", "r"] if arguments[0] in ("train", "distill") else []
    assert end([*arguments, *where]) == 130
    assert capsys.readouterr().err == f"vidstill: {message}\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--cfg-options", "seed=1", "optim.lr=2"], {"seed": 1, "lr": 2, "name": "demo"}),
        (["--cfg-options", "seed=1", "optim.lr=2", "--name", "x"], {"seed": 1, "lr": 2, "name": "x"}),
        (["--name", "1", "--seed=3"], {"seed": 3, "name": "1"}),
        (["--name=true", "--train.compile"], {"name": "true"}),
        (["--data.root", "/a,b", "--data.group", r"a,b(\d+)"], {"root": "/a,b", "group": r"a,b(\d+)"}),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_settings_and_the_recipe_come_in_any_order(
    arguments: list[str], expected: dict[str, Any], first: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["demo", *arguments] if first else [*arguments, "--print-config", "demo"]
    cli.main(["train", "--print-config", *given] if first else ["train", *given])
    run = yaml.safe_load(capsys.readouterr().out)
    flat = {**run["optim"], **run["data"], **run}
    assert {key: flat[key] for key in expected} == expected


def test_json_for_the_terminal_and_for_files_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = [{"source": f"läuft\udcff{STEERING}", "class": "走る"}]
    cli._write_json("-", value)
    shown = capsys.readouterr().out
    assert json.loads(shown) == value and shown.isascii() and "\x1b" not in shown
    cli._write_json(str(tmp_path / "x.json"), value)
    text = (tmp_path / "x.json").read_bytes().decode()
    assert json.loads(text) == value and "走る" in text


@given(st.lists(st.text("ab %", min_size=1, max_size=12).map(str.strip).filter(bool), max_size=8), st.integers(4, 40))
def test_lists_in_a_table_break_between_their_texts(texts: list[str], width: int) -> None:
    """All of them are there, in order, and no line holds a part of one unless it is longer than the line."""
    table = Table.grid()
    table.add_row(Listed(texts))
    drawn = io.StringIO()
    Console(file=drawn, width=width).print(table)
    lines = [line.rstrip() for line in drawn.getvalue().splitlines()]
    assert "".join(drawn.getvalue().split()) == "".join("".join(texts).split())
    assert all(len(line) <= width for line in lines)
    if all(len(text) <= width for text in texts):
        rest = list(texts)
        for line in filter(None, lines):
            count = next(n for n in range(1, len(rest) + 1) if "  ".join(rest[:n]) == line)
            del rest[:count]
        assert not rest
