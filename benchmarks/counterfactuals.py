"""Time to simulate alternative curricula, 96 steps x 200 test examples: `python benchmarks/counterfactuals.py`.

10,000 at once, against one at a time through `simulate`, and the derivative of every visit in one pass against
one difference a visit. Random weights: only the sizes matter.
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
from simulator.model.what_if import simulate_many

MANY_RUNS, FEW_RUNS = 10_000, 50


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def time_dynamics(dynamics: str, table: Table) -> None:
    rng = np.random.default_rng(0)
    curriculum = [rng.choice(POOL, BATCH, replace=False).tolist() for _ in range(STEPS)]
    run = made_up_simulator(dynamics).what_if(curriculum, initial=np.full(TESTS, 2.0))
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
        ("influence of every visit", lambda: visit_derivatives(run), len(visits), differences),
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
