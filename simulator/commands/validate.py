"""`gptfluence validate`."""

from __future__ import annotations

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import say
from simulator.commands.results import run_use_case, show_result, simulator_for
from simulator.settings.use_cases import ValidateSettings


def validate(settings: ValidateSettings, dry_run: bool, write_json: WriteJson) -> None:
    """Check a simulator by real training: change a run in many ways, simulate the changes, train them, compare.

    JSON: what is in OUTPUT/validate.json: `rows` (figures by name), `notes`, `skipped`, `tables`, `figures`, `command`,
    `seconds`, `versions`; with --dry-run the counts that are printed.
    """
    from simulator.reporting.verdicts import next_command
    from simulator.use_cases.validate import trainings_of
    from simulator.use_cases.validate import validate as validate_model
    from simulator.use_cases.validate_report import validation_verdict

    settings = simulator_for(settings, retrains="validate")
    if dry_run:
        count, updates, tests, spent = trainings_of(settings)
        write_json({"trainings": count, "updates": updates, "seconds": spent})
        say(
            f"{count} trainings of {updates} updates, {settings.measured} measurements of {tests} "
            f"examples each; about {spent / 60:.1f} minutes of one core"
        )
        return
    validation, seconds = run_use_case(validate_model, settings)
    title = f"{validation.config} {validation.metric}: simulated and real runs"
    show_result("validate", title, validation, settings, seconds, write_json)
    say(validation_verdict(validation))
    say(next_command("gptfluence", "influence", settings.dataset, "--model", settings.model))
