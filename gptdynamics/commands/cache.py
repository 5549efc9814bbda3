"""`gptdynamics cache`."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import say, show
from gptdynamics.errors import SettingsError
from gptdynamics.settings.cache import CacheSettings

if TYPE_CHECKING:
    from gptdynamics.cache import Usage


def cache(settings: CacheSettings, write_json: WriteJson) -> None:
    """List or clear the cache of results between commands, in $GPTDYNAMICS_CACHE or ~/.cache/gptdynamics.

    JSON: `folder`, `cleared`, and `kinds`, each with `kind`, `holds`, `entries`, `size` (bytes), `last_use`.
    """
    from rich.table import Table

    from gptdynamics.cache import cache_folder, clear, usage

    used = usage()
    unknown = sorted(set(settings.kind) - {folder_usage.kind for folder_usage in used})
    if unknown:
        names = ", ".join(folder_usage.kind for folder_usage in used)
        raise SettingsError(f"{cache_folder()} has no kind {unknown[0]!r}; it has: {names}")
    used = [folder_usage for folder_usage in used if not settings.kind or folder_usage.kind in settings.kind]
    table = Table("kind", "holds", "last use")
    for name in ("entries", "MiB"):
        table.add_column(name, justify="right")
    for folder_usage in used:
        table.add_row(
            folder_usage.kind,
            folder_usage.holds,
            _last_use(folder_usage) or "-",
            str(folder_usage.entries),
            _mebibytes(folder_usage.size),
        )
    show(table)
    entries, size = sum(folder_usage.entries for folder_usage in used), sum(folder_usage.size for folder_usage in used)
    total = f"{entries} entries, {_mebibytes(size)} MiB"
    if settings.clear:
        _ask(f"Clear {total} in {cache_folder()}?", settings.yes)
        clear(used)
    say(f"{total} {'cleared from' if settings.clear else 'in'} {cache_folder()}")
    kinds = [
        {
            "kind": folder_usage.kind,
            "holds": folder_usage.holds,
            "entries": folder_usage.entries,
            "size": folder_usage.size,
        }
        | {"last_use": _last_use(folder_usage)}
        for folder_usage in used
    ]
    write_json({"folder": str(cache_folder()), "cleared": settings.clear, "kinds": kinds})


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise SettingsError("nothing was cleared: there is no terminal for the confirmation. Give --yes")
    import typer

    typer.confirm(question, abort=True, err=True)


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.2f}"


def _last_use(used: Usage) -> str | None:
    return None if used.last_use is None else datetime.fromtimestamp(used.last_use).isoformat(" ", "seconds")
