"""The pages of docs/results/ are what the code makes of the numbers beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.peers.page import page
from simulator.experiments.registry import finished_of_record
from simulator.reporting import result_files
from simulator.reporting.result_files import markdown, picture_names

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
RECORDS = [path for path in sorted(RESULTS.glob("*.json")) if path.stem != "peers"]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_an_experiments_page_is_that_of_its_numbers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = json.loads(path.read_text())
    monkeypatch.setattr(result_files, "versions", lambda: record["versions"])
    finished = finished_of_record(record)
    assert finished.result.notes == record["notes"]
    assert markdown(finished, picture_names(finished)) == path.with_suffix(".md").read_text()


def test_the_page_of_other_tools_is_that_of_its_numbers() -> None:
    assert page(json.loads((RESULTS / "peers.json").read_text())) == (RESULTS / "peers.md").read_text()


def test_both_scores_of_a_config_stand_side_by_side() -> None:
    [figure] = finished_of_record(json.loads((RESULTS / "number-of-runs.json").read_text())).result.figures
    assert figure.columns == 2
    assert [(panel.title, panel.y_title) for panel in figure.panels[:4]] == [
        ("sst2_smollm2", "skill"), ("sst2_smollm2", "LDS, last step"),
        ("rte_nano", "skill"), ("rte_nano", "LDS, last step"),
    ]  # fmt: skip


def test_a_page_says_what_its_methods_are_and_no_others() -> None:
    [methods, *_] = finished_of_record(json.loads((RESULTS / "counterfactuals.json").read_text())).result.notes
    assert methods.startswith("Methods: `markov_n` is the paper's") and "persistence" not in methods
    notes = finished_of_record(json.loads((RESULTS / "noise-floor.json").read_text())).result.notes
    assert not any(note.startswith("Methods") for note in notes)
