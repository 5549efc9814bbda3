"""The optimiser's updates of a run, apart from what is measured between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from gptdynamics.configs import RunSettings
from gptdynamics.measurement.loss import example_losses, target_logits
from gptdynamics.runs.trainable import trainable_copy
from gptdynamics.tokens import TokenizedExample, make_target_batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Updates:
    """AdamW on the mean of the batch's own mean losses (tables 5 and 7): `loss`, backward, `step`.

    Attributes:
        model: a trainable copy of the base model, in evaluation mode but within `loss`.
        mixed: the precision that passes are made in.

    Args:
        base: the model the run starts from; it is not changed.
        settings: of the config.
        entropy: of the random numbers: adapters' first values, dropout.
    """

    def __init__(self, base: PreTrainedModel, settings: RunSettings, entropy: Sequence[int]) -> None:
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        self.model = trainable_copy(base, settings)
        self.model.eval()
        self.mixed = torch.autocast(base.device.type, dtype=torch.bfloat16, enabled=settings.precision == "bf16")
        self._optimizer = torch.optim.AdamW(
            [parameter for parameter in self.model.parameters() if parameter.requires_grad],
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
        )

    def loss(self, examples: Sequence[TokenizedExample]) -> torch.Tensor:
        """The training loss of a batch, to be differentiated."""
        batch = make_target_batch(examples, list(range(len(examples)))).to(self.model.device)
        self.model.train()
        with self.mixed:
            loss = example_losses(target_logits(self.model, batch), batch).mean()
        self.model.eval()
        return loss

    def step(self, rate: float) -> None:
        """Change the weights along the gradients that are there, and forget them."""
        self._optimizer.param_groups[0]["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad()
