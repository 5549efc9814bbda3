"""`gptfluence simulate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import say, show
from simulator.settings.use_cases import SimulateSettings

if TYPE_CHECKING:
    from simulator.use_cases.simulate import SimulatedRun

# Test examples in the table; with measured values, each has two lines.
ROWS, ROWS_MEASURED = 20, 10
STEPS = 7
# With a band, three numbers share a column.
STEPS_WITH_BAND = 3


def _cell(values: Sequence[float]) -> str:
    """A predicted value, with its band where one is asked for."""
    first, *ends = (f"{value:.3f}" for value in values)
    return f"{first} [{', '.join(ends)}]" if ends else first


def _rows(simulated: SimulatedRun, steps: Sequence[int]) -> Iterator[tuple[str, list[str], list[str] | None]]:
    """The mean, then some test examples: a name, predicted values, and measured ones where there are any."""
    import numpy as np

    ends = [each for each in (simulated.low, simulated.high) if each is not None]
    measured = None
    if simulated.measured is not None:
        measured = np.full((len(simulated.test_ids), len(steps)), np.nan)
        _, shown, among = np.intersect1d(steps, simulated.measured_step, return_indices=True)
        measured[:, shown] = simulated.measured[:, among]

    def measured_cells(tests: slice) -> list[str] | None:
        if measured is None:
            return None
        # Only what is not a number differs from itself.
        return [f"{value:.3f}" if value == value else "-" for value in measured[tests].mean(0)]

    # A band of each value says nothing of their mean.
    yield "mean", [_cell([float(value)]) for value in simulated.values[:, steps].mean(0)], measured_cells(slice(None))
    for place, key in enumerate(simulated.test_ids[: ROWS if measured is None else ROWS_MEASURED]):
        cells = [_cell([float(each[place, step]) for each in (simulated.values, *ends)]) for step in steps]
        yield str(key), cells, measured_cells(slice(place, place + 1))


def simulate(settings: SimulateSettings, write_json: WriteJson) -> None:
    """Predict the trajectories of a recorded run, or of a curriculum of your own.

    JSON: `config`, `metric`, `test_id`, `step`, `values` (a list of steps for each test example), `low`, `high`,
    `beyond`; of a recorded run `measured` (as `values`) at the steps `measured_step`.
    """
    from rich.table import Table

    from simulator.evaluation.selection import evenly_spaced
    from simulator.use_cases.simulate import simulate as simulate_run

    simulated = simulate_run(settings)
    last = simulated.values.size(1) - 1
    steps = evenly_spaced(last + 1, min(last + 1, STEPS if settings.interval is None else STEPS_WITH_BAND))
    table = Table(title=f"{simulated.config}: simulated {simulated.metric}", pad_edge=False)
    for heading in ("test example", *[f"step {step}" for step in steps]):
        table.add_column(heading, justify="right")
    rows = list(_rows(simulated, steps))
    for name, cells, measured in rows:
        table.add_row(name, *cells, end_section=measured is None and name == "mean")
        if measured is not None:
            table.add_row("measured", *measured, end_section=True)
    if len(simulated.test_ids) > len(rows) - 1:
        table.caption = f"{len(rows) - 1} of {len(simulated.test_ids)} test examples; --json writes all"
    show(table)
    for way in simulated.beyond:
        say(f"beyond the runs that the simulator was trained on: {way}")
    write_json(simulated.record(), indent=None)
