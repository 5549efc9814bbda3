"""The arrays of `dynamics="memory"` for one setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch

from simulator.model.configuration_gptfluence import Scale
from simulator.model.latent import to_latent
from simulator.model.memory_dynamics import MemoryDynamics
from simulator.training.leave_one_run_out import ridge_solution
from simulator.training.mean_curve_fit import dynamics_with_arrays, mean_curve_arrays, unseen_curves
from simulator.training.memory_states import TUNED_RUNS, likeness, spread, unseen_responses

# States `[r, S, D]` and values `[r, M, S]` of some runs.
Chunk = tuple[np.ndarray, np.ndarray]


def fit_arrays(
    chunks: Callable[[], Iterable[Chunk]],
    psi_test: np.ndarray,
    ridge: float,
    share: np.ndarray,
    step: np.ndarray,
    scale: Scale,
) -> dict[str, np.ndarray]:
    """Mean curve and responses of seen test examples, and what predicts both for unseen ones.

    `chunks` gives all runs, some at a time, and is called three times. `psi_test` is `[M, L]`, `share` `[S]` the
    shrinkage of effects at the measured steps `step` `[S]`.
    """

    def latents() -> Iterator[Chunk]:
        for x, values in chunks():
            yield x, to_latent(torch.from_numpy(values), scale).numpy()

    sum_x: np.ndarray = np.zeros(1)
    sum_latent: np.ndarray = np.zeros(1)
    firsts = []
    for x, latent in latents():
        sum_x, sum_latent = sum_x + x.sum(0), sum_latent + latent.sum(0)
        # A view would keep all runs in memory.
        firsts.append(latent[..., 0].copy())
    initial = np.concatenate(firsts)
    mean_x, mean_latent = sum_x / len(initial), sum_latent / len(initial)
    scatter, cross = np.zeros(2)
    for x, latent in latents():
        x, latent = x - mean_x, latent - mean_latent
        scatter = scatter + np.einsum("rsd,rse->de", x, x, optimize=True)
        cross = cross + np.einsum("rsd,rms->dm", x, latent, optimize=True)
    prior, basis = np.linalg.eigh(likeness(psi_test))
    responses = basis @ ridge_solution(np.linalg.eigh(scatter), cross @ basis, ridge, prior).T
    effects = ((responses @ x.mT, latent) for x, latent in latents())
    arrays = mean_curve_arrays(effects, responses @ mean_x.T, mean_latent, share, step)
    return arrays | {
        "weights": responses,
        "response": unseen_responses(responses, psi_test),
        **unseen_curves(arrays["baseline"], initial[spread(len(initial), TUNED_RUNS)], psi_test),
    }


def memory_dynamics(arrays: Mapping[str, np.ndarray], scale: Scale, first_step: int) -> MemoryDynamics:
    """The dynamics with these arrays, by name, of a metric first measured at `first_step`."""
    tests = len(arrays["weights"])
    shapes = {
        "components": arrays["train_projection"].shape[1],
        "test_keys": [""] * tests,
        "test_ids": list(range(tests)),
    }
    return dynamics_with_arrays(MemoryDynamics, arrays, scale, first_step, **shapes)
