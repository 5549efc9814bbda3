"""The paper's simulator against the obvious implementation: `python benchmarks/simulator_speed.py`.

The obvious implementation, written here from the paper's description and the way the authors' code goes about it:
training goes through the (run, step, test example) rows in batches of 128, each with the vectors of its batch's
training examples, which a two-layer network turns into factors; evaluation goes from step to step, one run and one
test example at a time. Both sides have the same network, the same data and vectors that are there already. The
obvious one is timed on a sample, and its time scaled to the whole. Random data: only the sizes matter.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.curricula import Members, visit_shares
from simulator.model.markov_dynamics import MarkovDynamics
from simulator.training.markov_data import MarkovData
from simulator.training.markov_training import MarkovChoice, MarkovTraining, train_markov

RUNS, HELD_OUT, STEPS, POOL, TESTS, BATCH, WIDTH, HIDDEN = 25, 5, 96, 200, 200, 4, 384, 64
ROWS = 128
SAMPLED_BATCHES, SAMPLED_TRAJECTORIES, TURNS = 60, 6, 3


class Obvious:
    """The network on single rows. T training runs.

    Args:
        dynamics: whose weights it has.
        pool, test: `[N, E]` and `[M, E]` encoder vectors.
        curricula: `[T, steps, batch]` places.
        values: `[T, M, steps + 1]`.
    """

    def __init__(
        self,
        dynamics: MarkovDynamics,
        pool: torch.Tensor,
        test: torch.Tensor,
        curricula: torch.Tensor,
        values: torch.Tensor,
    ) -> None:
        self.dynamics, self.pool, self.test, self.curricula, self.values = dynamics, pool, test, curricula, values

    def side(self, vectors: torch.Tensor, factor: int) -> torch.Tensor:
        """The two layers for one factor."""
        weights = self.dynamics
        hidden = torch.relu(vectors @ weights.first[factor] + weights.first_bias[factor])
        return hidden @ weights.second[factor] + weights.second_bias[factor]

    def next_values(self, before: torch.Tensor, batch: torch.Tensor, test: torch.Tensor) -> torch.Tensor:
        """Eq. 4 to 8 of some rows: values before `[rows]`, vectors `[rows, batch, E]` and `[rows, E]`."""
        alpha, beta = (
            (self.side(batch, factor) * self.side(test, factor).unsqueeze(1)).sum(-1).sum(-1) for factor in (0, 1)
        )
        return alpha * before + beta

    def train(self, batches: int) -> None:
        """Some updates of an epoch."""
        optimizer = torch.optim.AdamW(self.dynamics.parameters(), lr=1e-4)
        rows = torch.randint(RUNS * STEPS * TESTS, (batches, ROWS))
        for chosen in rows:
            run, step, test = chosen // (STEPS * TESTS), chosen // TESTS % STEPS, chosen % TESTS
            before = self.values[run, test, step]
            predicted = self.next_values(before, self.pool[self.curricula[run, step]], self.test[test])
            loss = torch.nn.functional.mse_loss(predicted, self.values[run, test, step + 1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    @torch.no_grad()
    def trajectory(self, run: int, test: int) -> torch.Tensor:
        """One test example in one run, `[steps + 1]`."""
        found = [self.values[run, test, 0]]
        for batch in self.curricula[run]:
            found.append(self.next_values(found[-1][None], self.pool[batch][None], self.test[test][None])[0])
        return torch.stack(found)


def seconds(work: Callable[[], object]) -> float:
    """The fastest of some turns."""
    best = float("inf")
    for _ in range(TURNS):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def main() -> None:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    curricula = [[rng.choice(POOL, BATCH, replace=False).tolist() for _ in range(STEPS)] for _ in range(RUNS)]
    walk = rng.normal(0, 0.05, (RUNS, TESTS, STEPS + 1)).cumsum(-1) * 0.2
    values = torch.from_numpy((1 + np.exp(-np.arange(STEPS + 1) / 20) + walk).astype(np.float32))
    pool, test = (torch.nn.functional.normalize(torch.randn(count, WIDTH), dim=-1) for count in (POOL, TESTS))
    members = Members.between(curricula, range(POOL), range(STEPS + 1))
    data = MarkovData(members, values, pool, test, BATCH)
    config = GPTfluenceConfig(encoder_width=WIDTH, hidden=HIDDEN, projection="mlp", batch_size=BATCH)
    dynamics = MarkovDynamics(config)
    dynamics.reset(scale=1.0)
    obvious = Obvious(dynamics, pool, test, torch.tensor(curricula), values)

    held_out = data.part(torch.arange(HELD_OUT), torch.arange(TESTS))
    visits = visit_shares(curricula[:HELD_OUT], range(POOL))

    def evaluate() -> torch.Tensor:
        with torch.no_grad():
            return dynamics(visits, pool, test, held_out.values[..., :1])

    fast = evaluate()
    torch.testing.assert_close(fast[2, 7], obvious.trajectory(2, 7), rtol=1e-4, atol=1e-4)

    updates = -(-RUNS * STEPS // MarkovTraining.batch_rows)

    def epoch() -> None:
        how = MarkovTraining(most_updates=updates, check_every=updates, patience=1)
        train_markov(config, [data], [held_out], MarkovChoice(1e-4, 1e-4, HIDDEN), how)

    batches = -(-RUNS * STEPS * TESTS // ROWS)
    trajectories = HELD_OUT * TESTS
    places = [(at % HELD_OUT, at * 31 % TESTS) for at in range(SAMPLED_TRAJECTORIES)]
    obvious_epoch = seconds(lambda: obvious.train(SAMPLED_BATCHES)) / SAMPLED_BATCHES * batches
    obvious_evaluation = seconds(lambda: [obvious.trajectory(*each) for each in places]) / len(places) * trajectories
    table = Table(title=f"{RUNS} runs x {STEPS} steps x {TESTS} test examples, {torch.get_num_threads()} threads")
    for heading in ("what", "ours, s", "obvious, s", "ratio"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for what, ours, theirs in (
        (
            f"one training epoch ({updates} against {batches:,} updates), with two validations",
            seconds(epoch),
            obvious_epoch,
        ),
        (f"free-running evaluation of {HELD_OUT} runs", seconds(evaluate), obvious_evaluation),
    ):
        table.add_row(what, f"{ours:.3f}", f"{theirs:.1f}", f"{theirs / ours:,.0f}")
    table.caption = f"obvious: scaled from {SAMPLED_BATCHES} updates and {len(places)} trajectories"
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
