"""`dynamics="memory"`: a mean curve plus what the recent batches left behind.

    x_t   = mean over i in c_t of (psi(z_i) - psi_mean),  e_t = eta_t / eta_ref,  tau_t = e_1 + ... + e_t
    m_t   = rho * m_{t-1} + exp(-kappa * tau_{t-1}) * e_t * x_t          for several rho and kappa side by side
    v_t   = b * v_{t-1} + (1 - b) * x_t
    n_t   = exp(-lambda * e_t) * n_{t-1} + e_t * v_t                     for several b and lambda side by side
    s_t   = mu_tau(z') + shown_tau * known_t * limited(<w(z'), [m_t, n_t]>)
    phi_t = value(s_t)

s is the metric's latent: of a loss, the log-odds against the target, s = log(exp(phi) - 1), so that an effect
shrinks with a loss that is nearly zero and no loss is negative; of a bounded metric, its value, cut to its
range. kappa lets early batches count more or less than late ones, no further than to the end of the training
runs. n is what an optimiser with momentum b adds up, and is forgotten as fast as rates let anything be learned:
not at all where they are nearly zero, at the end of a run. shown is the share of predicted effects that runs left
out did show. known is 1 under the schedule trained on and falls to 0 as the rates so far become others: what filters
say together holds for the rates they were fitted under, so that under foreign ones the mean curve is what is left. An
effect is limited once it is half as large again as any of the training runs: it grows no further
than to twice that, whatever the curriculum.

A run whose first value differs from mu_0 keeps the share `carry` of that difference: all of it where first
values do not vary between training runs (loss), hardly any where they are mostly noise (sampled text).

psi are encoder vectors reduced to a few principal components. A seen test example has its own mean curve
mu and response w; for an unseen one both are predicted from its first value and its own psi.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .dynamics import DynamicsModule, Field, interpolate
from .recurrence import decayed_sums, optimiser_sums

if TYPE_CHECKING:
    from .configuration_gptfluence import GPTfluenceConfig, Scale

# A loss below this is taken as this: its log-odds would say more than a float32 loss does.
SMALLEST_LOSS = 1e-3
# Rates that differ by this share from those trained on, summed so far, leave nothing of an effect.
FOREIGN = 0.25
# Rates are kept as float32 sums.
ROUNDING = 1e-4


def to_latent(values: torch.Tensor, scale: Scale) -> torch.Tensor:
    """Latent of values of a metric, any shape: log-odds of a loss, else the value."""
    if scale.latent == "value":
        return values
    values = values.clamp(min=SMALLEST_LOSS)
    return values + torch.log(-torch.expm1(-values))


def from_latent(latent: torch.Tensor, scale: Scale) -> torch.Tensor:
    """Values of a metric, within its range, from their latent."""
    if scale.latent == "value":
        return latent.clamp(scale.least, scale.greatest)
    return torch.nn.functional.softplus(latent)


def limited(effect: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
    """The effect itself up to `limit`; beyond that it grows ever more slowly, and never to twice the limit."""
    size = limit.clamp(min=torch.finfo(effect.dtype).tiny)
    beyond = (effect.abs() - size).clamp(min=0)
    return effect.clamp(-size, size) + effect.sign() * size * torch.tanh(beyond / size)


class MemoryDynamics(DynamicsModule):
    """Prediction with fitted memory dynamics.

    E encoder width, K components of pool examples, L of test examples, P decays rho, H fadings kappa, Q momenta b, G
    forgettings lambda, F = P * H + Q * G filters, M seen test examples, B curve components.

    Args:
        config: shapes; the values are set by fitting or loaded.
    """

    name = "memory"
    fields = {
        **dict.fromkeys(("components", "test_components", "curve_components"), Field("whole number", 0, 1)),
        **dict.fromkeys(("momenta", "forgettings"), Field("list of numbers")),
        "decays": Field("list of numbers"),
        "fadings": Field("list of numbers", -(2**31)),
        "ridge": Field("number"),
    }
    needs_initial = False
    has_linear_responses = True

    encoder_mean: torch.Tensor
    train_projection: torch.Tensor
    test_projection: torch.Tensor
    pool_centre: torch.Tensor
    decays: torch.Tensor
    fadings: torch.Tensor
    momenta: torch.Tensor
    forgettings: torch.Tensor
    state_scale: torch.Tensor
    tau: torch.Tensor
    baseline: torch.Tensor
    shown: torch.Tensor
    weights: torch.Tensor
    limit: torch.Tensor
    unseen_limit: torch.Tensor
    response: torch.Tensor
    curve_basis: torch.Tensor
    curve_coefficients: torch.Tensor
    curve_range: torch.Tensor
    reference_rate: torch.Tensor
    carry: torch.Tensor

    def __init__(self, config: GPTfluenceConfig) -> None:
        super().__init__()
        self.first_step = config.first_step
        self.scale = config.scale
        width, count, test_count = config.encoder_width, config.components, config.test_components
        filters = len(config.decays) * len(config.fadings) + len(config.momenta) * len(config.forgettings)
        seen, grid, curves = len(config.test_keys), config.steps + 1, config.curve_components
        shapes = {
            "encoder_mean": (width,),
            "train_projection": (width, count),
            "test_projection": (width, test_count),
            "pool_centre": (count,),
            "decays": (len(config.decays),),
            "fadings": (len(config.fadings),),
            "momenta": (len(config.momenta),),
            "forgettings": (len(config.forgettings),),
            "state_scale": (filters,),
            "tau": (grid,),
            "baseline": (grid, seen),
            "shown": (grid,),
            "weights": (seen, filters * count),
            "limit": (seen,),
            "unseen_limit": (),
            "response": (1 + test_count, filters * count),
            "curve_basis": (curves, grid),
            "curve_coefficients": (2 + test_count, curves),
            "curve_range": (2, curves),
            "reference_rate": (),
            "carry": (),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    def train_components(self, pool: torch.Tensor) -> torch.Tensor:
        """psi - psi_mean of pool examples: `[N, E]` encoder vectors -> `[N, K]`."""
        return (nn.functional.normalize(pool, dim=-1) - self.encoder_mean) @ self.train_projection - self.pool_centre

    def test_components(self, test: torch.Tensor) -> torch.Tensor:
        """psi' of test examples: `[M, E]` encoder vectors -> `[M, L]`."""
        return (nn.functional.normalize(test, dim=-1) - self.encoder_mean) @ self.test_projection

    def progress(self, rates: torch.Tensor) -> torch.Tensor:
        """tau before the first and after each update: `[runs, steps + 1]`."""
        return nn.functional.pad((rates / self.reference_rate).cumsum(-1), (1, 0))

    def known(self, rates: torch.Tensor) -> torch.Tensor:
        """Share of effects that holds under these rates, by how far those so far differ from the ones trained on.

        Args:
            rates: `[runs, steps]`.

        Returns:
            `[runs, steps + 1]`, 1 under the schedule trained on; updates beyond its end count as rates of their own.
        """
        steps = rates.size(1)
        trained = self.tau.diff()[:steps]
        trained = nn.functional.pad(trained, (0, steps - len(trained)))
        differ = (rates / self.reference_rate - trained).abs().cumsum(-1)
        share = differ / trained.cumsum(-1).clamp(min=torch.finfo(rates.dtype).tiny)
        return nn.functional.pad(1 - ((share - ROUNDING) / FOREIGN).clamp(0, 1), (1, 0), value=1.0)

    def strengths(self, rates: torch.Tensor) -> torch.Tensor:
        """What each update counts in the filters of each kappa: `[runs, steps, H]`."""
        tau = self.progress(rates)[:, :-1, None].clamp(max=self.tau[-1])
        return (rates / self.reference_rate).unsqueeze(-1) * torch.exp(-self.fadings * tau)

    def states(self, visits: torch.Tensor, rates: torch.Tensor, pool: torch.Tensor) -> torch.Tensor:
        """m and n of every step: `[runs, steps + 1, F * K]`, scaled to comparable size."""
        shown = visits @ self.train_components(pool)
        inputs = self.strengths(rates).unsqueeze(-1) * shown.unsqueeze(-2)
        summed = decayed_sums(inputs.flatten(2), self.decays).unflatten(-1, inputs.shape[2:]).flatten(2, 3)
        states = torch.cat([summed, self._optimiser_sums(shown, rates)], 2)
        return (states / self.state_scale[:, None]).flatten(2)

    def _optimiser_sums(self, inputs: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
        """n `[runs, steps + 1, Q * G, width]` of x `[runs, steps, width]`."""
        return optimiser_sums(inputs, rates / self.reference_rate, self.momenta, self.forgettings)

    def responses(self, test: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """w of each test example: `[M, F * K]`."""
        psi = self.test_components(test)
        predicted = torch.cat([psi.new_ones(len(psi), 1), psi], -1) @ self.response
        return torch.where((seen >= 0).unsqueeze(-1), self.weights[seen.clamp(min=0)], predicted)

    def factors(self, pool: torch.Tensor, test: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """What each filter gets from a pool example for a test example, at full share and rate: `[F, N, M]`."""
        count = len(self.pool_centre)
        response = self.responses(test, seen).unflatten(-1, (-1, count)) / self.state_scale[:, None]
        return torch.einsum("nk,mfk->fnm", self.train_components(pool), response)

    def scan(self, inputs: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
        """The effect <w, m_t> `[steps + 1, M]` of one run from what its batches give each filter.

        Args:
            inputs: `[F, steps, M]` factors summed over the shares of each batch.
            rates: `[1, steps]`.
        """
        summed = len(self.decays) * len(self.fadings)
        rho = self.decays.repeat_interleave(len(self.fadings)).view(-1, 1)
        strength = self.strengths(rates)[0].T.repeat(len(self.decays), 1).unsqueeze(-1)
        state = torch.zeros_like(inputs[:summed, 0])
        effects = [state.sum(0)]
        for pushed in (inputs[:summed] * strength).unbind(1):
            state = rho * state + pushed
            effects.append(state.sum(0))
        # `optimiser_sums` would pair every input with every filter; here each filter has an input of its own.
        relative = rates[0] / self.reference_rate
        momentum = self.momenta.repeat_interleave(len(self.forgettings)).view(-1, 1)
        forgetting = self.forgettings.repeat(len(self.momenta)).view(-1, 1)
        velocity = torch.zeros_like(inputs[summed:, 0])
        state = velocity
        for step, (pushed, rate) in enumerate(zip(inputs[summed:].unbind(1), relative, strict=True), start=1):
            velocity = momentum * velocity + (1 - momentum) * pushed
            state = torch.exp(-forgetting * rate) * state + rate * velocity
            effects[step] = effects[step] + state.sum(0)
        return torch.stack(effects)

    def curve(
        self, rates: torch.Tensor, test: torch.Tensor, seen: torch.Tensor, initial: torch.Tensor | None
    ) -> torch.Tensor:
        """mu of every step `[runs, steps + 1, M]`; arguments as of `forward`, `initial` as latents."""
        at = self.progress(rates)
        known = interpolate(self.tau, self.baseline[:, seen.clamp(min=0)], at)
        if bool((seen >= 0).all()):
            return known
        if initial is None:
            raise ValueError("unseen test examples need their first value: give initial")
        psi = self.test_components(test).expand(len(initial), -1, -1)
        features = torch.cat([torch.ones_like(initial).unsqueeze(-1), initial.unsqueeze(-1), psi], -1)
        coefficients = (features @ self.curve_coefficients).clamp(self.curve_range[0], self.curve_range[1])
        change = interpolate(self.tau, self.curve_basis.T, at) @ coefficients.transpose(1, 2)
        return torch.where(seen >= 0, known, initial.unsqueeze(1) + change)

    def read(
        self,
        effect: torch.Tensor,
        rates: torch.Tensor,
        test: torch.Tensor,
        seen: torch.Tensor,
        initial: torch.Tensor | None,
    ) -> torch.Tensor:
        """Trajectories `[runs, steps + 1, M]` from effects <w, m_t> of that shape; see `forward`."""
        first = None if initial is None else to_latent(initial, self.scale)
        limit = torch.where(seen >= 0, self.limit[seen.clamp(min=0)], self.unseen_limit)
        shown = interpolate(self.tau, self.shown.unsqueeze(-1), self.progress(rates)) * self.known(rates).unsqueeze(-1)
        latent = self.curve(rates, test, seen, first) + shown * limited(effect, limit)
        if initial is None or first is None:
            return from_latent(latent, self.scale)
        at = min(self.first_step, latent.size(1) - 1)
        # The curve of an unseen example was predicted from its first value already.
        offset = torch.where(seen >= 0, first - latent[:, at], 0.0).unsqueeze(1)
        given = initial.unsqueeze(1).expand(len(latent), at + 1, -1)
        return torch.cat([given, from_latent(latent[:, at + 1 :] + self.carry * offset, self.scale)], dim=1)

    def forward(
        self,
        visits: torch.Tensor,
        rates: torch.Tensor,
        pool: torch.Tensor,
        test: torch.Tensor,
        seen: torch.Tensor,
        initial: torch.Tensor | None,
    ) -> torch.Tensor:
        """Trajectories `[runs, steps + 1, M]`; steps before the first measured one have its value.

        Args:
            visits: `[runs, steps, N]` share of each pool example in each batch; rows sum to 1.
            rates: `[runs or 1, steps]` learning rates.
            pool: `[N, E]` encoder vectors.
            test: `[M, E]` encoder vectors.
            seen: `[M]` place among the test examples trained on, or -1.
            initial: `[runs or 1, M]` values at the first measured step; needed where an example is unseen.
        """
        effect = self.states(visits, rates, pool) @ self.responses(test, seen).T
        return self.read(effect, rates, test, seen, initial)

    def trajectories(
        self,
        visits: torch.Tensor,
        rates: torch.Tensor,
        pool: torch.Tensor,
        test: torch.Tensor,
        seen: torch.Tensor,
        initial: torch.Tensor | None,
    ) -> torch.Tensor:
        """See `DynamicsModule`."""
        first = None if initial is None else initial[:, 0]
        values: torch.Tensor = self(visits, rates, pool, test, seen, first)
        return values

    def input_factors(self, pool: torch.Tensor, test: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """See `DynamicsModule`; the factors are filters."""
        return self.factors(pool, test, seen)

    def from_inputs(
        self,
        inputs: torch.Tensor,
        rates: torch.Tensor,
        test: torch.Tensor,
        seen: torch.Tensor,
        initial: torch.Tensor | None,
    ) -> torch.Tensor:
        """See `DynamicsModule`."""
        first = None if initial is None else initial[:, 0]
        return self.read(self.scan(inputs, rates).unsqueeze(0), rates, test, seen, first)[0]

    def page_arrays(
        self, pool: torch.Tensor, test: torch.Tensor, seen: torch.Tensor
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """See `DynamicsModule`; parts, since factors of every pair would be twenty-five times as large."""
        components, psi = self.train_components(pool), self.test_components(test)
        responses = self.responses(test, seen).unflatten(-1, (-1, components.size(1)))
        scalars = {
            "sides": 1,
            "size": components.size(1),
            "filters": responses.size(1),
            "factorScale": 1.0,
            "referenceRate": float(self.reference_rate),
            "carry": float(self.carry),
            "seen": (seen >= 0).tolist(),
        }
        arrays = {
            "train": components,
            "test": responses / self.state_scale[:, None],
            "decays": self.decays,
            "fadings": self.fadings,
            "momenta": self.momenta,
            "forgettings": self.forgettings,
            "tau": self.tau,
            "shown": self.shown,
            "limit": torch.where(seen >= 0, self.limit[seen.clamp(min=0)], self.unseen_limit),
            "baseline": self.baseline[:, seen.clamp(min=0)],
            # What predicts the curve of an unseen example is linear in its first value.
            "curveConstant": self.curve_coefficients[0] + psi @ self.curve_coefficients[2:],
            "curveSlope": self.curve_coefficients[1],
            "curveRange": self.curve_range,
            "curveBasis": self.curve_basis.T,
        }
        return scalars, arrays
