"""The scans over training steps that everything else is built on."""

from __future__ import annotations

import torch


def markov_scan(alpha: torch.Tensor, beta: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
    """Free-running recurrence of eq. 4: phi_t = sum_j alpha_j(c_t) phi_{t-j} + beta(c_t).

    Args:
        alpha: `[n, runs, steps, test]` factor of each order j = 1..n.
        beta: `[runs, steps, test]`.
        history: `[runs, n, test]` the first n values, oldest first; steps 1..n-1 are taken as given.

    Returns:
        `[runs, steps + 1, test]`, beginning with `history`.
    """
    order = alpha.size(0)
    values = list(history.unbind(1))
    for step in range(order - 1, alpha.size(2)):
        value = beta[:, step]
        for lag in range(1, order + 1):
            value = value + alpha[lag - 1, :, step] * values[-lag]
        values.append(value)
    return torch.stack(values, dim=1)


def decayed_sums(inputs: torch.Tensor, decays: torch.Tensor) -> torch.Tensor:
    """m_t = rho m_{t-1} + u_t for several rho at once, m_0 = 0.

    Args:
        inputs: u, `[runs, steps, width]`.
        decays: rho, `[decays]`.

    Returns:
        `[runs, steps + 1, decays, width]`, zero at step 0.
    """
    runs, steps, width = inputs.shape
    rho = decays.view(1, -1, 1)
    state = inputs.new_zeros(runs, len(decays), width)
    states = [state]
    for step in range(steps):
        state = rho * state + inputs[:, step].unsqueeze(1)
        states.append(state)
    return torch.stack(states, dim=1)


def optimiser_sums(
    inputs: torch.Tensor, rates: torch.Tensor, momenta: torch.Tensor, forgettings: torch.Tensor
) -> torch.Tensor:
    """What an optimiser with momentum adds up at the rates of a schedule, and forgets as fast as it learns.

    v_t = b v_{t-1} + (1 - b) x_t and n_t = exp(-lambda eta_t) n_{t-1} + eta_t v_t, for every b with every lambda.

    Args:
        inputs: x, `[runs, steps, width]`.
        rates: eta, `[runs or 1, steps]`.
        momenta: b, `[B]`.
        forgettings: lambda, `[L]`.

    Returns:
        n, `[runs, steps + 1, B * L, width]`, zero at step 0.
    """
    pushed = (1 - momenta).view(-1, 1) * decayed_sums(inputs, momenta)[:, 1:] * rates[..., None, None]
    kept = torch.exp(-rates.unsqueeze(-1) * forgettings)[:, :, None, :, None]
    state = inputs.new_zeros(len(inputs), len(momenta), len(forgettings), inputs.size(2))
    states = [state]
    for step in range(inputs.size(1)):
        state = kept[:, step] * state + pushed[:, step].unsqueeze(2)
        states.append(state)
    return torch.stack(states, dim=1).flatten(2, 3)
