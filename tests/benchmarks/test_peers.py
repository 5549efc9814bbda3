"""The table of peers in a small form: nano, 8 retrainings, methods that need no package of their own."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import retrained
from benchmarks.peers.__main__ import ask_method, main
from benchmarks.peers.make_work import reorderings
from benchmarks.peers.method import CannotRunError
from benchmarks.peers.methods.gradients import kernel_of
from benchmarks.peers.page import NOT_ASKED, method_lines, page
from benchmarks.peers.pictures import draw_cost
from benchmarks.peers.registry import METHODS
from benchmarks.peers.retrained import Retrained
from benchmarks.peers.table import Answers, best_of
from benchmarks.peers.work import Work, examples_at_once, losses_of, padded
from gptdynamics.dataset import read_dynamics

TASKS = Path(__file__).resolve().parents[3] / "shared" / "data" / "tasks"


def _score(value: float, width: float) -> dict[str, float]:
    return {"value": value, "low": value - width, "high": value + width}


def test_a_score_within_the_interval_of_another_is_not_the_best() -> None:
    rows = [{"method": name, "lds": _score(value, 0.1)} for name, value in (("a", 0.9), ("b", 0.75), ("c", 0.1))]
    assert best_of(rows, "lds") == set()
    assert best_of([rows[0], rows[2]], "lds") == {"a"}
    assert best_of(rows[:1], "lds") == set()


def test_names_of_methods_that_score_alike_do_not_cover_each_other(tmp_path: Path) -> None:
    rows = [
        {"title": name, "lds_last": _score(value, 0.1), "passes_fit": passes, "passes_next": 0, "asked": 1}
        for name, value, passes in (("one", 0.5, 500), ("two", 0.501, 500), ("far", 0.5, 50_000), ("low", 0.0, 500))
    ]
    draw_cost(rows, "title", tmp_path / "cost.svg")
    found = re.findall(r'x="([\d.]+)" y="([\d.]+)"[^>]*>(one|two|far|low)<', (tmp_path / "cost.svg").read_text())
    at = {name: float(y) for _, y, name in found}
    assert len(at) == 4 and at["one"] - at["two"] > 8
    # A name that is far to the side stays beside its point.
    assert abs(at["far"] - at["one"]) < 1 and at["low"] > at["one"]


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


@pytest.fixture
def nano_work(tmp_path: Path) -> Work:
    """Nano with made-up rows and test examples: one checkpoint, one update."""
    from gptdynamics.models.base_model import load_base_model

    rng = np.random.default_rng(0)
    rows, tests = (
        [(rng.integers(1, 500, size).tolist(), [size - 2, size - 1]) for size in rng.integers(4, 12, count).tolist()]
        for count in (6, 4)
    )
    targets = [str(place % 2) for place in range(6)]
    parts = (targets, targets[:4], targets, targets[:4], rows, tests)
    changed: dict[str, list[list[list[int]]]] = {"left_out": [[[0, 1, 2]]], "reordered": []}
    work = Work(
        "gptdynamics", "sst2_nano", "0003", "", list(range(6)), list(range(4)), *parts, [list(range(6))], [1e-3],
        {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0}, [0, 1], [0, 1], changed, tmp_path / "work",
    )  # fmt: skip
    model = load_base_model("nano").model
    for done in work.checkpoints:
        model.save_pretrained(work.checkpoint(done))
    work.save()
    return Work.load(work.folder)


def test_products_of_gradients_taken_in_blocks_are_those_of_whole_gradients(nano_work: Work) -> None:
    import torch

    def gradient(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        loss = losses_of(model(input_ids=batch["input_ids"]).logits, batch["labels"]).sum()
        return torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(model.parameters()))])

    model = nano_work.model()
    rows, tests = (
        torch.stack([gradient(batch([place])) for place in range(count)])
        for batch, count in ((nano_work.row_batch, 6), (nano_work.test_batch, 4))
    )
    whole = (rows @ tests.T).numpy()
    one_block, blocks = (kernel_of(nano_work, None, range(4), memory) for memory in (2**30, 2**22))
    for found in (one_block, blocks):
        np.testing.assert_allclose(found.products, whole, rtol=1e-3, atol=1e-3 * np.abs(whole).max())
    cosines = whole / np.outer(rows.norm(dim=1), tests.norm(dim=1))
    asked = METHODS["grad_cos"].fit(nano_work).ask([1, 3])
    np.testing.assert_allclose(asked, -cosines[:, [1, 3]], atol=1e-3)


def test_batches_of_gradients_are_as_large_as_fits(nano_work: Work) -> None:
    model = nano_work.model()
    gib = 4 * model.num_parameters() / 2**30
    assert [examples_at_once(model, share * gib, 8) for share in (0.5, 3.5, 100)] == [1, 3, 8]


@pytest.mark.parametrize("name", ["exact_first_order", "captum_tracin", "datainf", "magic"])
def test_what_would_take_up_too_much_is_refused_in_one_line(
    name: str, nano_work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.peers.method.MOST_GIB", 0)
    with pytest.raises(CannotRunError, match=r"^[^\n]* take up [\d,]+ GiB, more than 0$"):
        METHODS[name].fit(nano_work)


def test_a_method_that_refuses_or_takes_too_long_says_so_and_the_others_run(nano_work: Work, tmp_path: Path) -> None:
    slow = replace(METHODS["same_target"], name="grad_dot")
    assert ask_method(slow, nano_work, tmp_path, minutes=1e-4) == "ended after 0.0001 minutes"
    assert not (tmp_path / "grad_dot.npz").exists()
    assert ask_method(METHODS["same_target"], nano_work, tmp_path) is None
    assert Answers(tmp_path / "same_target").final.shape == (6, 4)


def test_the_page_says_why_a_method_did_not_run_and_what_the_others_ran_on() -> None:
    table = {"config": "sst2_nano", "run": "0003", "rows": [], "retrainings": 8, "rows_visited": 6, "tests": 4}
    table |= {"step": [0, 1], "not_run": {"A": NOT_ASKED, "B": "too large"}, "device": "cuda", "processes": 3}
    text = page({"qld_tests": 0, "tables": [table]})
    assert "Not run: A, B (too large)." in text
    assert "after 1 updates, on cuda, 3 methods side by side" in text


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
