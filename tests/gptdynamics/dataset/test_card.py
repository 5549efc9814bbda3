"""Whole cards of dataset folders of every kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from gptdynamics.dataset.card import merge_card
from gptdynamics.dataset.card_content import RowsLicence, render_card
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.schema import read_parquet, write_parquet
from gptdynamics.dataset.withheld import copy_without_texts
from gptdynamics.errors import DataError
from tests.cards import check_whole, code, lines_of, metadata, tables

HEADINGS = ["How it was made", "Load and plot", "Limits", "Licences", "Citation"]


def card_of(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["collected_once", "with_gradients"])
def test_a_card_is_whole(kind: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(kind)
    folder, card = DatasetFolder(root), card_of(root)
    check_whole(card, HEADINGS)
    listed = {
        each["config_name"]: {one["split"]: one["path"] for one in each["data_files"]}
        for each in metadata(card)["configs"]
    }
    assert listed == folder.patterns()
    assert metadata(card)["license"] == "other"
    configs, licences = tables(card)
    assert [row[0].strip("`") for row in configs[1:]] == folder.configs()
    tasks = {row["task"] for path in root.glob("data/*_examples/*.parquet") for row in read_parquet(path).to_pylist()}
    assert {row[0] for row in licences[1:]} == tasks and {row[3] for row in licences[1:]} == {"here"}
    assert "cc-by-4.0 (GLUE card)" in {row[2] for row in licences[1:]}
    assert len(code(card, "python")) == len(code(card, "bibtex")) == 1
    assert "BLEU and ROUGE-L are of a single sampled text" in card and "diverged" not in card
    # Three test examples in three runs of each config.
    assert lines_of((root / "trajectories.svg").read_bytes()) == 9 * len(folder.configs())
    assert "](trajectories.svg)" in card


def test_a_card_tells_of_texts_left_out_and_of_runs_that_diverged(collected: Path, tmp_path: Path) -> None:
    DatasetFolder(collected).add_failure("rte_tiny", "0006", "loss is not finite")
    copy_without_texts(collected, tmp_path / "copy")
    card = card_of(tmp_path / "copy")
    check_whole(card, HEADINGS)
    assert "Of `rte_tiny`, 1 run diverged: there are no numbers of it" in card
    assert {row[3] for row in tables(card)[1][1:]} == {"left out"}
    path = DatasetFolder(collected).examples_path("rte", "pool")
    rows = read_parquet(path).to_pylist()
    rows[0]["prompt"] = None
    write_parquet(pa.Table.from_pylist(rows, schema=read_parquet(path).schema), path)
    DatasetFolder(collected).write_card()
    assert {(row[0], row[3]) for row in tables(card_of(collected))[1][1:]} == {
        ("rte", "partly here"),
        ("webnlg", "here"),
    }


def test_names_from_data_do_not_break_a_table(collected: Path) -> None:
    folder = DatasetFolder(collected)
    name = "a|b <img src=x>\n| c & d"
    path = folder.run_row_path("rte_tiny", "0000")
    table = read_parquet(path)
    at = table.column_names.index("base_model")
    write_parquet(table.set_column(at, "base_model", pa.array([name])), path)
    examples = folder.examples_path("rte", "pool")
    rows = [row | {"source": json.dumps({"dataset": name})} for row in read_parquet(examples).to_pylist()]
    write_parquet(pa.Table.from_pylist(rows, schema=read_parquet(examples).schema), examples)
    folder.write_card()
    check_whole(card_of(collected), HEADINGS)
    configs, licences = tables(card_of(collected))
    assert configs[1][1].startswith(r"a\|b &lt;img src=x> \| c &amp; d (")
    assert [row[:3] for row in licences[1:] if row[2] == "unknown"] == [
        ["rte", r"a\|b &lt;img src=x> \| c &amp; d", "unknown"]
    ]


def test_a_folder_without_runs_has_a_card_without_picture(collected: Path) -> None:
    for path in [*collected.glob("data/*_tiny*"), collected / "manifests"]:
        shutil.rmtree(path)
    (collected / "trajectories.svg").unlink()
    DatasetFolder(collected).write_card()
    card = card_of(collected)
    assert "trajectories.svg" not in card and not (collected / "trajectories.svg").exists()
    assert {each["config_name"] for each in metadata(card)["configs"]} == {"rte_examples", "webnlg_examples"}


@pytest.mark.parametrize(("imported", "recorded"), [(True, False), (False, True), (False, False)])
def test_where_runs_come_from_is_told(imported: bool, recorded: bool) -> None:
    counts = {"train": 2, "validation": 0, "test": 1, "test_unseen": 0}
    row = {"config": "rte_410m", "base_model": "410m", "base_revision": "0123", "splits": counts, "steps": 4}
    row |= {"batch_size": 4, "test_examples": 5, "metrics": ["loss"], "peak_learning_rate": 1e-5}
    row |= {"schedule": "cosine | warm-up" if recorded else "linear", "failed": 2}
    card = render_card(
        {"rte_410m": {"train": "data/rte_410m/train-*.parquet"}},
        [row | {"imported": imported, "recorded": recorded}],
        [RowsLicence("rte", "glue", "unknown", "here")],
    )
    check_whole(card, HEADINGS)
    assert ("Imported from a release" in card) == imported
    assert ("Recorded in training" in card) == recorded
    assert ("By `gptdynamics collect`: each run" in card) == (not imported and not recorded)
    assert (r"1e-05, cosine \| warm-up |" if recorded else "1e-05, linear decay |") in card
    assert "2 runs diverged: there are no numbers of them" in card and "single sampled text" not in card


def test_the_same_runs_give_the_same_card_and_picture(collected: Path) -> None:
    before = {name: (collected / name).stat().st_mtime_ns for name in ("README.md", "trajectories.svg")}
    DatasetFolder(collected).write_card()
    assert {name: (collected / name).stat().st_mtime_ns for name in before} == before


def test_a_card_of_windows_and_one_without_yaml_are_merged(collected_once: Path) -> None:
    new = card_of(collected_once)
    crlf = new.replace("# GPTDynamics", "# Old").replace("\n", "\r\n") + "mine\r\n"
    assert merge_card(crlf, new) == new + "mine\n"
    merged = merge_card("# Mine\n", new)
    assert metadata(merged) == metadata(new) and merged.index("# Mine") < merged.index("# GPTDynamics")
    for broken in ("---\n[1\n---\n", "---\n- 1\n---\n"):
        with pytest.raises(DataError, match="Correct it by hand"):
            merge_card(broken, new)


def test_load_dataset_sees_runs_that_were_added_later(collected: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    folder = DatasetFolder(collected)
    later = [folder.run_path("rte_tiny", "0005"), folder.run_row_path("rte_tiny", "0005")]
    for number, path in enumerate(later):
        path.rename(tmp_path / f"{number}")
    folder.write_card()

    def runs() -> set[str]:
        rows = load_dataset(str(collected), "rte_tiny", split="train", cache_dir=str(tmp_path / "cache"))
        return set(rows["run"])

    assert runs() == {"0000", "0001", "0002"}
    for number, path in enumerate(later):
        (tmp_path / f"{number}").rename(path)
    folder.write_card()
    assert runs() == {"0000", "0001", "0002", "0005"}
