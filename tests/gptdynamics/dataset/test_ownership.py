"""What this package did not write stays as it is, and is refused before any work."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gptdynamics.dataset.card import CARD, FIGURE, merge_card, read_card
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.ownership import check_dataset_folder, check_folder
from gptdynamics.dataset.verify import verify
from gptdynamics.dataset.withheld import copy_without_texts
from gptdynamics.errors import DataError
from gptdynamics.exchange import export_release, import_release
from gptdynamics.recorder.recording import Recording
from tests.cards import metadata

MINE = "---\nlicense: cc-by-4.0\nlanguage: de\n---\n# My dataset\n\nThree weeks of notes.\n"
DRAWING = '<svg xmlns="http://www.w3.org/2000/svg"><!-- my own drawing --></svg>'


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


STRANGERS: dict[str, dict[str, str]] = {
    "a card and a picture": {CARD: MINE, FIGURE: DRAWING},
    "a card": {CARD: MINE},
    "a project": {"setup.py": "", "src/module.py": "", ".git/HEAD": ""},
    "data of another kind": {"data/train-00000-of-00001.parquet": "x", "manifests/deployment.json": "{}"},
    "another manifest": {"manifests/rte_nano.json": '{"name": "npm"}'},
}


@pytest.mark.parametrize("files", STRANGERS.values(), ids=STRANGERS)
def test_a_folder_of_somebody_else_is_refused_before_any_work(
    command: Callable[..., tuple[int, str, str]], collected_once: Path, tmp_path: Path, files: dict[str, str]
) -> None:
    out = tmp_path / "out"
    for name, text in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text, encoding="utf-8")
    before = contents(out)
    status, said, error = command("collect", "mini_sentiment_nano", "--runs", "1", "--out", out)
    assert (status, said) == (1, "") and error.count("\n") == 1
    assert error.startswith(f"error: cannot write {out}: it has other files (such as ")
    advice = "Name a new or empty folder with --output, or move those files elsewhere"
    assert f"and no GPTDynamics dataset. {advice}" in error
    for writer in (
        lambda: import_release(collected_once, out),
        lambda: copy_without_texts(collected_once, out),
        lambda: export_release(collected_once, out),
        lambda: Recording(out, "rte_tiny", [], []),
    ):
        with pytest.raises(DataError, match=r"cannot write .*: it has other files"):
            writer()
    assert contents(out) == before


@pytest.mark.parametrize("files", [{}, {".git/HEAD": "", ".gitattributes": "", ".cache/x/y": ""}, {"empty/": ""}])
def test_hidden_files_and_empty_folders_do_not_count(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        if name.endswith("/"):
            (tmp_path / name).mkdir()
            continue
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    check_dataset_folder(tmp_path)
    check_dataset_folder(tmp_path / "new")
    check_folder(tmp_path, lambda folder: False, "thing", "--out")


@pytest.mark.parametrize(
    "lost", [(), ("manifests",), (CARD, FIGURE), ("data",), ("manifests", CARD), ("sidecar", CARD)]
)
def test_our_own_folders_are_gone_on_with_whatever_is_lost(collected: Path, lost: tuple[str, ...]) -> None:
    for name in lost:
        (shutil.rmtree if (collected / name).is_dir() else Path.unlink)(collected / name)  # type: ignore[operator]
    check_dataset_folder(collected)


def test_cards_of_older_versions_are_ours_and_are_replaced(collected: Path) -> None:
    whole = (collected / CARD).read_text(encoding="utf-8")
    head, _ = whole.split("<!-- gptdynamics", maxsplit=1)
    older = f"{head}# GPTDynamics\n\nWhat fine-tuning does to every test example: the loss, and more.\n"
    (collected / CARD).write_text(older, encoding="utf-8")
    shutil.rmtree(collected / "manifests")
    check_dataset_folder(collected)
    shutil.rmtree(collected / "data")
    check_dataset_folder(collected)


def test_a_card_and_a_picture_of_the_user_in_our_folder_are_kept(collected: Path) -> None:
    (collected / CARD).write_text(MINE, encoding="utf-8")
    (collected / FIGURE).write_text(DRAWING, encoding="utf-8")
    DatasetFolder(collected).write_card()
    card = (collected / CARD).read_text(encoding="utf-8")
    assert "Three weeks of notes." in card and (collected / FIGURE).read_text(encoding="utf-8") == DRAWING
    assert FIGURE not in card
    said = metadata(card)
    assert (said["license"], said["language"]) == ("cc-by-4.0", "de") and "license_name" not in said
    assert verify(collected).ok
    from datasets import load_dataset

    assert load_dataset(str(collected), "rte_tiny", split="test").num_rows > 0


@pytest.mark.parametrize("card", [b"---\nconfigs: [\n---\n", b"\xff\xfe", b"---\n" + b"[" * 5000 + b"\n---\n"])
def test_a_card_that_could_not_be_kept_is_refused_before_any_work(collected: Path, card: bytes) -> None:
    (collected / CARD).write_bytes(card)
    with pytest.raises(DataError, match=r"README.md: .*Correct it"):
        check_dataset_folder(collected)


@pytest.mark.parametrize("end", ["", "\n", "  \n", "\r\n", "\ntext"])
@pytest.mark.parametrize("begin", ["", "\ufeff", "\n"])
def test_front_matter_is_read_as_the_hub_reads_it(collected: Path, begin: str, end: str) -> None:
    new = (collected / CARD).read_text(encoding="utf-8")
    merged = metadata(merge_card(f"{begin}---\nlicense: mit\ntags: mine\n---{end}", new))
    assert merged["license"] == "mit" and merged["tags"][0] == "mine" and len(merged["configs"]) > 4


@pytest.mark.parametrize("tags", ["7", "[[a], {b: c}, d]", "null", "{a: b}", "2020-01-01", "'one'"])
def test_odd_tags_do_not_hinder(collected: Path, tags: str) -> None:
    new = (collected / CARD).read_text(encoding="utf-8")
    merged = metadata(merge_card(f"---\ntags: {tags}\n---\nmine\n", new))
    assert set(metadata(new)["tags"]) <= set(merged["tags"]) and all(isinstance(tag, str) for tag in merged["tags"])


def test_python_tags_in_a_card_are_refused(tmp_path: Path) -> None:
    (tmp_path / CARD).write_text("---\nx: !!python/object/apply:os.system [id]\n---\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"README.md: its YAML cannot be read"):
        read_card(tmp_path / CARD)
