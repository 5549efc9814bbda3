"""`gptfluence report`."""

from __future__ import annotations

from gptdynamics.console import say
from gptdynamics.interruption import keeps
from simulator.commands.phases import phases
from simulator.settings.evaluate import ReportSettings


def report(settings: ReportSettings) -> None:
    """Write one self-contained page: the table, and true against predicted trajectories; or the explorer."""
    from simulator.reporting.report import write_report

    keeps("encodings are kept, scores are not")
    with phases() as (on_phase, on_progress):
        size = write_report(settings, on_phase, on_progress)
    if size is not None:
        say(f"wrote {settings.output}, {size / 2**20:.1f} MiB: open it in a browser")
    else:
        say(f"wrote {settings.output}")
    if settings.figure is not None:
        say(f"wrote {settings.figure}")
