"""`gptfluence report --interactive`."""

from __future__ import annotations

from pathlib import Path

from gptdynamics.console import say
from gptdynamics.errors import SettingsError
from simulator.commands.phases import phases


def write_page(dataset: str, output: Path, config: str | None, metric: str, models: list[str], texts: bool) -> None:
    """Write the explorer of these simulators; of none, of a memory and a markov that are trained now."""
    from simulator.reporting.explorer import view_trained_here, views_of, write_explorer

    with phases() as (on_phase, on_progress):
        if models:
            views = views_of(dataset, models, config)
        elif config is not None:
            views = [view_trained_here(dataset, config, metric, on_phase, on_progress)]
        else:
            raise SettingsError("give --models, or --config to train simulators of it here")
        size = write_explorer(output, views, texts)
    say(f"wrote {output}, {size / 2**20:.1f} MiB: open it in a browser")
