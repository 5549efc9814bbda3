"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gptdynamics.console import print_beside_json, say
from gptdynamics.outputs import check_output, is_standard_output

if TYPE_CHECKING:
    from gptdynamics.hub.push import Pushed


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


def dry_run_option(what: str) -> Any:
    """`--dry-run`.

    Args:
        what: would happen, e.g. `done`.
    """
    return typer.Option("--dry-run", help=f"Say what would be {what}, and stop.")


def say_pushed(pushed: Pushed, repo: str) -> None:
    """Say what went to a repository."""
    say(f"{len(pushed.files)} files, {pushed.size / 2**20:.2f} MiB went to {repo}")
    if pushed.url is not None:
        say(pushed.url)


def _check_json(path: Path | None) -> Path | None:
    print_beside_json(is_standard_output(path))
    if path is not None:
        check_output(path)
    return path
