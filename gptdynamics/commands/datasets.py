"""`gptdynamics plan`, `status`, `verify`, `import` and `export`."""

from __future__ import annotations

import sys

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import counted_runs, say, say_error, show
from gptdynamics.interruption import keeps
from gptdynamics.settings.datasets import ExportSettings, ImportSettings, PlanSettings, StatusSettings, VerifySettings


def plan(settings: PlanSettings, write_json: WriteJson) -> None:
    """Show the runs of a plan: configs, splits, hyper-parameters.

    JSON: `plan`, `runs`, `hours` and `configs`, each with `config`, `runs`, `splits`, `settings`, `updates`, `hours`;
    with --each a list of runs: `config`, `run`, `split`, `settings` of the config.
    """
    from gptdynamics.plans import read_plan
    from gptdynamics.plans.table import plan_record, plan_table, run_lines, run_records

    plan_read = read_plan(settings.plan)
    if settings.each:
        write_json(run_records(plan_read))
        for line in run_lines(plan_read):
            say(line)
        return
    hours: dict[str, float] = {}
    if settings.throughput is not None:
        from gptdynamics import estimates

        rate = estimates.throughput(settings.throughput)
        hours = dict(estimates.plan_hours(plan_read, rate, settings.throughput))
    write_json(plan_record(plan_read, hours))
    show(plan_table(plan_read, hours))
    say(f"{len(plan_read.entries)} configs, {plan_read.runs} runs; splits are train/validation/test(/unseen data)")
    if hours:
        total = sum(hours.values())
        say(f"{total:.3g} hours on one device at {rate:.3g} TFLOP/s (estimate; real runs may take longer)")


def status(settings: StatusSettings, write_json: WriteJson) -> None:
    """Show the status of a collection: runs done, running, failed and missing, and the time left.

    JSON: a list of configs: `config`, `planned`, `done`, `running`, `missing`, `extra`, `failed`, `splits`,
    `projecting`, `seconds`, `seconds_left`.
    """
    from gptdynamics.dataset.status import folder_status, status_notes, status_table
    from gptdynamics.plans import read_plan

    statuses = folder_status(settings.dataset, None if settings.plan is None else read_plan(settings.plan))
    write_json([config_status.to_dict() for config_status in statuses])
    show(status_table(statuses))
    for line in status_notes(statuses):
        say(line)


def verify(settings: VerifySettings, write_json: WriteJson) -> None:
    """Check every file of a dataset against its settings, and list all faults.

    JSON: `source`, `ok`, `configs`, `runs`, `rows`, `missing`, `failed`, `running` and `faults`, each with `file`,
    `where`, `what`, `remedy`.
    """
    from gptdynamics.dataset.verify import verify as verify_dataset

    with counted_runs() as on_run:
        checked = verify_dataset(settings.dataset, on_run)
    write_json(checked.to_dict())
    for line in checked.summary():
        say(line)
    for fault in checked.faults:
        say_error(f"error: {fault}")
    if not checked.ok:
        sys.exit(1)


def import_(settings: ImportSettings, dry_run: bool, write_json: WriteJson) -> None:
    """Import runs in the layout of the paper authors' release into a dataset folder.

    JSON: `source`, `out`, `dry_run`, `configs` and `findings` (problems in the release).
    """
    from gptdynamics.exchange import import_release

    if not dry_run:
        keeps(f"imported runs are kept in {settings.output}")
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
    """Export runs in the layout of the paper authors' release, so that their code can read them.

    JSON: `source`, `out`, `runs` (their folders), `files` and `findings` (what the layout cannot represent).
    """
    from gptdynamics.exchange import export_release

    keeps(f"exported runs are kept in {settings.output}")
    with counted_runs() as on_run:
        exported = export_release(settings.dataset, settings.output, settings.config, on_run)
    write_json(exported)
    for finding in exported.findings:
        say(f"note: {finding}")
    say(f"{len(exported.runs)} runs and {len(exported.files)} files of examples in {settings.output}")
