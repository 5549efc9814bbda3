"""`gptfluence select`."""

from __future__ import annotations

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import say
from simulator.commands.results import run_use_case, say_how_to_validate, show_result, simulator_for
from simulator.settings.use_cases import SelectSettings


def select(settings: SelectSettings, dry_run: bool, write_json: WriteJson) -> None:
    """Choose training examples for a target test set, and see by real training what the choice is worth.

    JSON: what is in OUTPUT/select.json: `rows` (figures by name), `notes`, `skipped`, `tables`, `figures`, `command`,
    `seconds`, `versions`; with --dry-run the counts that are printed.
    """
    from simulator.use_cases.select import select as select_examples
    from simulator.use_cases.select import trainings_of
    from simulator.use_cases.select_report import selection_verdict

    settings = simulator_for(settings, retrains="select")
    if dry_run:
        trainings, updates, spent = trainings_of(settings)
        write_json({"trainings": trainings, "updates": updates, "seconds": spent})
        say(f"{trainings} trainings of {updates} updates; about {spent / 60:.1f} minutes of one core")
        return
    selection, seconds = run_use_case(select_examples, settings)
    title = f"{selection.config}: training examples chosen for a target"
    show_result("select", title, selection, settings, seconds, write_json)
    say(selection_verdict(selection))
    say_how_to_validate(settings, f"{settings.output}-validate")
