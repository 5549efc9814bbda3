"""A folder with a mixture of tasks, gradients and runs on unseen rows, as the release plans ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datasets import get_dataset_config_names, load_dataset

from gptdynamics.configs import RunSettings
from gptdynamics.dataset import DatasetFolder, read_dynamics
from gptdynamics.dataset.gradient_reading import read_products, read_vectors
from gptdynamics.dataset.schema import read_parquet
from gptdynamics.dataset.withheld import copy_without_texts
from gptdynamics.errors import DataError
from gptdynamics.runs import Bench
from gptdynamics.tasks import get_single_task, get_task, load_examples


def test_ids_go_round_the_tasks_and_stay_when_more_are_asked_for(rows_folder: Path) -> None:
    flan = get_task("flan")
    some, more = (load_examples(flan, "test", count, rows_folder) for count in (3, 5))
    assert [example.id for example in more] == list(range(25))
    assert more[:15] == some
    assert [example.task for example in more[:5]] == [task.name for task in flan.test_parts]
    assert load_examples(flan, "pool", 1, rows_folder)[-1].task == "cnn_dm"


def test_every_instruction_is_drawn_and_filled(rows_folder: Path) -> None:
    pool = load_examples(get_task("flan"), "pool", 200, rows_folder)
    drawn = Counter((example.task, int(example.source["template"])) for example in pool)
    for task in get_task("flan").parts:
        assert len(task.instructions) >= 5
        assert {at for name, at in drawn if name == task.name} == set(range(len(task.instructions)))
        assert all(text == text.rstrip() for text in (task.plain, *task.instructions))
    assert not any("{" in example.prompt for example in pool)


def test_braces_in_a_text_are_left_alone() -> None:
    row = {"sentence": "a {sentence} and {0} {", "label": "positive"}
    task = get_single_task("sst2")
    assert task.prompt(row) == "Review: a {sentence} and {0} {\nSentiment:"
    assert all(row["sentence"] in task.instruction(row, at) for at in range(len(task.instructions)))


def test_a_mixture_follows_each_example_by_the_metrics_of_its_task(with_gradients: Path) -> None:
    accuracy, rouge = (read_dynamics(with_gradients, "flan_tiny", metric) for metric in ("accuracy", "rougeL"))
    assert {example.task for example in accuracy.test} == {"rte", "sst2", "boolq"}
    assert {example.task for example in rouge.test} == {"webnlg", "wmt16"}
    assert read_dynamics(with_gradients, "flan_tiny", "loss").values.shape[1] == 15
    assert np.isin(accuracy.values, (0, 1)).all()
    rows = load_dataset(str(with_gradients), "flan_tiny", split="train")
    assert all((row["bleu"] is None) == (row["task"] not in ("webnlg", "wmt16")) for row in rows)


def test_every_configuration_and_split_loads(with_gradients: Path, tmp_path: Path) -> None:
    patterns = DatasetFolder(with_gradients).patterns()
    assert sorted(get_dataset_config_names(str(with_gradients))) == sorted(patterns)
    for name, splits in patterns.items():
        assert set(load_dataset(str(with_gradients), name, cache_dir=str(tmp_path))) == set(splits)
    assert set(patterns["rte_tiny_gradients"]) == {"base", "test"}
    assert set(patterns["rte_tiny"]) == {"train", "validation", "test", "test_unseen"}


def test_unseen_runs_are_read_only_when_asked_for(with_gradients: Path) -> None:
    seen = read_dynamics(with_gradients, "rte_tiny", "loss")
    every = read_dynamics(with_gradients, "rte_tiny", "loss", unseen=True)
    assert (len(seen.runs), len(seen.pool)) == (5, 12)
    assert (every.runs[-2:], len(every.pool)) == (["u0000", "u0001"], 24)
    assert len(every.split("test_unseen").runs) == 2


def test_gradient_vectors_and_products_are_read_as_they_were_made(
    with_gradients: Path, make_settings: Callable[..., RunSettings], rows_folder: Path
) -> None:
    bench = Bench.load(make_settings("rte_tiny", gradients="test", gradient_width=16), rows_folder, unseen=True)
    pool, test = bench.vectors()
    vectors = read_vectors(with_gradients, "rte_tiny")
    assert vectors is not None
    assert (vectors.width, vectors.seed) == (16, 0)
    np.testing.assert_array_equal(np.stack(list(vectors.pool.values())), pool)
    np.testing.assert_array_equal(np.stack(list(vectors.test.values())), test)
    run = bench.run("0004")
    products = read_products(with_gradients, "rte_tiny", "0004")
    assert products.step.tolist() == list(run.products)
    np.testing.assert_array_equal(products.values, np.stack(list(run.products.values())))
    with pytest.raises(DataError, match="run 0000 of rte_tiny has no gradient products"):
        read_products(with_gradients, "rte_tiny", "0000")


def test_texts_are_left_out_but_labels_and_sources_are_not(with_gradients: Path, tmp_path: Path) -> None:
    copy_without_texts(with_gradients, tmp_path / "copy")
    rows = read_parquet(tmp_path / "copy/data/flan_examples/pool.parquet").to_pylist()
    assert all(row["prompt"] is None and row["references"] is None and row["source"] for row in rows)
    assert {row["task"] for row in rows if row["target"]} == {"rte", "sst2", "boolq"}
    there, copied = (read_dynamics(at, "rte_tiny", "loss") for at in (with_gradients, tmp_path / "copy"))
    np.testing.assert_array_equal(there.values, copied.values)
    assert all(example.withheld for example in copied.pool)
    with pytest.raises(DataError, match="already has a dataset"):
        copy_without_texts(with_gradients, tmp_path / "copy")
