"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PlanOption = Annotated[
    str | None, typer.Option("--plan", help="`paper`, `nano`, or a TOML file: its configs, all or those named.")
]
DataOption = Annotated[
    Path | None, typer.Option(help="Folder with <task>/train.jsonl and eval.jsonl. Default: bundled rows or the Hub.")
]
TaskFileOption = Annotated[
    list[Path] | None, typer.Option("--task-file", help="A Python file with tasks of your own. May be repeated.")
]


def add_task_files(paths: list[Path] | None) -> None:
    """Make the tasks of `--task-file` known."""
    from gptdynamics.tasks import add_task_file

    for path in paths or []:
        add_task_file(path)
