"""`dynamics="markov"`: the paper's featurised Markov process.

h_i = Psi(z_i), h' = Psi(z')                                              eq. 6
A_{i,j} = <W_j^T h_i, U_j^T h'>,   B_i = <W'^T h_i, U'^T h'>              eq. 7, 8
alpha_j(c_t) = sum of A_{i,j} over i in c_t,  beta(c_t) likewise          eq. 5
phi_t = sum_j alpha_j(c_t) phi_{t-j} + beta(c_t)                          eq. 4

with j = 1..n. `projection="mlp"` puts V_j^T relu(X_j^T h + x_j) + v_j in the place of both W_j^T h and U_j^T h.
Where several metrics are predicted, each has factors of its own (a head); configs share those of a metric.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from .curricula import measured_steps, shares_between, update_mask, updates_between
from .dynamics import DynamicsModule, EncodedExamples, Field, SimulationInputs, interpolate
from .recurrence import markov_scan

if TYPE_CHECKING:
    from .configuration_gptfluence import GPTfluenceConfig

_NO_INITIAL = "markov needs the first measured values: give initial"


class MarkovDynamics(DynamicsModule):
    """Influence factors from encoder vectors, and the recurrence they drive.

    Args:
        config: `order` n, `projection`, `hidden` H, `encoder_width` E, `batch_size`, and `heads`, one a metric.
    """

    name = "markov"
    fields = {
        "order": Field("whole number", 1, 1),
        "hidden": Field("whole number", 1, 64),
        **dict.fromkeys(("projection", "kind"), Field("text", default="linear")),
    }
    shares_weights = True
    is_table: ClassVar[bool] = False

    def __init__(self, config: GPTfluenceConfig) -> None:
        super().__init__()
        self.order = config.order
        self.batch_size = config.batch_size
        self.projection = config.projection
        self.stride = config.stride
        self.first_step = config.first_step
        self.add_weights(config)

    @classmethod
    def serves(cls, config: GPTfluenceConfig) -> bool:
        """Whether a configuration is of this class."""
        return super().serves(config) and (config.projection == "table") == cls.is_table

    @classmethod
    def history(cls, config: GPTfluenceConfig) -> int:
        """As many as the order."""
        return int(config.order)

    @classmethod
    def method_name(cls, config: Any, encoder: str) -> str:
        """`markov_<order>` and what differs from the paper: kind, projection, encoder."""
        suffix = "" if encoder == "sentence" else f"_{encoder}"
        kind = "" if config.kind == "linear" else f"_{config.kind}"
        mlp = "_mlp" if config.projection == "mlp" else ""
        return f"markov_{config.order}{kind}{mlp}{suffix}"

    def add_weights(self, config: GPTfluenceConfig) -> None:
        """Make what is learned, to be set by `reset` or loaded."""
        width, hidden = config.encoder_width, config.hidden
        factors = len(config.heads) * (config.order + 1)
        if config.projection == "linear":
            self.train_side = nn.Parameter(torch.empty(factors, width, hidden))
            self.test_side = nn.Parameter(torch.empty(factors, width, hidden))
        else:
            self.first = nn.Parameter(torch.empty(factors, width, hidden))
            self.first_bias = nn.Parameter(torch.empty(factors, 1, hidden))
            self.second = nn.Parameter(torch.empty(factors, hidden, hidden))
            self.second_bias = nn.Parameter(torch.empty(factors, 1, hidden))

    def reset(self, scale: float, generator: torch.Generator | None = None) -> None:
        """Small random weights: normal with deviation `scale` / sqrt(width)."""
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=scale / parameter.size(1) ** 0.5, generator=generator)

    def _rows(self, head: int) -> slice:
        return slice(head * (self.order + 1), (head + 1) * (self.order + 1))

    def head_state(self, head: int) -> dict[str, torch.Tensor]:
        """The weights of one metric's factors, as those of dynamics of that metric alone."""
        return {name: value[self._rows(head)] for name, value in self.state_dict().items()}

    def project(self, vectors: torch.Tensor, side: str, head: int = 0) -> torch.Tensor:
        """W_j^T h (`side` is `train`) or U_j^T h' (`test`) of each factor: `[count, E]` -> `[n + 1, count, H]`."""
        rows = self._rows(head)
        if self.projection == "linear":
            return vectors @ (self.train_side if side == "train" else self.test_side)[rows]
        hidden = torch.relu(vectors @ self.first[rows] + self.first_bias[rows])
        return hidden @ self.second[rows] + self.second_bias[rows]

    def factors(self, pool: torch.Tensor, test: torch.Tensor, head: int = 0) -> torch.Tensor:
        """A_1..A_n and B of every pair: `[n + 1, N, M]` from `[N, E]` and `[M, E]` (eq. 7, 8)."""
        return self.project(pool, "train", head) @ self.project(test, "test", head).transpose(1, 2)

    def batch_factors(self, visits: torch.Tensor, pool: torch.Tensor, test: torch.Tensor) -> torch.Tensor:
        """alpha_1..alpha_n and beta of every batch: `[n + 1, runs, M, steps]` (eq. 5).

        `visits` `[runs, steps, N]` are shares that sum to 1, so sums are scaled by the batch size trained on.
        """
        factors = self.factors(pool, test)
        return torch.einsum("rtn,fnm->frmt", visits * self.batch_size, factors)

    def forward(
        self, visits: torch.Tensor, pool: torch.Tensor, test: torch.Tensor, history: torch.Tensor
    ) -> torch.Tensor:
        """Free-running trajectories `[runs, M, steps + 1]` from `history` `[runs, M, n]` (eq. 4)."""
        values = self.batch_factors(visits, pool, test)
        return markov_scan(values[:-1], values[-1], history, update_mask(visits))

    def trajectories(self, inputs: SimulationInputs) -> torch.Tensor:
        """See `DynamicsModule`; steps between two measurements are interpolated."""
        if inputs.initial is None:
            raise ValueError(_NO_INITIAL)
        visits = inputs.visits
        measured = measured_steps(visits.size(1), self.stride, self.first_step)
        history = inputs.initial.expand(len(visits), -1, -1)
        shares = shares_between(visits, measured)
        values: torch.Tensor = self(shares, inputs.examples.pool, inputs.examples.test, history)
        if len(measured) == visits.size(1) + 1:
            return values[..., : len(measured)]
        grid = torch.tensor(measured, dtype=values.dtype)
        every = torch.arange(visits.size(1) + 1, dtype=values.dtype)
        return interpolate(grid, values, every)

    def input_factors(self, examples: EncodedExamples) -> torch.Tensor:
        """See `DynamicsModule`; the factors are A_1..A_n and B."""
        return self.factors(examples.pool, examples.test) * self.batch_size

    def from_factors(self, factors: torch.Tensor, inputs: SimulationInputs) -> torch.Tensor:
        """See `DynamicsModule`."""
        if inputs.initial is None:
            raise ValueError(_NO_INITIAL)
        steps = factors.size(-1)
        measured = measured_steps(steps, self.stride, self.first_step)
        has_update = inputs.has_update
        counts = torch.tensor([measured]).diff() if has_update is None else updates_between(has_update, measured)
        sums = torch.stack([factors[..., a:b].sum(-1) for a, b in pairwise(measured)], dim=-1)
        means = sums / counts[0].clamp(min=1).to(sums)
        scanned = markov_scan(means[:-1].unsqueeze(1), means[-1].unsqueeze(0), inputs.initial, counts > 0)[0]
        grid, every = torch.tensor(measured), torch.arange(steps + 1)
        return interpolate(grid.to(scanned), scanned, every.to(scanned))

    def page_arrays(self, examples: EncodedExamples) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """See `DynamicsModule`; projected vectors, or factors where there is nothing else."""
        arrays = self._page_factors(examples.pool, examples.test)
        factors, _, size = arrays["train"].shape
        scalars = {"factorScale": float(self.batch_size), "stride": self.stride, "table": self.is_table}
        return scalars | {"sides": factors, "filters": factors, "size": size}, arrays

    def _page_factors(self, pool: torch.Tensor, test: torch.Tensor) -> dict[str, torch.Tensor]:
        test_side = self.project(test, "test").transpose(0, 1)
        return {"train": self.project(pool, "train"), "test": test_side}
