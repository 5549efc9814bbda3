"""The `gptdynamics` command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptdynamics.console import progress_bar, run_app

if TYPE_CHECKING:
    from gptdynamics.authors_release import Finding
    from gptdynamics.plans import Plan

app = typer.Typer(
    help="Build and read GPTDynamics datasets: what fine-tuning does to every test example, step by step.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

PlanOption = Annotated[
    str | None, typer.Option("--plan", help="`paper`, `nano`, or a TOML file: its configs, all or those named.")
]
DataOption = Annotated[
    Path | None, typer.Option(help="Folder with <task>/train.jsonl and eval.jsonl. Default: bundled rows or the Hub.")
]
TaskFileOption = Annotated[
    list[Path] | None, typer.Option("--task-file", help="A Python file with tasks of your own. May be repeated.")
]


JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the same to this file, as JSON.")]


def _own_plan(configs: list[str], runs: int, changes: dict[str, Any]) -> Plan:
    """A plan of the named configs: hyper-parameters of a bundled plan, where one has the config, and the options."""
    from gptdynamics.configs import RunSettings
    from gptdynamics.plans import Plan, PlanEntry, known_training

    entries = []
    for config in configs:
        known = {} if "learning_rate" in changes else known_training(config)
        if "base_model" in known and "base_model" in changes:
            known.pop("base_model")
        entries.append(PlanEntry(RunSettings(config=config, **(known | changes)), runs))
    return Plan("command line", tuple(entries))


@app.command()
def plan(
    name: Annotated[str, typer.Option("--plan", help="`paper`, `nano`, or a TOML file.")] = "paper",
    each: Annotated[bool, typer.Option("--each", help="List every run with its split and seed.")] = False,
    throughput: Annotated[
        str | None, typer.Option(help="Estimate hours on v100, a100, h100, this machine's cpu, or at so many TFLOP/s.")
    ] = None,
    task_file: TaskFileOption = None,
) -> None:
    """Show the runs of a plan: configs, splits, hyper-parameters."""
    from gptdynamics.plans import read_plan
    from gptdynamics.plans.table import plan_table, run_lines

    _add_task_files(task_file)
    chosen = read_plan(name)
    if each:
        for line in run_lines(chosen):
            typer.echo(line)
        return
    from rich.console import Console

    hours: dict[str, float] = {}
    if throughput is not None:
        from gptdynamics import estimates

        rate = estimates.throughput(throughput)
        hours = dict(estimates.plan_hours(chosen, rate))
    Console().print(plan_table(chosen, hours))
    typer.echo(f"{len(chosen.entries)} configs, {chosen.runs} runs; splits are train/validation/test(/unseen data)")
    if hours:
        total = sum(hours.values())
        typer.echo(f"{total:.3g} hours on one device at {rate:.3g} TFLOP/s, by arithmetic: real runs may take longer")


@app.command()
def collect(
    out: Annotated[Path, typer.Option(help="Dataset folder to write to, or to go on with.")],
    configs: Annotated[list[str] | None, typer.Argument(help="<task>_<size>, e.g. rte_nano; or see --plan.")] = None,
    plan: PlanOption = None,
    runs: Annotated[int | None, typer.Option(help="Collect runs 0 to RUNS-1.  [default: 32]")] = None,
    data: DataOption = None,
    task_file: TaskFileOption = None,
    steps: Annotated[int | None, typer.Option(help="Cut the curriculum after this many updates.")] = None,
    test_examples: Annotated[int | None, typer.Option(help="Size of the test set.  [default: 200]")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Rate of the first update.  [default: the config's in the bundled plans]")
    ] = None,
    base_model: Annotated[str | None, typer.Option(help="A Hub id or folder instead of the config's size.")] = None,
    eval_every: Annotated[
        int | None, typer.Option(help="Updates between measurements of loss and accuracy.  [default: 1]")
    ] = None,
    generate_every: Annotated[
        int | None, typer.Option(help="Updates between measurements of BLEU and ROUGE-L.  [default: 1]")
    ] = None,
    gradients: Annotated[
        str | None, typer.Option(help="Runs that record gradient products: none, test or all.  [default: none]")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, or bf16 passes over fp32 weights.  [default: fp32]")
    ] = None,
    lora_rank: Annotated[
        int | None, typer.Option(help="Train LoRA adapters of this rank.  [default: 0, all weights]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the config; run k derives its own.  [default: 0]")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes, one thread each.  [default: one a GPU, or one a core]")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda (all GPUs) or cuda:<number>.")] = "auto",
    push_to: Annotated[
        str | None, typer.Option(help="A dataset repository <owner>/<name>: each run goes there when it ends.")
    ] = None,
    no_texts: Annotated[
        bool, typer.Option("--no-texts", help="With --push-to: as `gptdynamics push --no-texts`.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
) -> None:
    """Train base models on seeded curricula and measure every test example at every step."""
    from gptdynamics.collection import CollectSettings, missing_runs
    from gptdynamics.collection import collect as collect_runs
    from gptdynamics.dataset.folder import DatasetFolder
    from gptdynamics.errors import SettingsError
    from gptdynamics.hub.run_pusher import RunPusher
    from gptdynamics.plans import read_plan

    _add_task_files(task_file)
    options = {
        "steps": steps,
        "test_examples": test_examples,
        "learning_rate": learning_rate,
        "base_model": base_model,
        "eval_every": eval_every,
        "generate_every": generate_every,
        "gradients": gradients,
        "precision": precision,
        "lora_rank": lora_rank,
        "seed": seed,
    }
    changes = {name: value for name, value in options.items() if value is not None}
    if plan is not None:
        if changes or runs is not None:
            names = [*changes, *([] if runs is None else ["runs"])]
            given = ", ".join(f"--{name.replace('_', '-')}" for name in names)
            raise SettingsError(f"--plan fixes the settings of its configs: leave out {given}, or edit the plan")
        chosen = read_plan(plan).only(configs) if configs else read_plan(plan)
    elif configs:
        chosen = _own_plan(configs, 32 if runs is None else runs, changes)
    else:
        raise SettingsError("nothing to collect: name configs, such as rte_nano, or give --plan")
    settings = CollectSettings(chosen, out, data, workers, device)
    folder = DatasetFolder(out)
    for entry in chosen:
        folder.check_settings(entry)
        run = entry.settings
        typer.echo(
            f"{entry.config}: {len(entry.run_names)} runs of {run.run_steps} updates (batch {run.batch_size}, learning "
            f"rate {run.learning_rate:g}), {run.test_examples} test examples; "
            f"{len(missing_runs(out, entry))} to make in {out}"
        )
    if dry_run:
        return
    pusher = RunPusher(out, push_to, no_texts, typer.echo, lambda line: typer.echo(line, err=True))
    with progress_bar() as progress:
        bars: dict[str, Any] = {}

        def start(config: str, total: int) -> None:
            bars[config] = progress.add_task(config, total=total, visible=total > 0)

        collected = collect_runs(
            settings, start, on_step=lambda config: progress.advance(bars[config]), on_run=pusher.push_run
        )
    for config, cut in collected.cut.items():
        if cut:
            typer.echo(f"{config}: {cut} prompts were longer than the context and were cut from the left")
    if collected.forward_passes:
        cost = sum(collected.forward_passes) / len(collected.forward_passes)
        typer.echo(f"measuring the loss once cost {cost:.2f} forward passes over the test set's tokens")
    typer.echo(f"{len(collected.done)} runs made, {len(collected.skipped)} were there, {len(collected.failed)} failed")
    for run_label, reason in sorted(collected.failed.items()):
        typer.echo(f"error: run {run_label} diverged: {reason}. Try a lower --learning-rate", err=True)
    pusher.push_all()
    if collected.failed:
        raise typer.Exit(1)


@app.command()
def status(
    out: Annotated[Path, typer.Argument(help="Dataset folder that is collected into.")],
    plan: PlanOption = None,
    task_file: TaskFileOption = None,
    json_file: JsonOption = None,
) -> None:
    """Show how far a collection is: runs done, running, failed and missing, and the time left."""

    from rich.console import Console

    from gptdynamics.dataset.status import folder_status, status_notes, status_table
    from gptdynamics.plans import read_plan

    _add_task_files(task_file)
    statuses = folder_status(out, None if plan is None else read_plan(plan))
    _write_json(json_file, [each.to_dict() for each in statuses])
    Console().print(status_table(statuses))
    for line in status_notes(statuses):
        typer.echo(line)


@app.command()
def verify(
    source: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset folder or Hub id.")],
    task_file: TaskFileOption = None,
    json_file: JsonOption = None,
) -> None:
    """Check every file of a dataset against its settings, and name all that is wrong."""

    from gptdynamics.dataset.verify import verify as verify_dataset

    _add_task_files(task_file)
    with progress_bar() as progress:
        bar = progress.add_task("runs", total=None)
        found = verify_dataset(source, lambda done, total: progress.update(bar, completed=done, total=total))
    _write_json(json_file, found.to_dict())
    for line in found.summary():
        typer.echo(line)
    for fault in found.faults:
        typer.echo(f"error: {fault}", err=True)
    if not found.ok:
        raise typer.Exit(1)


@app.command("import")
def import_(
    root: Annotated[str, typer.Argument(help="Folder of a release in the paper authors' layout, or its Hub id.")],
    out: Annotated[Path, typer.Option(help="Dataset folder to write to, or to go on with.")],
    task_file: TaskFileOption = None,
    json_file: JsonOption = None,
    last: Annotated[
        bool, typer.Option("--last", help="Where a step occurs with different values or batches, take the last.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be imported, and stop.")] = False,
) -> None:
    """Read runs in the layout of the paper authors' release into a dataset folder."""
    from gptdynamics.authors_release import import_release

    _add_task_files(task_file)
    with progress_bar() as progress:
        bar = progress.add_task("runs", total=None)
        imported = import_release(
            root, out, dry_run, lambda done, total: progress.update(bar, completed=done, total=total), last
        )
    for config in imported.configs:
        typer.echo(config.summary())
        if dry_run:
            for run, folder in config.runs.items():
                typer.echo(f"  {run} {folder}")
    _echo_findings(imported.findings, imported.to_dict(), json_file)
    typer.echo(f"{imported.runs} runs {'would be ' if dry_run else ''}imported into {out}")


@app.command()
def export(
    source: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset folder or Hub id.")],
    out: Annotated[Path, typer.Option(help="Folder to write the release to.")],
    config: Annotated[list[str] | None, typer.Option(help="Only this config. May be repeated.")] = None,
    task_file: TaskFileOption = None,
    json_file: JsonOption = None,
) -> None:
    """Write runs in the layout of the paper authors' release, so that their code reads them."""
    from gptdynamics.authors_release import export_release

    _add_task_files(task_file)
    with progress_bar() as progress:
        bar = progress.add_task("runs", total=None)
        exported = export_release(
            source, out, config or (), lambda done, total: progress.update(bar, completed=done, total=total)
        )
    _echo_findings(exported.findings, exported.to_dict(), json_file)
    typer.echo(f"{len(exported.runs)} runs and {len(exported.files)} files of examples in {out}")


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
    json_file: JsonOption = None,
    task_file: TaskFileOption = None,
) -> None:
    """Add the finished runs of a folder to a dataset repository on the Hub, in one commit."""

    from gptdynamics.hub.push import PushOptions
    from gptdynamics.hub.push import push as push_folder

    _add_task_files(task_file)
    options = PushOptions(private, branch, tag, create_pr, no_texts, replace, dry_run)
    pushed = push_folder(folder, repo, options, lambda reason: typer.echo(f"note: {reason}; trying again", err=True))
    _write_json(json_file, pushed.to_dict())
    for note in pushed.notes:
        typer.echo(f"note: {note}", err=True)
    if dry_run:
        typer.echo("".join(f"{path}\n" for path in pushed.files), nl=False)
    would = "would go" if dry_run else "went"
    new = " (a new repository)" if pushed.created else ""
    typer.echo(
        f"{len(pushed.runs)} runs, {len(pushed.files)} files, {pushed.size / 2**20:.2f} MiB {would} to {repo}{new}"
    )
    if pushed.url is not None:
        typer.echo(pushed.url)


@app.command("push-base")
def push_base(
    repo: Annotated[str, typer.Argument(help="Model repository <owner>/<name>; made if it is not there.")],
    folder: Annotated[
        Path | None, typer.Option(help="Folder of a base model of your own.  [default: the bundled nano]")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository a private one.")] = False,
) -> None:
    """Publish a base model, so that others can start runs from it."""
    from gptdynamics.hub.model_push import push_base as push_model
    from gptdynamics.nano import MODEL_FOLDER

    pushed = push_model(repo, folder or MODEL_FOLDER, private)
    typer.echo(f"{len(pushed.files)} files, {pushed.size / 2**20:.2f} MiB went to {repo}")
    if pushed.url is not None:
        typer.echo(pushed.url)


def _echo_findings(findings: list[Finding], report: dict[str, Any], json_file: Path | None) -> None:
    """A line for each thing that could not be taken over as it is, and everything as JSON."""

    _write_json(json_file, report)
    for finding in findings:
        typer.echo(f"note: {finding}")


def _write_json(path: Path | None, report: Any) -> None:
    """What `--json FILE` asks for."""
    import json

    from gptdynamics.atomic import write_text

    if path is not None:
        write_text(path, json.dumps(report, indent=1) + "\n")


def _add_task_files(paths: list[Path] | None) -> None:
    from gptdynamics.tasks import add_task_file

    for path in paths or []:
        add_task_file(path)


def main() -> None:
    """Entry point."""
    run_app(app)


if __name__ == "__main__":
    main()
