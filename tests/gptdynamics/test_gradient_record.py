"""Gradient products that a run records, against a slow loop that trains by hand and takes every gradient by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import List, Value, load_dataset

from gptdynamics.configs import RunSettings
from gptdynamics.curriculum import run_seed
from gptdynamics.dataset import DatasetFolder
from gptdynamics.dataset.schema import read_parquet
from gptdynamics.models.tokens import TokenizedExample
from gptdynamics.runs import Bench
from gptdynamics.runs.trainable import trainable_copy

Make = Callable[..., RunSettings]


def slow_gradient(model: torch.nn.Module, example: TokenizedExample) -> list[torch.Tensor]:
    """Gradient of one example's mean loss, from the full logits of its whole sequence."""
    ids = torch.tensor([*example.prompt, *example.target])
    logits = model(input_ids=ids[None], use_cache=False).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[len(example.prompt) - 1 : -1], ids[len(example.prompt) :])
    return list(torch.autograd.grad(loss, [value for value in model.parameters() if value.requires_grad]))


def inner(left: list[torch.Tensor], right: list[torch.Tensor]) -> float:
    return sum(float((one.double() * other.double()).sum()) for one, other in zip(left, right, strict=True))


@dataclass
class SlowRecord:
    """What a run should record: `[M, T]` along the batch's gradient and along the update, `[T + 1, N, M]` products."""

    grad_dot: np.ndarray
    update_dot: np.ndarray
    products: np.ndarray


def slow_record(bench: Bench, run: str, curriculum: list[list[int]]) -> SlowRecord:
    """Train by hand, AdamW spelled out, one example at a time."""
    settings = bench.settings
    torch.manual_seed(int(np.random.SeedSequence(run_seed(settings, run)).generate_state(1)[0]))
    model = trainable_copy(bench.base.model, settings).eval()
    weights = [value for value in model.parameters() if value.requires_grad]
    first, second = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    beta1, beta2 = settings.beta1, settings.beta2
    pool = [bench.tokenized[at] for at in settings.pool_ids]
    grad_dot, update_dot, products = [], [], []

    def test_gradients() -> list[list[torch.Tensor]]:
        return [slow_gradient(model, example) for example in bench.test_set.tokenized]

    def products_now() -> list[list[float]]:
        of_test = test_gradients()
        return [[inner(own, other) for other in of_test] for own in (slow_gradient(model, each) for each in pool)]

    products.append(products_now())
    for done, batch in enumerate(curriculum, start=1):
        rate = settings.learning_rate * (1 - (done - 1) / len(curriculum))
        each = [slow_gradient(model, bench.tokenized[at]) for at in batch]
        gradient = [torch.stack(parts).mean(0) for parts in zip(*each, strict=True)]
        of_test = test_gradients()
        change = []
        with torch.no_grad():
            for at, weight in enumerate(weights):
                first[at] = beta1 * first[at] + (1 - beta1) * gradient[at]
                second[at] = beta2 * second[at] + (1 - beta2) * gradient[at] ** 2
                scale = (second[at] / (1 - beta2**done)).sqrt() + settings.epsilon
                step = first[at] / (1 - beta1**done) / scale
                change.append(-rate * settings.weight_decay * weight - rate * step)
                weight += change[at]
        grad_dot.append([inner(gradient, other) for other in of_test])
        update_dot.append([inner(change, other) for other in of_test])
        products.append(products_now())
    return SlowRecord(np.stack(grad_dot, axis=-1), np.stack(update_dot, axis=-1), np.array(products))


def assert_near(fast: np.ndarray, slow: np.ndarray) -> None:
    assert fast.dtype == np.float32
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-3 * np.abs(slow).max())


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        ("rte_tiny", {}),
        ("webnlg_tiny", {}),
        ("flan_tiny", {"pool_size": 2, "subset": 2, "test_examples": 1}),
        ("webnlg_tiny", {"lora_rank": 3, "lora_dropout": 0.0, "learning_rate": 0.05}),
    ],
)
def test_records_equal_a_loop_that_takes_every_gradient_by_itself(
    make_settings: Make, rows_folder: Path, config: str, changes: dict[str, Any]
) -> None:
    usual = {"subset": 12, "steps": 3, "weight_decay": 0.1, "learning_rate": 3e-3, "test_examples": 4}
    bench = Bench.load(make_settings(config, gradients="all", **(usual | changes)), rows_folder)
    run = bench.run("0001")
    slow = slow_record(bench, "0001", run.curriculum)
    assert_near(run.gradients["grad_dot"], slow.grad_dot)
    assert_near(run.gradients["update_dot"], slow.update_dot)
    assert list(run.products) == [0, 1, 2, 3]
    for step, products in run.products.items():
        assert_near(products, slow.products[step])
    # The run moved: what is recorded at the end is not what it was before.
    assert np.abs(slow.products[3] - slow.products[0]).max() > 0.01 * np.abs(slow.products).max()
    assert np.abs(slow.grad_dot[0] + slow.update_dot[0]).max() > 0.1 * np.abs(slow.grad_dot[0]).max()


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        ("webnlg_tiny", {}),
        ("rte_tiny", {"lora_rank": 2, "lora_dropout": 0.5, "learning_rate": 0.05}),
    ],
)
def test_recording_changes_no_metric(
    make_settings: Make, rows_folder: Path, config: str, changes: dict[str, Any]
) -> None:
    plain, recorded = (
        Bench.load(make_settings(config, epochs=2, gradients=gradients, **changes), rows_folder).run("0000")
        for gradients in ("none", "all")
    )
    assert plain.metrics.keys() == recorded.metrics.keys()
    for name, values in plain.metrics.items():
        np.testing.assert_array_equal(values, recorded.metrics[name])
    assert (plain.gradients, plain.products) == ({}, {})
    assert recorded.gradients.keys() == {"grad_dot", "update_dot"}


@pytest.mark.parametrize(
    ("gradients", "recorded"), [("none", []), ("test", ["0004"]), ("all", ["0000", "0004", "u0000"])]
)
def test_only_the_runs_asked_for_record(
    make_settings: Make, rows_folder: Path, gradients: str, recorded: list[str]
) -> None:
    bench = Bench.load(make_settings(gradients=gradients, steps=1), rows_folder, unseen=True)
    runs = {name: bench.run(name) for name in ("0000", "0004", "u0000")}
    assert [name for name, run in runs.items() if run.gradients] == recorded
    assert [name for name, run in runs.items() if run.products] == recorded
    for name in recorded:
        # Products are with the pool, whichever rows the run itself trains on.
        assert {products.shape for products in runs[name].products.values()} == {(12, 5)}


def test_measuring_less_often_records_the_same(make_settings: Make, rows_folder: Path) -> None:
    often, seldom = (
        Bench.load(make_settings(epochs=2, gradients="all", eval_every=every), rows_folder).run("0004")
        for every in (1, 3)
    )
    assert seldom.step == [0, 3, 4]
    for name, values in often.gradients.items():
        np.testing.assert_array_equal(values, seldom.gradients[name])
    assert often.products.keys() == seldom.products.keys()


def test_columns_are_the_same_in_every_split_and_empty_where_nothing_was_recorded(
    with_gradients: Path, tmp_path: Path
) -> None:
    numbers, steps = List(Value("float32")), List(Value("int32"))
    for config in ("rte_tiny", "webnlg_tiny", "flan_tiny"):
        splits = load_dataset(str(with_gradients), config, cache_dir=str(tmp_path))
        assert set(splits) == {"train", "validation", "test", "test_unseen"}
        (features,) = {str(rows.features): rows.features for rows in splits.values()}.values()
        assert {name: features[name] for name in ("gradient_step", "grad_dot", "update_dot")} == {
            "gradient_step": steps,
            "grad_dot": numbers,
            "update_dot": numbers,
        }
        for name, rows in splits.items():
            for row in rows:
                updates = [1, 2] if config != "flan_tiny" else [1, 2, 3]
                assert row["gradient_step"] == (updates if name == "test" else None)
                for column in ("grad_dot", "update_dot"):
                    assert len(row[column] or []) == (len(updates) if name == "test" else 0)


def test_stored_products_name_their_step_and_pool_example(
    with_gradients: Path, make_settings: Make, rows_folder: Path
) -> None:
    folder = DatasetFolder(with_gradients)
    run = Bench.load(make_settings(gradients="test", gradient_width=16), rows_folder, unseen=True).run("0004")
    rows = read_parquet(folder.products_path("rte_tiny", "0004")).to_pylist()
    assert [(row["step"], row["id"]) for row in rows] == [(step, at) for step in (0, 1, 2) for at in range(12)]
    assert {(row["run"], row["part"], row["vector"]) for row in rows} == {("0004", "pool", None)}
    assert rows[17]["products"] == run.products[1][5].tolist()
    stored = read_parquet(folder.run_path("rte_tiny", "0004"))
    for name in ("grad_dot", "update_dot"):
        assert stored[name].to_pylist() == run.gradients[name].tolist()
    assert not folder.products_path("rte_tiny", "0000").exists()
    assert not folder.products_path("rte_tiny", "u0000").exists()


def test_vectors_of_every_pool_and_test_example_are_stored_once(with_gradients: Path) -> None:
    for config, pool, test in (("rte_tiny", 24, 5), ("flan_tiny", 48, 15)):
        rows = read_parquet(DatasetFolder(with_gradients).vectors_path(config)).to_pylist()
        assert [(row["part"], row["id"]) for row in rows] == [
            *(("pool", at) for at in range(pool)),
            *(("test", at) for at in range(test)),
        ]
        assert {(row["run"], row["step"], row["projection_seed"], row["products"]) for row in rows} == {
            (None, 0, 0, None)
        }
        assert all(len(row["vector"]) == 16 and np.isfinite(row["vector"]).all() for row in rows)
