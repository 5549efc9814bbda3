"""The whole loop on the bundled model and tasks: collect, train, predict held-out runs, compare, report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gptdynamics.collection import CollectSettings, collect
from gptdynamics.configs import RunSettings
from gptdynamics.plans import Plan, PlanEntry, known_training
from simulator.evaluation import EvaluateSettings, Evaluation, evaluate
from simulator.ownership import prepare_results_folder
from simulator.training import TrainSettings, train_simulator


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
            learning_rate=known_training(config)["learning_rate"],
            steps=steps,
            test_examples=test_examples,
            generate_every=generate_every,
        )

    return [
        Part(settings("mini_sentiment_nano", 64, 48, 1), 12, "loss"),
        Part(settings("mini_triples_nano", 32, 32, 4), 8, "rougeL"),
    ]


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
        for dynamics, encoder in (("markov", "sentence"), ("memory", "sentence"), ("tangent", "gradient")):
            settings = TrainSettings(str(dataset), config, part.metric, dynamics=dynamics, encoder=encoder)
            folder = out / f"{config}-{part.metric}-{dynamics}-{encoder}"
            train_simulator(settings, on_phase, on_progress).save(folder, settings)
            models.append(str(folder))
        wanted = EvaluateSettings(str(dataset), config, part.metric, tuple(models))
        evaluation = evaluate(wanted, on_phase, on_progress)
        report = out / f"{config}-{part.metric}.html"
        report_evaluation(evaluation, wanted, report)
        yield evaluation, report
