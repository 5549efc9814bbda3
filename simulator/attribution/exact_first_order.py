"""The yardstick: exact first-order effects of pool rows on test examples, through the whole of a run.

The derivative of every test example's loss with respect to the weight of every row, by forward mode through AdamW's
updates. For each row it costs several backward passes at every update, and memory for twelve copies of the weights. So
it is for models of nano's size, where a run of 96 updates on 128 rows takes about 15 minutes of one core. It is given
the very run that it is asked about, and sees nothing of what a row does beyond the first order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from gptdynamics.curriculum import Curriculum, run_seed
from gptdynamics.errors import SettingsError
from gptdynamics.gradients import directional_derivatives
from gptdynamics.runs import Bench
from gptdynamics.runs.updates import Updates
from gptdynamics.runs.weight_derivatives import WeightDerivatives, rows_at_once, trained_numbers

# GiB that derivatives of weights may take at once.
MEMORY = 2.0


@dataclass(frozen=True)
class FirstOrderEffects:
    """Effects of N pool rows on M test examples at S measured steps of one run.

    The latent of the loss gives the same order of runs at every step, and so the same LDS.

    Attributes:
        run: its name.
        pool_ids: N rows.
        test_ids: M test examples.
        step: `[S]`.
        losses: `[M, S]` of the run, made again.
        derivatives: `[N, M, S]` of the loss with respect to the row's weight, at a weight of 1.
    """

    run: str
    pool_ids: tuple[int, ...]
    test_ids: tuple[int, ...]
    step: np.ndarray
    losses: np.ndarray
    derivatives: np.ndarray

    def without(self, left_out: Sequence[Collection[int]]) -> np.ndarray:
        """The losses of runs made again without some rows: the effects of rows add up.

        Args:
            left_out: the rows that each of R runs lacks.

        Returns:
            `[R, M, S]` float32.

        Raises:
            SettingsError: the effects of a row were not computed.
        """
        place = {key: index for index, key in enumerate(self.pool_ids)}
        mask = np.zeros((len(left_out), len(place)), dtype=np.float32)
        for index, rows in enumerate(left_out):
            for row in rows:
                if row not in place:
                    raise SettingsError(f"run {self.run}: no effects of pool row {row} were computed")
                mask[index, place[row]] = 1
        return self.losses - np.tensordot(mask, self.derivatives, axes=1)


def exact_first_order(
    bench: Bench,
    run: str,
    curriculum: Curriculum,
    learning_rate: Sequence[float],
    step: Sequence[int],
    rows: Sequence[int] | None = None,
    memory: float = MEMORY,
    on_phase: Callable[[str, int], None] = lambda name, total: None,
    on_progress: Callable[[], None] = lambda: None,
) -> FirstOrderEffects:
    """Make a run again, and with it the derivatives of all test losses with respect to the weights of pool rows.

    What a row's weight is stands in `WeightDerivatives`: at 0 the run is the one made without the row.

    Args:
        bench: of the config; of a small model.
        run: the name, which seeds what is random in it.
        curriculum: `[steps][batch]` pool ids.
        learning_rate: `[steps]`, of each update.
        step: at which derivatives are taken.
        rows: whose weights; default: all that the run visits.
        memory: GiB that derivatives of weights may take; with more, more rows share a pass through the run.
        on_phase, on_progress: told of each update of each pass.

    Raises:
        SettingsError: a row is not in the pool, or the run has dropout or mixed precision.
        DivergedRunError: the loss of a batch is not finite.
    """
    visited = sorted({key for batch in curriculum for key in batch}) if rows is None else list(rows)
    unknown = [row for row in visited if row not in bench.tokenized]
    if unknown:
        raise SettingsError(f"run {run}: row {unknown[0]} is not in the pool")
    entropy, test_losses = run_seed(bench.settings, run), bench.test_set.losses
    at_once = rows_at_once(trained_numbers(Updates(bench.base.model, bench.settings, entropy)), memory)
    groups = [visited[begin : begin + at_once] for begin in range(0, len(visited), at_once)]
    on_phase(f"exact first-order effects of {len(visited)} rows", len(groups) * len(curriculum))
    place = {done: index for index, done in enumerate(step)}
    losses = np.zeros((len(bench.test), len(place)), dtype=np.float32)
    derivatives = np.zeros((len(visited), *losses.shape), dtype=np.float32)
    for number, group in enumerate(groups):
        updates = Updates(bench.base.model, bench.settings, entropy)
        record = WeightDerivatives(updates, bench.tokenized, curriculum, group)
        begin = number * at_once
        for done in updates.iterate(bench.tokenized, curriculum, learning_rate, record=record):
            if done in place:
                losses[:, place[done]] = test_losses.measure(updates.model)[0]
            if done in place and done:
                derivatives[begin : begin + len(group), :, place[done]] = directional_derivatives(
                    updates.model, test_losses.batches, record.directions, len(bench.test)
                )
            if done:
                on_progress()
    return FirstOrderEffects(
        run, tuple(visited), tuple(each.id for each in bench.test), np.array(step), losses, derivatives
    )
