"""What Ray adds to a collection, two workers on this machine: `python benchmarks/ray_overhead.py`.

Both collect the same runs of `mini_sentiment_nano` into new folders, in turns: two worker processes, and two workers
on a Ray cluster of two nodes with a CPU each. The whole of `collect` is timed, from the call to the last file, the
start of the workers and the connection to the cluster included; starting the cluster is not. The median of the rounds'
ratios is what counts: whatever else the machine does slows both down. On a busy machine, look at the CPU time of this
process and all under it, the cluster's own among them, up to the end of the last run.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# As users of an idle machine have it: by default Ray's workers give way to everything else.
os.environ.update({"RAY_worker_niceness": "0"})

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from gptdynamics.collection import CollectSettings, RaySettings, collect
from gptdynamics.collection.ray_cluster import import_ray
from gptdynamics.configs import RunSettings
from gptdynamics.plans import Plan, PlanEntry


def cpu_seconds() -> dict[psutil.Process, float]:
    """Of this process and of each under it that is there."""
    here = psutil.Process()
    found = {}
    for process in [here, *here.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            found[process] = sum(process.cpu_times()[:2])
    return found


def timed(settings: CollectSettings) -> tuple[float, float, float]:
    """Seconds of a collection, of it from the first measured step on, and CPU seconds."""
    steps: list[float] = []
    used: list[dict[psutil.Process, float]] = []
    before, began = cpu_seconds(), time.perf_counter()
    made = collect(
        settings,
        on_step=lambda config: steps.append(time.perf_counter()),
        on_run=lambda run: used.append(cpu_seconds()),
    )
    ended = time.perf_counter()
    expected = sum(entry.runs for entry in settings.plan)
    if len(made.done) != expected:
        raise SystemExit(f"{len(made.done)} of {expected} runs were made")
    # Workers of the collection before may still have been there when this one began.
    spent = sum(seconds - before.get(process, 0.0) for process, seconds in used[-1].items())
    return ended - began, ended - steps[0], spent


def trajectories(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("data/mini_sentiment_nano/*.parquet")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--test-examples", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    import_ray()
    from ray.cluster_utils import Cluster

    run = RunSettings(
        config="mini_sentiment_nano", learning_rate=1e-3, steps=given.steps, test_examples=given.test_examples
    )
    plan = Plan("overhead", (PlanEntry(run, given.runs),))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    ray = RaySettings(cluster.address)
    turns: dict[str, Callable[[Path], CollectSettings]] = {
        "local": lambda out: CollectSettings(plan, out, workers=2, device="cpu"),
        "ray": lambda out: CollectSettings(plan, out, workers=2, device="cpu", ray=ray),
    }
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in turns}
    try:
        for at in range(given.rounds):
            with tempfile.TemporaryDirectory() as folder:
                for name in list(turns)[:: 1 if at % 2 == 0 else -1]:
                    found[name].append(timed(turns[name](Path(folder) / name)))
                if trajectories(Path(folder) / "local") != trajectories(Path(folder) / "ray"):
                    raise SystemExit("the two made different files")
    finally:
        cluster.shutdown()
    table = Table(title=f"{given.runs} runs of {given.steps} steps, {given.rounds} rounds in turns; seconds, medians")
    for heading in ("", "local", "ray", "ray / local", "of the rounds"):
        table.add_column(heading, justify="right" if heading else "left")
    for at, label in enumerate(("whole collection", "from its first step", "CPU, all processes")):
        local, on_ray = (np.array([each[at] for each in found[name]]) for name in turns)
        ratios = on_ray / local
        each = " ".join(f"{ratio:.2f}" for ratio in ratios)
        table.add_row(
            label, *(f"{np.median(values):.1f}" for values in (local, on_ray)), f"{np.median(ratios):.2f}", each
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
