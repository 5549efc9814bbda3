"""How a training makes tokens is inferred, given or refused; the test examples are measured on such tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from gptdynamics.dataset import read_dynamics
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import DataError, GPTDynamicsError
from gptdynamics.recorder import DynamicsRecorder, RecordSettings, StepRecorder
from tests.gptdynamics.recorder.encodings import (
    IDS,
    POOL,
    ROWS,
    answer,
    check,
    joined,
    model,
    numbered,
    plain,
    refused,
    separate,
    sft,
    template,
    tokenizer,
    user,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:`gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:The `'keep_end'` truncation mode is deprecated:FutureWarning",
)


def test_accuracy_of_labels_that_end_with_an_end_of_text(tmp_path: Path) -> None:
    """SFTTrainer puts one after every completion; a label is right if it is the likeliest with it."""
    words = tokenizer()
    labels = (" yes", " no, odd.", " perhaps")
    rows = ROWS["leading"]
    trainer = sft(rows, tmp_path / "t", words)
    how = RecordSettings(labels=labels, base_model="own")
    DynamicsRecorder(tmp_path / "d", "even_own", rows[:POOL], rows[POOL:], settings=how).attach(trainer)
    trainer.train()
    read = read_dynamics(tmp_path / "d", "even_own", "accuracy")

    def loss(prompt: str, label: str) -> float:
        ids = torch.tensor([words(prompt + label + words.eos_token)["input_ids"]])
        start = len(words(prompt)["input_ids"])
        targets = torch.where(torch.arange(ids.shape[1]) < start, -100, ids[0])[None]
        with torch.no_grad():
            return float(trainer.model.eval()(input_ids=ids, labels=targets).loss)

    right = []
    for row in rows[POOL:]:
        each = [loss(row["prompt"], label) for label in labels]
        right.append(float(labels[int(np.argmin(each))] == row["completion"]))
    assert read.values[0, :, -1].tolist() == right
    assert verify(tmp_path / "d").faults == []


def test_tokens_that_texts_do_not_make_are_given_or_refused(tmp_path: Path) -> None:
    words, rows = tokenizer(), ROWS["leading"]
    trainer, test = plain(numbered, rows, tmp_path / "t", words)
    refused(
        trainer,
        rows[:POOL],
        rows[POOL:],
        tmp_path / "d",
        r"gives the trained tokens. Pool example 0 is trained on .*; its texts make .*\. Give the test rows",
    )
    given = [
        {**row, **{name: test[at][name] for name in ("input_ids", "labels")}} for at, row in enumerate(rows[POOL:])
    ]
    said = check(trainer, rows, test, tmp_path / "given", given)
    assert list(said) == ["rows"]
    trainer, test = plain(numbered, rows, tmp_path / "t", words)
    trainer.eval_dataset = test.shuffle(seed=0)
    assert check(trainer, rows, test, tmp_path / "evaluated") == said
    # A second run of the config is measured on the same tokens, or refused.
    trainer, _ = plain(numbered, rows, tmp_path / "t", words)
    given[1] = {**given[1], "labels": [-100] * 5 + given[1]["labels"][5:]}
    how = RecordSettings(generate_every=100, base_model="own")
    DynamicsRecorder(tmp_path / "given", "even_own", rows[:POOL], given, settings=how).attach(trainer)
    with pytest.raises(GPTDynamicsError, match=r"tokenization: .* there, .* now"):
        trainer.train()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": "a.png"}, "pool example 0: it has 'image', but only text is recorded"),
        ({"tools": ["look"]}, "pool example 0: it has 'tools', but only text is recorded"),
        ({"messages": [answer(0), user(0)]}, "last message is not an assistant's answer"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, answer(0)]}, "has 'image', but only text"),
        ({"messages": ["hello"]}, "'messages' is not a list of messages"),
        (
            {"messages": None, "instruction": "Is it?", "response": "yes"},
            "its 'prompt' is missing or not a text; rows need prompt and",
        ),
        (
            {"messages": None, "prompt": [user(0)], "chosen": "a", "rejected": "b"},
            "its 'prompt' is missing or not a text; rows need",
        ),
    ],
)
def test_rows_of_other_forms_are_refused_by_name(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    rows = [{**ROWS["messages"][0], **change}]
    with pytest.raises(DataError, match=said):
        DynamicsRecorder(tmp_path / "d", "even_own", rows, ROWS["messages"][1:2])


def test_a_tokenizer_without_a_chat_template_is_named(tmp_path: Path) -> None:
    words, rows = tokenizer(), ROWS["leading"]
    words.chat_template = None
    trainer, _ = plain(joined, rows, tmp_path / "t", words)
    chats = ROWS["messages"]
    refused(trainer, chats[:POOL], chats[POOL:], tmp_path / "d", "the tokenizer has none", GPTDynamicsError)


@pytest.mark.parametrize("kind", ["templated", "prepared", "formatted", "other texts"])
def test_given_rows_may_have_another_form_than_trained_ones(kind: str, tmp_path: Path) -> None:
    words, chats = tokenizer(), ROWS["messages"]
    arguments: dict[str, Any] = {}
    rows = [
        {
            "id": at,
            "prompt": words.apply_chat_template([user(at)], tokenize=False, add_generation_prompt=True),
            "target": answer(at)["content"],
        }
        for at in IDS
    ]
    trained: list[dict[str, Any]] = chats
    if kind == "prepared":
        trained = [
            {"id": at, "input_ids": (ids := words(row["prompt"] + row["target"])["input_ids"]), "labels": ids}
            for at, row in enumerate(rows)
        ]
        arguments = {"dataset_kwargs": {"skip_prepare_dataset": True}}
    elif kind == "formatted":
        trained = [{"id": at, "question": user(at)["content"], "reply": answer(at)["content"]} for at in IDS]
        rows = [{"id": at, "prompt": user(at)["content"], "target": answer(at)["content"]} for at in IDS]
        arguments = {"formatting_func": lambda row: f"### {row['question']}\n\n{row['reply']}"}
    elif kind == "other texts":
        rows = [{"id": at, "prompt": user(at)["content"], "target": answer(at)["content"]} for at in IDS]
    trainer = sft(trained, tmp_path / "t", words, **arguments)
    check(trainer, rows, Dataset.from_list(trained[POOL:]), tmp_path / "d")


def test_a_loop_of_ones_own_is_measured_on_joined_texts_or_on_what_its_rows_say(tmp_path: Path) -> None:
    words, rows = tokenizer(bos=True), ROWS["trailing"]
    own = model(words)

    def recorded(test: Any, out: Path) -> list[float]:
        optimizer = torch.optim.SGD(own.parameters(), lr=0.0)
        how = RecordSettings(generate_every=100, base_model="own")
        with StepRecorder(out, "even_own", rows[:POOL], test, own, words, optimizer, settings=how) as recorder:
            for at in (0, 1):
                with recorder.step([at]):
                    optimizer.step()
        return list(read_dynamics(out, "even_own", "loss").values[0, :, 0].tolist())

    def losses(encode: Any) -> list[float]:
        found = []
        for row in rows[POOL:]:
            made = encode(words, row)
            ids, labels = (torch.tensor([made[name]]) for name in ("input_ids", "labels"))
            with torch.no_grad():
                found.append(float(own.eval()(input_ids=ids, labels=labels).loss))
        return found

    assert recorded(rows[POOL:], tmp_path / "joined") == pytest.approx(losses(joined), abs=1e-5)
    for encode in (separate, numbered):
        given = [{**row, **encode(words, row)} for row in rows[POOL:]]
        assert recorded(given, tmp_path / encode.__name__) == pytest.approx(losses(encode), abs=1e-5)


def test_configs_recorded_before_there_was_a_rule_keep_theirs(tmp_path: Path) -> None:
    """Their manifests say nothing: prompt and target were tokenised apart, without special tokens."""
    words, rows = tokenizer(), ROWS["leading"]
    path = tmp_path / "d" / "manifests" / "even_own.json"

    def train(encode: Any) -> None:
        trainer, _ = plain(encode, rows, tmp_path / "t", words)
        how = RecordSettings(generate_every=100, base_model="own")
        DynamicsRecorder(tmp_path / "d", "even_own", rows[:POOL], rows[POOL:], settings=how).attach(trainer)
        trainer.train()

    def with_end(words: Any, row: dict[str, Any]) -> dict[str, Any]:
        made = separate(words, row)
        return {name: [*values, words.eos_token_id] for name, values in made.items()}

    train(with_end)
    manifest = json.loads(path.read_text())
    assert manifest["recording"].pop("tokenization") == "joined"
    path.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    assert verify(tmp_path / "d").faults == []
    train(with_end)
    assert read_dynamics(tmp_path / "d", "even_own", "loss").runs == ["0000", "0001"]
    assert verify(tmp_path / "d").faults == []
    with pytest.raises(GPTDynamicsError, match=r"tokenization: 'separate' there, .* now"):
        train(template)


def test_two_ways_that_differ_for_a_test_example_are_not_measured_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No pool prompt ends in a space: joined and apart are the same tokens there, but not those of the test example."""
    words, rows = tokenizer(), [*ROWS["leading"][:POOL], *ROWS["trailing"][POOL:]]
    trainer, _ = plain(joined, rows, tmp_path / "t", words)
    how = RecordSettings(generate_every=100, base_model="own")
    DynamicsRecorder(tmp_path / "d", "even_own", rows[:POOL], rows[POOL:], settings=how).attach(trainer)
    trainer.train()
    warned = [each for each in caplog.messages if "several ways of tokenising" in each]
    assert len(warned) == 1
    assert warned[0].startswith("test example 0: ")
    assert "Give the test rows their own input_ids and labels" in warned[0]
    caplog.clear()
    # What TRL makes itself leaves no doubt.
    trainer = sft(rows, tmp_path / "t", words)
    check(trainer, rows, Dataset.from_list(rows[POOL:]), tmp_path / "e")
    assert not any("several ways of tokenising" in each for each in caplog.messages)
