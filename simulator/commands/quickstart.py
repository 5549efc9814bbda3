"""`gptfluence quickstart`."""

from __future__ import annotations

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import say, show
from gptdynamics.interruption import keeps
from simulator.commands.phases import phases
from simulator.settings.experiment import QuickstartSettings


def quickstart(settings: QuickstartSettings, write_json: WriteJson) -> None:
    """Collect, train, predict, compare and report, on the bundled model and tasks: some minutes.

    JSON: a list of `report` (the page) and `rows` (as of evaluate), one for each task.
    """
    from simulator.quickstart import ask
    from simulator.quickstart import quickstart as run_quickstart
    from simulator.reporting.tables import rows_table
    from simulator.reporting.verdicts import COLUMNS_MEAN, evaluation_verdict
    from simulator.use_cases.influence_report import influence_tables, summary

    keeps(f"finished runs are kept in {settings.output}")
    with phases() as (on_phase, on_progress):
        made = list(run_quickstart(settings.output, on_phase, on_progress))
    write_json([{"report": page, "rows": evaluation.rows} for evaluation, page in made])
    for evaluation, page in made:
        show(rows_table(evaluation.rows))
        say(evaluation_verdict(evaluation.rows))
        say(f"report: {page.resolve()}")
    say(COLUMNS_MEAN)
    with phases() as (on_phase, on_progress):
        found, page = ask(settings.output, on_phase, on_progress)
    [test_id] = found.settings.test_ids
    say(f"Which training rows moved test example {test_id}? {summary(found)}")
    for table in influence_tables(found)[-1:]:
        show(table)
    say(found.verdict(test_id))
    say(f"the page with all of them: {page.resolve()}")
    model, dynamics = made[0][0].rows[-1].model, settings.output / "dynamics"
    say("next, on rows of your own or of the Hub:")
    say(f"  gptdynamics collect rte_nano --runs 8 --output {dynamics}")
    say("or look again at what was made:")
    say(f"  gptfluence evaluate {dynamics} --config mini_sentiment_nano --models {model}")
