"""`gptfluence influence`."""

from __future__ import annotations

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import say, say_detail, show
from simulator.commands.results import say_how_to_validate, simulator_for
from simulator.settings.use_cases import InfluenceSettings


def influence(settings: InfluenceSettings, write_json: WriteJson) -> None:
    """List the training examples that helped and harmed test examples most, with the size of the effect.

    JSON: `config`, `metric`, `method`, `run`, `higher_is_better`, `uncertainty`, `texts`, `mean` (effects on the whole
    test set) and `test_examples` (effects by id).
    """
    from gptdynamics.dataset.reading import is_recorded
    from simulator.reporting.verdicts import next_command
    from simulator.use_cases.influence import find_influence
    from simulator.use_cases.influence_report import (
        NO_UNCERTAINTY,
        UNCERTAINTY,
        influence_record,
        influence_tables,
        summary,
        write_influence_page,
    )

    complete = simulator_for(settings)
    result = find_influence(complete)
    say(summary(result))
    for table in influence_tables(result):
        show(table)
    say_detail(NO_UNCERTAINTY if result.error is None else UNCERTAINTY)
    write_json(influence_record(result))
    if complete.output is not None:
        write_influence_page(result, complete.output)
        say(f"wrote {complete.output}")
    for test_id in (None, *complete.test_ids):
        say(result.verdict(test_id))
    if is_recorded(complete.dataset, result.config):
        validate = f"simulator.validate({complete.dataset!r}, ..., recipe=train)"
        say(f"next: more runs, or {validate}, see docs/how-to/record-training.md")
        return
    if any(example.withheld for example in result.pool):
        say("this dataset leaves texts out, so no run can be trained again; to score the ranking on its retrainings:")
        experiment = ("counterfactuals", complete.dataset, "--config", result.config, "--output", "out/results")
        say(next_command("gptfluence", "experiment", *experiment))
        return
    say_how_to_validate(complete, "out/validate")
