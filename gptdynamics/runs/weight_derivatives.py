"""Derivatives of a run's weights with respect to how much pool rows count, carried along while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from gptdynamics.curriculum import Curriculum
from gptdynamics.errors import SettingsError
from gptdynamics.gradients.gradient_changes import gradient_changes
from gptdynamics.models.tokens import TokenizedExample, make_target_batch
from gptdynamics.runs.updates import Updates

# Gradients of one batch by two ways differ by less than this share of their length, but for another computation.
TOLERANCE = 1e-3
# Numbers held at the most for each row and trainable weight, measured on nano: the derivatives of the weight, of both
# moments and of the gradient, and what computing the latter takes.
HELD = 12


class WeightDerivatives:
    """Forward mode through the updates of a run: weights and both moments of AdamW, along K pool rows at once.

    Every visit of a row counts with the row's weight, which is 1: the loss of a batch is the sum of weight times loss
    of its visits over the sum of their weights. A weight of 0 is the run without the row. In a batch of nothing but
    one row its weight cancels, and the batch adds nothing to the derivative; at a weight of 0 there is no update at
    all, which is a jump that a derivative does not see.

    Args:
        updates: of the run, before the first of them; hand this to `Updates.iterate` as its record.
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
        """The derivative of the weights with respect to each row's weight: a tensor for each parameter, by name."""
        return [self._named(each) for each in self._weights]

    def before_update(self) -> None:
        """See `AroundUpdates`.

        Raises:
            SettingsError: the gradient is not what forward mode differentiates: the model drops out, or its passes are
                not in single precision.
        """
        ids = next(self._batches)
        model = self._updates.model
        batch = make_target_batch([self._pool[key] for key in ids], list(range(len(ids)))).to(model.device)
        visited = torch.tensor([[float(key == row) for key in ids] for row in self._rows])
        self._gradient = _flat({name: _gradient_of(value) for name, value in self._trained.items()})
        found, changes = gradient_changes(model, batch, self._named(self._weights), visited.to(self._weights))
        differs = (_flat(found) - self._gradient).norm() / self._gradient.norm().clamp(min=1e-12)
        if not differs <= TOLERANCE:
            raise SettingsError(
                f"the gradient of a batch differs by {float(differs):.1%} from the one that is differentiated: exact "
                "first-order effects need runs in fp32 without dropout"
            )
        self._changes = torch.cat([changes[name].flatten(1) for name in self._trained], 1)

    @torch.no_grad()
    def after_update(self) -> None:
        """See `AroundUpdates`: the derivative of AdamW's step, which was just made."""
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
        made = max(float(state.get("step", 0)) for state in states)
        beta1, beta2 = group["betas"]
        rate, correction = group["lr"] / (1 - beta1**made), (1 - beta2**made) ** 0.5
        root = square.sqrt()
        size = root / correction + group["eps"]
        by_mean = rate / size
        # Of a weight that never had a gradient both moments are zero, and stay so.
        by_square = torch.where(root > 0, rate * mean / (2 * size.square() * root * correction), 0.0)
        for weights, own_mean, own_square, change in zip(
            self._weights, self._mean, self._square, self._changes, strict=True
        ):
            own_mean.mul_(beta1).add_(change, alpha=1 - beta1)
            own_square.mul_(beta2).addcmul_(self._gradient, change, value=2 * (1 - beta2))
            weights.mul_(1 - group["lr"] * group["weight_decay"])
            weights.addcmul_(by_mean, own_mean, value=-1).addcmul_(by_square, own_square)

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
    """How many numbers a run trains."""
    return sum(value.numel() for value in updates.model.parameters() if value.requires_grad)


def rows_at_once(numbers: int, memory: float) -> int:
    """Along how many rows derivatives of so many float32 numbers are carried in `memory` GiB; at least 1."""
    return max(1, int(memory * 2**30 / (4 * HELD * numbers)))


def _gradient_of(value: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(value) if value.grad is None else value.grad


def _flat(values: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in values.values()])
