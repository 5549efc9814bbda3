"""The table of peers in a small form: nano, 8 retrainings, methods that need no package of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import retrained
from benchmarks.peers.__main__ import main
from benchmarks.peers.make_work import reorderings
from benchmarks.peers.page import method_lines
from benchmarks.peers.registry import METHODS
from benchmarks.peers.retrained import Retrained
from benchmarks.peers.table import best_of
from benchmarks.peers.work import Work, losses_of, padded
from gptdynamics.dataset import read_dynamics

TASKS = Path(__file__).resolve().parents[3] / "shared" / "data" / "tasks"


def _score(value: float, width: float) -> dict[str, float]:
    return {"value": value, "low": value - width, "high": value + width}


def test_a_score_within_the_interval_of_another_is_not_the_best() -> None:
    rows = [{"method": name, "lds": _score(value, 0.1)} for name, value in (("a", 0.9), ("b", 0.75), ("c", 0.1))]
    assert best_of(rows, "lds") == set()
    assert best_of([rows[0], rows[2]], "lds") == {"a"}
    assert best_of(rows[:1], "lds") == set()


def test_reordered_runs_visit_the_same_rows_in_each_epoch() -> None:
    curriculum = [[3, 1], [0, 2], [2, 3], [1, 0]]
    for changed in reorderings(curriculum, 3):
        assert [len(batch) for batch in changed] == [2, 2, 2, 2]
        assert all(sorted(changed[at] + changed[at + 1]) == [0, 1, 2, 3] for at in (0, 2))
    assert len({str(each) for each in reorderings(curriculum, 8)}) > 1


def test_losses_are_means_over_target_tokens_whatever_the_padding() -> None:
    import torch

    batch = padded([([5, 1, 2], [2]), ([4, 3, 2, 1, 0], [2, 3])])
    logits = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    wanted = -logits.log_softmax(-1)
    assert losses_of(logits, batch["labels"]).tolist() == pytest.approx(
        [float(wanted[0, 1, 2]), float((wanted[1, 1, 2] + wanted[1, 2, 1]) / 2)]
    )


def test_every_method_says_what_it_can_be_asked_and_what_it_costs() -> None:
    from benchmarks.peers.method import QUESTIONS

    assert len(METHODS) >= 12
    for method in METHODS.values():
        assert set(method.answers) <= set(QUESTIONS)
        assert all("==" in each for each in method.requirements)


@pytest.mark.slow
@pytest.mark.skipif(not TASKS.is_dir(), reason="no shared/data/tasks beside the repository")
def test_the_small_form_writes_table_and_pictures_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QLD_TESTS", "QLD_RANDOM"):
        monkeypatch.setattr(retrained, name, 2)
    methods = ["memory", "grad_dot", "same_target"]
    arguments = ["--runs", "sst2_nano:0003", "--data", str(TASKS), "--output", str(tmp_path / "out")]
    arguments += ["--results", str(tmp_path), "--orders", "2", "--qld", "same_target", "--methods", *methods]
    main(arguments)
    table = json.loads((tmp_path / "peers.json").read_text())["tables"][0]
    assert (table["retrainings"], table["tests"]) == (8, 100)
    assert set(table["not_run"]) == {method.title for name, method in METHODS.items() if name not in methods}
    rows = {row["method"]: row for row in table["rows"]}
    assert list(rows) == methods
    assert rows["same_target"]["lds_last"]["value"] > 0.4
    assert "lds_order" in rows["memory"] and "lds_order" not in rows["same_target"]
    assert rows["same_target"]["passes_fit"] == 0 < rows["grad_dot"]["passes_fit"] < rows["memory"]["passes_fit"]
    assert rows["same_target"]["qld"]["value"] > 0 and "qld" not in rows["memory"]
    assert len(method_lines(table["rows"])) == 4
    for name in ("peers-cost-sst2_nano.svg", "peers-answers.svg", "peers.md"):
        assert "Grad-Dot" in (tmp_path / name).read_text()
    # What is done is not done again.
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.np?")}
    main([*arguments, "--orders", "0", "--qld"])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.np?")} == kept
    # A run made again here is the recorded one.
    folder = tmp_path / "out" / "sst2_nano-0003"
    work = Work.load(folder / "work")
    again = Retrained(work, folder / "retrained").losses(work.changed["left_out"][0])
    recorded = read_dynamics("gptdynamics", "sst2_nano", counterfactual=True)
    np.testing.assert_allclose(again, recorded.values[recorded.runs.index("c0003-0000")], atol=1e-2)
