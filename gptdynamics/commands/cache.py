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
    """List what is kept between commands, in $GPTDYNAMICS_CACHE or ~/.cache/gptdynamics, or clear it.

    JSON: `folder`, `cleared`, and `kinds`, each with `kind`, `holds`, `entries`, `size` (bytes), `last_use`.
    """
    from rich.table import Table

    from gptdynamics.cache import cache_folder, clear, usage

    used = usage()
    unknown = sorted(set(settings.kind) - {each.kind for each in used})
    if unknown:
        names = ", ".join(each.kind for each in used)
        raise SettingsError(f"no kind {unknown[0]!r} in {cache_folder()}: there are {names}")
    used = [each for each in used if not settings.kind or each.kind in settings.kind]
    table = Table("kind", "holds", "last use")
    for name in ("entries", "MiB"):
        table.add_column(name, justify="right")
    for each in used:
        table.add_row(each.kind, each.holds, _last_use(each) or "-", str(each.entries), _mebibytes(each.size))
    show(table)
    total = f"{sum(each.entries for each in used)} entries, {_mebibytes(sum(each.size for each in used))} MiB"
    if settings.clear:
        _ask(f"Clear {total} in {cache_folder()}?", settings.yes)
        clear(used)
    say(f"{total} {'cleared from' if settings.clear else 'in'} {cache_folder()}")
    kinds = [
        {"kind": each.kind, "holds": each.holds, "entries": each.entries, "size": each.size}
        | {"last_use": _last_use(each)}
        for each in used
    ]
    write_json({"folder": str(cache_folder()), "cleared": settings.clear, "kinds": kinds})


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise SettingsError("nothing was cleared: there is no terminal to ask on. Give --yes")
    import typer

    typer.confirm(question, abort=True, err=True)


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.2f}"


def _last_use(used: Usage) -> str | None:
    return None if used.last_use is None else datetime.fromtimestamp(used.last_use).isoformat(" ", "seconds")
