"""`dynamics="memory"`: a mean curve plus what the recent batches left behind.

    x_t    = mean over i in c_t of (psi(z_i) - psi_mean)
    m_t    = rho * m_{t-1} + exp(-kappa * tau_{t-1}) * e_t * x_t         for several rho and kappa side by side
    v_t    = b * v_{t-1} + (1 - b) * (x_t - lambda_t * n_{t-1})
    n_t    = n_{t-1} + e_t * v_t                                         for several b and lambda side by side
    effect = <w(z'), [m_t, n_t]>

e and tau are those of `mean_curve_dynamics.py`, which adds the effect to the mean curve. kappa lets early batches count
more or less than late ones. n is what an optimiser with momentum b adds up along a direction of curvature lambda: it
swings back, the slower the smaller the learning rate, so not at all at the end of a run (`optimiser_pull` says what
lambda_t is).

psi are encoder vectors reduced to a few principal components. A seen test example has a response w of its own; that of
an unseen one is predicted from psi'(z').
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .curricula import update_mask
from .dynamics import EncodedExamples, Field, SimulationInputs
from .mean_curve_dynamics import MeanCurveDynamics

if TYPE_CHECKING:
    from .configuration_gptfluence import GPTfluenceConfig


class MemoryDynamics(MeanCurveDynamics):
    """Prediction with fitted memory dynamics.

    E encoder width, K components of pool examples, L of test examples, F filters, M seen test examples.

    Args:
        config: shapes; the values are set by fitting or loaded.
    """

    name = "memory"
    fields = {
        "components": Field("whole number", 0, 1),
        **MeanCurveDynamics.fields,
    }
    has_linear_responses = True

    train_projection: torch.Tensor
    pool_centre: torch.Tensor
    state_scale: torch.Tensor
    weights: torch.Tensor
    response: torch.Tensor

    def __init__(self, config: GPTfluenceConfig) -> None:
        super().__init__(config)
        width, count = config.encoder_width, config.components
        filters = self.filters.size
        self.register_zeros(
            {
                "train_projection": (width, count),
                "pool_centre": (count,),
                "state_scale": (filters,),
                "weights": (len(config.test_keys), filters * count),
                "response": (1 + config.test_components, filters * count),
            }
        )

    def train_components(self, pool: torch.Tensor) -> torch.Tensor:
        """psi - psi_mean of pool examples: `[N, E]` encoder vectors -> `[N, K]`."""
        return (nn.functional.normalize(pool, dim=-1) - self.encoder_mean) @ self.train_projection - self.pool_centre

    def states(self, visits: torch.Tensor, rates: torch.Tensor, pool: torch.Tensor) -> torch.Tensor:
        """m and n of every step: `[runs, steps + 1, F * K]`, scaled to comparable size."""
        has_update = update_mask(visits)
        states = self.filters.states(visits @ self.train_components(pool), self.relative(rates), has_update)
        return (states / self.state_scale[:, None]).flatten(2)

    def responses(self, test: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """w of each test example: `[M, F * K]`."""
        psi = self.test_components(test)
        predicted = torch.cat([psi.new_ones(len(psi), 1), psi], -1) @ self.response
        return torch.where((seen >= 0).unsqueeze(-1), self.weights[seen.clamp(min=0)], predicted)

    def effects(self, inputs: SimulationInputs) -> torch.Tensor:
        """See `MeanCurveDynamics`."""
        states = self.states(inputs.visits, inputs.rates, inputs.examples.pool)
        responses = self.responses(inputs.examples.test, inputs.examples.seen)
        return torch.einsum("rtd,md->rmt", states, responses)

    def input_factors(self, examples: EncodedExamples) -> torch.Tensor:
        """See `DynamicsModule`; a factor is what a filter gets at the reference rate."""
        return torch.einsum("nk,mfk->fnm", self.train_components(examples.pool), self._unscaled_responses(examples))

    def _unscaled_responses(self, examples: EncodedExamples) -> torch.Tensor:
        """w by filter and component, `[M, F, K]`, for states that are not scaled."""
        responses = self.responses(examples.test, examples.seen)
        return responses.unflatten(-1, (-1, len(self.pool_centre))) / self.state_scale[:, None]

    def effect_of_factors(self, factors: torch.Tensor, inputs: SimulationInputs) -> torch.Tensor:
        """See `MeanCurveDynamics`."""
        return self.filters.sum_of_filtered(factors, self.relative(inputs.rates), inputs.has_update)

    def page_arrays(self, examples: EncodedExamples) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """See `DynamicsModule`; parts, since factors of every pair would be twenty-five times as large."""
        scalars, arrays = super().page_arrays(examples)
        components, responses = self.train_components(examples.pool), self._unscaled_responses(examples)
        scalars |= {"sides": 1, "size": components.size(1), "filters": responses.size(1), "factorScale": 1.0}
        return scalars, arrays | {"train": components, "test": responses}
