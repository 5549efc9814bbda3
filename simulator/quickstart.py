"""The whole loop on the bundled model and tasks: collect, train, predict held-out runs, compare, report, ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from gptdynamics.collection import CollectSettings, collect
from gptdynamics.configs import RunSettings
from gptdynamics.plans import Plan, PlanEntry, usual_training
from simulator.evaluation import EvaluateSettings, Evaluation, evaluate
from simulator.ownership import prepare_results_folder
from simulator.settings.use_cases import InfluenceSettings
from simulator.training import TrainSettings, train_simulator
from simulator.use_cases.influence import InfluenceResult, find_influence

# The simulators that are trained and compared.
KINDS = (("markov", "sentence"), ("memory", "sentence"), ("tangent", "gradient"))


@dataclass(frozen=True)
class Part:
    """One config of the quickstart, how many runs of it, and the metric that is predicted."""

    settings: RunSettings
    runs: int
    metric: str


def parts() -> list[Part]:
    """A label task and a generation task, small enough for two cores and three minutes."""

    def settings(config: str, steps: int, test_examples: int, generate_every: int) -> RunSettings:
        return RunSettings(
            config=config,
            learning_rate=usual_training(config)["learning_rate"],
            steps=steps,
            test_examples=test_examples,
            generate_every=generate_every,
        )

    return [
        Part(settings("mini_sentiment_nano", 64, 48, 1), 12, "loss"),
        Part(settings("mini_triples_nano", 32, 32, 4), 8, "rougeL"),
    ]


def clearest_test_example(influence: InfluenceResult) -> int:
    """The id of the test example on which most effects are beyond noise."""
    sure = {
        example.id: sum(influence.word(each) != "unclear" for each in influence.effects(example.id))
        for example in influence.test
    }
    return max(sure, key=lambda key: sure[key])


def ask(
    out: Path,
    on_phase: Callable[[str, int], None] = lambda name, total: None,
    on_progress: Callable[[], None] = lambda: None,
) -> tuple[InfluenceResult, Path]:
    """What it is all for: which rows helped and harmed a test example of the text task most; with the page.

    Args:
        out: the folder of a finished `quickstart`.
        on_phase, on_progress: called while a simulator of the loss is fitted.
    """
    from simulator.use_cases.influence_report import write_influence_page
    from simulator.use_cases.own_simulator import with_simulator

    settings = InfluenceSettings(str(out / "dynamics"), config=parts()[-1].settings.config, metric="loss")
    found = find_influence(with_simulator(settings, on_phase=on_phase, on_progress=on_progress))
    found = replace(found, settings=replace(found.settings, test_ids=(clearest_test_example(found),)))
    page = out / "influence.html"
    write_influence_page(found, page)
    return found, page


def model_folder(out: Path, part: Part, dynamics: str, encoder: str) -> Path:
    """Where a simulator is."""
    return out / f"{part.settings.config}-{part.metric}-{dynamics}-{encoder}"


def quickstart(
    out: Path,
    on_phase: Callable[[str, int], None],
    on_progress: Callable[[], None],
) -> Iterator[tuple[Evaluation, Path]]:
    """Run everything; yields each evaluation with the path of its report.

    Args:
        out: folder for the dataset, the models and the reports; what is there already is used.
    """
    from simulator.reporting.evaluation_page import report_evaluation

    prepare_results_folder(out)
    dataset = out / "dynamics"
    for part in parts():
        config = part.settings.config
        collect(
            CollectSettings(Plan("quickstart", (PlanEntry(part.settings, part.runs, kernels=1),)), dataset),
            on_start=lambda name, total: on_phase(f"collecting {name}", total),
            on_step=lambda name: on_progress(),
        )
        models = []
        for dynamics, encoder in KINDS:
            settings = TrainSettings(str(dataset), config, part.metric, dynamics=dynamics, encoder=encoder)
            folder = model_folder(out, part, dynamics, encoder)
            train_simulator(settings, on_phase, on_progress).save(folder, settings)
            models.append(str(folder))
        wanted = EvaluateSettings(str(dataset), config, part.metric, tuple(models))
        evaluation = evaluate(wanted, on_phase, on_progress)
        report = out / f"{config}-{part.metric}.html"
        report_evaluation(evaluation, wanted, report)
        yield evaluation, report
