from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import List, Value, load_dataset

from gptdynamics.configs import RunSettings
from gptdynamics.dataset import DatasetFolder
from gptdynamics.dataset.schema import read_parquet, write_parquet
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.models.base_model import BaseModel
from gptdynamics.plans import PlanEntry

Load = Callable[[Path, str], Mapping[str, datasets.Dataset]]
EXAMPLE = Example(id=0, prompt="The cat", target=" yes", task="rte", source={"row": "0"})


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """`load_dataset` of a folder, with a cache of its own."""
    return lambda folder, config: load_dataset(str(folder), config, cache_dir=str(tmp_path / "cache"))


STEPS, VALUES = List(Value("int32")), List(Value("float32"))


@pytest.mark.parametrize(
    ("config", "metrics"),
    [
        ("rte_tiny", {"loss": VALUES, "accuracy": VALUES}),
        ("webnlg_tiny", {"loss": VALUES, "generation_step": STEPS, "bleu": VALUES, "rougeL": VALUES}),
    ],
)
def test_trajectories_load_by_run_with_their_columns(
    collected_once: Path, load: Load, config: str, metrics: dict[str, object]
) -> None:
    splits = load(collected_once, config)
    runs = {name: sorted(set(rows["run"])) for name, rows in splits.items()}
    assert runs == {"train": ["0000", "0001", "0002", "0005"], "validation": ["0003"], "test": ["0004"]}
    for rows in splits.values():
        assert rows.features == {"run": Value("string"), "test_id": Value("int32"), "step": STEPS, **metrics}
        assert rows["test_id"][:] == list(range(5)) * len(set(rows["run"]))
        assert all(row["step"] == [0, 1, 2] for row in rows)
        assert all(len(row[name]) == 3 for row in rows for name in metrics)


def test_a_mixture_has_the_task_of_each_row_and_null_where_a_metric_is_not_followed(
    with_gradients: Path, load: Load
) -> None:
    label, generated = ["rte", "sst2", "boolq"], ["webnlg", "wmt16"]
    splits = load(with_gradients, "flan_tiny")
    assert set(splits) == {"train", "validation", "test", "test_unseen"}
    for rows in splits.values():
        expected = {"run": Value("string"), "test_id": Value("int32"), "task": Value("string"), "step": STEPS}
        expected |= {"loss": VALUES, "accuracy": VALUES, "generation_step": STEPS, "bleu": VALUES, "rougeL": VALUES}
        assert expected.items() <= rows.features.items()
        assert rows["task"][:] == (label + generated) * 3 * len(set(rows["run"]))
        for row in rows:
            assert len(row["loss"]) == len(row["step"]) == 4
            measured = {name for name in ("accuracy", "bleu", "rougeL") if row[name] is not None}
            assert measured == ({"accuracy"} if row["task"] in label else {"bleu", "rougeL"})
            assert all(len(row[name]) == 4 for name in measured)
    runs = load(with_gradients, "flan_tiny_runs")
    assert {(row["task"], row["scenario"]) for rows in runs.values() for row in rows} == {("flan", "instruct")}
    assert {at % 6 for batch in runs["test"][0]["curriculum"] for at in batch} == set(range(6))
    examples = load(with_gradients, "flan_examples")
    assert {name: rows["id"][:] for name, rows in examples.items()} == {
        "pool": list(range(48)),
        "test": list(range(15)),
    }
    assert examples["pool"]["task"][:6] == [*label, *generated, "cnn_dm"]


def test_nothing_but_a_run_of_that_split_is_read(collected: Path) -> None:
    folder = DatasetFolder(collected)
    whole = folder.run_path("rte_tiny", "0000")
    for name in ("train-0004", "test-0000", "train-00010", "train-7", "train-0000 (copy)", "test_unseen-0000", "u0001"):
        (whole.parent / f"{name}.parquet").write_bytes(whole.read_bytes())
    assert folder.finished("rte_tiny") == ["0000", "0001", "0002", "0003", "0004", "0005"]


@pytest.mark.parametrize("run", ["../0001", "0001/..", "u../0001", "0", "0001.parquet", ""])
def test_other_names_never_become_paths(tmp_path: Path, run: str) -> None:
    folder = DatasetFolder(tmp_path)
    for path in (folder.run_path, folder.run_row_path, folder.products_path):
        with pytest.raises(SettingsError, match="is not the name of a run"):
            path("rte_tiny", run)
    with pytest.raises(SettingsError, match="is not the name of a run"):
        folder.sidecar_path("rte_tiny", run, "failed")


def test_runs_on_unseen_rows_come_last_and_have_a_split_of_their_own(with_gradients: Path) -> None:
    folder = DatasetFolder(with_gradients)
    assert folder.finished("webnlg_tiny") == ["0000", "0001", "0002", "0003", "0004", "u0000", "u0001"]
    assert folder.patterns()["webnlg_tiny"]["test_unseen"] == "data/webnlg_tiny/test_unseen-*.parquet"
    assert folder.patterns()["webnlg_tiny_gradients"] == {
        "base": "data/webnlg_tiny_gradients/base.parquet",
        "test": "data/webnlg_tiny_gradients/test-*.parquet",
    }
    (row,) = [line for line in (with_gradients / "README.md").read_text().splitlines() if "| `webnlg_tiny`" in line]
    assert "| 3 / 1 / 1 / 2 |" in row


def test_runs_load_with_curriculum_and_every_setting(
    collected_once: Path, load: Load, make_settings: Callable[..., RunSettings], tiny_base: BaseModel
) -> None:
    splits = load(collected_once, "rte_tiny_runs")
    assert {name: rows.num_rows for name, rows in splits.items()} == {"train": 4, "validation": 1, "test": 1}
    features = splits["train"].features
    assert features["curriculum"] == List(List(Value("int32")))
    assert features["learning_rate"] == VALUES
    row = splits["test"][0]
    assert (row["run"], row["index"], row["config"], row["task"]) == ("0004", 4, "rte_tiny", "rte")
    assert (row["base_model"], row["base_revision"]) == (Path(tiny_base.name).name, tiny_base.revision)
    assert re.fullmatch("[0-9a-f]{12}", row["base_revision"])
    assert [len(batch) for batch in row["curriculum"]] == [4, 4]
    assert row["learning_rate"] == pytest.approx([1e-3, 5e-4])
    assert set(json.loads(row["versions"])) >= {"torch", "transformers", "numpy"}
    settings = make_settings().to_dict()
    special = {"learning_rate", "base_model", "steps", "test_examples", "gradient_width", "gradient_seed"}
    special |= {"tokenization", "text_tokenizer", "counterfactual_every"}
    assert {name: row[name] for name in settings.keys() - special} == {
        name: settings[name] for name in settings.keys() - special
    }
    assert row["peak_learning_rate"] == settings["learning_rate"]


def test_examples_load_as_pool_and_test(collected_once: Path, load: Load) -> None:
    splits = load(collected_once, "webnlg_examples")
    assert {name: rows["id"][:] for name, rows in splits.items()} == {
        "pool": list(range(12)),
        "test": list(range(5)),
    }
    row = splits["test"][0]
    assert splits["test"].features["references"] == List(Value("string"))
    assert row["prompt"].startswith("Facts: The ") and row["target"] == f" {row['references'][0]}"
    assert json.loads(row["source"])["row"] == "0"


def test_the_card_counts_the_runs_of_each_split(collected_once: Path, tiny_base: BaseModel) -> None:
    card = (collected_once / "README.md").read_text(encoding="utf-8")
    (row,) = [line for line in card.splitlines() if line.startswith("| `webnlg_tiny`")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "`webnlg_tiny`",
        f"{Path(tiny_base.name).name} ({tiny_base.revision})",
        "4 / 1 / 1 / 0",
        "2",
        "4",
        "5",
        "loss, bleu, rougeL",
        "0.001, linear decay",
    ]


def test_nothing_is_left_of_temporary_files(collected_once: Path) -> None:
    assert [path.name for path in collected_once.rglob(".*")] == [".claims"]


def test_parquet_is_zstd_with_split_floats_and_a_page_index(collected_once: Path) -> None:
    metadata = pq.ParquetFile(DatasetFolder(collected_once).run_path("webnlg_tiny", "0000")).metadata
    group = metadata.row_group(0)
    columns = {group.column(at).path_in_schema.split(".")[0]: group.column(at) for at in range(group.num_columns)}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert all(column.has_offset_index and column.has_column_index for column in columns.values())
    for name in ("loss", "bleu", "rougeL"):
        assert "BYTE_STREAM_SPLIT" in columns[name].encodings
        assert not columns[name].has_dictionary_page
    assert columns["run"].has_dictionary_page


def test_the_table_of_one_run_takes_little_more_room_than_its_values(collected_once: Path) -> None:
    path = DatasetFolder(collected_once).run_row_path("webnlg_tiny", "0000")
    table = read_parquet(path)
    assert table.num_rows == 1 and path.stat().st_size < 6_000


def test_metadata_of_a_table_is_kept(tmp_path: Path) -> None:
    table = pa.table({"x": [1]}).replace_schema_metadata({"steps": "[0, 16]"})
    write_parquet(table, tmp_path / "x.parquet")
    assert read_parquet(tmp_path / "x.parquet").schema.metadata == {b"steps": b"[0, 16]"}


def test_row_groups_hold_at_most_1000_rows(tmp_path: Path) -> None:
    table = pa.table({"x": pa.array([[float(at)] for at in range(2500)], pa.list_(pa.float32()))})
    write_parquet(table, tmp_path / "x.parquet")
    metadata = pq.ParquetFile(tmp_path / "x.parquet").metadata
    assert [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)] == [1000, 1000, 500]
    assert read_parquet(tmp_path / "x.parquet").equals(table)


@pytest.mark.parametrize("damage", [lambda whole: whole[: len(whole) // 2], lambda whole: b"", lambda whole: whole[4:]])
def test_a_damaged_file_is_named_with_the_remedy(collected: Path, damage: Callable[[bytes], bytes]) -> None:
    path = DatasetFolder(collected).run_path("rte_tiny", "0002")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as error:
        read_parquet(path)
    assert str(error.value).startswith(f"{path}: cannot be read as Parquet")
    assert "run the same collect command again" in str(error.value)


def test_a_run_is_finished_only_with_both_its_files(collected: Path) -> None:
    folder = DatasetFolder(collected)
    assert folder.configs() == ["rte_tiny", "webnlg_tiny"]
    folder.run_row_path("rte_tiny", "0005").unlink()
    folder.run_path("rte_tiny", "0004").unlink()
    assert folder.finished("rte_tiny") == ["0000", "0001", "0002", "0003"]
    assert folder.patterns()["rte_tiny"] == {
        "train": "data/rte_tiny/train-*.parquet",
        "validation": "data/rte_tiny/validation-*.parquet",
    }


def test_more_examples_are_added_to_those_there(tmp_path: Path) -> None:
    folder = DatasetFolder(tmp_path)
    later = Example(id=1, prompt="The dog", target=" no", task="rte")
    folder.add_examples("rte", "pool", [EXAMPLE])
    folder.add_examples("rte", "pool", [later])
    folder.add_examples("rte", "pool", [EXAMPLE])
    assert read_parquet(folder.examples_path("rte", "pool"))["prompt"].to_pylist() == ["The cat", "The dog"]


def test_another_text_for_an_example_is_refused(tmp_path: Path) -> None:
    folder = DatasetFolder(tmp_path)
    folder.add_examples("rte", "pool", [EXAMPLE])
    other = Example(id=0, prompt="The dog", target=" yes", task="rte")
    with pytest.raises(DataError, match=r"pool\.parquet: example 0 has another text"):
        folder.add_examples("rte", "pool", [other])


def test_other_references_for_an_example_are_refused(tmp_path: Path) -> None:
    folder = DatasetFolder(tmp_path)
    folder.add_examples("webnlg", "test", [Example(id=0, prompt="a", target=" b", references=("b",))])
    with pytest.raises(DataError, match=r"test\.parquet: example 0 has another text"):
        folder.add_examples("webnlg", "test", [Example(id=0, prompt="a", target=" b", references=("b", "c"))])


def test_settings_are_kept_once_and_compared_after(tmp_path: Path) -> None:
    folder = DatasetFolder(tmp_path)
    folder.begin(PlanEntry(RunSettings("rte_nano", 1e-3)), "aaaa")
    folder.begin(PlanEntry(RunSettings("rte_nano", 1e-3)), "aaaa")
    folder.begin(PlanEntry(RunSettings("webnlg_nano", 2e-3)), "aaaa")
    with pytest.raises(SettingsError, match=r"learning_rate: 0\.001 there, 0\.5 now"):
        folder.check_settings(PlanEntry(RunSettings("rte_nano", 0.5)))


def test_other_weights_of_the_base_model_are_refused(tmp_path: Path) -> None:
    folder = DatasetFolder(tmp_path)
    folder.begin(PlanEntry(RunSettings("rte_nano", 1e-3)), "aaaa")
    with pytest.raises(SettingsError, match="base_revision: 'aaaa' there, 'bbbb' now"):
        folder.begin(PlanEntry(RunSettings("rte_nano", 1e-3)), "bbbb")


def test_planned_runs_only_grow(tmp_path: Path) -> None:
    folder, settings = DatasetFolder(tmp_path), RunSettings("rte_nano", 1e-3)
    for runs, unseen in ((6, 0), (3, 2), (4, 1)):
        folder.begin(PlanEntry(settings, runs, unseen), "aaaa")
    assert folder.manifest("rte_nano") == {
        "settings": settings.to_dict(),
        "base_revision": "aaaa",
        "planned": {"runs": 6, "unseen_runs": 2},
    }


@pytest.mark.parametrize("text", ["[]", "{}", '{"settings": 3, "planned": {}}', '{"settings": {}}'])
def test_a_manifest_of_another_form_is_named(tmp_path: Path, text: str) -> None:
    folder = DatasetFolder(tmp_path)
    path = folder.manifest_path("rte_nano")
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(f"{path}: not a ")):
        folder.check_settings(PlanEntry(RunSettings("rte_nano", 1e-3)))


@pytest.mark.parametrize("kind", ["manifest", "failed"])
def test_a_damaged_json_file_is_named(tmp_path: Path, kind: str) -> None:
    folder = DatasetFolder(tmp_path)
    settings = PlanEntry(RunSettings("rte_nano", 1e-3))
    path = folder.manifest_path("rte_nano") if kind == "manifest" else folder.sidecar_path("rte_nano", "0000", "failed")
    path.parent.mkdir(parents=True)
    path.write_text('{"cut sho', encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(f"{path}: ")):
        folder.check_settings(settings) if kind == "manifest" else folder.failed("rte_nano")


def test_stored_values_are_those_of_the_float32_arrays(collected_once: Path) -> None:
    table = read_parquet(DatasetFolder(collected_once).run_path("webnlg_tiny", "0000"))
    assert table["loss"].type == pa.list_(pa.float32())
    losses = np.array(table["loss"].to_pylist())
    assert losses.shape == (5, 3)
    assert np.isfinite(losses).all()
