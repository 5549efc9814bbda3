"""`gptfluence simulate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import say, show
from simulator.settings.use_cases import SimulateSettings

if TYPE_CHECKING:
    from simulator.use_cases.simulate import SimulatedRun

ROWS = 20
STEPS = 7
# With a band, three numbers share a column.
STEPS_WITH_BAND = 3


def _cell(simulated: SimulatedRun, place: int, step: int) -> str:
    """A predicted value, with its band where one is asked for."""
    value = f"{simulated.values[place, step]:.3f}"
    if simulated.low is None or simulated.high is None:
        return value
    return f"{value} [{simulated.low[place, step]:.3f}, {simulated.high[place, step]:.3f}]"


def simulate(settings: SimulateSettings, write_json: WriteJson) -> None:
    """Predict the trajectories of a recorded run, or of a curriculum of your own.

    JSON: `config`, `metric`, `test_id`, `step`, `values` (a list of steps for each test example), `low`, `high`,
    `beyond`, `measured` (of a recorded run, means by step).
    """
    from rich.table import Table

    from simulator.evaluation.selection import evenly_spaced
    from simulator.use_cases.simulate import simulate as simulate_run

    simulated = simulate_run(settings)
    last = simulated.values.size(1) - 1
    steps = evenly_spaced(last + 1, min(last + 1, STEPS if settings.interval is None else STEPS_WITH_BAND))
    table = Table(title=f"{simulated.config}: simulated {simulated.metric}")
    for heading in ("test example", *[f"step {step}" for step in steps]):
        table.add_column(heading, justify="right")
    table.add_row("mean", *[f"{value:.3f}" for value in simulated.values[:, steps].mean(0)])
    if simulated.measured is not None:
        values = [simulated.measured.get(step) for step in steps]
        means = ["-" if each is None else f"{each:.3f}" for each in values]
        table.add_row("mean, measured", *means, end_section=True)
    for place, key in enumerate(simulated.test_ids[:ROWS]):
        table.add_row(str(key), *[_cell(simulated, place, step) for step in steps])
    if len(simulated.test_ids) > ROWS:
        table.caption = f"{ROWS} of {len(simulated.test_ids)} test examples; --json writes all"
    show(table)
    for way in simulated.beyond:
        say(f"beyond the runs that the simulator was trained on: {way}")
    write_json(simulated.record(), indent=None)
