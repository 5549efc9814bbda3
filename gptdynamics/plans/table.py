"""A plan for reading: a table of its configs, or a line for each run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gptdynamics.configs import SPLITS, split_of
from gptdynamics.plans.plan import Plan

if TYPE_CHECKING:
    from rich.table import Table


def plan_table(plan: Plan) -> Table:
    """A row for each config: runs by split, hyper-parameters, what is followed."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("config")
    for heading in ("runs", "train/val/test", "subset", "batch", "epochs", "steps", "rate", "test"):
        table.add_column(heading, justify="right")
    for entry in plan:
        run = entry.settings
        splits = Counter(split_of(name) for name in entry.run_names)
        shown = "/".join(str(splits[split]) for split in SPLITS if splits[split] or split != "test_unseen")
        table.add_row(
            entry.config,
            str(len(entry.run_names)),
            shown,
            f"{run.examples} of {len(run.pool_ids)}",
            str(run.batch_size),
            str(run.epochs),
            str(run.run_steps),
            f"{run.learning_rate:g}" + (f" (LoRA {run.lora_rank})" if run.lora_rank else ""),
            str(run.test_examples),
        )
    return table


def run_lines(plan: Plan) -> Iterator[str]:
    """A line for each run: config, name, split, seed, base model, learning rate, updates."""
    for entry in plan:
        run = entry.settings
        for name in entry.run_names:
            yield (
                f"{entry.config}\t{name}\t{split_of(name)}\tseed {run.seed}\t{run.base}\t"
                f"{run.learning_rate:g}\t{run.run_steps} updates of {run.batch_size}"
            )
