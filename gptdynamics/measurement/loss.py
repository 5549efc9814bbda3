"""The loss of every example, with logits at target positions only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from gptdynamics.measurement.logits import target_logits
from gptdynamics.models.tokens import TargetBatch, TokenizedExample, length_sorted_batches, make_target_batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# A larger batch's activations do not fit in a core's cache; a GPU would be idle most of the time.
BATCH_TOKENS, GPU_BATCH_TOKENS = 2048, 16384


def example_losses(logits: torch.Tensor, batch: TargetBatch) -> torch.Tensor:
    """Mean cross-entropy over each example's target tokens: `[rows]`, in nats."""
    losses = torch.nn.functional.cross_entropy(logits, batch.target, reduction="none")
    sums = torch.zeros(len(batch.rows), device=losses.device).index_add(0, batch.row, losses.float())
    return sums / batch.counts


class TargetLosses:
    """Losses of a fixed list of examples under a changing model.

    Args:
        examples: tokenised examples.
        labels: for each example the token ids of its task's labels, if each label is a single token; accuracy then
            needs no further pass. Empty for examples without accuracy.
        device: of the model.
        batch_tokens: the most tokens of a batch, with padding. Default: `BATCH_TOKENS`, on a GPU `GPU_BATCH_TOKENS`.
    """

    def __init__(
        self,
        examples: Sequence[TokenizedExample],
        labels: Sequence[Sequence[int]] = (),
        device: torch.device | str = "cpu",
        batch_tokens: int | None = None,
    ) -> None:
        self.examples = examples
        # Tokens that are fed in; the last token of a target predicts nothing.
        self.lengths = [example.input_length for example in examples]
        device = torch.device(device)
        usual = BATCH_TOKENS if device.type == "cpu" else GPU_BATCH_TOKENS
        grouped = length_sorted_batches(self.lengths, batch_tokens or usual)
        self.batches = [make_target_batch(examples, rows).to(device) for rows in grouped]
        self.choices = [_choices(batch, labels, device) if any(labels) else None for batch in self.batches]

    @property
    def tokens(self) -> int:
        """Non-padding tokens of one forward pass."""
        return sum(self.lengths)

    @torch.no_grad()
    def measure(self, model: PreTrainedModel) -> tuple[np.ndarray, np.ndarray]:
        """Loss and accuracy, `[examples]` float32 each.

        Accuracy is 1 if the right label is the likeliest of the task's labels, else 0; NaN where there are no labels.
        """
        loss = np.empty(len(self.examples), dtype=np.float32)
        accuracy = np.full(len(self.examples), np.nan, dtype=np.float32)
        for batch, choices in zip(self.batches, self.choices, strict=True):
            logits = target_logits(model, batch)
            loss[batch.rows] = example_losses(logits, batch).cpu().numpy()
            if choices is not None:
                accuracy[choices.rows] = choices.right(logits).cpu().numpy()
        return loss, accuracy


@dataclass(frozen=True)
class _Choices:
    """Labels of the rows of a batch that have labels: rows, target positions `[n]`, token ids `[n, labels]`."""

    rows: list[int]
    place: torch.Tensor
    ids: torch.Tensor
    answer: torch.Tensor

    def right(self, logits: torch.Tensor) -> torch.Tensor:
        """Whether the answer is the likeliest label: `[n]`."""
        likeliest = logits[self.place].gather(1, self.ids).argmax(-1, keepdim=True)
        return (self.ids.gather(1, likeliest).squeeze(-1) == self.answer).float()


def _choices(batch: TargetBatch, labels: Sequence[Sequence[int]], device: torch.device) -> _Choices | None:
    with_labels = [index for index, row in enumerate(batch.rows) if labels[row]]
    if not with_labels:
        return None
    rows = [batch.rows[index] for index in with_labels]
    most_labels = max(len(labels[row]) for row in rows)
    # A task with fewer labels repeats its first, which does not change the likeliest label.
    ids = [[*labels[row], *[labels[row][0]] * (most_labels - len(labels[row]))] for row in rows]
    first_target = torch.cumsum(batch.counts, 0) - batch.counts
    place = first_target[torch.tensor(with_labels, device=device)]
    return _Choices(
        rows=rows,
        place=place,
        ids=torch.tensor(ids, device=device),
        answer=batch.target[place],
    )
