"""Trainings to record: a `Trainer` that notes what it really trains on, and a plain loop, both on tiny models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.schema import read_parquet
from gptdynamics.dataset.verify import verify
from gptdynamics.examples import Example
from gptdynamics.models.tokens import make_target_batch, tokenize_example
from gptdynamics.tasks import get_single_task


def load(folder: Path, dropout: float = 0.0) -> tuple[Any, Any]:
    """A model and its tokenizer, which pads with the end of text, as the model's own settings say."""
    options = {"hidden_dropout": dropout, "attention_dropout": dropout} if dropout else {}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def tokenised(tokenizer: Any, examples: Sequence[Example], context: int = 64) -> list[dict[str, Any]]:
    """Rows to train on: token ids, labels of the target, and the example's id."""
    rows = []
    for example in examples:
        tokens = tokenize_example(tokenizer, example, context, get_single_task(example.task).generates)
        labels = [-100] * len(tokens.prompt) + tokens.target
        rows.append({"id": example.id, "text": example.prompt, "input_ids": [*tokens.prompt, *tokens.target]})
        rows[-1]["labels"] = labels
    return rows


def mean_of_means(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean of the examples' own mean losses, as `gptdynamics collect` trains."""
    labels = labels[:, 1:]
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), labels, reduction="none")
    return (losses.sum(1) / (labels != -100).sum(1)).mean()


class NotingTrainer(Trainer):
    """Notes the rows of each micro-batch that a gradient is taken of, by their own tokens."""

    loss_is_scaled_for_ga = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.seen: list[list[tuple[int, ...]]] = []
        self.keys: set[str] = set()

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        self.keys |= set(inputs)
        mask = inputs["attention_mask"].bool()
        rows = [tuple(row[kept].tolist()) for row, kept in zip(inputs["input_ids"], mask, strict=True)]
        self.seen.append(rows)
        return mean_of_means(model(input_ids=inputs["input_ids"]).logits, inputs["labels"])


def make_trainer(
    folder: Path,
    rows: Any,
    out: Path,
    dropout: float = 0.0,
    callbacks: Sequence[Any] = (),
    rate: float = 1e-3,
    **arguments: Any,
) -> NotingTrainer:
    """A trainer of four examples in an update, in two micro-batches; AdamW as `gptdynamics collect` has it."""
    model, tokenizer = load(folder, dropout)
    given: dict[str, Any] = {
        "output_dir": str(out),
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 1,
        "learning_rate": rate,
        "max_grad_norm": 0,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.001)
    return NotingTrainer(
        model=model,
        args=TrainingArguments(**(given | arguments)),
        train_dataset=Dataset.from_list(rows) if isinstance(rows, list) else rows,
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        optimizers=(optimizer, None),
        callbacks=list(callbacks),
    )


class Loop:
    """A plain training loop: AdamW, linear decay."""

    def __init__(self, folder: Path, pool: Sequence[Example], updates: int, rate: float = 1e-3) -> None:
        self.model, self.tokenizer = load(folder)
        self.updates, self.rate = updates, rate
        self.tokens = {
            example.id: tokenize_example(self.tokenizer, example, 64, get_single_task(example.task).generates)
            for example in pool
        }
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=rate, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.001
        )
        self.done = 0

    def update(self, ids: Sequence[int]) -> None:
        """One update, of micro-batches of two."""
        from gptdynamics.measurement.loss import example_losses, target_logits

        self.optimizer.param_groups[0]["lr"] = self.rate * (self.updates - self.done) / self.updates
        for at in range(0, len(ids), 2):
            part = [self.tokens[each] for each in ids[at : at + 2]]
            batch = make_target_batch(part, list(range(len(part))))
            (example_losses(target_logits(self.model, batch), batch).sum() / len(ids)).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.done += 1


def curriculum(folder: Path, config: str, run: str = "0000") -> list[list[int]]:
    return read_parquet(DatasetFolder(folder).run_row_path(config, run))["curriculum"][0].as_py()


def faults(folder: Path) -> list[str]:
    return [str(fault) for fault in verify(folder).faults]
