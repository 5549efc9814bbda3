"""Scans over training steps: the recurrence of markov, and filters that remember what earlier batches held."""

from __future__ import annotations

from typing import NamedTuple

import torch


def markov_scan(
    alpha: torch.Tensor, beta: torch.Tensor, history: torch.Tensor, has_update: torch.Tensor | None = None
) -> torch.Tensor:
    """Free-running recurrence of eq. 4: phi_t = sum_j alpha_j(c_t) phi_{t-j} + beta(c_t).

    Args:
        alpha: `[n, runs, M, steps]` factor of each order j = 1..n.
        beta: `[runs, M, steps]`.
        history: `[runs, M, n]` the first n values, oldest first; steps 1..n-1 are taken as given.
        has_update: `[runs, steps]` whether there was an update: without one the value stays. None: at every step.

    Returns:
        `[runs, M, steps + 1]`, beginning with `history`.
    """
    order = alpha.size(0)
    values = list(history.unbind(-1))
    for step in range(order - 1, alpha.size(-1)):
        value = beta[..., step]
        for lag in range(1, order + 1):
            value = value + alpha[lag - 1, ..., step] * values[-lag]
        values.append(value if has_update is None else torch.where(has_update[:, step, None], value, values[-1]))
    # In memory, steps stay apart: writing them side by side takes longer than the scan.
    return torch.stack(values, dim=1).mT


def decayed_sums(inputs: torch.Tensor, decays: torch.Tensor, has_update: torch.Tensor | None = None) -> torch.Tensor:
    """m_t = rho m_{t-1} + u_t for several rho at once, m_0 = 0.

    Args:
        inputs: u, `[runs, steps, width]`.
        decays: rho, `[P]`.
        has_update: `[runs, steps]` whether there was an update: without one the sum stays. None: at every step.

    Returns:
        `[runs, steps + 1, P, width]`, zero at step 0.
    """
    runs, steps, width = inputs.shape
    rho = decays.view(1, -1, 1)
    state = inputs.new_zeros(runs, len(decays), width)
    states = [state]
    for step in range(steps):
        new = rho * state + inputs[:, step].unsqueeze(1)
        state = new if has_update is None else torch.where(has_update[:, step, None, None], new, state)
        states.append(state)
    return torch.stack(states, dim=1)


def optimiser_pull(rates: torch.Tensor, momenta: torch.Tensor, curvatures: torch.Tensor) -> torch.Tensor:
    """How strongly an optimiser pulls back what it has added up, for every b with every lambda.

    lambda, but in an update of a large rate less: at most half of what makes heavy-ball descent unstable. Without
    momentum an update then leaves exp(-lambda eta_t).

    Args:
        rates: eta, `[..., steps]`.
        momenta: b, `[Q]`.
        curvatures: lambda, `[G]`.

    Returns:
        `[..., steps, Q, G]`.
    """
    most = ((1 + momenta) / (1 - momenta)).unsqueeze(1)
    strength = rates[..., None, None] * curvatures / most
    tiny = torch.finfo(strength.dtype).eps
    return curvatures * torch.where(strength > tiny, -torch.expm1(-strength) / strength.clamp(min=tiny), 1.0)


def optimiser_sums(
    inputs: torch.Tensor,
    rates: torch.Tensor,
    momenta: torch.Tensor,
    curvatures: torch.Tensor,
    has_update: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sums of an optimiser with momentum whose gradients undo what they added: damped oscillations.

    v_t = b v_{t-1} + (1 - b) (x_t - pull_t n_{t-1}) and n_t = n_{t-1} + eta_t v_t, for every b with every lambda
    (`optimiser_pull`): what a unit of gradient adds along a direction of curvature lambda.

    Args:
        inputs: x, `[runs, steps, width]`.
        rates: eta, `[runs or 1, steps]`.
        momenta: b, `[Q]`.
        curvatures: lambda, `[G]`.
        has_update: `[runs, steps]` whether there was an update; None: at every step. Without one the rate must be 0.

    Returns:
        n, `[runs, steps + 1, Q * G, width]`, zero at step 0.
    """
    pull = optimiser_pull(rates, momenta, curvatures).unsqueeze(-1)
    kept = momenta.view(-1, 1, 1)
    state = inputs.new_zeros(len(inputs), len(momenta), len(curvatures), inputs.size(2))
    speed = state
    states = [state]
    for step in range(inputs.size(1)):
        new = kept * speed + (1 - kept) * (inputs[:, step, None, None] - pull[:, step] * state)
        speed = new if has_update is None else torch.where(has_update[:, step, None, None, None], new, speed)
        state = state + rates[:, step, None, None, None] * speed
        states.append(state)
    return torch.stack(states, dim=1).flatten(2, 3)


class FilterBank(NamedTuple):
    """Time constants side by side: every rho with every kappa, every b with every lambda.

    Together F = P * H + Q * G filters. All rates are relative to a reference rate, and tau is their sum so far.

    Attributes:
        decays: rho `[P]`, the share of an effect that is left after the next update.
        fade_rates: kappa `[H]`: an update at tau counts exp(-kappa tau).
        momenta: b `[Q]`; AdamW has 0.9.
        curvatures: lambda `[G]`: an update of rate e leaves the share exp(-lambda e) of what came before.
        end: tau at which kappa has its last effect: the end of the training runs.
    """

    decays: torch.Tensor
    fade_rates: torch.Tensor
    momenta: torch.Tensor
    curvatures: torch.Tensor
    end: torch.Tensor

    @property
    def size(self) -> int:
        """F, how many filters there are."""
        return len(self.decays) * len(self.fade_rates) + len(self.momenta) * len(self.curvatures)

    def strengths(self, rates: torch.Tensor) -> torch.Tensor:
        """How much each update counts for each kappa, `[runs, steps, H]`, from relative rates `[runs, steps]`."""
        tau = torch.nn.functional.pad(rates.cumsum(-1), (1, 0))[:, :-1, None].clamp(max=self.end)
        return rates.unsqueeze(-1) * torch.exp(-self.fade_rates * tau)

    def states(self, inputs: torch.Tensor, rates: torch.Tensor, has_update: torch.Tensor | None = None) -> torch.Tensor:
        """Every filter of every input.

        Args:
            inputs: `[runs, steps, width]`, e.g. mean over each batch.
            rates: `[runs or 1, steps]`, relative.
            has_update: `[runs, steps]` whether there was an update: without one filters stay. None: at every step.

        Returns:
            `[runs, steps + 1, F, width]`, zero at step 0.
        """
        rates = rates if has_update is None else rates * has_update
        weighted = self.strengths(rates).unsqueeze(-1) * inputs.unsqueeze(-2)
        summed = (
            decayed_sums(weighted.flatten(2), self.decays, has_update).unflatten(-1, weighted.shape[2:]).flatten(2, 3)
        )
        return torch.cat([summed, optimiser_sums(inputs, rates, self.momenta, self.curvatures, has_update)], 2)

    def sum_of_filtered(
        self, inputs: torch.Tensor, rates: torch.Tensor, has_update: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The sum over filters of each filter's own input, of one run: differentiable, without states in memory.

        Args:
            inputs: `[F, M, steps]`.
            rates: `[1, steps]`, relative.
            has_update: `[1, steps]` as of `states`.

        Returns:
            `[M, steps + 1]`, zero at step 0.
        """
        rates = rates if has_update is None else rates * has_update
        updating = [True] * rates.size(1) if has_update is None else has_update[0].tolist()
        decaying = len(self.decays) * len(self.fade_rates)
        rho = self.decays.repeat_interleave(len(self.fade_rates)).view(-1, 1)
        strength = self.strengths(rates)[0].repeat(1, len(self.decays)).unsqueeze(-1)
        # Steps first here: each works on what lies side by side.
        by_step = inputs.movedim(-1, 0).contiguous()
        state = torch.zeros_like(inputs[:decaying, :, 0])
        effects = [state.sum(0)]
        for pushed, update in zip(by_step[:, :decaying] * strength, updating, strict=True):
            state = rho * state + pushed if update else state
            effects.append(state.sum(0))
        pull = optimiser_pull(rates[0], self.momenta, self.curvatures).flatten(1).unsqueeze(-1)
        momentum = self.momenta.repeat_interleave(len(self.curvatures)).view(-1, 1)
        speed = torch.zeros_like(inputs[decaying:, :, 0])
        state = speed
        for step, (pushed, rate) in enumerate(zip(by_step[:, decaying:], rates[0], strict=True), start=1):
            if updating[step - 1]:
                speed = momentum * speed + (1 - momentum) * (pushed - pull[step - 1] * state)
            state = state + rate * speed
            effects[step] = effects[step] + state.sum(0)
        return torch.stack(effects, dim=-1)
