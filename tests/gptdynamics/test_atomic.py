from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gptdynamics.atomic import leftovers, write_atomically, write_text
from gptdynamics.errors import DataError


def test_text_is_written_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "text.txt"
    write_text(path, "grün\n")
    assert path.read_bytes() == "grün\n".encode()
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_an_old_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    write_text(path, "a long old text")
    write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "new"


@pytest.mark.parametrize(
    ("raised", "expected"), [(OSError(28, "No space left on device"), DataError), (ValueError("bad"), ValueError)]
)
def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, raised: Exception, expected: type[Exception]
) -> None:
    path = tmp_path / "text.txt"
    write_text(path, "old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne", encoding="utf-8")
        raise raised

    with pytest.raises(expected):
        write_atomically(path, half)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_target_is_untouched_until_the_new_file_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    write_text(path, "old")
    during: list[str] = []

    def write(temporary: Path) -> None:
        temporary.write_text("new", encoding="utf-8")
        during.append(path.read_text(encoding="utf-8"))

    write_atomically(path, write)
    assert (during, path.read_text(encoding="utf-8")) == (["old"], "new")


def test_a_place_that_cannot_be_written_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    path = tmp_path / "file" / "text.txt"
    with pytest.raises(DataError, match=f"cannot write {path}: "):
        write_text(path, "x")


@pytest.mark.parametrize("number", [13, 28, 30])
def test_a_flush_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "text.txt"
    write_text(path, "old")

    def full(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=f"^cannot write {path}: {os.strerror(number)}$"):
        write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def killed_while_writing(path: Path) -> Path:
    """The temporary file of a process that was killed before it had filled `path`."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom gptdynamics.atomic import write_atomically\n"
        "def half(temporary):\n    temporary.write_text('ha')\n    os.kill(os.getpid(), 9)\n"
        "write_atomically(Path(sys.argv[1]), half)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = path.parent.iterdir()
    return left


def test_what_a_killed_process_was_writing_is_found_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "data" / "config" / "train-0001.parquet"
    left = killed_while_writing(path)
    assert (left.read_text(encoding="utf-8"), path.exists()) == ("ha", False)
    assert leftovers(tmp_path) == [left]
    write_text(path, "whole")
    assert leftovers(tmp_path) == [left]


def test_what_a_living_process_is_writing_is_not_left_over(tmp_path: Path) -> None:
    during: list[list[Path]] = []

    def look(temporary: Path) -> None:
        assert temporary in tmp_path.iterdir()
        during.append(leftovers(tmp_path))

    write_atomically(tmp_path / "text.txt", look)
    assert during == [[]]


@pytest.mark.parametrize(
    ("name", "left"),
    [
        (".x.parquet.999999999@{here}.abc123.tmp", True),
        (".x.parquet.99999999999999999999@{here}.abc123.tmp", True),
        (".x.parquet.999999999@elsewhere.abc123.tmp", False),
        (".x.parquet.1@{here}.abc123.tmp", False),  # alive, and not ours
        ("x.parquet.999999999@{here}.abc123.tmp", False),
        (".x.parquet.999999999@{here}.abc123", False),
        (".somebody-elses.tmp", False),
    ],
)
def test_only_files_of_dead_processes_of_this_machine_are_left_over(tmp_path: Path, name: str, left: bool) -> None:
    path = tmp_path / name.format(here=platform.node())
    path.touch()
    assert leftovers(tmp_path) == ([path] if left else [])
