"""How uncertain an influence is: the jackknife over the runs that a simulator was fitted on.

Each run is left out in turn, coefficients are fitted again with the same settings, and the effect of leaving an example
out is computed with each of these fits. It says how far the effect depends on which runs were made. It does not say
whether the dynamics are the right model: `gptfluence validate` trains the base model for that.
"""

from __future__ import annotations

import numpy as np
import torch

from gptdynamics.dataset import Dynamics
from simulator.model.curricula import visit_shares
from simulator.model.dynamics import SimulationInputs
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.model.what_if import WhatIf
from simulator.training.leave_one_run_out import responses_without_runs
from simulator.training.memory_states import likeness

# Directions in which states vary by this share of the least penalty: responses there are as good as zero.
NEGLIGIBLE = 1e-4
# Of two runs, either is all that is left without the other.
FEWEST_FITS = 3


def informative(states: np.ndarray, ridge: float) -> np.ndarray:
    """The directions in which states of runs vary enough for any fit to respond: `[D, K]`, orthonormal.

    States of many filters are nearly dependent, and without one run they vary in no direction more than with it: so
    this is found once, and each of the fits is of K numbers.

    Args:
        states: `[R, S, D]`.
        ridge: least penalty, relative to the mean eigenvalue of the states' scatter.
    """
    centred = states - states.mean(0)
    values, vectors = np.linalg.eigh(np.einsum("rsd,rse->de", centred, centred, optimize=True))
    enough = values > NEGLIGIBLE * ridge * values.mean()
    # Where nothing varies, one direction is left to say so.
    enough[-1] = True
    return vectors[:, enough]


def left_out_errors(
    model: GPTfluenceSimulator, runs: Dynamics, run: WhatIf, alternatives: list[WhatIf], final: torch.Tensor
) -> tuple[np.ndarray, np.ndarray] | None:
    """Standard errors of final effects, to first order in the latent.

    Args:
        model: the simulator.
        runs: that it was trained on.
        run: as it was.
        alternatives: n changes of it, of the same length and rates.
        final: `[M]` predicted value of each test example at the last step of `run`.

    Returns:
        `[n, M]`, and `[n]` of the mean over test examples; None for a simulator that has no such errors: markov, one
        whose penalty is not recorded, one of fewer than three runs, or memory that is asked about test examples that
        it was not fitted on.
    """
    dynamics, examples = model.dynamics, run.situation.examples
    changes = [run, *alternatives]
    shares = visit_shares(
        [each.curriculum for each in changes], run.situation.pool_ids, [each.weights for each in changes]
    )
    rates = torch.tensor([run.learning_rate]).to(examples.pool)
    inputs = SimulationInputs(shares.to(examples.pool), rates, examples)
    with torch.no_grad():
        carried = dynamics.last_effects_without_runs(inputs)
        last = _refitted(model, runs, inputs) if carried is None else carried.double().numpy()
    if last is None or len(last) < FEWEST_FITS:
        return None
    # How far the metric moves with its latent: of log-odds s, log(1 + exp(s)), by 1 - exp(-value).
    slope = 1 - np.exp(-final.double().numpy()) if model.config.scale.latent == "log-odds" else np.ones(len(final))
    effects = float(dynamics.shrinkage[-1]) * slope * (last[:, 1:] - last[:, :1])
    count = len(effects)

    def error(each: np.ndarray) -> np.ndarray:
        return np.sqrt((count - 1) / count * np.square(each - each.mean(0)).sum(0))

    return error(effects), error(effects.mean(-1))


def _refitted(model: GPTfluenceSimulator, runs: Dynamics, inputs: SimulationInputs) -> np.ndarray | None:
    """The effect at the last step `[R, n, M]` by responses that are fitted again without each run, where that goes."""
    config, dynamics, examples = model.config, model.dynamics, inputs.examples
    if not dynamics.has_linear_responses or config.ridge is None or bool((examples.seen < 0).any()):
        return None
    run_states = dynamics.states(inputs.visits, inputs.rates, examples.pool)[:, -1].double().numpy()
    fitted = visit_shares(runs.curricula, [example.id for example in runs.pool]).to(examples.pool)
    states = dynamics.states(fitted, inputs.rates, examples.pool)[:, torch.from_numpy(runs.step)].double().numpy()
    similarities = likeness(dynamics.test_components(model.test_vectors).double().numpy())
    basis = informative(states, config.ridge / float(np.linalg.eigvalsh(similarities)[-1]))
    # The penalty is relative to the mean eigenvalue, which is a sum over fewer directions now.
    ridge = config.ridge * basis.shape[1] / len(basis)
    responses = responses_without_runs(
        states @ basis, runs.values.astype(np.float64), similarities, ridge, config.scale
    )
    effects: np.ndarray = np.einsum(
        "nd,rdm->rnm", run_states @ basis, responses[:, :, examples.seen.numpy()], optimize=True
    )
    return effects
