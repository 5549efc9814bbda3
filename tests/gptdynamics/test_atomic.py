from __future__ import annotations

from pathlib import Path

import pytest

from gptdynamics.atomic import write_atomically, write_text
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
