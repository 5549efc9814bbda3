"""`gptfluence simulate`."""

from __future__ import annotations

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import say, show
from simulator.commands.results import simulator_for
from simulator.settings.use_cases import SimulateSettings

ROWS = 20
STEPS = 7


def simulate(settings: SimulateSettings, write_json: WriteJson) -> None:
    """Predict the trajectories of a recorded run, or of a curriculum of your own.

    JSON: `config`, `metric`, `test_id`, `step`, `values` (a list of steps for each test example), `low`, `high`,
    `beyond`.
    """
    from rich.table import Table

    from simulator.evaluation.selection import evenly_spaced
    from simulator.use_cases.simulate import simulate as simulate_run

    simulated = simulate_run(simulator_for(settings))
    last = simulated.values.size(1) - 1
    steps = evenly_spaced(last + 1, STEPS)
    table = Table(title=f"{simulated.config}: simulated {simulated.metric}")
    for heading in ("test example", *[f"step {step}" for step in steps]):
        table.add_column(heading, justify="right")
    table.add_row("mean", *[f"{value:.3f}" for value in simulated.values[:, steps].mean(0)], end_section=True)
    for key, values in list(zip(simulated.test_ids, simulated.values[:, steps], strict=True))[:ROWS]:
        table.add_row(str(key), *[f"{value:.3f}" for value in values])
    if len(simulated.test_ids) > ROWS:
        table.caption = f"{ROWS} of {len(simulated.test_ids)} test examples; --json writes all"
    show(table)
    for way in simulated.beyond:
        say(f"beyond the runs that the simulator was trained on: {way}")
    write_json(simulated.record(), indent=None)
