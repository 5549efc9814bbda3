"""`gptdynamics push` and `gptdynamics push-base`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import say, say_error
from gptdynamics.interruption import keeps
from gptdynamics.settings.datasets import PushBaseSettings, PushSettings

if TYPE_CHECKING:
    from gptdynamics.hub.push import Pushed


def push(settings: PushSettings, write_json: WriteJson) -> None:
    """Add the finished runs of a folder to a dataset repository on the Hub, in one commit.

    JSON: `repository`, `created`, `runs`, `files`, `size` (bytes), `sha`, `url`, `notes`.
    """
    from gptdynamics.hub.push import push as push_folder

    keeps("uploaded files are kept")
    pushed = push_folder(
        settings.dataset, settings.repo, settings, lambda reason: say_error(f"note: {reason}; trying again")
    )
    write_json(pushed.to_dict())
    for note in pushed.notes:
        say_error(f"note: {note}")
    if settings.dry_run:
        for path in pushed.files:
            say(path)
    action = "would be pushed" if settings.dry_run else "pushed"
    new = " (a new repository)" if pushed.created else ""
    counts = f"{len(pushed.runs)} runs, {len(pushed.files)} files, {pushed.size / 2**20:.2f} MiB"
    say(f"{counts} {action} to {settings.repo}{new}")
    if pushed.url is not None:
        say(pushed.url)


def say_pushed(pushed: Pushed, repo: str) -> None:
    """Print what was pushed to a repository."""
    say(f"{len(pushed.files)} files, {pushed.size / 2**20:.2f} MiB pushed to {repo}")
    if pushed.url is not None:
        say(pushed.url)


def push_base(settings: PushBaseSettings, write_json: WriteJson) -> None:
    """Publish a base model, so that other users can start runs from it.

    JSON: `repository`, `created`, `files`, `size` (bytes), `sha`, `url`.
    """
    from gptdynamics.hub.model_push import push_base as push_model
    from gptdynamics.models.nano import MODEL_FOLDER

    keeps("uploaded files are kept")
    pushed = push_model(settings.repo, settings.folder or MODEL_FOLDER, settings.private)
    write_json(pushed.to_dict())
    say_pushed(pushed, settings.repo)
