"""The optimiser's updates of a run; nothing is measured here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from gptdynamics.configs import RunSettings
from gptdynamics.curriculum import Curriculum
from gptdynamics.errors import DivergedRunError
from gptdynamics.measurement.logits import target_logits
from gptdynamics.measurement.loss import example_losses
from gptdynamics.models.tokens import TokenizedExample, make_target_batch
from gptdynamics.runs.precision import backward_precision, forward_precision
from gptdynamics.runs.run import RunTiming
from gptdynamics.runs.trainable import trainable_copy

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class AroundUpdates(Protocol):
    """Callbacks before and after each update of a run."""

    def before_update(self) -> None:
        """Called after the backward pass, before the weights are updated."""

    def after_update(self) -> None:
        """Called after the update."""

    def no_update(self) -> None:
        """Called instead of both for a batch without examples."""


class Updates:
    """AdamW on the mean over the batch of each example's mean loss (tables 5 and 7): `loss`, backward, `step`.

    Attributes:
        model: a trainable copy of the base model, in evaluation mode except within `loss`.
        mixed: context that sets the precision of forward passes.
        optimizer: of the trainable weights.

    Args:
        base: the model the run starts from; it is not changed.
        settings: of the config.
        entropy: of the random numbers: initial values of adapters, dropout.
    """

    def __init__(self, base: PreTrainedModel, settings: RunSettings, entropy: Sequence[int]) -> None:
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        self.model = trainable_copy(base, settings)
        self.model.eval()
        self.mixed = forward_precision(settings.precision, base.device)
        self._backward = backward_precision(settings.precision, base.device)
        self.optimizer = torch.optim.AdamW(
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

    def iterate(
        self,
        pool: Mapping[int, TokenizedExample],
        curriculum: Curriculum,
        learning_rate: Sequence[float],
        timing: RunTiming | None = None,
        record: AroundUpdates | None = None,
    ) -> Iterator[int]:
        """Make the updates of a curriculum, one after the other.

        An empty batch makes no update: weights and optimiser do not change, and its learning rate is skipped.

        Args:
            pool: tokenised examples by id.
            curriculum: `[steps][batch]` ids.
            learning_rate: `[steps]`, of each update.
            timing: the time spent is added to it.
            record: called before and after each update.

        Yields:
            The number of batches trained on: 0, and then after each one.

        Raises:
            DivergedRunError: the loss of a batch is not finite.
        """
        timing = timing or RunTiming()
        yield 0
        for update, (ids, rate) in enumerate(zip(curriculum, learning_rate, strict=True), start=1):
            if not len(ids):
                if record:
                    record.no_update()
                yield update
                continue
            with timing.timed("update"):
                loss = self.loss([pool[pool_id] for pool_id in ids])
                if not torch.isfinite(loss):
                    raise DivergedRunError(f"training loss is not finite at update {update} (learning rate {rate:.3g})")
                with self._backward:
                    loss.backward()
            if record:
                with timing.timed("gradients"):
                    record.before_update()
            with timing.timed("update"):
                self.step(float(rate))
            if record:
                with timing.timed("gradients"):
                    record.after_update()
            yield update

    def step(self, rate: float) -> None:
        """Update the weights by their gradients, and clear the gradients."""
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
