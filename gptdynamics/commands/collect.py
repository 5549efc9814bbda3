"""`gptdynamics collect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptdynamics.commands.options import DataOption, PlanOption, TaskFileOption, add_task_files, json_option
from gptdynamics.console import progress_bar, say, say_error
from gptdynamics.interruption import keeps

if TYPE_CHECKING:
    from gptdynamics.collection import RaySettings
    from gptdynamics.plans import Plan


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


def _ray_settings(executor: str, asked: dict[str, Any]) -> RaySettings | None:
    """What `--executor` and the options of Ray ask for."""
    from gptdynamics.collection import RaySettings
    from gptdynamics.errors import SettingsError

    given = {name: value for name, value in asked.items() if value is not None}
    if executor == "ray":
        return RaySettings(**given)
    if executor != "local":
        raise SettingsError(f"--executor {executor!r} must be local or ray")
    if given:
        raise SettingsError(f"--ray-{next(iter(given))} goes with --executor ray")
    return None


def collect(
    out: Annotated[Path, typer.Option(help="Dataset folder to write to, or to go on with.")],
    configs: Annotated[list[str] | None, typer.Argument(help="<task>_<size>, e.g. rte_nano; or see --plan.")] = None,
    plan: PlanOption = None,
    runs: Annotated[int | None, typer.Option(help="Collect runs 0 to RUNS-1.", show_default="32")] = None,
    data: DataOption = None,
    task_file: TaskFileOption = None,
    steps: Annotated[int | None, typer.Option(help="Cut the curriculum after this many updates.")] = None,
    test_examples: Annotated[int | None, typer.Option(help="Size of the test set.", show_default="200")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Rate of the first update.", show_default="the config's in the bundled plans")
    ] = None,
    base_model: Annotated[str | None, typer.Option(help="A Hub id or folder instead of the config's size.")] = None,
    eval_every: Annotated[
        int | None, typer.Option(help="Updates between measurements of loss and accuracy.", show_default="1")
    ] = None,
    generate_every: Annotated[
        int | None, typer.Option(help="Updates between measurements of BLEU and ROUGE-L.", show_default="1")
    ] = None,
    gradients: Annotated[
        str | None, typer.Option(help="Runs that record gradient products: none, test or all.", show_default="none")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, or bf16 passes over fp32 weights.", show_default="fp32")
    ] = None,
    tokenization: Annotated[
        str | None,
        typer.Option(
            help="Prompt and target as one text (joined), or each alone (separate, as earlier versions did).",
            show_default="joined",
        ),
    ] = None,
    text_tokenizer: Annotated[
        str | None,
        typer.Option(
            help="Tokens of BLEU and ROUGE-L: 13a (as earlier versions), intl, zh or char, as sacrebleu calls them.",
            show_default="the task's, else by the script of its references",
        ),
    ] = None,
    lora_rank: Annotated[
        int | None, typer.Option(help="Train LoRA adapters of this rank.", show_default="0, all weights")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the config; run k derives its own.", show_default="0")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes, one thread each.", show_default="one a GPU, or one a core")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda (all GPUs) or cuda:<number>.")] = "auto",
    executor: Annotated[str, typer.Option(help="local (this machine), or ray (a Ray cluster).")] = "local",
    ray_address: Annotated[
        str | None, typer.Option(help="<host>:<port> of its head. Default: $RAY_ADDRESS, or this machine's cluster.")
    ] = None,
    ray_cpus: Annotated[float | None, typer.Option(help="CPUs that Ray keeps for a worker. Default: 1.")] = None,
    ray_gpus: Annotated[
        float | None, typer.Option(help="GPUs, or a part of one, for a worker. Default: 1 where there are any.")
    ] = None,
    ray_patience: Annotated[
        float | None, typer.Option(help="Seconds to wait while no node could take a worker. Default: 60.")
    ] = None,
    push_to: Annotated[
        str | None, typer.Option(help="A dataset repository <owner>/<name>: each run goes there when it ends.")
    ] = None,
    no_texts: Annotated[
        bool, typer.Option("--no-texts", help="With --push-to: as `gptdynamics push --no-texts`.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    json_file: Annotated[
        Path | None,
        json_option(
            "`done`, `skipped`, `failed` (reasons by run), `cut`, `sampled`, `tied`, `forward_passes`; with --dry-run "
            "`missing` (runs to make by config)."
        ),
    ] = None,
) -> None:
    """Train base models on seeded curricula and measure every test example at every step."""
    from gptdynamics.collection import CollectSettings, missing_runs
    from gptdynamics.collection import collect as collect_runs
    from gptdynamics.dataset.folder import DatasetFolder
    from gptdynamics.dataset.ownership import check_dataset_folder
    from gptdynamics.errors import SettingsError
    from gptdynamics.hub.run_pusher import RunPusher
    from gptdynamics.outputs import write_output_json
    from gptdynamics.plans import read_plan

    add_task_files(task_file)
    options = {
        "steps": steps,
        "test_examples": test_examples,
        "learning_rate": learning_rate,
        "base_model": base_model,
        "eval_every": eval_every,
        "generate_every": generate_every,
        "gradients": gradients,
        "precision": precision,
        "tokenization": tokenization,
        "text_tokenizer": text_tokenizer,
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
    asked = {"address": ray_address, "cpus": ray_cpus, "gpus": ray_gpus, "patience": ray_patience}
    settings = CollectSettings(chosen, out, data, workers, device, _ray_settings(executor, asked))
    check_dataset_folder(out)
    folder = DatasetFolder(out)
    for entry in chosen:
        folder.check_settings(entry)
        run = entry.settings
        say(
            f"{entry.config}: {len(entry.run_names)} runs of {run.run_steps} updates (batch {run.batch_size}, learning "
            f"rate {run.learning_rate:g}), {run.test_examples} test examples; "
            f"{len(missing_runs(out, entry))} to make in {out}"
        )
    if dry_run:
        if json_file is not None:
            write_output_json(json_file, {"missing": {entry.config: missing_runs(out, entry) for entry in chosen}})
        return
    keeps(f"finished runs are kept in {out}")
    pusher = RunPusher(out, push_to, no_texts, say, lambda line: say_error(line))
    with progress_bar() as progress:
        bars: dict[str, Any] = {}

        def start(config: str, total: int) -> None:
            bars[config] = progress.add_task(config, total=total, visible=total > 0)

        collected = collect_runs(
            settings,
            start,
            on_step=lambda config: progress.advance(bars[config]),
            on_run=pusher.push_run,
            on_note=lambda line: say_error(f"note: {line}"),
        )
    if json_file is not None:
        write_output_json(json_file, vars(collected))
    for config, cut in collected.cut.items():
        if cut:
            say(f"{config}: {cut} prompts were longer than the context and were cut from the left")
    if collected.forward_passes:
        cost = sum(collected.forward_passes) / len(collected.forward_passes)
        say(f"measuring the loss once cost {cost:.2f} forward passes over the test set's tokens")
    if collected.sampled:
        say(
            f"{collected.tied} of {collected.sampled} sampled tokens were ties in floating point: "
            "another batch size could have drawn others there"
        )
    say(f"{len(collected.done)} runs made, {len(collected.skipped)} were there, {len(collected.failed)} failed")
    for run_label, reason in sorted(collected.failed.items()):
        say_error(f"error: run {run_label} diverged: {reason}. Try a lower --learning-rate")
    pusher.push_all()
    if collected.failed:
        raise typer.Exit(1)
