"""The `gptdynamics` command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gptdynamics.console import progress_bar, run_app

app = typer.Typer(
    help="Build and read GPTDynamics datasets: what fine-tuning does to every test example, step by step.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Keeps `collect` a subcommand while it is the only one."""


@app.command()
def collect(
    config: Annotated[str, typer.Argument(help="<task>_<size>, e.g. rte_nano.")],
    out: Annotated[Path, typer.Option(help="Dataset folder to write to, or to go on with.")],
    runs: Annotated[int, typer.Option(help="Collect runs 0 to RUNS-1.")] = 32,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with <task>/train.jsonl and eval.jsonl. Default: bundled rows or the Hub."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Cut the curriculum after this many updates.")] = None,
    test_examples: Annotated[int, typer.Option(help="Size of the test set.")] = 200,
    learning_rate: Annotated[
        float | None, typer.Option(help="Rate of the first update. Default: the config's.")
    ] = None,
    base_model: Annotated[str | None, typer.Option(help="A Hub id or folder instead of the config's size.")] = None,
    eval_every: Annotated[int, typer.Option(help="Updates between measurements of loss and accuracy.")] = 1,
    generate_every: Annotated[int, typer.Option(help="Updates between measurements of BLEU and ROUGE-L.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the config; run k derives its own.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes, one thread each. Default: one a core.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
) -> None:
    """Train a base model on seeded curricula and measure every test example at every step."""
    from gptdynamics.collection import CollectSettings, missing_runs
    from gptdynamics.collection import collect as collect_runs
    from gptdynamics.configs import RunSettings, config_parts, default_learning_rate
    from gptdynamics.dataset.folder import DatasetFolder
    from gptdynamics.tasks import get_task

    get_task(config_parts(config)[0])
    run = RunSettings(
        config=config,
        learning_rate=default_learning_rate(config) if learning_rate is None else learning_rate,
        seed=seed,
        steps=steps,
        test_examples=test_examples,
        eval_every=eval_every,
        generate_every=generate_every,
        base_model=base_model,
    )
    processes = (os.cpu_count() or 1) if workers is None else workers
    settings = CollectSettings(run=run, out=out, runs=runs, data=data, workers=processes)
    DatasetFolder(out).check_settings(run)
    missing = missing_runs(settings)
    typer.echo(
        f"{config}: {runs} runs of {run.run_steps} updates (batch {run.batch_size}, learning rate "
        f"{run.learning_rate:g}), {run.test_examples} test examples; {len(missing)} to make in {out}"
    )
    if dry_run:
        return
    with progress_bar() as progress:
        bar = progress.add_task(config, total=None)
        collected = collect_runs(
            settings,
            on_start=lambda total: progress.update(bar, total=total),
            on_step=lambda step: progress.advance(bar),
            on_run=lambda name: None,
        )
    if collected.cut:
        typer.echo(f"{collected.cut} prompts were longer than the context and were cut from the left")
    if collected.forward_passes:
        cost = sum(collected.forward_passes) / len(collected.forward_passes)
        typer.echo(f"measuring the loss once cost {cost:.2f} forward passes over the test set's tokens")
    typer.echo(f"{len(collected.done)} runs made, {len(collected.skipped)} were there, {len(collected.failed)} failed")
    for index, reason in sorted(collected.failed.items()):
        typer.echo(f"error: run {index} diverged: {reason}. Try a lower --learning-rate", err=True)
    if collected.failed:
        raise typer.Exit(1)


def main() -> None:
    """Entry point."""
    run_app(app)


if __name__ == "__main__":
    main()
