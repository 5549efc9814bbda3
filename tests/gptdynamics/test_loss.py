from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gptdynamics.base_model import BaseModel
from gptdynamics.configs import RunSettings
from gptdynamics.measurement import TargetLosses, TestSet
from gptdynamics.tasks import get_task, load_examples
from gptdynamics.tokens import TokenizedExample, tokenize_example, tokenize_text

# Labels of rte are single tokens of the tiny tokenizer, those of mini_sentiment are not.
TASKS = ["rte", "mini_sentiment", "webnlg"]


@torch.no_grad()
def slow_loss(base: BaseModel, example: TokenizedExample) -> float:
    """Mean cross-entropy of one example from the full logits of its whole sequence."""
    ids = [*example.prompt, *example.target]
    logits = base.model(input_ids=torch.tensor([ids])).logits[0].double()
    losses = [-torch.log_softmax(logits[at - 1], -1)[ids[at]].item() for at in range(len(example.prompt), len(ids))]
    return sum(losses) / len(losses)


def tokenized(base: BaseModel, task_name: str, rows_folder: Path, count: int = 12) -> list[TokenizedExample]:
    task = get_task(task_name)
    examples = load_examples(task, "test", count, rows_folder)
    return [tokenize_example(base.tokenizer, example, base.context, task.generates) for example in examples]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("batch_tokens", [1, 150, 100_000])
def test_losses_equal_one_example_at_a_time_with_full_logits(
    tiny_base: BaseModel, rows_folder: Path, task: str, batch_tokens: int
) -> None:
    examples = tokenized(tiny_base, task, rows_folder)
    fast, accuracy = TargetLosses(examples, batch_tokens=batch_tokens).measure(tiny_base.model)
    slow = [slow_loss(tiny_base, example) for example in examples]
    assert fast.dtype == np.float32
    assert np.isnan(accuracy).all()
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("task_name", "single"), [("rte", True), ("mini_sentiment", False)])
def test_accuracy_equals_comparing_label_losses_one_at_a_time(
    tiny_base: BaseModel,
    rows_folder: Path,
    make_settings: Callable[..., RunSettings],
    task_name: str,
    single: bool,
) -> None:
    task = get_task(task_name)
    lengths = [len(tokenize_text(tiny_base.tokenizer, label)) for label in task.labels]
    assert (max(lengths) == 1) is single
    examples = load_examples(task, "test", 12, rows_folder)
    measured = TestSet(examples, tiny_base, make_settings(f"{task_name}_tiny"), {}).measure(tiny_base.model)
    right = []
    for example in examples:
        losses = {
            label: slow_loss(
                tiny_base, tokenize_example(tiny_base.tokenizer, example, tiny_base.context, False, target=label)
            )
            for label in task.labels
        }
        right.append(float(min(losses, key=lambda label: losses[label]) == example.target))
    assert 0 < sum(right) < len(right)
    assert measured["accuracy"].dtype == np.float32
    assert measured["accuracy"].tolist() == right
    own = [slow_loss(tiny_base, example) for example in tokenized(tiny_base, task_name, rows_folder)]
    np.testing.assert_allclose(measured["loss"], own, rtol=0, atol=1e-5)


def test_generation_tasks_have_no_accuracy(
    tiny_base: BaseModel, rows_folder: Path, make_settings: Callable[..., RunSettings]
) -> None:
    task = get_task("webnlg")
    examples = load_examples(task, "test", 3, rows_folder)
    test_set = TestSet(examples, tiny_base, make_settings("webnlg_tiny"), {"webnlg": 5})
    assert list(test_set.measure(tiny_base.model)) == ["loss"]


def test_counted_tokens_are_those_fed_in_without_padding(tiny_base: BaseModel, rows_folder: Path) -> None:
    examples = tokenized(tiny_base, "webnlg", rows_folder)
    losses = TargetLosses(examples)
    assert losses.tokens == sum(len(example.prompt) + len(example.target) - 1 for example in examples)


def test_prompts_cut_to_the_context_are_counted(
    tiny_base: BaseModel, make_settings: Callable[..., RunSettings]
) -> None:
    task = get_task("mini_sentiment")
    examples = load_examples(task, "test", 20)
    test_set = TestSet(examples, tiny_base, make_settings("mini_sentiment_tiny"), {})
    too_long = [
        example
        for example in examples
        if len(tokenize_text(tiny_base.tokenizer, example.prompt + example.target)) > tiny_base.context
    ]
    assert 0 < test_set.cut == len(too_long) < 20
