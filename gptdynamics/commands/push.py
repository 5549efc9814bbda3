"""`gptdynamics push` and `gptdynamics push-base`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from gptdynamics.commands.options import json_option, say_pushed
from gptdynamics.console import say, say_error
from gptdynamics.interruption import keeps
from gptdynamics.outputs import write_output_json
from gptdynamics.settings.datasets import PushBaseSettings, PushSettings


def push(
    settings: PushSettings,
    json_file: Annotated[
        Path | None,
        json_option("`repository`, `created`, `runs`, `files`, `size` (bytes), `sha`, `url`, `notes`."),
    ] = None,
) -> None:
    """Add the finished runs of a folder to a dataset repository on the Hub, in one commit."""
    from gptdynamics.hub.push import push as push_folder

    keeps("what was uploaded is kept")
    pushed = push_folder(
        settings.dataset, settings.repo, settings, lambda reason: say_error(f"note: {reason}; trying again")
    )
    if json_file is not None:
        write_output_json(json_file, pushed.to_dict())
    for note in pushed.notes:
        say_error(f"note: {note}")
    if settings.dry_run:
        for path in pushed.files:
            say(path)
    would = "would go" if settings.dry_run else "went"
    new = " (a new repository)" if pushed.created else ""
    counts = f"{len(pushed.runs)} runs, {len(pushed.files)} files, {pushed.size / 2**20:.2f} MiB"
    say(f"{counts} {would} to {settings.repo}{new}")
    if pushed.url is not None:
        say(pushed.url)


def push_base(
    settings: PushBaseSettings,
    json_file: Annotated[
        Path | None, json_option("`repository`, `created`, `files`, `size` (bytes), `sha`, `url`.")
    ] = None,
) -> None:
    """Publish a base model, so that others can start runs from it."""
    from gptdynamics.hub.model_push import push_base as push_model
    from gptdynamics.nano import MODEL_FOLDER

    keeps("what was uploaded is kept")
    pushed = push_model(settings.repo, settings.folder or MODEL_FOLDER, settings.private)
    if json_file is not None:
        write_output_json(json_file, pushed.to_dict())
    say_pushed(pushed, settings.repo)
