"""How a script on transformers measures a test set: what `collection.py` compares with."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainingArguments
from transformers.utils import logging

from gptdynamics.models.tokens import TokenizedExample


class Theirs:
    """Losses by `Trainer.predict` and texts by `generate`, one prompt at a time.

    Args:
        model: in evaluation mode.
        examples: what is measured.
        temperature, top_p: of sampled text.
        end: id of the end of text, which pads.
        batch_size: rows of a batch whose losses are taken.
    """

    def __init__(
        self,
        model: Any,
        examples: list[TokenizedExample],
        temperature: float,
        top_p: float,
        end: int,
        batch_size: int = 8,
    ) -> None:
        logging.set_verbosity_error()
        self.end = end
        self.options = {"do_sample": True, "top_k": 0, "top_p": top_p, "temperature": temperature, "pad_token_id": end}
        self.model, self.prompts = model, [each.prompt for each in examples]
        self.rows = [
            {"input_ids": [*each.prompt, *each.target], "labels": [*[-100] * len(each.prompt), *each.target]}
            for each in examples
        ]
        arguments = TrainingArguments(
            output_dir=tempfile.gettempdir(),
            per_device_eval_batch_size=batch_size,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        self.trainer = Trainer(
            model, arguments, data_collator=self._collate, preprocess_logits_for_metrics=self._losses
        )

    def _collate(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)

        def padded(name: str, fill: int) -> torch.Tensor:
            return torch.tensor([row[name] + [fill] * (longest - len(row[name])) for row in rows])

        mask = [[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows]
        return {
            "input_ids": padded("input_ids", self.end),
            "labels": padded("labels", -100),
            "attention_mask": torch.tensor(mask),
        }

    @staticmethod
    def _losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        target = labels[:, 1:]
        flat = logits[:, :-1].reshape(-1, logits.size(-1))
        each = torch.nn.functional.cross_entropy(flat, target.reshape(-1), reduction="none")
        return each.view(target.shape).sum(1) / (target != -100).sum(1)

    def losses(self) -> np.ndarray:
        """The loss of each example."""
        return np.asarray(self.trainer.predict(self.rows).predictions)

    def texts(self, new_tokens: int) -> None:
        """Sample a text for each prompt."""
        for prompt in self.prompts:
            ids = torch.tensor([prompt])
            self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, **self.options)
