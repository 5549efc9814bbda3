"""The `gptdynamics` command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptdynamics.commands.collect import collect
from gptdynamics.commands.options import PlanOption, TaskFileOption, add_task_files, json_option
from gptdynamics.console import progress_bar, run_process, say, say_error, show
from gptdynamics.interruption import keeps

if TYPE_CHECKING:
    from gptdynamics.exchange import Finding

app = typer.Typer(
    help="Build and read GPTDynamics datasets: what fine-tuning does to every test example, step by step.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def plan(
    name: Annotated[str, typer.Option("--plan", help="`paper`, `nano`, or a TOML file.")] = "paper",
    each: Annotated[bool, typer.Option("--each", help="List every run with its split and seed.")] = False,
    throughput: Annotated[
        str | None, typer.Option(help="Estimate hours on v100, a100, h100, this machine's cpu, or at so many TFLOP/s.")
    ] = None,
    task_file: TaskFileOption = None,
    json_file: Annotated[
        Path | None,
        json_option(
            "`plan`, `runs`, `hours` and `configs`, each with `config`, `runs`, `splits`, `settings`, `updates`, "
            "`hours`; with --each a list of runs: `config`, `run`, `split`, `settings` of the config."
        ),
    ] = None,
) -> None:
    """Show the runs of a plan: configs, splits, hyper-parameters."""
    from gptdynamics.plans import read_plan
    from gptdynamics.plans.table import plan_record, plan_table, run_lines, run_records

    add_task_files(task_file)
    chosen = read_plan(name)
    if each:
        _write_json(json_file, run_records(chosen))
        for line in run_lines(chosen):
            say(line)
        return

    hours: dict[str, float] = {}
    if throughput is not None:
        from gptdynamics import estimates

        rate = estimates.throughput(throughput)
        hours = dict(estimates.plan_hours(chosen, rate))
    _write_json(json_file, plan_record(chosen, hours))
    show(plan_table(chosen, hours))
    say(f"{len(chosen.entries)} configs, {chosen.runs} runs; splits are train/validation/test(/unseen data)")
    if hours:
        total = sum(hours.values())
        say(f"{total:.3g} hours on one device at {rate:.3g} TFLOP/s, by arithmetic: real runs may take longer")


app.command()(collect)


@app.command()
def status(
    out: Annotated[Path, typer.Argument(help="Dataset folder that is collected into.")],
    plan: PlanOption = None,
    task_file: TaskFileOption = None,
    json_file: Annotated[
        Path | None,
        json_option(
            "a list of configs: `config`, `planned`, `done`, `running`, `missing`, `extra`, `failed`, `splits`, "
            "`projecting`, `seconds`, `seconds_left`."
        ),
    ] = None,
) -> None:
    """Show how far a collection is: runs done, running, failed and missing, and the time left."""

    from gptdynamics.dataset.status import folder_status, status_notes, status_table
    from gptdynamics.plans import read_plan

    add_task_files(task_file)
    statuses = folder_status(out, None if plan is None else read_plan(plan))
    _write_json(json_file, [each.to_dict() for each in statuses])
    show(status_table(statuses))
    for line in status_notes(statuses):
        say(line)


@app.command()
def verify(
    source: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset folder or Hub id.")],
    task_file: TaskFileOption = None,
    json_file: Annotated[
        Path | None,
        json_option(
            "`source`, `ok`, `configs`, `runs`, `rows`, `missing`, `failed`, `running` and `faults`, each with `file`, "
            "`where`, `what`, `remedy`."
        ),
    ] = None,
) -> None:
    """Check every file of a dataset against its settings, and name all that is wrong."""

    from gptdynamics.dataset.verify import verify as verify_dataset

    add_task_files(task_file)
    with progress_bar() as progress:
        bar = progress.add_task("runs", total=None)
        found = verify_dataset(source, lambda done, total: progress.update(bar, completed=done, total=total))
    _write_json(json_file, found.to_dict())
    for line in found.summary():
        say(line)
    for fault in found.faults:
        say_error(f"error: {fault}")
    if not found.ok:
        raise typer.Exit(1)


@app.command("import")
def import_(
    root: Annotated[str, typer.Argument(help="Folder of a release in the paper authors' layout, or its Hub id.")],
    out: Annotated[Path, typer.Option(help="Dataset folder to write to, or to go on with.")],
    task_file: TaskFileOption = None,
    json_file: Annotated[
        Path | None, json_option("`source`, `out`, `dry_run`, `configs` and `findings` (what was not as it should be).")
    ] = None,
    last: Annotated[
        bool, typer.Option("--last", help="Where a step occurs with different values or batches, take the last.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be imported, and stop.")] = False,
) -> None:
    """Read runs in the layout of the paper authors' release into a dataset folder."""
    from gptdynamics.exchange import import_release

    add_task_files(task_file)
    if not dry_run:
        keeps(f"runs that were imported are kept in {out}")
    with progress_bar() as progress:
        bar = progress.add_task("runs", total=None)
        imported = import_release(
            root, out, dry_run, lambda done, total: progress.update(bar, completed=done, total=total), last
        )
    for config in imported.configs:
        say(config.summary())
        if dry_run:
            for run, folder in config.runs.items():
                say(f"  {run} {folder}")
    _echo_findings(imported.findings, imported.to_dict(), json_file)
    say(f"{imported.runs} runs {'would be ' if dry_run else ''}imported into {out}")


@app.command()
def export(
    source: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset folder or Hub id.")],
    out: Annotated[Path, typer.Option(help="Folder to write the release to.")],
    config: Annotated[list[str] | None, typer.Option(help="Only this config. May be repeated.")] = None,
    task_file: TaskFileOption = None,
    json_file: Annotated[
        Path | None,
        json_option(
            "`source`, `out`, `runs` (their folders), `files` and `findings` (what the layout has no place for)."
        ),
    ] = None,
) -> None:
    """Write runs in the layout of the paper authors' release, so that their code reads them."""
    from gptdynamics.exchange import export_release

    add_task_files(task_file)
    keeps(f"runs that were written are kept in {out}")
    with progress_bar() as progress:
        bar = progress.add_task("runs", total=None)
        exported = export_release(
            source, out, config or (), lambda done, total: progress.update(bar, completed=done, total=total)
        )
    _echo_findings(exported.findings, exported.to_dict(), json_file)
    say(f"{len(exported.runs)} runs and {len(exported.files)} files of examples in {out}")


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="Dataset folder.")],
    repo: Annotated[str, typer.Argument(help="Dataset repository <owner>/<name>; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository a private one.")] = False,
    branch: Annotated[str, typer.Option(help="Branch to change; made from main if it is not there.")] = "main",
    tag: Annotated[str | None, typer.Option(help="Name the commit.")] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Open a pull request instead of changing the branch.")
    ] = False,
    no_texts: Annotated[
        bool, typer.Option("--no-texts", help="Leave out texts of tasks whose rows are not our own.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Let runs take the place of others of the same name and settings.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go up, and stop.")] = False,
    json_file: Annotated[
        Path | None,
        json_option("`repository`, `created`, `runs`, `files`, `size` (bytes), `sha`, `url`, `notes`."),
    ] = None,
    task_file: TaskFileOption = None,
) -> None:
    """Add the finished runs of a folder to a dataset repository on the Hub, in one commit."""

    from gptdynamics.hub.push import PushOptions
    from gptdynamics.hub.push import push as push_folder

    add_task_files(task_file)
    keeps("what was uploaded is kept")
    options = PushOptions(private, branch, tag, create_pr, no_texts, replace, dry_run)
    pushed = push_folder(folder, repo, options, lambda reason: say_error(f"note: {reason}; trying again"))
    _write_json(json_file, pushed.to_dict())
    for note in pushed.notes:
        say_error(f"note: {note}")
    if dry_run:
        for path in pushed.files:
            say(path)
    would = "would go" if dry_run else "went"
    new = " (a new repository)" if pushed.created else ""
    say(f"{len(pushed.runs)} runs, {len(pushed.files)} files, {pushed.size / 2**20:.2f} MiB {would} to {repo}{new}")
    if pushed.url is not None:
        say(pushed.url)


@app.command("push-base")
def push_base(
    repo: Annotated[str, typer.Argument(help="Model repository <owner>/<name>; made if it is not there.")],
    folder: Annotated[
        Path | None, typer.Option(help="Folder of a base model of your own.", show_default="the bundled nano")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository a private one.")] = False,
    json_file: Annotated[
        Path | None, json_option("`repository`, `created`, `files`, `size` (bytes), `sha`, `url`.")
    ] = None,
) -> None:
    """Publish a base model, so that others can start runs from it."""
    from gptdynamics.hub.model_push import push_base as push_model
    from gptdynamics.nano import MODEL_FOLDER

    keeps("what was uploaded is kept")
    pushed = push_model(repo, folder or MODEL_FOLDER, private)
    _write_json(json_file, pushed.to_dict())
    say(f"{len(pushed.files)} files, {pushed.size / 2**20:.2f} MiB went to {repo}")
    if pushed.url is not None:
        say(pushed.url)


def _echo_findings(findings: list[Finding], report: dict[str, Any], json_file: Path | None) -> None:
    """A line for each thing that could not be taken over as it is, and everything as JSON."""

    _write_json(json_file, report)
    for finding in findings:
        say(f"note: {finding}")


def _write_json(path: Path | None, report: Any) -> None:
    """What `--json FILE` asks for."""
    from gptdynamics.outputs import write_output_json

    if path is not None:
        write_output_json(path, report)


def main() -> None:
    """Entry point."""
    run_process(app, name="gptdynamics")


if __name__ == "__main__":
    main()
