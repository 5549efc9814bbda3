"""Time to train simulators on 25 runs x 96 steps x 200 test examples: `python benchmarks/simulator_training.py`.

Random trajectories and vectors: only the sizes matter. Encoding is not timed.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.curricula import Members
from simulator.training.markov_data import MarkovData
from simulator.training.markov_fit import fit_markov
from simulator.training.markov_training import MarkovTraining
from simulator.training.memory_fit import fit_memory

RUNS, VALIDATION, STEPS, POOL, TESTS, BATCH, WIDTH = 25, 2, 96, 200, 200, 4, 384


def main() -> None:
    rng = np.random.default_rng(0)
    every = RUNS + VALIDATION
    curricula = [[rng.choice(POOL, BATCH, replace=False).tolist() for _ in range(STEPS)] for _ in range(every)]
    visits = Members.between(curricula, range(POOL), range(STEPS + 1))
    walk = rng.normal(0, 0.05, (every, TESTS, STEPS + 1)).cumsum(-1) * 0.2
    values = (1 + np.exp(-np.arange(STEPS + 1) / 20) + walk).astype(np.float32)
    vectors = rng.normal(size=(POOL + TESTS, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pool, test = vectors[:POOL], vectors[POOL:]
    rates = np.tile(1e-4 * (1 - np.arange(STEPS) / STEPS), (every, 1))

    began = time.perf_counter()
    memory = fit_memory(visits, rates, np.arange(STEPS + 1), values, pool, test)
    memory_seconds = time.perf_counter() - began

    def data(part: slice) -> list[MarkovData]:
        members = Members.between(curricula[part], range(POOL), range(STEPS + 1))
        vectors = torch.from_numpy(pool), torch.from_numpy(test)
        return [MarkovData(members, torch.from_numpy(values[part]), *vectors, BATCH)]

    began = time.perf_counter()
    # Patience without end: what it costs where no setting stops early.
    how = MarkovTraining(patience=10**6)
    markov = fit_markov(GPTfluenceConfig(encoder_width=WIDTH), data(slice(RUNS)), data(slice(RUNS, None)), how)
    markov_seconds = time.perf_counter() - began

    table = Table(title=f"{RUNS} runs x {STEPS} steps x {TESTS} test examples, {torch.get_num_threads()} threads")
    for heading in ("dynamics", "settings tried", "seconds", "ratio to memory"):
        table.add_column(heading, justify="left" if heading == "dynamics" else "right")
    for name, tried, seconds in (
        ("memory", len(memory.tried), memory_seconds),
        ("markov, no early stop", len(markov.tried), markov_seconds),
    ):
        table.add_row(name, str(tried), f"{seconds:.1f}", f"{seconds / memory_seconds:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
