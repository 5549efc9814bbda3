"""`gptdynamics import` and `gptdynamics export`."""

from __future__ import annotations

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import counted_runs, say
from gptdynamics.interruption import keeps
from gptdynamics.settings.datasets import ExportSettings, ImportSettings


def import_(settings: ImportSettings, dry_run: bool, write_json: WriteJson) -> None:
    """Read runs in the layout of the paper authors' release into a dataset folder.

    JSON: `source`, `out`, `dry_run`, `configs` and `findings` (what was not as it should be).
    """
    from gptdynamics.exchange import import_release

    if not dry_run:
        keeps(f"runs that were imported are kept in {settings.output}")
    with counted_runs() as on_run:
        imported = import_release(settings.release, settings.output, dry_run, on_run, settings.last)
    for config in imported.configs:
        say(config.summary())
        if dry_run:
            for run, folder in config.runs.items():
                say(f"  {run} {folder}")
    write_json(imported)
    for finding in imported.findings:
        say(f"note: {finding}")
    say(f"{imported.runs} runs {'would be ' if dry_run else ''}imported into {settings.output}")


def export(settings: ExportSettings, write_json: WriteJson) -> None:
    """Write runs in the layout of the paper authors' release, so that their code reads them.

    JSON: `source`, `out`, `runs` (their folders), `files` and `findings` (what the layout has no place for).
    """
    from gptdynamics.exchange import export_release

    keeps(f"runs that were written are kept in {settings.output}")
    with counted_runs() as on_run:
        exported = export_release(settings.dataset, settings.output, settings.config, on_run)
    write_json(exported)
    for finding in exported.findings:
        say(f"note: {finding}")
    say(f"{len(exported.runs)} runs and {len(exported.files)} files of examples in {settings.output}")
