"""Outputs at paths that a user names: files, links, devices, pipes, descriptors."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptdynamics.errors import DataError
from gptdynamics.outputs import check_output, json_text, plain_value, write_output_json, write_output_text


def test_a_new_file_is_made_with_its_folder(tmp_path: Path) -> None:
    write_output_text(tmp_path / "a" / "b.txt", "text \ud800")
    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "text ?"
    assert list((tmp_path / "a").iterdir()) == [tmp_path / "a" / "b.txt"]


def test_a_link_stays_and_its_target_is_written_with_its_mode(tmp_path: Path) -> None:
    target, link, second = tmp_path / "shared" / "target.json", tmp_path / "link.json", tmp_path / "second.json"
    target.parent.mkdir()
    target.write_text("old", encoding="utf-8")
    target.chmod(0o600)
    link.symlink_to("shared/target.json")
    second.symlink_to(link)
    write_output_text(second, "new")
    assert target.read_text(encoding="utf-8") == "new" and stat.S_IMODE(target.stat().st_mode) == 0o600
    assert second.readlink() == link and link.readlink() == Path("shared/target.json")


def test_a_link_to_nothing_makes_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "later" / "file")
    write_output_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "later" / "file").read_text(encoding="utf-8") == "text"


def test_a_device_is_written_into_and_stays_one(tmp_path: Path) -> None:
    link = tmp_path / "null.json"
    link.symlink_to("/dev/null")
    for path in (Path("/dev/null"), link):
        write_output_json(path, {"a": 1})
        assert stat.S_ISCHR(path.stat().st_mode)
    assert link.is_symlink()
    with pytest.raises(DataError, match=r"^cannot write /dev/full: No space left on device$"):
        write_output_text(Path("/dev/full"), "text")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text(encoding="utf-8")))
    reader.start()
    write_output_text(pipe, "text\n" * 50_000)
    reader.join(timeout=30)
    assert read == ["text\n" * 50_000]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_that_is_a_file_is_gone_on_with(tmp_path: Path, name: str) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom gptdynamics.outputs import write_output_text\n"
        "print('before')\nwrite_output_text(Path(sys.argv[1]), 'output\\n')\nprint('after')"
    )
    with (tmp_path / "file").open("w", encoding="utf-8") as stream:
        subprocess.run([sys.executable, "-c", code, name], stdout=stream, check=True)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "before\noutput\nafter\n"


def test_what_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    for path, why in (
        (tmp_path, "it is a folder"),
        (tmp_path / "file" / "x.json", "is not a folder"),
        (tmp_path / "one", "its links form a loop"),
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path / "nul\0", "null"),
    ):
        for use in (check_output, lambda each: write_output_text(each, "text")):
            with pytest.raises(DataError, match=r"^cannot write .*") as error:
                use(path)
            assert why in str(error.value) and "\n" not in str(error.value)


def test_what_a_killed_process_left_beside_the_file_is_removed(tmp_path: Path) -> None:
    left = tmp_path / f".out.json.999999999@{platform.node()}.abc.tmp"
    other = tmp_path / f".other.json.999999999@{platform.node()}.abc.tmp"
    left.touch()
    other.touch()
    write_output_text(tmp_path / "out.json", "{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([other.name, "out.json"])


@dataclasses.dataclass
class Row:
    value: float
    path: Path


def test_json_has_no_nan_and_every_value_is_plain(tmp_path: Path) -> None:
    value = {
        "nan": float("nan"),
        1: [np.float32("inf"), np.int64(3), np.array([1.0, np.nan])],
        "row": Row(2.0, Path("a/b")),
        "set": {2, 1},
    }
    assert plain_value(value) == {
        "nan": None,
        "1": [None, 3, [1.0, None]],
        "row": {"value": 2.0, "path": "a/b"},
        "set": [1, 2],
    }
    write_output_json(tmp_path / "out.json", value)
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"), parse_constant=pytest.fail) == plain_value(
        value
    )


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    )
)
def test_json_of_anything_is_read_by_a_strict_parser(value: object) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(json_text(value), parse_constant=refuse) == plain_value(value)


def test_a_command_whose_standard_output_is_closed_ends_well(tmp_path: Path) -> None:
    command = f'"{sys.executable}" -m gptdynamics.cli --help >&-'
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")
