"""`gptdynamics plan`."""

from __future__ import annotations

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import say, show
from gptdynamics.settings.datasets import PlanSettings


def plan(settings: PlanSettings, write_json: WriteJson) -> None:
    """Show the runs of a plan: configs, splits, hyper-parameters.

    JSON: `plan`, `runs`, `hours` and `configs`, each with `config`, `runs`, `splits`, `settings`, `updates`, `hours`;
    with --each a list of runs: `config`, `run`, `split`, `settings` of the config.
    """
    from gptdynamics.plans import read_plan
    from gptdynamics.plans.table import plan_record, plan_table, run_lines, run_records

    chosen = read_plan(settings.plan)
    if settings.each:
        write_json(run_records(chosen))
        for line in run_lines(chosen):
            say(line)
        return
    hours: dict[str, float] = {}
    if settings.throughput is not None:
        from gptdynamics import estimates

        rate = estimates.throughput(settings.throughput)
        hours = dict(estimates.plan_hours(chosen, rate))
    write_json(plan_record(chosen, hours))
    show(plan_table(chosen, hours))
    say(f"{len(chosen.entries)} configs, {chosen.runs} runs; splits are train/validation/test(/unseen data)")
    if hours:
        total = sum(hours.values())
        say(f"{total:.3g} hours on one device at {rate:.3g} TFLOP/s, by arithmetic: real runs may take longer")
