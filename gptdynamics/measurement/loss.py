"""The loss of every example, with logits at target positions only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from gptdynamics.tokens import TargetBatch, TokenizedExample, length_sorted_batches, make_target_batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Rows of a batch are as many as keep its activations in a core's cache.
BATCH_TOKENS = 2048


def target_logits(model: PreTrainedModel, batch: TargetBatch) -> torch.Tensor:
    """Logits that predict the target tokens: `[targets, vocabulary]`."""
    hidden = model.base_model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    return model.get_output_embeddings()(hidden[batch.row, batch.position])


def example_losses(logits: torch.Tensor, batch: TargetBatch) -> torch.Tensor:
    """Mean cross-entropy over each example's target tokens: `[rows]`, in nats."""
    losses = torch.nn.functional.cross_entropy(logits, batch.target, reduction="none")
    return torch.zeros(len(batch.rows)).index_add(0, batch.row, losses) / batch.counts


class TargetLosses:
    """Losses of a fixed list of examples under a changing model.

    Args:
        examples: tokenised examples.
        labels: token ids of the task's labels, where each is a single token; then `accuracy` costs nothing.
        answers: for each example the index of its right label.
    """

    def __init__(
        self,
        examples: Sequence[TokenizedExample],
        labels: Sequence[int] = (),
        answers: Sequence[int] = (),
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        self.examples = examples
        self.labels = torch.tensor(list(labels))
        self.answers = np.array(answers)
        # Tokens that are fed in; the last token of a target predicts nothing.
        self.lengths = [len(example) - 1 for example in examples]
        self.batches = [make_target_batch(examples, rows) for rows in length_sorted_batches(self.lengths, batch_tokens)]

    @property
    def tokens(self) -> int:
        """Non-padding tokens of one forward pass."""
        return sum(self.lengths)

    @torch.no_grad()
    def measure(self, model: PreTrainedModel) -> tuple[np.ndarray, np.ndarray | None]:
        """Loss `[examples]` float32 and, with `labels`, accuracy `[examples]` (1 if the right label is likeliest)."""
        loss = np.empty(len(self.examples), dtype=np.float32)
        accuracy = np.empty(len(self.examples), dtype=np.float32) if len(self.labels) else None
        for batch in self.batches:
            logits = target_logits(model, batch)
            loss[batch.rows] = example_losses(logits, batch).numpy()
            if accuracy is not None:
                likeliest = logits[:, self.labels].argmax(-1).numpy()
                accuracy[batch.rows] = likeliest == self.answers[batch.rows]
        return loss, accuracy
