"""Hours that a plan takes, from a few of its runs: `python benchmarks/release_hours.py --data ../shared/data/tasks`.

Makes run 0000 of every config, and run 0004 (the first held-out one) where held-out runs record gradients, one after
another with one thread, and adds up what all runs of the plan then take. Seconds are CPU time: a worker with a core of
its own takes as long on the clock. Beside it the same by arithmetic, as `gptdynamics plan --throughput` does it, with
the rate of a matrix product measured just before each run. Configs whose base model is not there are left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from gptdynamics.dataset import DatasetFolder
from gptdynamics.errors import SettingsError
from gptdynamics.estimates import base_shape, run_flops, task_lengths
from gptdynamics.estimates.throughput import CPU_UTILISATION, matmul_rate
from gptdynamics.plans import PlanEntry, read_plan
from gptdynamics.runs import Bench
from gptdynamics.tasks import get_task

Result = TypeVar("Result")


def predicted_seconds(entry: PlanEntry, follows: bool) -> float:
    """Of one run, at this moment's rate of a matrix product."""
    settings = entry.settings
    lengths = task_lengths(get_task(settings.task), settings.base)
    flops = run_flops(base_shape(settings.base), settings, lengths, follows)
    return flops.seconds(matmul_rate(seconds=0.2) * 1e12 * CPU_UTILISATION)


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """CPU seconds and what came of it."""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--plan", default="nano", help="`nano`, `paper`, or a TOML file")
    parser.add_argument("--data", type=Path, help="folder with <task>/train.jsonl and eval.jsonl")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="keep the runs in this dataset folder")
    parser.add_argument("configs", nargs="*", help="only these")
    given = parser.parse_args()
    console = Console(width=120, highlight=False)
    plan = read_plan(given.plan)
    plan = plan.only(given.configs) if given.configs else plan
    line = "{:20} {:>5} {:>9} {:>9} {:>9} {:>11} {:>14} {:>10}"
    console.print(
        line.format("config", "runs", "run, s", "held-out", "vectors", "all, hours", "by arithmetic", "predicted")
    )
    total = 0.0
    for entry in plan:
        settings = entry.settings
        try:
            bench = Bench.load(settings, given.data, entry.unseen_runs > 0)
        except SettingsError as error:
            console.print(f"{entry.config}: left out: {error}")
            continue
        recorded = sum(settings.follows_gradients(name) for name in entry.run_names)
        kinds = [("0000", len(entry.run_names) - recorded, False)] + ([("0004", recorded, True)] if recorded else [])
        seconds: dict[str, float] = {}
        by_arithmetic: dict[str, float] = {}
        for name, _, follows in kinds:
            by_arithmetic[name] = predicted_seconds(entry, follows)
            seconds[name], run = timed(partial(bench.run, name))
            if given.out:
                base = (bench.base.name, bench.base.revision)
                DatasetFolder(given.out).add_run(settings, base, bench.test, run)
        vectors = timed(bench.vectors)[0] if settings.gradients != "none" else 0.0
        hours, predicted = (
            sum(count * each[name] for name, count, _ in kinds) / 3600 for each in (seconds, by_arithmetic)
        )
        hours += vectors / 3600
        total += hours
        shown = f"{seconds['0004']:.1f}" if recorded else ""
        console.print(
            line.format(
                entry.config,
                len(entry.run_names),
                f"{seconds['0000']:.1f}",
                shown,
                f"{vectors:.1f}" if vectors else "",
                f"{hours:.3f}",
                f"{predicted:.3f}",
                f"{predicted / hours:.2f}",
            )
        )
    console.print(
        f"{total:.2f} hours of one core, {60 * total / given.workers:.0f} minutes with {given.workers} workers"
    )


if __name__ == "__main__":
    main()
