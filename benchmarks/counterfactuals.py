"""Time to simulate alternative curricula, 96 steps x 200 test examples: `python benchmarks/counterfactuals.py`.

10,000 at once, against one at a time through `simulate`, and the derivative of every visit in one pass against
one difference a visit. Random weights: only the sizes matter.
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
from simulator.training.memory_states import MANY
from simulator.what_if import WhatIf, simulate_many

MANY_RUNS, FEW_RUNS, STEPS, POOL, TESTS, BATCH, WIDTH = 10_000, 50, 96, 200, 200, 4, 512


def make_run(dynamics: str, curriculum: list[list[int]]) -> WhatIf:
    random = torch.Generator().manual_seed(0)
    config = GPTfluenceConfig(
        dynamics=dynamics,
        encoder_width=WIDTH,
        pool_ids=list(range(POOL)),
        pool_keys=[f"pool {at}" for at in range(POOL)],
        test_ids=list(range(TESTS)),
        test_keys=[f"test {at}" for at in range(TESTS)],
        steps=STEPS,
        learning_rate=[1e-4 * (1 - at / STEPS) for at in range(STEPS)],
        components=1,
        test_components=64,
        curve_components=4,
        decays=list(MANY.decays),
        fadings=list(MANY.fadings),
        momenta=list(MANY.momenta),
        forgettings=list(MANY.forgettings),
    )
    model = GPTfluenceSimulator(config).eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.copy_(torch.randn(tensor.shape, generator=random) * 0.01)
        if dynamics == "memory":
            model.dynamics.state_scale.fill_(1.0)
            model.dynamics.limit.fill_(10.0)
            model.dynamics.shown.fill_(1.0)
            model.dynamics.reference_rate.fill_(1e-4)
            model.dynamics.tau.copy_(torch.linspace(0, 48, STEPS + 1))
    return model.what_if(curriculum, initial=np.full(TESTS, 2.0))


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def time_dynamics(dynamics: str, table: Table) -> None:
    rng = np.random.default_rng(0)
    curriculum = [rng.choice(POOL, BATCH, replace=False).tolist() for _ in range(STEPS)]
    run = make_run(dynamics, curriculum)
    swaps = rng.integers(POOL, size=(MANY_RUNS, 2))
    changed = [run.replace({int(a): int(b)}) for a, b in swaps]
    visits = [(step, at) for step, batch in enumerate(curriculum, start=1) for at in batch]

    def differences() -> None:
        for step, at in visits[:FEW_RUNS]:
            run.reweigh({at: 1.01}, steps=[step]).simulate()

    def one_by_one() -> None:
        for each in changed[:FEW_RUNS]:
            each.simulate()

    run.simulate()
    rows = (
        (f"{MANY_RUNS:,} curricula, whole trajectories", lambda: simulate_many(changed), MANY_RUNS, one_by_one),
        (f"{MANY_RUNS:,} curricula, last step", lambda: simulate_many(changed, final=True), MANY_RUNS, one_by_one),
        ("influence of every visit", lambda: influence(run), len(visits), differences),
        ("every example left out", lambda: leave_out(run), len(set().union(*curriculum)), one_by_one),
    )
    for what, fast, count, slow in rows:
        took, each = seconds(fast), seconds(slow) / FEW_RUNS * 1e3
        ratio = each / (took / count * 1e3)
        table.add_row(dynamics, what, f"{took:.2f}", f"{took / count * 1e3:.3f}", f"{each:.2f}", f"{ratio:.0f}")


def main() -> None:
    table = Table(title=f"{STEPS} steps x {TESTS} test examples, {torch.get_num_threads()} threads")
    for heading in ("dynamics", "what", "seconds", "each, ms", "each alone, ms", "ratio"):
        table.add_column(heading, justify="left" if heading in ("dynamics", "what") else "right")
    for dynamics in ("memory", "markov"):
        time_dynamics(dynamics, table)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
