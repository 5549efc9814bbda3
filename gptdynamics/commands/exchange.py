"""`gptdynamics import` and `gptdynamics export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from gptdynamics.commands.options import dry_run_option, json_option
from gptdynamics.console import counted_runs, say
from gptdynamics.interruption import keeps
from gptdynamics.outputs import write_output_json
from gptdynamics.settings.datasets import ExportSettings, ImportSettings


def import_(
    settings: ImportSettings,
    dry_run: Annotated[bool, dry_run_option("imported")] = False,
    json_file: Annotated[
        Path | None, json_option("`source`, `out`, `dry_run`, `configs` and `findings` (what was not as it should be).")
    ] = None,
) -> None:
    """Read runs in the layout of the paper authors' release into a dataset folder."""
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
    if json_file is not None:
        write_output_json(json_file, imported.to_dict())
    for finding in imported.findings:
        say(f"note: {finding}")
    say(f"{imported.runs} runs {'would be ' if dry_run else ''}imported into {settings.output}")


def export(
    settings: ExportSettings,
    json_file: Annotated[
        Path | None,
        json_option(
            "`source`, `out`, `runs` (their folders), `files` and `findings` (what the layout has no place for)."
        ),
    ] = None,
) -> None:
    """Write runs in the layout of the paper authors' release, so that their code reads them."""
    from gptdynamics.exchange import export_release

    keeps(f"runs that were written are kept in {settings.output}")
    with counted_runs() as on_run:
        exported = export_release(settings.dataset, settings.output, settings.config, on_run)
    if json_file is not None:
        write_output_json(json_file, exported.to_dict())
    for finding in exported.findings:
        say(f"note: {finding}")
    say(f"{len(exported.runs)} runs and {len(exported.files)} files of examples in {settings.output}")
