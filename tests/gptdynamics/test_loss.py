from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import normalizers

from gptdynamics.configs import RunSettings
from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from gptdynamics.measurement import TargetLosses, TestSet
from gptdynamics.models.base_model import BaseModel
from gptdynamics.models.tokens import TokenizedExample, tokenize_example, tokenize_text
from gptdynamics.tasks import get_single_task, get_task, load_examples

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


CHAT_TASK = """
from gptdynamics.tasks import Task

class Chat(Task):
    name = "chat"
    fields = {{"text": str, "label": str}}
    plain = "Question: {{text}}\\nAnswer:\\n"
    labels = {labels!r}

    def target(self, row):
        return row["label"]
"""


@pytest.fixture
def chat_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[str, ...]], list[Example]]:
    """Examples of a task whose prompts end in a line break, with these labels."""

    def make(labels: tuple[str, ...]) -> list[Example]:
        (tmp_path / "chat.py").write_text(CHAT_TASK.format(labels=labels))
        monkeypatch.setenv("GPTDYNAMICS_TASKS", str(tmp_path / "chat.py"))
        task = get_single_task("chat")
        return [
            task.example({"text": f"The {word}", "label": labels[at % len(labels)]}, at, "row", {})
            for at, word in enumerate("cat dog ball river house bird garden place".split())
        ]

    return make


@pytest.mark.parametrize("labels", [("yes", "no"), ("yes", "yes yes"), (" yes", "yes"), ("é", "è", "\u03b1")])
def test_labels_may_be_any_texts_whose_tokens_differ(
    tiny_base: BaseModel,
    chat_examples: Callable[[tuple[str, ...]], list[Example]],
    make_settings: Callable[..., RunSettings],
    labels: tuple[str, ...],
) -> None:
    examples = chat_examples(labels)
    measured = TestSet(examples, tiny_base, make_settings(), {}).measure(tiny_base.model)
    for index, example in enumerate(examples):
        losses = []
        for label in labels:
            ids = tiny_base.tokenizer(example.prompt + label)["input_ids"]
            prompt = len(tiny_base.tokenizer(example.prompt)["input_ids"])
            scored = torch.tensor([[-100] * prompt + ids[prompt:]])
            with torch.no_grad():
                losses.append(tiny_base.model(torch.tensor([ids]), labels=scored).loss.item())
        assert measured["loss"][index] == pytest.approx(losses[labels.index(example.target)], abs=1e-5)
        assert measured["accuracy"][index] == (labels[int(np.argmin(losses))] == example.target)


def test_labels_that_become_the_same_tokens_are_refused_by_name(
    tiny_base: BaseModel,
    chat_examples: Callable[[tuple[str, ...]], list[Example]],
    make_settings: Callable[..., RunSettings],
) -> None:
    examples = chat_examples(("caf\u00e9", "cafe\u0301"))
    folded = replace(tiny_base, tokenizer=copy.deepcopy(tiny_base.tokenizer))
    folded.tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    with pytest.raises(DataError, match=r"labels 'café' and 'cafe.*' of task chat become the same tokens"):
        TestSet(examples, folded, make_settings(), {})


def test_accuracy_of_mixed_tasks_is_that_of_each_alone_and_none_where_text_is_generated(
    tiny_base: BaseModel, rows_folder: Path, make_settings: Callable[..., RunSettings]
) -> None:
    tasks = ["rte", "webnlg", "mini_sentiment", "boolq", "sst2"]
    mixed, alone = [], {}
    for name in tasks:
        examples = load_examples(get_task(name), "test", 6, None if name == "mini_sentiment" else rows_folder)
        mixed += examples
        alone[name] = TestSet(examples, tiny_base, make_settings(), {"webnlg": 5}).measure(tiny_base.model)
    order = np.random.default_rng(0).permutation(len(mixed))
    together = TestSet([mixed[at] for at in order], tiny_base, make_settings(), {"webnlg": 5}).measure(tiny_base.model)
    none = np.full(6, np.nan)
    for name in ("loss", "accuracy"):
        expected = np.concatenate([alone[task].get(name, none) for task in tasks])[order]
        np.testing.assert_allclose(together[name], expected, rtol=0, atol=1e-5)
    assert 0 < np.nanmean(together["accuracy"]) < 1


def test_labels_may_be_more_for_some_examples_than_for_others(tiny_base: BaseModel, rows_folder: Path) -> None:
    examples = tokenized(tiny_base, "rte", rows_folder)
    rng = np.random.default_rng(1)
    answers = [example.target[0] for example in examples]
    labels = [[answer, *rng.integers(5, 300, size=at % 4).tolist()] for at, answer in enumerate(answers)]
    labels[3] = []
    wide, narrow = (TargetLosses(examples, labels, batch_tokens=size).measure(tiny_base.model)[1] for size in (9999, 1))
    np.testing.assert_array_equal(wide, narrow)
    for at, (example, choices) in enumerate(zip(examples, labels, strict=True)):
        if not choices:
            assert np.isnan(wide[at])
            continue
        with torch.no_grad():
            logits = tiny_base.model(input_ids=torch.tensor([example.prompt])).logits[0, -1]
        assert wide[at] == (max(choices, key=lambda token, logits=logits: logits[token].item()) == answers[at])


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
