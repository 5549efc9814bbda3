"""Derivatives of a run's model weights with respect to the weights of pool rows, computed while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from gptdynamics.curriculum import Curriculum
from gptdynamics.errors import SettingsError
from gptdynamics.gradients.gradient_changes import gradient_changes
from gptdynamics.models.tokens import TokenizedExample, make_target_batch
from gptdynamics.runs.updates import Updates

# If the relative difference of a batch's gradient, computed in two ways, is larger, they are not the same function.
TOLERANCE = 1e-3
# Peak memory in numbers for each row and trainable weight, measured on nano: derivatives of the weight, of both moments
# and of the gradient, and temporary values.
HELD = 12


class WeightDerivatives:
    """Forward mode through the updates of a run: model weights and both moments of AdamW, for K pool rows at once.

    Every occurrence of a row in a batch has the row's weight, which is 1: the loss of a batch is the weighted mean of
    its examples' losses. A weight of 0 is the run without the row. In a batch that holds one row only, its weight
    cancels and the batch adds nothing to the derivative; but with weight 0 there would be no update at all, a
    discontinuity that the derivative does not show.

    Args:
        updates: of the run, before the first update; pass this object to `Updates.iterate` as its record.
        pool: tokenised examples by id.
        curriculum: `[steps][batch]` ids.
        rows: K ids.
    """

    def __init__(
        self,
        updates: Updates,
        pool: Mapping[int, TokenizedExample],
        curriculum: Curriculum,
        rows: Sequence[int],
    ) -> None:
        self._updates = updates
        self._pool = pool
        self._rows = rows
        self._batches = iter(curriculum)
        self._trained = {name: value for name, value in updates.model.named_parameters() if value.requires_grad}
        numbers = trained_numbers(updates)
        first = next(iter(self._trained.values()))
        self._weights, self._mean, self._square = (first.new_zeros(len(rows), numbers) for _ in range(3))
        self._gradient, self._changes = first.new_zeros(numbers), first.new_zeros(0)

    @property
    def directions(self) -> list[dict[str, torch.Tensor]]:
        """The derivative of the model weights with respect to each row's weight: tensors by parameter name."""
        return [self._named(flat) for flat in self._weights]

    def before_update(self) -> None:
        """See `AroundUpdates`.

        Raises:
            SettingsError: the gradient is not the one that forward mode differentiates, because the model has dropout
                or its passes are not in single precision.
        """
        ids = next(self._batches)
        model = self._updates.model
        batch = make_target_batch([self._pool[key] for key in ids], list(range(len(ids)))).to(model.device)
        visited = torch.tensor([[float(key == row) for key in ids] for row in self._rows])
        self._gradient = _flat({name: _gradient_of(value) for name, value in self._trained.items()})
        gradient, changes = gradient_changes(model, batch, self._named(self._weights), visited.to(self._weights))
        differs = (_flat(gradient) - self._gradient).norm() / self._gradient.norm().clamp(min=1e-12)
        if not differs <= TOLERANCE:
            raise SettingsError(
                f"the gradient of a batch differs by {float(differs):.1%} from the one without dropout in fp32: exact "
                "first-order effects need runs in fp32 without dropout"
            )
        self._changes = torch.cat([changes[name].flatten(1) for name in self._trained], 1)

    @torch.no_grad()
    def after_update(self) -> None:
        """See `AroundUpdates`: the derivative of AdamW's last step."""
        optimizer = self._updates.optimizer
        [group] = optimizer.param_groups
        states = [optimizer.state.get(value) or {} for value in self._trained.values()]
        mean, square = (
            torch.cat(
                [
                    state.get(key, torch.zeros_like(value)).flatten()
                    for state, value in zip(states, self._trained.values(), strict=True)
                ]
            )
            for key in ("exp_avg", "exp_avg_sq")
        )
        updates = max(float(state.get("step", 0)) for state in states)
        beta1, beta2 = group["betas"]
        rate, correction = group["lr"] / (1 - beta1**updates), (1 - beta2**updates) ** 0.5
        root = square.sqrt()
        size = root / correction + group["eps"]
        by_mean = rate / size
        # A weight that never had a gradient has moments of zero, whose root has no finite derivative.
        by_square = torch.where(root > 0, rate * mean / (2 * size.square() * root * correction), 0.0)
        for weights, row_mean, row_square, change in zip(
            self._weights, self._mean, self._square, self._changes, strict=True
        ):
            row_mean.mul_(beta1).add_(change, alpha=1 - beta1)
            row_square.mul_(beta2).addcmul_(self._gradient, change, value=2 * (1 - beta2))
            weights.mul_(1 - group["lr"] * group["weight_decay"])
            weights.addcmul_(by_mean, row_mean, value=-1).addcmul_(by_square, row_square)

    def no_update(self) -> None:
        """See `AroundUpdates`."""
        next(self._batches)

    def _named(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """`[..., numbers]` as `[..., *shape]` for each parameter, by name."""
        sizes = [value.numel() for value in self._trained.values()]
        pieces = flat.split(sizes, -1)
        return {
            name: piece.reshape(*flat.shape[:-1], *value.shape)
            for (name, value), piece in zip(self._trained.items(), pieces, strict=True)
        }


def trained_numbers(updates: Updates) -> int:
    """Number of trainable weights of a run."""
    return sum(value.numel() for value in updates.model.parameters() if value.requires_grad)


def rows_at_once(numbers: int, memory: float) -> int:
    """Number of rows whose derivatives of `numbers` float32 weights fit in `memory` GiB; at least 1."""
    return max(1, int(memory * 2**30 / (4 * HELD * numbers)))


def _gradient_of(value: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(value) if value.grad is None else value.grad


def _flat(values: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in values.values()])
