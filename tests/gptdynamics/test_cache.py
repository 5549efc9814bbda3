"""Entries of the cache are read again, never where they were damaged; `gptdynamics cache` lists and clears them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gptdynamics.cache import BASE_MODELS, ENCODINGS, KINDS, Entries, cache_folder

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPTDYNAMICS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(text: str) -> Callable[[Path], None]:
    def fill(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    return fill


def forbidden(path: Path) -> None:
    raise AssertionError("it was made again")


def test_an_entry_is_made_once_for_each_key(tmp_path: Path) -> None:
    entries = Entries(tmp_path, ".txt")
    assert entries.get(["a", 1], Path.read_text, write("one")) == "one"
    assert entries.get(["a", 1], Path.read_text, forbidden) == "one"
    assert entries.load(["a", 2], Path.read_text) is None
    assert entries.get(["a", 2], Path, write("two")).read_text() == "two"
    assert list(entries.load_all(Path.read_text)) == ["two", "one"]


@pytest.mark.parametrize("damage", [b"", b"on", b"onf", b"one more", b"\xff"])
def test_a_damaged_entry_is_made_again_with_a_note(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    entries = Entries(tmp_path, ".txt")
    entries.save("a", write("one"))
    entries.path("a").write_bytes(damage)
    assert entries.get("a", Path.read_text, write("one")) == "one"
    assert [record.getMessage() for record in caplog.records] == [
        f"note: {entries.path('a')} is damaged (its content does not match its digest): it is computed again"
    ]


def test_an_entry_that_its_reader_refuses_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entries = Entries(tmp_path, ".json")
    entries.save("a", write("{"))
    assert entries.get("a", lambda path: json.loads(path.read_text()), write("[1]")) == [1]
    assert "is damaged (Expecting property name" in caplog.text


def test_an_entry_without_its_digest_is_not_believed(tmp_path: Path) -> None:
    entries = Entries(tmp_path, ".txt")
    entries.save("a", write("one"))
    entries.path("a").with_name(entries.path("a").name + ".sha256").unlink()
    assert entries.load("a", Path.read_text) is None


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        Entries(tmp_path).save("a", forbidden)
    assert list(tmp_path.iterdir()) == []


def fill(cache: Path) -> Path:
    """Two encoders' vectors, what an earlier version left, and a folder that is none of ours."""
    for group in ("first", "second"):
        ENCODINGS.entries(group).save("a", write("vectors"))
    old = cache / "lengths" / ("0" * 32) / "rte.json"
    old.parent.mkdir(parents=True)
    old.write_text("12")
    (cache / "photos").mkdir()
    (cache / "photos" / "cat.jpg").write_text("miau")
    return old


def test_the_command_lists_kinds_and_what_no_kind_claims(cache: Path, command: Command, tmp_path: Path) -> None:
    fill(cache)
    status, output, errors = command("cache", "--json", tmp_path / "figures.json")
    assert (status, errors) == (0, "")
    assert output.endswith(f"3 entries, 0.00 MiB in {cache}\n")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["folder"] == str(cache_folder()) and not figures["cleared"]
    kinds = {each["kind"]: each for each in figures["kinds"]}
    assert kinds.keys() == {kind.name for kind in KINDS} | {"lengths"}
    assert kinds["encodings"]["entries"] == 2 and kinds["encodings"]["size"] == 2 * (len("vectors") + 64)
    assert kinds["base_models"]["entries"] == 0 and kinds["base_models"]["last_use"] is None
    assert kinds["lengths"]["holds"] == "not used by this version" and kinds["lengths"]["entries"] == 1


def test_one_kind_is_cleared_or_all_but_never_the_files_of_others(cache: Path, command: Command) -> None:
    old = fill(cache)
    BASE_MODELS.entries("mine").save("1", write("/a"))
    assert command("cache", "--clear", "encodings", "--yes")[0] == 0
    assert not (cache / "encodings").exists() and old.is_file() and (cache / "base_models").is_dir()
    assert command("cache", "--clear", "--yes")[0] == 0
    assert [path.name for path in cache.iterdir()] == ["photos"]
    assert (cache / "photos" / "cat.jpg").is_file()


def test_nothing_is_cleared_unasked(cache: Path, command: Command) -> None:
    old = fill(cache)
    status, _, errors = command("cache", "--clear")
    assert (status, errors) == (
        1,
        "error: nothing was cleared: there is no terminal for the confirmation. Give --yes\n",
    )
    assert old.is_file()
    status, _, errors = command("cache", "photos", "--clear", "--yes")
    assert status == 1 and "no kind 'photos'" in errors
