"""`gptfluence experiment`."""

from __future__ import annotations

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.console import say
from gptdynamics.interruption import keeps
from simulator.commands.phases import phases
from simulator.settings.experiment import ALL, ExperimentSettings


def experiment(settings: ExperimentSettings, write_json: WriteJson) -> None:
    """Repeat the paper's experiments on a dataset: a page each, its picture, and the numbers as JSON.

    JSON: a list of experiments: `experiment`, `title`, `command`, `seconds`, `versions`, `rows` (figures by name),
    `notes`, `skipped`.
    """
    from simulator.experiments import Workbench, run_all, run_experiment
    from simulator.reporting.result_files import result_record

    name, output = settings.name, settings.output
    keeps(f"finished experiments are kept in {output}" if name == ALL else "encodings are kept")
    with phases() as (on_phase, on_progress):
        bench = Workbench(settings.dataset, settings.config, on_phase, on_progress, settings.exact)
        results = list(run_all(bench, output)) if name == ALL else [run_experiment(name, bench, output)]
    write_json([result_record(finished) for finished in results])
    for finished in results:
        result = finished.result
        page = f"{output / finished.name}.md, {finished.seconds:.0f} s"
        say(f"{finished.name}: {page if result.rows else 'nothing could be done'}")
        for reason in result.skipped:
            say(f"  skipped: {reason}")
