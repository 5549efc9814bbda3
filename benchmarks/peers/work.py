"""What every method is given: one run of a dataset, its rows and test examples as tokens, and its checkpoints.

No true loss of a changed run is in it. Nothing here needs more than torch and transformers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

Curricula = list[list[list[int]]]
Batch = dict[str, torch.Tensor]
IGNORED = -100


@dataclass(frozen=True)
class Work:
    """One run, and how it was changed. N rows, M test examples, T updates, S measured steps.

    Attributes:
        dataset, config, run: which run.
        data: folder with the rows' texts; empty: they are in the dataset or generated.
        rows, tests: ids of the N pool rows that the run visits, and of the M test examples.
        row_texts, test_texts, row_targets, test_targets: prompts with targets, and the targets alone.
        row_tokens, test_tokens: of each the token ids, and the places of those that the loss is the mean over.
        curriculum, learning_rate: `[T][batch]` row ids, and `[T]`.
        optimizer: `betas`, `eps` and `weight_decay` of AdamW.
        step: S steps, 0 first.
        checkpoints: updates before each of the checkpoints: 0 first, T last.
        changed: `left_out` and `reordered`: curricula of the run made again.
        folder: where it is kept.
        device: that models and batches are on: `cpu`, or a GPU such as `cuda`.
        repeated: mean distance of the losses of the run made again here from the recorded ones, and how much the run
            had changed them, in nats.
    """

    dataset: str
    config: str
    run: str
    data: str
    rows: list[int]
    tests: list[int]
    row_texts: list[str]
    test_texts: list[str]
    row_targets: list[str]
    test_targets: list[str]
    row_tokens: list[tuple[list[int], list[int]]]
    test_tokens: list[tuple[list[int], list[int]]]
    curriculum: list[list[int]]
    learning_rate: list[float]
    optimizer: dict[str, Any]
    step: list[int]
    checkpoints: list[int]
    changed: dict[str, Curricula]
    folder: Path
    device: str = "cpu"
    repeated: list[float] = field(default_factory=list)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Work:
        """What `save` wrote."""
        return cls(**json.loads((folder / "work.json").read_text()), folder=folder, device=device)

    def save(self) -> None:
        """Write everything but the checkpoints, which are there before: a folder with this file is whole."""
        values = asdict(self)
        del values["folder"], values["device"]
        (self.folder / "work.json").write_text(json.dumps(values))

    @cached_property
    def visits(self) -> int:
        """Rows in all batches: forward-backward passes of the run's training."""
        return sum(map(len, self.curriculum))

    def checkpoint(self, done: int) -> Path:
        """The folder of the model after so many updates."""
        return self.folder / f"checkpoint-{done:04}"

    def model(self, done: int | None = None) -> PreTrainedModel:
        """The model after so many updates, in evaluation mode; default: at the end."""
        path = self.checkpoint(self.checkpoints[-1] if done is None else done)
        return AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").to(self.device).eval()

    def row_batch(self, places: Sequence[int]) -> Batch:
        """Rows as a padded batch: `input_ids`, `attention_mask` and `labels`."""
        return self._placed(padded([self.row_tokens[place] for place in places]))

    def test_batch(self, places: Sequence[int]) -> Batch:
        """Test examples, likewise."""
        return self._placed(padded([self.test_tokens[place] for place in places]))

    def _placed(self, batch: Batch) -> Batch:
        return {name: values.to(self.device) for name, values in batch.items()}


def examples_at_once(model: PreTrainedModel, gib: float, most: int) -> int:
    """How many examples' gradients of all weights fit into so many GiB: at least 1, at most `most`."""
    return max(1, min(most, int(gib * 2**30 / (4 * model.num_parameters()))))


def padded(examples: Sequence[tuple[list[int], list[int]]]) -> Batch:
    """Examples of any lengths as one batch; the model is causal, so padding at the right changes nothing."""
    shape = (len(examples), max(len(ids) for ids, _ in examples))
    batch = {"input_ids": torch.zeros(shape, dtype=torch.long), "attention_mask": torch.zeros(shape, dtype=torch.long)}
    batch["labels"] = torch.full(shape, IGNORED)
    for place, (ids, scored) in enumerate(examples):
        batch["input_ids"][place, : len(ids)] = torch.tensor(ids)
        batch["attention_mask"][place, : len(ids)] = 1
        batch["labels"][place, scored] = torch.tensor(ids)[scored]
    return batch


def losses_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over each example's target tokens: `[rows]`, what runs are trained on and measured in."""
    counted = labels[:, 1:] != IGNORED
    each = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="none"
    ).view(counted.shape)
    return each.sum(1) / counted.sum(1)
