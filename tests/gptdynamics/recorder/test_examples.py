"""Pool and test set from whatever rows a user has, and the model that is measured."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from gptdynamics.errors import DataError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.recorder.base import measured_model, started_from, weights_digest
from gptdynamics.recorder.examples import recorded_examples
from gptdynamics.recorder.undisturbed import undisturbed
from gptdynamics.tasks import get_task
from gptdynamics.tasks.declared import declared_task
from tests.gptdynamics.recorder.conftest import Examples
from tests.gptdynamics.recorder.training import load

ROW = {"prompt": "Review: good\nSentiment:", "target": " positive"}


def test_examples_rows_and_datasets_are_the_same(rte: Examples) -> None:
    pool, test = rte
    rows = [{"id": each.id, "prompt": each.prompt, "target": each.target, "source": each.source} for each in pool]
    examples = recorded_examples(pool, test, get_task("rte"), "id")
    assert examples.pool == pool
    assert examples.test == test
    assert recorded_examples(rows, test, get_task("rte"), "id") == examples
    assert recorded_examples(Dataset.from_list(rows), iter(test), get_task("rte"), "id").pool == examples.pool
    completions = [{"id": row["id"], "prompt": row["prompt"], "completion": row["target"]} for row in rows]
    found = recorded_examples(completions, test, get_task("rte"), "id")
    assert [each.target for each in found.pool] == [each.target for each in pool]
    assert found.pool[3].source == {"dataset": "rte", "split": "pool", "row": "3"}


def test_ids_are_numbered_and_found_again() -> None:
    rows = [{"key": key, **ROW} for key in ("a", 7, np.int64(3), 0)]
    examples = recorded_examples(rows, rows, get_task("sst2"), "key")
    assert [each.id for each in examples.pool] == [0, 1, 2, 3]
    assert [examples.number(key, "") for key in ("a", 7, 3, np.int64(3), torch.tensor(7), 0)] == [0, 1, 2, 2, 1, 3]
    for unknown in (1, "b", None, [7]):
        with pytest.raises(DataError, match=r"row 5: .* is not the id of a pool example .they are 'a', 7, 3, ... 0."):
            examples.number(unknown, "row 5")


def test_text_targets_are_their_own_references() -> None:
    sayings = declared_task("sayings", ())
    rows: list[dict[str, Any]] = [{"prompt": "Say it:", "target": " it", "references": given} for given in (None, "so")]
    examples = recorded_examples([*rows, {**rows[0], "references": ["a", "b"]}], rows, sayings, "id")
    assert [each.references for each in examples.pool] == [("it",), ("so",), ("a", "b")]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "pool: 0 examples"),
        ([{**ROW, "prompt": ""}], "pool example 0: its prompt is empty; give the whole text in a column 'text'"),
        ([ROW, {**ROW, "target": " "}], "pool example 1: its target is empty; leave the row out"),
        ([{**ROW, "target": " fine"}], "its target ' fine' is not one of the labels of sst2, ' positive', ' negative'"),
        ([{"prompt": "x"}], "pool example 0: its 'target' is missing or not a text; rows need prompt and target"),
        ([{**ROW, "prompt": [{"role": "user"}]}], "its 'prompt' is missing or not a text"),
        ([{**ROW, "id": 3}, {**ROW, "id": 3}], "pool example 1: example 0 has the same id, 3"),
        ([{**ROW, "id": 1}, ROW], "pool example 1: example 0 has the same id, 1"),
        ([{**ROW, "id": [3]}], "id .3. cannot be an id"),
        ([{**ROW, "task": "rte"}], "its task is 'rte', but the config has 'sst2'"),
        ([Example(0, "x", " positive", task="rte")], "its task is 'rte'"),
        (["text"], "a str instead of an Example or a row"),
    ],
)
def test_rows_that_are_no_examples_are_refused(rows: list[Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        recorded_examples(rows, [ROW], get_task("sst2"), "id")


def test_a_mixture_has_its_tasks_in_turn(rows_folder: Path) -> None:
    from gptdynamics.tasks import load_examples

    pool = load_examples(get_task("flan"), "pool", 2, rows_folder)
    test = load_examples(get_task("flan"), "test", 1, rows_folder)
    assert recorded_examples(pool, test, get_task("flan"), "id").pool == pool
    with pytest.raises(DataError, match="pool example 0: its task is"):
        recorded_examples(pool[1:], test, get_task("flan"), "id")
    with pytest.raises(DataError, match="11 examples; give at least one, and the same number for each task of flan"):
        recorded_examples(pool[:11], test, get_task("flan"), "id")


def test_the_measured_model_is_the_one_within(tiny_model_folder: Path) -> None:
    model, _ = load(tiny_model_folder)
    assert measured_model(model, "fp32") is model
    assert measured_model(torch.nn.DataParallel(model), "fp32") is model
    with pytest.raises(SettingsError, match="Linear is not a causal language model"):
        measured_model(torch.nn.Linear(2, 2), "fp32")
    with pytest.raises(SettingsError, match=r'weights are bfloat16: give RecordSettings\(precision="bf16"\)'):
        measured_model(model.to(torch.bfloat16), "fp32")
    assert measured_model(model, "bf16") is model
    with pytest.raises(SettingsError, match="the weights are sharded over processes"):
        measured_model(model.to("meta"), "bf16")


def test_what_a_model_started_from(tiny_model_folder: Path) -> None:
    from gptdynamics.models.base_model import load_base_model

    model, tokenizer = load(tiny_model_folder)
    base = started_from(model, tokenizer, None)
    assert (base.name, base.revision) == (str(tiny_model_folder), load_base_model(str(tiny_model_folder)).revision)
    named = started_from(model, tokenizer, "org/mine")
    assert (named.name, named.revision) == ("org/mine", weights_digest(model))
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert started_from(model, tokenizer, "org/mine").revision != named.revision
    model.config._name_or_path = ""
    with pytest.raises(SettingsError, match="does not say what it was loaded from"):
        started_from(model, tokenizer, None)
    with pytest.raises(SettingsError, match="a tokenizer with an end-of-text token"):
        started_from(model, None, "mine")


def test_nothing_is_disturbed_even_by_an_error(tiny_model_folder: Path) -> None:
    model, _ = load(tiny_model_folder, dropout=0.5)
    model.train()
    model.gpt_neox.layers[0].eval()
    modes = [module.training for module in model.modules()]
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    with pytest.raises(ZeroDivisionError), undisturbed(model):
        assert not any(module.training for module in model.modules())
        random.random(), np.random.random(), torch.rand(3)
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == modes
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
