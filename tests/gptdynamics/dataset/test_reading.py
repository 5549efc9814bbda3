from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gptdynamics.configs import RunSettings
from gptdynamics.dataset import DatasetFolder, read_dynamics
from gptdynamics.dataset.gradient_reading import read_products, read_vectors
from gptdynamics.dataset.parquet import DamagedParquet, load_parquet
from gptdynamics.dataset.schema import read_parquet, write_parquet
from gptdynamics.errors import DataError, GPTDynamicsError, SettingsError
from gptdynamics.runs import Bench

SIX = ["0000", "0001", "0002", "0003", "0004", "0005"]


def change_column(path: Path, name: str, change: Callable[[list], list]) -> None:  # type: ignore[type-arg]
    table = read_parquet(path)
    at = table.column_names.index(name)
    column = pa.array(change(table[name].to_pylist()), table.schema.field(name).type)
    write_parquet(table.set_column(at, table.schema.field(name), column), path)


@pytest.mark.parametrize(
    ("config", "metric", "steps"),
    [
        ("rte_tiny", "loss", [0, 1, 2]),
        ("rte_tiny", "accuracy", [0, 1, 2]),
        ("webnlg_tiny", "loss", [0, 1, 2]),
        ("webnlg_tiny", "bleu", [0, 1, 2]),
        ("webnlg_tiny", "rougeL", [0, 1, 2]),
    ],
)
def test_arrays_equal_those_that_training_returned(
    collected_once: Path,
    make_settings: Callable[..., RunSettings],
    rows_folder: Path,
    config: str,
    metric: str,
    steps: list[int],
) -> None:
    dynamics = read_dynamics(collected_once, config, metric)
    bench = Bench.load(make_settings(config), rows_folder)
    assert (dynamics.runs, dynamics.step.tolist()) == (SIX, steps)
    assert dynamics.values.shape == (6, 5, 3)
    assert dynamics.values.dtype == np.float32
    for index in (1, 4):
        run = bench.run(f"{index:04d}")
        np.testing.assert_array_equal(dynamics.values[index], run.metrics[metric])
        assert dynamics.curricula[index] == run.curriculum
        np.testing.assert_allclose(dynamics.learning_rate[index], run.learning_rate)
    assert (dynamics.pool, dynamics.test) == (bench.pool, bench.test)
    assert (dynamics.base_model, dynamics.base_revision) == (Path(bench.base.name).name, bench.base.revision)
    assert dynamics.batch_size == 4


def test_splits_and_places_keep_runs_together_with_their_values(collected_once: Path) -> None:
    dynamics = read_dynamics(str(collected_once), "rte_tiny", "loss")
    held_out = dynamics.split("validation", "test")
    assert held_out.runs == ["0003", "0004"]
    np.testing.assert_array_equal(held_out.values, dynamics.values[[3, 4]])
    assert held_out.curricula == dynamics.curricula[3:5]
    turned = dynamics.take([5, 0])
    assert turned.runs == ["0005", "0000"]
    np.testing.assert_array_equal(turned.values, dynamics.values[[5, 0]])
    with pytest.raises(DataError, match=r"rte_tiny has no test runs; collect at least 6 runs \(it has 1\)"):
        dynamics.take([0]).split("test")


def test_generated_metrics_have_their_own_steps(
    make_settings: Callable[..., RunSettings], rows_folder: Path, tmp_path: Path
) -> None:
    from gptdynamics.collection import CollectSettings, collect
    from gptdynamics.plans import Plan, PlanEntry

    settings = make_settings("webnlg_tiny", epochs=2, generate_every=3)
    collect(CollectSettings(Plan("test", (PlanEntry(settings, 1),)), tmp_path, rows_folder, workers=1))
    assert read_dynamics(tmp_path, "webnlg_tiny", "loss").step.tolist() == [0, 1, 2, 3, 4]
    assert read_dynamics(tmp_path, "webnlg_tiny", "bleu").step.tolist() == [0, 3, 4]


def test_a_truncated_file_is_named(collected: Path) -> None:
    path = DatasetFolder(collected).run_path("rte_tiny", "0002")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(GPTDynamicsError, match=re.escape(f"{path}: cannot be read as Parquet")):
        read_dynamics(collected, "rte_tiny", "loss")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_values_that_are_not_finite_are_refused_by_file_and_metric(collected: Path, bad: float | None) -> None:
    path = DatasetFolder(collected).run_path("rte_tiny", "0002")
    change_column(path, "loss", lambda rows: [[rows[0][0], bad, rows[0][2]], *rows[1:]])
    with pytest.raises(DataError, match=re.escape(f"{path}: loss has values that are not finite")):
        read_dynamics(collected, "rte_tiny", "loss")


def test_a_run_with_other_test_examples_is_refused_by_file(collected: Path) -> None:
    path = DatasetFolder(collected).run_path("rte_tiny", "0002")
    change_column(path, "test_id", lambda ids: [7, *ids[1:]])
    with pytest.raises(DataError, match=re.escape(f"{path}: its test examples or steps differ")):
        read_dynamics(collected, "rte_tiny", "loss")


def test_a_run_without_the_metric_of_the_others_is_refused_by_file(collected: Path) -> None:
    path = DatasetFolder(collected).run_path("rte_tiny", "0002")
    write_parquet(read_parquet(path).drop_columns("accuracy"), path)
    with pytest.raises(DataError, match=re.escape(f"{path}: ") + ".*accuracy"):
        read_dynamics(collected, "rte_tiny", "accuracy")


@pytest.mark.parametrize("kind", ["trajectories", "row"])
@pytest.mark.parametrize("damage", ["no rows", "a directory", "another run", "a column less", "another kind of file"])
def test_a_file_of_a_run_that_is_not_its_own_is_named(collected: Path, kind: str, damage: str) -> None:
    folder = DatasetFolder(collected)
    place = folder.run_path if kind == "trajectories" else folder.run_row_path
    path, other = place("rte_tiny", "0002"), place("rte_tiny", "0001")
    table = read_parquet(path)
    if damage == "a directory":
        path.unlink()
        path.mkdir()
    elif damage == "another run":
        path.write_bytes(other.read_bytes())
    elif damage == "another kind of file":
        path.write_bytes(folder.examples_path("rte", "pool").read_bytes())
    else:
        column = "step" if kind == "trajectories" else "curriculum"
        write_parquet(table.slice(0, 0) if damage == "no rows" else table.drop_columns(column), path)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: ") as error:
        read_dynamics(collected, "rte_tiny", "loss")
    assert "\n" not in str(error.value)
    if damage == "another run":
        assert "it belongs to run 0001" in str(error.value) and "not to run 0002" in str(error.value)


def test_another_configs_run_is_named(collected: Path) -> None:
    folder = DatasetFolder(collected)
    path = folder.run_row_path("rte_tiny", "0002")
    path.write_bytes(folder.run_row_path("webnlg_tiny", "0002").read_bytes())
    with pytest.raises(DataError, match="it belongs to run 0002 of webnlg_tiny, not to run 0002 of rte_tiny"):
        read_dynamics(collected, "rte_tiny", "loss")


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("step", lambda rows: [[0, 2, 1] for _ in rows], "step has steps that do not rise from 0"),
        ("step", lambda rows: [[-1, 0, 1] for _ in rows], "step has steps that do not rise from 0"),
        ("step", lambda rows: [*rows[:-1], [0, 1, 5]], "its test examples were measured at different steps"),
        ("step", lambda rows: [*rows[:-1], None], "step is null where loss is not"),
        ("loss", lambda rows: [rows[0][:2], [*rows[1], 1.0], *rows[2:]], "loss must have a value for each step"),
        ("test_id", lambda rows: [rows[1], *rows[1:]], "its test_id must be different numbers from 0 on"),
        ("test_id", lambda rows: [None, *rows[1:]], "its test_id must be different numbers from 0 on"),
    ],
)
def test_columns_that_do_not_fit_each_other_are_named(collected: Path, column: str, change: Any, message: str) -> None:
    path = DatasetFolder(collected).run_path("rte_tiny", "0002")
    change_column(path, column, change)
    with pytest.raises(DataError, match=re.escape(f"{path}: {message}")):
        read_dynamics(collected, "rte_tiny", "loss")


def test_an_unknown_config_is_refused_with_the_known_ones(collected_once: Path) -> None:
    with pytest.raises(SettingsError, match="has no runs of config 'rte_nano'; it has: rte_tiny, webnlg_tiny"):
        read_dynamics(collected_once, "rte_nano", "loss")


def test_a_folder_without_runs_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="has no runs of config 'rte_nano'; it has: none"):
        read_dynamics(tmp_path, "rte_nano", "loss")


@pytest.mark.parametrize(
    ("config", "metric", "known"),
    [("rte_tiny", "bleu", "loss, accuracy"), ("webnlg_tiny", "rouge", "loss, bleu, rougeL")],
)
def test_an_unknown_metric_is_refused_with_the_known_ones(
    collected_once: Path, config: str, metric: str, known: str
) -> None:
    with pytest.raises(SettingsError, match=f"{config} has no metric '{metric}'; it has: {known}"):
        read_dynamics(collected_once, config, metric)


@pytest.mark.parametrize("part", ["pool", "test"])
def test_a_missing_example_is_named_with_its_file(collected: Path, part: str) -> None:
    path = DatasetFolder(collected).examples_path("rte", part)
    curricula = read_dynamics(collected, "rte_tiny", "loss").curricula
    gone = curricula[0][0][0] if part == "pool" else 3
    table = read_parquet(path)
    write_parquet(table.take([at for at in range(table.num_rows) if at != gone]), path)
    with pytest.raises(DataError, match=re.escape(f"{path}: {part} example {gone} is missing")):
        read_dynamics(collected, "rte_tiny", "loss")


def test_a_missing_examples_file_is_named(collected: Path) -> None:
    path = DatasetFolder(collected).examples_path("rte", "pool")
    path.unlink()
    with pytest.raises(DataError, match=re.escape(f"{path}: no such file")):
        read_dynamics(collected, "rte_tiny", "loss")


@pytest.mark.parametrize("source", ["/nowhere/at/all", "nowhere", "./a/b"])
def test_a_missing_folder_is_named(source: str) -> None:
    with pytest.raises(DataError, match=f"{source}: no such dataset folder"):
        read_dynamics(source, "rte_tiny", "loss")


def test_a_hub_id_that_cannot_be_had_gives_one_line() -> None:
    with pytest.raises(DataError, match="nobody/nothing: neither a folder nor a dataset") as error:
        read_dynamics("nobody/nothing", "rte_tiny", "loss")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["truncated", "not finite", "missing row"])
def test_damaged_gradients_are_named_with_the_remedy(with_gradients: Path, tmp_path: Path, damage: str) -> None:
    out = Path(shutil.copytree(with_gradients, tmp_path / "dataset"))
    folder = DatasetFolder(out)
    files = {"vector": folder.vectors_path("rte_tiny"), "products": folder.products_path("rte_tiny", "0004")}
    for name, path in files.items():
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:-30])
        elif damage == "not finite":
            change_column(path, name, lambda rows: [[float("nan"), *rows[0][1:]], *rows[1:]])
        elif name == "products":
            write_parquet(read_parquet(path).slice(1), path)
        else:
            change_column(path, name, lambda rows: [rows[0][1:], *rows[1:]])
    for read, path in (
        (lambda: read_vectors(out, "rte_tiny"), files["vector"]),
        (lambda: read_products(out, "rte_tiny", "0004"), files["products"]),
    ):
        with pytest.raises(DataError, match=re.escape(f"{path}: ") + ".*Move it"):
            read()


def test_a_config_without_gradients_has_no_vectors(collected_once: Path) -> None:
    assert read_vectors(collected_once, "rte_tiny") is None
    with pytest.raises(DataError, match="run 0004 of rte_tiny has no gradient products; collect with --gradients test"):
        read_products(collected_once, "rte_tiny", "0004")
    with pytest.raises(SettingsError, match="is not the name of a run"):
        read_products(collected_once, "rte_tiny", "../0004")


def test_the_bundled_sample_says_how_it_was_tokenised() -> None:
    runs = {config: read_dynamics("gptdynamics", config) for config in ("boolq_nano", "rte_nano")}
    assert {config: each.tokenization for config, each in runs.items()} == {
        "boolq_nano": "separate",
        "rte_nano": "joined",
    }
    assert all(each.token_rule == each.tokenization for each in runs.values())


def test_rules_of_recorded_tokens_are_told_from_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def rule_of(entry: object) -> str:
        monkeypatch.setattr(DatasetFolder, "recording", lambda folder, config: {"tokenization": entry})
        return DatasetFolder(tmp_path).token_rule("own_tiny")

    whole, target = ({"rules": {"own": {"text": "joined", "scored": scored}}} for scored in ("all", "target"))
    assert rule_of(whole) != rule_of(target)
    assert rule_of(whole) == rule_of({"rules": {"own": {"scored": "all", "text": "joined"}}})
    assert rule_of("separate") == "separate"
    # Of rows with given tokens each recording has its own.
    assert rule_of({"rows": "0123"}) == rule_of({"rows": "4567"}) == "rows"


def test_a_footer_that_names_another_type_in_a_row_group_is_damage_and_ends_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_parquet(pa.table({"task": ["rte", "sst2"]}), path)
    whole = path.read_bytes()
    # In the footer's encoding: the first field of a structure is the number 6, which stands for texts.
    places = [match.start() for match in re.finditer(b"\x15\x0c", whole)]
    messages = []
    for place in places:
        path.write_bytes(whole[:place] + b"\x15\x22" + whole[place + 2 :])
        try:
            assert load_parquet(path).to_pydict() == {"task": ["rte", "sst2"]}
        except DamagedParquet as error:
            messages.append(str(error))
    assert any("another type in a row group" in message for message in messages)
