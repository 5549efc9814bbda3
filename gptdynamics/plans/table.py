"""A plan printed: a table of its configs, or a line for each run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gptdynamics.configs import SPLITS, SPLITS_ON_REQUEST, split_of
from gptdynamics.plans.plan import Plan

if TYPE_CHECKING:
    from rich.table import Table


def plan_table(plan: Plan, hours: Mapping[str, float] | None = None) -> Table:
    """A row for each config: runs and their splits, examples a run draws from the pool, estimated `hours` by config."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0))
    table.add_column("config", no_wrap=True)
    for heading in ("runs", "splits", "subset", "batch", "steps", "rate", "tests", *(["hours"] if hours else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in plan:
        run = entry.settings
        splits = Counter(split_of(name) for name in entry.run_names)
        table.add_row(
            entry.config,
            str(len(entry.run_names)),
            "/".join(str(splits[split]) for split in SPLITS if splits[split] or split not in SPLITS_ON_REQUEST),
            f"{run.examples}/{len(run.pool_ids)}",
            str(run.batch_size),
            str(run.run_steps),
            f"{run.learning_rate:.0e}".replace("e-0", "e-") + (f" L{run.lora_rank}" if run.lora_rank else ""),
            str(run.test_examples),
            *([f"{hours[entry.config]:.3g}"] if hours else []),
        )
    return table


def plan_record(plan: Plan, hours: Mapping[str, float] | None = None) -> dict[str, Any]:
    """The same as plain values, for JSON, with every setting of each config."""
    hours = hours or {}
    configs = [
        {
            "config": entry.config,
            "runs": len(entry.run_names),
            "splits": dict(Counter(split_of(name) for name in entry.run_names)),
            "updates": entry.settings.run_steps,
            "settings": entry.settings.to_dict(),
            "hours": hours.get(entry.config),
        }
        for entry in plan
    ]
    total = sum(hours.values()) if hours else None
    return {"plan": plan.name, "runs": plan.runs, "hours": total, "configs": configs}


def run_records(plan: Plan) -> list[dict[str, Any]]:
    """Plain values for each run, for JSON: config, name, split, and the settings of its config."""
    return [
        {"config": entry.config, "run": name, "split": split_of(name), "settings": entry.settings.to_dict()}
        for entry in plan
        for name in entry.run_names
    ]


def run_lines(plan: Plan) -> Iterator[str]:
    """A line for each run: config, name, split, seed, base model, learning rate, updates."""
    for entry in plan:
        run = entry.settings
        for name in entry.run_names:
            yield (
                f"{entry.config}\t{name}\t{split_of(name)}\tseed {run.seed}\t{run.base}\t"
                f"{run.learning_rate:g}\t{run.run_steps} updates of {run.batch_size}"
            )
