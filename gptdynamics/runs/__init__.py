"""Single runs: the bench they share, the update loop, measurement after every update, and worker processes.

Names are imported when they are first asked for: who only reads runs does not wait for what trains them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptdynamics.lazy import lazy_names

if TYPE_CHECKING:
    from gptdynamics.runs.bench import Bench, BenchContents
    from gptdynamics.runs.run import Run, RunTiming
    from gptdynamics.runs.training import train_run

__all__ = ["Bench", "BenchContents", "Run", "RunTiming", "train_run"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Bench": "gptdynamics.runs.bench",
        "BenchContents": "gptdynamics.runs.bench",
        "Run": "gptdynamics.runs.run",
        "RunTiming": "gptdynamics.runs.run",
        "train_run": "gptdynamics.runs.training",
    },
)
