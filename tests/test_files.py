"""Atomic files."""

from pathlib import Path

import pytest

from vidstill.files import WriteError, atomic


def test_a_failed_write_leaves_the_file_before(tmp_path: Path) -> None:
    target = tmp_path / "last.pt"
    target.write_bytes(b"before")
    with pytest.raises(WriteError, match="is intact"), atomic(target) as file:
        file.write(b"half")
        raise OSError("No space left on device")
    assert target.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_whole_write_replaces_it(tmp_path: Path) -> None:
    target = tmp_path / "x"
    for content in (b"one", b"two"):
        with atomic(target) as file:
            file.write(content)
        assert target.read_bytes() == content
