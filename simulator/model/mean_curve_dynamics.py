"""Dynamics that add a predicted effect to the mean curve of the training runs.

    tau_t = e_1 + ... + e_t,   e_t = eta_t / eta_ref
    s_t   = mu_tau(z') + shrinkage_tau * match_t * limited(effect_t(z'))
    phi_t = value(s_t)

s is the metric's latent (`latent.py`), so that an effect shrinks with a loss that is nearly zero and no metric leaves
its range. The shrinkage is the share of predicted effects that was real in runs left out of the fit. match is
1 under the learning rates trained on and falls to 0 as the rates so far differ from them: filters are fitted under
one schedule, and under a very different one only the mean curve is left. An effect is limited once it is half as
large again as any of the training runs.

A run whose first value differs from mu_0 keeps the share `carry` of that difference: all of it where first values do
not vary between training runs (loss), hardly any where they are mostly noise (sampled text).

A seen test example has its own mean curve; that of an unseen one is predicted from its first value and psi', its
encoder vector reduced to a few principal components.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .dynamics import DynamicsModule, EncodedExamples, Field, SimulationInputs, interpolate
from .latent import from_latent, limited, to_latent
from .recurrence import FilterBank

if TYPE_CHECKING:
    from .configuration_gptfluence import GPTfluenceConfig

# Where rates so far differ by this share from those trained on, no effect is left.
LARGEST_MISMATCH = 0.25
# Sums of float32 rates differ by rounding alone up to this share.
ROUNDING = 1e-4


class MeanCurveDynamics(DynamicsModule):
    """A kind of dynamics is the effect that it adds to the mean curve, made by filters of what batches hold.

    E encoder width, L components of test examples, M seen test examples, B curve components.

    Args:
        config: shapes; the values are set by fitting or loaded.
    """

    fields = {
        **dict.fromkeys(("test_components", "curve_components"), Field("whole number", 0, 1)),
        **dict.fromkeys(("momenta", "curvatures"), Field("list of numbers", default=[])),
        "decays": Field("list of numbers", default=[1.0]),
        "fade_rates": Field("list of numbers", -(2**31), [0.0]),
        "ridge": Field("number"),
    }
    needs_initial = False

    encoder_mean: torch.Tensor
    test_projection: torch.Tensor
    tau: torch.Tensor
    baseline: torch.Tensor
    shrinkage: torch.Tensor
    limit: torch.Tensor
    unseen_limit: torch.Tensor
    curve_basis: torch.Tensor
    curve_coefficients: torch.Tensor
    curve_range: torch.Tensor
    reference_rate: torch.Tensor
    carry: torch.Tensor
    decays: torch.Tensor
    fade_rates: torch.Tensor
    momenta: torch.Tensor
    curvatures: torch.Tensor

    def __init__(self, config: GPTfluenceConfig) -> None:
        super().__init__()
        self.first_step = config.first_step
        self.scale = config.scale
        # By kernels, a test example is told apart by one number for each pool example; parts have pools of their own.
        width = len(config.pool_keys) if self.has_kernels else config.encoder_width
        components, curves = config.test_components, config.curve_components
        seen, grid = len(config.test_keys), config.steps + 1
        self.register_zeros(
            {
                "encoder_mean": (width,),
                "test_projection": (width, components),
                "tau": (grid,),
                "baseline": (grid, seen),
                "shrinkage": (grid,),
                "limit": (seen,),
                "unseen_limit": (),
                "curve_basis": (curves, grid),
                "curve_coefficients": (2 + components, curves),
                "curve_range": (2, curves),
                "reference_rate": (),
                "carry": (),
                "decays": (len(config.decays),),
                "fade_rates": (len(config.fade_rates),),
                "momenta": (len(config.momenta),),
                "curvatures": (len(config.curvatures),),
            }
        )

    @property
    def filters(self) -> FilterBank:
        """The filters, for rates relative to the reference rate."""
        return FilterBank(self.decays, self.fade_rates, self.momenta, self.curvatures, self.tau[-1])

    @abstractmethod
    def effects(self, inputs: SimulationInputs) -> torch.Tensor:
        """The effect at every step, in the latent, before it is limited: `[runs, M, steps + 1]`."""

    @abstractmethod
    def effect_of_factors(self, factors: torch.Tensor, inputs: SimulationInputs) -> torch.Tensor:
        """The effect `[M, steps + 1]` of one run; arguments as of `from_factors`."""

    def trajectories(self, inputs: SimulationInputs) -> torch.Tensor:
        """See `DynamicsModule`."""
        return self.add_to_curve(self.effects(inputs), inputs)

    def from_factors(self, factors: torch.Tensor, inputs: SimulationInputs) -> torch.Tensor:
        """See `DynamicsModule`."""
        return self.add_to_curve(self.effect_of_factors(factors, inputs).unsqueeze(0), inputs)[0]

    def test_components(self, test: torch.Tensor) -> torch.Tensor:
        """psi' of test examples: `[M, E]` encoder vectors -> `[M, L]`."""
        return (nn.functional.normalize(test, dim=-1) - self.encoder_mean) @ self.test_projection

    def relative(self, rates: torch.Tensor) -> torch.Tensor:
        """e: learning rates over the reference rate, in the same shape."""
        return rates / self.reference_rate

    def progress(self, rates: torch.Tensor) -> torch.Tensor:
        """tau before the first and after each update: `[runs, steps + 1]`."""
        return nn.functional.pad(self.relative(rates).cumsum(-1), (1, 0))

    def schedule_match(self, rates: torch.Tensor) -> torch.Tensor:
        """Share of effects that holds under these rates `[runs, steps]`: `[runs, steps + 1]`.

        It is 1 under the schedule trained on; updates after its end count as a difference. The rate of a step without
        an update counts as it is given: it passes, so the schedule is no other one.
        """
        steps = rates.size(1)
        trained = self.tau.diff()[:steps]
        trained = nn.functional.pad(trained, (0, steps - len(trained)))
        difference = (self.relative(rates) - trained).abs().cumsum(-1)
        share = difference / trained.cumsum(-1).clamp(min=torch.finfo(rates.dtype).tiny)
        return nn.functional.pad(1 - ((share - ROUNDING) / LARGEST_MISMATCH).clamp(0, 1), (1, 0), value=1.0)

    def curve(self, inputs: SimulationInputs, first: torch.Tensor | None) -> torch.Tensor:
        """mu of every step `[runs, M, steps + 1]`, from the latents `first` `[runs or 1, M]` of the first values.

        Raises:
            ValueError: a test example is unseen and there are no first values.
        """
        tau, seen = self.progress(inputs.rates_of_updates), inputs.examples.seen
        own = interpolate(self.tau, self.baseline[:, seen.clamp(min=0)].T, tau).transpose(0, 1)
        if bool((seen >= 0).all()):
            return own
        if first is None:
            raise ValueError("unseen test examples need their first value: give initial")
        psi = self.test_components(inputs.examples.test).expand(len(first), -1, -1)
        features = torch.cat([torch.ones_like(first).unsqueeze(-1), first.unsqueeze(-1), psi], -1)
        coefficients = (features @ self.curve_coefficients).clamp(self.curve_range[0], self.curve_range[1])
        change = coefficients @ interpolate(self.tau, self.curve_basis, tau).transpose(0, 1)
        return torch.where(seen.unsqueeze(-1) >= 0, own, first.unsqueeze(-1) + change)

    def effect_limits(self, seen: torch.Tensor) -> torch.Tensor:
        """The limit of each test example's effects: `[M]`."""
        return torch.where(seen >= 0, self.limit[seen.clamp(min=0)], self.unseen_limit)

    def add_to_curve(self, effect: torch.Tensor, inputs: SimulationInputs) -> torch.Tensor:
        """Trajectories `[runs, M, steps + 1]` from effects of that shape; up to the first measured step, its value."""
        initial = None if inputs.initial is None else inputs.initial[..., 0]
        first = None if initial is None else to_latent(initial, self.scale)
        seen = inputs.examples.seen
        shrinkage = interpolate(self.tau, self.shrinkage, self.progress(inputs.rates_of_updates))
        share = (shrinkage * self.schedule_match(inputs.rates)).unsqueeze(1)
        latent = self.curve(inputs, first) + share * limited(effect, self.effect_limits(seen).unsqueeze(-1))
        if initial is None or first is None:
            return from_latent(latent, self.scale)
        held_steps = min(self.first_step, latent.size(-1) - 1)
        # The curve of an unseen example was predicted from its first value already.
        offset = torch.where(seen >= 0, first - latent[..., held_steps], 0.0).unsqueeze(-1)
        before = initial.unsqueeze(-1).expand(len(latent), -1, held_steps + 1)
        after = from_latent(latent[..., held_steps + 1 :] + self.carry * offset, self.scale)
        values = torch.cat([before, after], dim=-1)
        if inputs.has_update is None:
            return values
        begun = nn.functional.pad(inputs.has_update.cumsum(1) > 0, (1, 0), value=False)
        return torch.where(begun.unsqueeze(1), values, initial.unsqueeze(-1))

    def page_arrays(self, examples: EncodedExamples) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Of the mean curve; a kind adds what its effect is made of."""
        seen, psi = examples.seen, self.test_components(examples.test)
        scalars = {
            "referenceRate": float(self.reference_rate),
            "carry": float(self.carry),
            "seen": (seen >= 0).tolist(),
        }
        arrays = {
            "tau": self.tau,
            "shrinkage": self.shrinkage,
            "limit": self.effect_limits(seen),
            "baseline": self.baseline[:, seen.clamp(min=0)],
            # What predicts the curve of an unseen example is linear in its first value.
            "curveConstant": self.curve_coefficients[0] + psi @ self.curve_coefficients[2:],
            "curveSlope": self.curve_coefficients[1],
            "curveRange": self.curve_range,
            "curveBasis": self.curve_basis.T,
            "decays": self.decays,
            "fadeRates": self.fade_rates,
            "momenta": self.momenta,
            "curvatures": self.curvatures,
        }
        return scalars, arrays
