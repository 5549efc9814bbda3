"""Time of `gptfluence influence` once encodings exist: `python benchmarks/influence.py`.

200 test examples x 128 training examples, 96 steps: every example left out, every visit's derivative, and the errors of
27 fits without a run, against leaving out one at a time through `simulate`. Random weights: only the sizes matter.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from simulator.configuration_gptfluence import GPTfluenceConfig
from simulator.influence import influence, leave_out
from simulator.modeling_gptfluence import GPTfluenceSimulator
from simulator.training.memory_fit import FEW, MANY, Filters, responses_without_runs

STEPS, POOL, SUBSET, TESTS, BATCH, WIDTH, RUNS, COMPONENTS = 96, 200, 128, 200, 4, 2048, 27, 8
FEW_EXAMPLES = 10


def simulator(filters: Filters) -> GPTfluenceSimulator:
    """A memory simulator of small random weights."""
    random = torch.Generator().manual_seed(0)
    config = GPTfluenceConfig(
        dynamics="memory",
        encoder_width=WIDTH,
        pool_ids=list(range(POOL)),
        pool_keys=[f"pool {at}" for at in range(POOL)],
        test_ids=list(range(TESTS)),
        test_keys=[f"test {at}" for at in range(TESTS)],
        steps=STEPS,
        learning_rate=[1e-4 * (1 - at / STEPS) for at in range(STEPS)],
        components=COMPONENTS,
        test_components=64,
        curve_components=4,
        decays=list(filters.decays),
        fadings=list(filters.fadings),
        momenta=list(filters.momenta),
        forgettings=list(filters.forgettings),
    )
    model = GPTfluenceSimulator(config).eval()
    for tensor in model.buffers():
        tensor.copy_(torch.randn(tensor.shape, generator=random) * 0.01)
    model.dynamics.state_scale.fill_(1.0)
    model.dynamics.limit.fill_(10.0)
    model.dynamics.shown.fill_(1.0)
    model.dynamics.reference_rate.fill_(1e-4)
    model.dynamics.tau.copy_(torch.linspace(0, 48, STEPS + 1))
    return model


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds, so that other work on the machine does not count."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    rng = np.random.default_rng(0)
    subset = rng.choice(POOL, SUBSET, replace=False)
    order = np.concatenate([rng.permutation(subset) for _ in range(STEPS * BATCH // SUBSET)])
    curriculum = order.reshape(STEPS, BATCH).tolist()
    table = Table(title=f"{SUBSET} training x {TESTS} test examples, {STEPS} steps; processor seconds, one thread")
    for heading in ("filters", "every example left out", "one at a time", "ratio", "every visit", "errors"):
        table.add_column(heading, justify="right")
    torch.set_num_threads(1)
    for filters in (FEW, MANY):
        run = simulator(filters).what_if(curriculum)
        run.simulate()
        fast = seconds(lambda run=run: leave_out(run))
        visits = seconds(lambda run=run: influence(run))

        def slow(run=run) -> None:
            for key in subset[:FEW_EXAMPLES].tolist():
                run.drop([key]).simulate()

        alone = seconds(slow) / FEW_EXAMPLES * SUBSET
        count = len(filters.decays) * len(filters.fadings) + len(filters.momenta) * len(filters.forgettings)
        states = rng.normal(size=(RUNS, STEPS + 1, count * COMPONENTS))
        values = rng.uniform(1, 2, size=(RUNS, STEPS + 1, TESTS))
        errors = seconds(
            lambda states=states, values=values: responses_without_runs(states, values, np.eye(TESTS), 1e-3, "loss")
        )
        table.add_row(
            str(count), f"{fast:.2f}", f"{alone:.2f}", f"{alone / fast:.1f}", f"{visits:.2f}", f"{errors:.1f}"
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
