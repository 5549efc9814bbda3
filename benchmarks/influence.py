"""Time of `gptfluence influence` once encodings exist: `python benchmarks/influence.py`.

200 test examples x 128 training examples, 96 steps: every example left out, against leaving out one at a time through
`simulate`; every visit's derivative; 27 fits without a run, for errors, against these fits in all directions of
the states.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from made_up_simulator import BATCH, POOL, STEPS, TESTS, made_up_simulator
from rich.console import Console
from rich.table import Table

from simulator.attribution import leave_out, visit_derivatives
from simulator.attribution.effect_errors import informative
from simulator.model.configuration_gptfluence import scale_of
from simulator.model.curricula import visit_shares
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.training.leave_one_run_out import responses_without_runs
from simulator.training.memory_states import FEW, MANY

SUBSET, WIDTH, RUNS, COMPONENTS, RIDGE = 128, 2048, 27, 8, 1e-3
FEW_EXAMPLES = 10


def drawn(rng: np.random.Generator) -> list[list[int]]:
    """A curriculum of three epochs of a random subset."""
    subset = rng.choice(POOL, SUBSET, replace=False)
    order = np.concatenate([rng.permutation(subset) for _ in range(STEPS * BATCH // SUBSET)])
    return order.reshape(STEPS, BATCH).tolist()


def states_of_runs(model: GPTfluenceSimulator, rng: np.random.Generator) -> np.ndarray:
    """States of random runs `[RUNS, STEPS + 1, D]`: as nearly dependent as those of real ones."""
    shares = visit_shares([drawn(rng) for _ in range(RUNS)], list(range(POOL)))
    with torch.no_grad():
        return (
            model.dynamics.states(shares, torch.tensor([model.config.learning_rate]), model.pool_vectors)
            .double()
            .numpy()
        )


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds, so that other work on the machine does not count."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    rng = np.random.default_rng(0)
    curriculum = drawn(rng)
    subset = sorted(set().union(*curriculum))
    table = Table(title=f"{SUBSET} training x {TESTS} test examples, {STEPS} steps; processor seconds, one thread")
    for heading in (
        "filters",
        "every example left out",
        "one at a time",
        "ratio",
        "every visit",
        "errors",
        "all directions",
    ):
        table.add_column(heading, justify="right")
    torch.set_num_threads(1)
    for filters in (FEW, MANY):
        model = made_up_simulator(width=WIDTH, components=COMPONENTS, filters=filters)
        run = model.what_if(curriculum)
        run.simulate()
        fast = seconds(lambda run=run: leave_out(run))
        visits = seconds(lambda run=run: visit_derivatives(run))

        def slow(run=run) -> None:
            for key in subset[:FEW_EXAMPLES]:
                run.drop([key]).simulate()

        alone = seconds(slow) / FEW_EXAMPLES * SUBSET
        count = len(filters.decays) * len(filters.fade_rates) + len(filters.momenta) * len(filters.curvatures)
        states, values = states_of_runs(model, rng), rng.uniform(1, 2, size=(RUNS, TESTS, STEPS + 1))

        def fit_each(states=states, values=values) -> None:
            turn = informative(states, RIDGE)
            responses_without_runs(
                states @ turn, values, np.eye(TESTS), RIDGE * turn.shape[1] / len(turn), scale_of("loss")
            )

        errors = seconds(fit_each)
        whole = seconds(
            lambda states=states, values=values: responses_without_runs(
                states, values, np.eye(TESTS), RIDGE, scale_of("loss")
            )
        )
        table.add_row(
            str(count),
            f"{fast:.2f}",
            f"{alone:.2f}",
            f"{alone / fast:.1f}",
            f"{visits:.2f}",
            f"{errors:.2f}",
            f"{whole:.2f}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
