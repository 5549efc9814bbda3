"""`dynamics="memory"`: a mean curve plus what the recent batches left behind.

    u_t   = (eta_t / eta_ref) * mean over i in c_t of (psi(z_i) - psi_mean)
    m_t   = rho * m_{t-1} + u_t                       for several rho side by side
    phi_t = mu_tau(z') + <w(z'), m_t>                 tau = sum of eta / eta_ref so far

A run whose first value differs from mu_0 keeps the share `carry` of that difference: all of it where first
values do not vary between training runs (loss), hardly any where they are mostly noise (sampled text).

psi are encoder vectors reduced to a few principal components. A seen test example has its own mean curve
mu and response w; for an unseen one both are predicted from its first value and its own psi.
"""

from __future__ import annotations

import torch
from torch import nn

from .configuration_gptfluence import GPTfluenceConfig
from .recurrence import decayed_sums


class MemoryDynamics(nn.Module):
    """Prediction with fitted memory dynamics. E encoder width, K components, P decays, M seen test examples.

    Args:
        config: shapes; the values are set by fitting or loaded.
    """

    encoder_mean: torch.Tensor
    projection: torch.Tensor
    pool_centre: torch.Tensor
    decays: torch.Tensor
    state_scale: torch.Tensor
    tau: torch.Tensor
    baseline: torch.Tensor
    weights: torch.Tensor
    response: torch.Tensor
    curve_basis: torch.Tensor
    curve_coefficients: torch.Tensor
    reference_rate: torch.Tensor
    carry: torch.Tensor

    def __init__(self, config: GPTfluenceConfig) -> None:
        super().__init__()
        self.first_step = config.first_step
        width, count = config.encoder_width, config.components
        decays, seen, grid = len(config.decays), len(config.test_keys), config.steps + 1
        shapes = {
            "encoder_mean": (width,),
            "projection": (width, count),
            "pool_centre": (count,),
            "decays": (decays,),
            "state_scale": (decays,),
            "tau": (grid,),
            "baseline": (grid, seen),
            "weights": (seen, decays * count),
            "response": (1 + count, decays * count),
            "curve_basis": (config.curve_components, grid),
            "curve_coefficients": (2 + count, config.curve_components),
            "reference_rate": (),
            "carry": (),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    def reduce(self, vectors: torch.Tensor) -> torch.Tensor:
        """psi: principal components of encoder vectors `[n, E]` -> `[n, K]`."""
        return (vectors - self.encoder_mean) @ self.projection

    def states(self, visits: torch.Tensor, rates: torch.Tensor, pool: torch.Tensor) -> torch.Tensor:
        """m of every step: `[runs, steps + 1, P * K]`, scaled to comparable size."""
        psi = self.reduce(pool) - self.pool_centre
        inputs = (rates / self.reference_rate).unsqueeze(-1) * (visits @ psi)
        return (decayed_sums(inputs, self.decays) / self.state_scale.view(1, 1, -1, 1)).flatten(2)

    def progress(self, rates: torch.Tensor) -> torch.Tensor:
        """tau before the first and after each update: `[runs, steps + 1]`."""
        return torch.nn.functional.pad((rates / self.reference_rate).cumsum(-1), (1, 0))

    def mean_curve(self, test: torch.Tensor, seen: torch.Tensor, initial: torch.Tensor | None) -> torch.Tensor:
        """mu on the tau grid for each test example: `[grid, test]`."""
        known = self.baseline[:, seen.clamp(min=0)]
        if bool((seen >= 0).all()):
            return known
        if initial is None:
            raise ValueError("unseen test examples need their first value: give initial")
        features = torch.cat([torch.ones_like(initial).unsqueeze(-1), initial.unsqueeze(-1), self.reduce(test)], -1)
        predicted = initial + (features @ self.curve_coefficients @ self.curve_basis).T
        return torch.where(seen >= 0, known, predicted)

    def responses(self, test: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """w of each test example: `[test, P * K]`."""
        psi = self.reduce(test)
        predicted = torch.cat([psi.new_ones(len(psi), 1), psi], -1) @ self.response
        return torch.where((seen >= 0).unsqueeze(-1), self.weights[seen.clamp(min=0)], predicted)

    def forward(
        self,
        visits: torch.Tensor,
        rates: torch.Tensor,
        pool: torch.Tensor,
        test: torch.Tensor,
        seen: torch.Tensor,
        initial: torch.Tensor | None,
    ) -> torch.Tensor:
        """Trajectories `[runs, steps + 1, test]`; steps before the first measured one have its value.

        Args:
            visits: `[runs, steps, N]` share of each pool example in each batch; rows sum to 1.
            rates: `[runs, steps]` learning rates.
            pool: `[N, E]` encoder vectors.
            test: `[test, E]` encoder vectors.
            seen: `[test]` place among the test examples trained on, or -1.
            initial: `[runs or 1, test]` values at the first measured step; needed where an example is unseen.
        """
        first = None if initial is None else initial[0]
        curve = interpolate(self.tau, self.mean_curve(test, seen, first), self.progress(rates))
        values = curve + self.states(visits, rates, pool) @ self.responses(test, seen).T
        if initial is None:
            return values
        at = min(self.first_step, values.size(1) - 1)
        offset = (initial - values[:, at]).unsqueeze(1)
        given = (values[:, at : at + 1] + offset).expand(-1, at + 1, -1)
        return torch.cat([given, values[:, at + 1 :] + self.carry * offset], dim=1)


def interpolate(grid: torch.Tensor, values: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Linear interpolation along a grid, constant outside it.

    Args:
        grid: `[G]` ascending; it may begin or end with equal places (updates of rate zero).
        values: `[G, width]`.
        at: `[...]` places.

    Returns:
        `[..., width]`.
    """
    if len(grid) == 1:
        return values[0].expand(*at.shape, values.size(-1))
    place = at.clamp(grid[0], grid[-1])
    right = torch.searchsorted(grid, place).clamp(1, len(grid) - 1)
    left = right - 1
    width = (grid[right] - grid[left]).clamp(min=torch.finfo(grid.dtype).tiny)
    share = ((place - grid[left]) / width).unsqueeze(-1)
    return values[left] * (1 - share) + values[right] * share
