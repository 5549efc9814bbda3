"""The protocol of a kind of dynamics, so that no other code asks which kind a model has.

A new kind is a subclass of `DynamicsModule` in a file of its own and a line in `kinds.py`. It is fitted by a subclass
of `Fitter`, which has a line in `simulator/training/fitting.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import nn

from .curricula import update_mask

if TYPE_CHECKING:
    from .configuration_gptfluence import GPTfluenceConfig


class Field(NamedTuple):
    """A field of the configuration that belongs to one kind of dynamics.

    Attributes:
        what: `text`, `object`, `whole number`, `number`, or `list of` these in the plural.
        least: the least number allowed.
        default: where a configuration does not name the field.
    """

    what: str
    least: float = 0
    default: Any = None


@dataclass(frozen=True, eq=False)
class EncodedExamples:
    """Vectors of pool and test examples. N pool examples, M test examples, E encoder width.

    Attributes:
        pool: `[N, E]` encoder vectors.
        test: `[M, E]` encoder vectors.
        seen: `[M]` index among the test examples trained on, or -1.
        kernels: `[G, N, M]` products of the gradients of each pool and test example, of kinds that predict from these.
    """

    pool: torch.Tensor
    test: torch.Tensor
    seen: torch.Tensor
    kernels: torch.Tensor | None = None

    def of_tests(self, places: torch.Tensor) -> EncodedExamples:
        """The same with only these test examples, by their places."""
        kernels = None if self.kernels is None else self.kernels[..., places]
        return EncodedExamples(self.pool, self.test[places], self.seen[places], kernels)


@dataclass(frozen=True, eq=False)
class SimulationInputs:
    """What trajectories are predicted from. N pool examples, M test examples.

    Attributes:
        visits: `[runs, steps, N]` share of each pool example in each batch; rows sum to 1, those of batches without
            examples to 0: such a step makes no update, so nothing changes at it.
        rates: `[runs or 1, steps]` learning rates.
        examples: pool and test examples.
        initial: `[runs or 1, M, n]` the first n measured values, oldest first; None where they are not known.
    """

    visits: torch.Tensor
    rates: torch.Tensor
    examples: EncodedExamples
    initial: torch.Tensor | None = None

    @cached_property
    def has_update(self) -> torch.Tensor | None:
        """`[runs, steps]` whether there was an update; None: at every step."""
        return update_mask(self.visits)

    @cached_property
    def rates_of_updates(self) -> torch.Tensor:
        """The rates `[runs or 1, steps]` that updates were made with: 0 where there was none."""
        return self.rates if self.has_update is None else self.rates * self.has_update


class DynamicsModule(nn.Module, ABC):
    """One kind of dynamics with its weights.

    Attributes:
        name: `dynamics` of a configuration.
        fields: fields of the configuration that only this kind has.
        shares_weights: whether several configs and metrics are fitted together, with one set of weights.
        needs_initial: whether first values are needed even where all test examples were trained on.
        has_linear_responses: whether effects are linear in `states`, with responses fitted by ridge regression, so that
            they can be fitted again without a run: their standard errors.
        has_kernels: whether it predicts from products of gradients, its buffer `kernels` `[G, N, M]`, and not from
            encoder vectors.
    """

    name: ClassVar[str]
    fields: ClassVar[dict[str, Field]] = {}
    shares_weights: ClassVar[bool] = False
    needs_initial: ClassVar[bool] = True
    has_linear_responses: ClassVar[bool] = False
    has_kernels: ClassVar[bool] = False

    @classmethod
    def serves(cls, config: GPTfluenceConfig) -> bool:
        """Whether a configuration is of this class; classes of one name differ in other fields."""
        return bool(config.dynamics == cls.name)

    @classmethod
    def history(cls, config: GPTfluenceConfig) -> int:
        """How many first values a prediction begins with, where they are given; a band begins after them."""
        return 1

    @classmethod
    def method_name(cls, config: Any, encoder: str) -> str:
        """Name of the method in tables, from a configuration or training settings and the encoder's name."""
        return f"{cls.name}_{encoder}"

    @classmethod
    def part_vectors(cls, vectors: torch.Tensor) -> torch.Tensor:
        """Encoder vectors `[n, E]` of one part's examples, as the part on its own stores them."""
        return vectors

    def reset(self, scale: float, generator: torch.Generator | None = None) -> None:
        """Set first weights; a kind that is only fitted or loaded has none to set."""

    def head_state(self, head: int) -> dict[str, torch.Tensor]:
        """The weights of one metric, as those of dynamics of that metric alone; of a kind that shares weights."""
        return self.state_dict()

    @abstractmethod
    def trajectories(self, inputs: SimulationInputs) -> torch.Tensor:
        """Predicted values `[runs, M, steps + 1]`, as `GPTfluenceSimulator.trajectories` returns them."""

    @abstractmethod
    def input_factors(self, examples: EncodedExamples) -> torch.Tensor:
        """What a pool example adds to each of F factors at a full share of a batch, by test example: `[F, N, M]`."""

    @abstractmethod
    def from_factors(self, factors: torch.Tensor, inputs: SimulationInputs) -> torch.Tensor:
        """The trajectories `[M, steps + 1]` of one run, differentiable in its factors.

        Args:
            factors: `[F, M, steps]` `input_factors` summed over the shares of each batch.
            inputs: of the run; its `visits` only say where there is an update, its pool is not used.
        """

    def last_effects_without_runs(self, inputs: SimulationInputs) -> torch.Tensor | None:
        """The effect at the last step by fits without each of the K training runs, in the latent: `[K, runs, M]`.

        None: a simulator of this kind does not carry such fits.
        """
        return None

    def page_arrays(self, examples: EncodedExamples) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Numbers and arrays that the explorer's page simulates from.

        Raises:
            ValueError: the page cannot simulate this kind.
        """
        raise ValueError(f"the explorer cannot simulate {self.name}: give a simulator of another kind of dynamics")

    def register_zeros(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Register buffers of these shapes, to be filled by fitting or loading."""
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))


def interpolate(grid: torch.Tensor, values: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Linear interpolation of values `[..., G]` along an ascending grid `[G]`, constant outside it.

    The grid may begin or end with equal points (updates of rate zero). The result has the shape of the points in the
    place of G.
    """
    if len(grid) == 1:
        return values[..., torch.zeros_like(points, dtype=torch.long)]
    inside = points.clamp(grid[0], grid[-1])
    right = torch.searchsorted(grid, inside).clamp(1, len(grid) - 1)
    left = right - 1
    width = (grid[right] - grid[left]).clamp(min=torch.finfo(grid.dtype).tiny)
    share = (inside - grid[left]) / width
    return values[..., left] * (1 - share) + values[..., right] * share
