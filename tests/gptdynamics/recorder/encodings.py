"""Rows in all forms, ways to encode them, and trainers on them whose own evaluation is what is compared with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Qwen2Config,
    Qwen2ForCausalLM,
    Trainer,
    TrainingArguments,
)

from gptdynamics.dataset import read_dynamics
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import DataError, GPTDynamicsError
from gptdynamics.models.nano import MODEL_FOLDER
from gptdynamics.recorder import DynamicsRecorder, RecordSettings

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}\n"
    "{% else %}{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_BOS = "{{ bos_token }}" + TEMPLATE
IDS = range(14)
POOL = 10


def tokenizer(template: str = TEMPLATE, bos: bool = False) -> Any:
    made = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<s>"]})
    made.eos_token, made.pad_token, made.bos_token = "<|im_end|>", "<|endoftext|>", "<s>"
    made.chat_template = template
    if bos:
        from tokenizers.processors import TemplateProcessing

        made.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", made.bos_token_id)]
        )
    return made


def model(words: Any) -> Qwen2ForCausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = Qwen2Config(
            vocab_size=len(words),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=256,
            initializer_range=0.3,
            bos_token_id=None,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
        return Qwen2ForCausalLM(config)


def user(number: int) -> dict[str, str]:
    return {"role": "user", "content": f"Is {number} an even number?"}


def answer(number: int) -> dict[str, str]:
    return {"role": "assistant", "content": ("yes, it is", "no, it is odd.")[number % 2]}


def several(number: int) -> list[dict[str, str]]:
    more = [user(number + 1), answer(number + 1)] if number % 3 else []
    return [{"role": "system", "content": "Answer."}, user(number), answer(number), *more]


ROWS: dict[str, list[dict[str, Any]]] = {
    "leading": [{"prompt": f"Is {at} even?\nAnswer:", "completion": (" yes", " no, odd.")[at % 2]} for at in IDS],
    "trailing": [{"prompt": f"Is {at} even?\nAnswer: ", "completion": ("yes", "no, odd.")[at % 2]} for at in IDS],
    "within": [{"prompt": f"Is {at} eve", "completion": ("n? yes", "n? no")[at % 2]} for at in IDS],
    "conversational": [{"prompt": [user(at)], "completion": [answer(at)]} for at in IDS],
    "messages": [{"messages": [user(at), answer(at)]} for at in IDS],
    "several turns": [{"messages": several(at)} for at in IDS],
    "text": [{"text": f"{user(at)['content']} {answer(at)['content']}"} for at in IDS],
    "ShareGPT": [
        {
            "conversations": [
                {"from": "user", "value": user_text},
                {"from": "assistant", "value": ("yes, it is", "no, it is odd.")[at % 2]},
            ]
        }
        for at, user_text in ((at, f"Is {at} an even number?") for at in IDS)
    ],
    "several parts": [
        {"prompt": [{"role": "system", "content": "Answer."}, user(at)], "completion": [answer(at), *several(at)[1:3]]}
        for at in IDS
    ],
    "lengths": [{"prompt": "Count: " + "one two " * (1 + at), "completion": f" and so on {at}"} for at in IDS],
}
ROWS = {kind: [{"id": at, **row} for at, row in enumerate(rows)] for kind, rows in ROWS.items()}


def check(trainer: Trainer, rows: list[dict[str, Any]], test: Any, out: Path, given: Any = None) -> dict[str, Any]:
    """Train and record; every test example's loss is that of the trainer's own evaluation. What the manifest says.

    Args:
        trainer: on the first rows.
        rows: what the recorder is given, pool and test.
        test: the rows that are evaluated, one by one, in the trainer's form.
        out: the dataset folder.
        given: the test rows that the recorder is given; None: those of `rows`.
    """

    def losses() -> list[float]:
        return [trainer.evaluate(test.select([place]))["eval_loss"] for place in range(len(test))]

    how = RecordSettings(generate_every=100, base_model="own")
    recorder = DynamicsRecorder(out, "even_own", rows[:POOL], given or rows[POOL:], settings=how)
    recorder.attach(trainer)
    before = losses()
    trainer.train()
    after = losses()
    assert trainer.state.global_step
    read = read_dynamics(out, "even_own", "loss")
    np.testing.assert_allclose(read.values[0, :, 0], before, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(read.values[0, :, -1], after, atol=1e-5, rtol=1e-5)
    assert max(abs(one - other) for one, other in zip(before, after, strict=True)) > 1e-3
    assert verify(out).faults == []
    said = json.loads((out / "manifests" / "even_own.json").read_text())["recording"]["tokenization"]
    return said if isinstance(said, dict) else {"name": said}


def sft(rows: list[dict[str, Any]], out: Path, words: Any, evaluation: Any = None, **arguments: Any) -> Any:
    trl = pytest.importorskip("trl")
    formatting, streamed = arguments.pop("formatting_func", None), arguments.pop("streamed", False)
    given = {
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 1,
        "learning_rate": 3e-3,
        "report_to": [],
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "num_train_epochs": 1,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
    }
    return trl.SFTTrainer(
        model(words),
        trl.SFTConfig(str(out), **(given | arguments)),
        train_dataset=Dataset.from_list(rows[:POOL]).to_iterable_dataset()
        if streamed
        else Dataset.from_list(rows[:POOL]),
        eval_dataset=evaluation,
        processing_class=words,
        formatting_func=formatting,
    )


def joined(words: Any, row: dict[str, Any]) -> dict[str, Any]:
    ids = words(row["prompt"] + row["completion"])["input_ids"] + [words.eos_token_id]
    start = len(words(row["prompt"].rstrip())["input_ids"])
    return {"input_ids": ids, "labels": [-100] * start + ids[start:]}


def separate(words: Any, row: dict[str, Any]) -> dict[str, Any]:
    prompt, target = (words(row[name], add_special_tokens=False)["input_ids"] for name in ("prompt", "completion"))
    return {"input_ids": prompt + target, "labels": [-100] * len(prompt) + target}


def separate_with_start(words: Any, row: dict[str, Any]) -> dict[str, Any]:
    prompt = words(row["prompt"])["input_ids"]
    target = words(" " + row["completion"].strip() + "\n", add_special_tokens=False)["input_ids"] + [words.eos_token_id]
    return {"input_ids": prompt + target, "labels": [-100] * len(prompt) + target}


def template(words: Any, row: dict[str, Any]) -> dict[str, Any]:
    before = f"### Question\n{row['prompt'].strip()}\n### Answer\n"
    ids = words(before + row["completion"].strip() + "\n\n")["input_ids"]
    return {"input_ids": ids, "labels": ids.copy()}


def question(words: Any, row: dict[str, Any]) -> dict[str, Any]:
    """What stands around the texts has words of the answers."""
    before = f"Say yes or no, odd. Is 1 even?\n{row['prompt']} (yes or no, odd.) "
    ids = words(before + row["completion"].strip() + ".")["input_ids"] + [words.eos_token_id]
    start = len(words(before)["input_ids"])
    return {"input_ids": ids, "labels": [-100] * start + ids[start:]}


def ids_only(words: Any, row: dict[str, Any]) -> dict[str, Any]:
    return {"input_ids": words(row["prompt"] + row["completion"] + words.pad_token)["input_ids"]}


def cut_right(words: Any, row: dict[str, Any]) -> dict[str, Any]:
    ids = words(row["prompt"] + row["completion"] + words.eos_token, truncation=True, max_length=48)["input_ids"]
    return {"input_ids": ids, "labels": ids.copy()}


def padded(words: Any, row: dict[str, Any]) -> dict[str, Any]:
    made = separate(words, row)
    more = 64 - len(made["input_ids"])
    return {
        "input_ids": made["input_ids"] + [words.pad_token_id] * more,
        "attention_mask": [1] * len(made["input_ids"]) + [0] * more,
        "labels": made["labels"] + [-100] * more,
    }


def plain(encode: Any, rows: list[dict[str, Any]], out: Path, words: Any, collator: Any = None) -> tuple[Any, Dataset]:
    """A Trainer on encoded rows, and the encoded test rows."""
    encoded = Dataset.from_list(rows).map(lambda row: encode(words, row))
    arguments = TrainingArguments(
        str(out),
        per_device_train_batch_size=2,
        per_device_eval_batch_size=1,
        learning_rate=3e-3,
        num_train_epochs=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model(words),
        arguments,
        train_dataset=encoded.select(range(POOL)),
        data_collator=collator or DataCollatorForSeq2Seq(words),
        processing_class=words,
    )
    return trainer, encoded.select(range(POOL, len(rows)))


def refused(
    trainer: Any, rows: Any, test: Any, out: Path, said: str, error: type[GPTDynamicsError] = DataError
) -> None:
    """Training does not begin, and the folder is left as it was."""
    how = RecordSettings(generate_every=100, base_model="own")
    with pytest.raises(error, match=said):
        recorder = DynamicsRecorder(out, "even_own", rows, test, settings=how)
        recorder.attach(trainer)
        trainer.train()
    assert trainer.state.global_step == 0
    assert not out.exists()


def numbered(words: Any, row: dict[str, Any]) -> dict[str, Any]:
    """An encoding that no rule makes: something of the row's own stands within."""
    ids = words(row["prompt"] + f"({7 * row['id']})" + row["completion"])["input_ids"] + [words.eos_token_id]
    return {"input_ids": ids, "labels": [-100] * 4 + ids[4:]}
