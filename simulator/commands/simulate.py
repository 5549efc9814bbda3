"""`gptfluence simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from gptdynamics.commands.options import json_option
from gptdynamics.console import say, show
from simulator.settings.use_cases import SimulateSettings

ROWS = 20
STEPS = 7


def simulate(
    settings: SimulateSettings,
    json_file: Annotated[
        Path | None,
        json_option(
            "`config`, `metric`, `test_id`, `step`, `values` (a list of steps for each test example), `low`, `high`, "
            "`beyond`."
        ),
    ] = None,
) -> None:
    """Predict the trajectories of a recorded run, or of a curriculum of your own."""
    from rich.table import Table

    from gptdynamics.outputs import write_output_json
    from simulator.evaluation.selection import evenly_spaced
    from simulator.use_cases.simulate import simulate as simulate_run

    found = simulate_run(settings)
    last = found.values.size(1) - 1
    steps = evenly_spaced(last + 1, STEPS)
    table = Table(title=f"{found.config}: simulated {found.metric}")
    for heading in ("test example", *[f"step {step}" for step in steps]):
        table.add_column(heading, justify="right")
    table.add_row("mean", *[f"{value:.3f}" for value in found.values[:, steps].mean(0)], end_section=True)
    for key, values in list(zip(found.test_ids, found.values[:, steps], strict=True))[:ROWS]:
        table.add_row(str(key), *[f"{value:.3f}" for value in values])
    if len(found.test_ids) > ROWS:
        table.caption = f"{ROWS} of {len(found.test_ids)} test examples; --json writes all"
    show(table)
    for way in found.beyond:
        say(f"beyond the runs that the simulator was trained on: {way}")
    if json_file is not None:
        write_output_json(json_file, found.record(), indent=None)
        say(f"wrote {json_file}")
