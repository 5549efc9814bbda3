"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gptdynamics.console import print_beside_json
from gptdynamics.outputs import check_output, is_standard_output

PlanOption = Annotated[
    str | None, typer.Option("--plan", help="`paper`, `nano`, or a TOML file: its configs, all or those named.")
]
DataOption = Annotated[
    Path | None, typer.Option(help="Folder with <task>/train.jsonl and eval.jsonl. Default: bundled rows or the Hub.")
]
TaskFileOption = Annotated[
    list[Path] | None, typer.Option("--task-file", help="A Python file with tasks of your own. May be repeated.")
]


def json_option(what: str) -> Any:
    """`--json FILE`: figures as JSON, checked before any work. Where that is standard output, tables go elsewhere.

    Args:
        what: is in the file: an object or a list, with the names of its fields.
    """
    return typer.Option(
        "--json",
        metavar="FILE",
        help=f"Also write this as JSON (- is standard output): {what}",
        callback=_check_json,
    )


def file_option(help: str) -> Any:
    """The name of a file to write, checked before any work.

    Args:
        help: what is written into it.
    """
    return typer.Option(help=help, metavar="FILE", callback=_check_file)


def _check_json(path: Path | None) -> Path | None:
    print_beside_json(is_standard_output(path))
    return _check_file(path)


def _check_file(path: Path | None) -> Path | None:
    if path is not None:
        check_output(path)
    return path


def add_task_files(paths: list[Path] | None) -> None:
    """Make the tasks of `--task-file` known."""
    from gptdynamics.tasks import add_task_file

    for path in paths or []:
        add_task_file(path)
