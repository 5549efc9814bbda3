"""`gptdynamics collect`."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import progress_bar, say, say_detail, say_error
from gptdynamics.errors import SettingsError
from gptdynamics.interruption import keeps
from gptdynamics.settings.collect import CollectCommand

if TYPE_CHECKING:
    from gptdynamics.collection.settings import CollectSettings


def _say_estimates(settings: CollectSettings) -> dict[str, Any]:
    """Print the time of kernels and the memory of workers; returns both by config, in seconds and bytes."""
    from gptdynamics.collection.memory import memory_needs
    from gptdynamics.collection.settings import missing_kernels
    from gptdynamics.dataset.status import short_time
    from gptdynamics.estimates import kernel_seconds

    seconds: dict[str, float] = {}
    for entry in settings.plan:
        if missing_kernels(settings.out, entry):
            # A base model that cannot be read raises a better error when it is loaded.
            with suppress(SettingsError):
                seconds[entry.config] = kernel_seconds(entry, settings.devices()[0])
                duration = short_time(seconds[entry.config])
                say(f"{entry.config}: the kernel of a run takes one worker about {duration}")
    memory: dict[str, list[dict[str, Any]]] = {}
    for need in memory_needs(settings):
        say(str(need))
        if not need.fits:
            say_error(f"note: that is too little memory, so collect would stop with an error. {need.advice}")
        memory.setdefault(need.entry.config, []).append(need.to_dict())
    return {"kernel_seconds": seconds, "memory": memory}


def collect(command: CollectCommand, dry_run: bool, write_json: WriteJson) -> None:
    """Train base models on seeded curricula and measure every test example at every step.

    JSON: `done`, `skipped`, `kernels`, `failed` (reasons by run), `cut`, `sampled`, `tied`, `forward_passes`; with
    --dry-run `missing` (runs to make), `kernels` (runs whose kernels are missing), `kernel_seconds` (of one kernel)
    and `memory` (of the workers) by config.
    """
    from gptdynamics.collection import collect as collect_runs
    from gptdynamics.collection import missing_runs
    from gptdynamics.collection.settings import collect_settings, missing_kernels
    from gptdynamics.dataset.folder import DatasetFolder
    from gptdynamics.dataset.ownership import check_dataset_folder
    from gptdynamics.hub.push import RunPusher

    settings = collect_settings(command)
    plan, out = settings.plan, settings.out
    check_dataset_folder(out)
    for line in settings.notes:
        say(line)
    folder = DatasetFolder(out)
    for entry in plan:
        folder.check_settings(entry)
        run = entry.settings
        say(
            f"{entry.config}: {len(entry.run_names)} runs of {run.run_steps} updates (batch {run.batch_size}, learning "
            f"rate {run.learning_rate:g}), {run.test_examples} test examples; "
            f"{len(missing_runs(out, entry))} to make in {out}"
        )
        if entry.kernel_runs:
            say(
                f"{entry.config}: kernels of {', '.join(entry.kernel_runs)} at steps "
                f"{', '.join(map(str, entry.kernel.steps(run.run_steps)))}; "
                f"{len(missing_kernels(out, entry))} to compute"
            )
    if dry_run:
        missing = {entry.config: missing_runs(out, entry) for entry in plan}
        kernels = {entry.config: missing_kernels(out, entry) for entry in plan}
        write_json({"missing": missing, "kernels": kernels} | _say_estimates(settings))
        return
    keeps(f"finished runs are kept in {out}")
    pusher = RunPusher(out, command.push_to, command.no_texts, say, lambda line: say_error(line))
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
    write_json(vars(collected))
    for config, cut in collected.cut.items():
        if cut:
            say(f"{config}: {cut} prompts were longer than the context and were cut from the left")
    if collected.forward_passes:
        cost = sum(collected.forward_passes) / len(collected.forward_passes)
        say_detail(f"one loss measurement took {cost:.2f} times a plain forward pass over the test set")
    if collected.sampled:
        say_detail(
            f"{collected.tied} of {collected.sampled} sampled tokens were floating-point ties: "
            "another batch size could have given other tokens"
        )
    say(f"{len(collected.done)} runs made, {len(collected.skipped)} existed, {len(collected.failed)} failed")
    for run_label, reason in sorted(collected.failed.items()):
        say_error(f"error: run {run_label} diverged: {reason}. Try a lower --learning-rate")
    pusher.push_all()
    if collected.failed:
        sys.exit(1)
