"""Every experiment by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gptdynamics.errors import GPTDynamicsError
from gptdynamics.options import command_line
from simulator.experiments.checkpoint_interval import checkpoint_interval, show_checkpoint_interval
from simulator.experiments.comparison import Row, methods_note
from simulator.experiments.convergence import convergence, show_convergence
from simulator.experiments.cost import cost, show_cost
from simulator.experiments.counterfactuals import counterfactuals, show_counterfactuals
from simulator.experiments.encoders import encoders, show_encoders
from simulator.experiments.estimation import estimate, show_estimates
from simulator.experiments.markov_order import markov_order, show_markov_order
from simulator.experiments.model_size import model_size, show_model_size
from simulator.experiments.noise_floor import noise_floor, show_noise_floor
from simulator.experiments.number_of_runs import number_of_runs, show_number_of_runs
from simulator.experiments.published_products import published_products, show_published_products
from simulator.experiments.trajectories import show_trajectories, trajectories
from simulator.experiments.unseen import show_unseen, unseen
from simulator.experiments.workbench import Scenario, Workbench
from simulator.ownership import prepare_results_folder
from simulator.reporting.result import Result
from simulator.reporting.result_files import Finished, read_record, write_result
from simulator.settings.experiment import ExperimentSettings


@dataclass(frozen=True)
class Experiment:
    """An experiment.

    Attributes:
        title: of its page; names the table or figure of the paper that it repeats.
        question: what it asks, in a sentence.
        measure: gives rows of numbers, and what was skipped.
        show: makes tables, at most one figure and notes of the rows alone, so that pages can be written again.
    """

    title: str
    question: str
    measure: Callable[[Workbench], Result]
    show: Callable[[list[Row]], Result]


def _estimate(title: str, question: str, scenario: Scenario, kind: str) -> Experiment:
    measure = partial(estimate, scenario=scenario, kind=kind)
    return Experiment(title, question, measure, partial(show_estimates, scenario=scenario, kind=kind))


EXPERIMENTS: dict[str, Experiment] = {
    "counterfactuals": Experiment(
        "Leaving rows out",
        "How well does each method rank real retrainings with a fifth of the rows left out?",
        counterfactuals,
        show_counterfactuals,
    ),
    "number-of-runs": Experiment(
        "How many runs are needed",
        "How good is a simulator that is fitted on few recorded runs?",
        number_of_runs,
        show_number_of_runs,
    ),
    "loss-finetune": _estimate(
        "Loss, fine-tuning (table 2)",
        "How well is the loss of every test example predicted in runs that no method has seen?",
        "finetune",
        "loss",
    ),
    "loss-instruct": _estimate(
        "Loss, instruction tuning (table 1)",
        "How well is the loss predicted where one run trains on six tasks with instructions?",
        "instruct",
        "loss",
    ),
    "metrics-finetune": _estimate(
        "Other metrics, fine-tuning (table 4)",
        "How well are accuracy, BLEU and ROUGE-L predicted in runs that no method has seen?",
        "finetune",
        "metrics",
    ),
    "metrics-instruct": _estimate(
        "Other metrics, instruction tuning (table 3)",
        "How well are accuracy, BLEU and ROUGE-L predicted where one run trains on six tasks?",
        "instruct",
        "metrics",
    ),
    "unseen": Experiment(
        "Unseen examples (tables 11 and 12)",
        "What is predicted for training rows, test examples, or both, that no training run showed?",
        unseen,
        show_unseen,
    ),
    "encoders": Experiment(
        "Encoders (figure 5)", "Which vectors of examples does a simulator need?", encoders, show_encoders
    ),
    "markov-order": Experiment(
        "Markov order (figure 4, table 10)",
        "Does the paper's simulator predict better from more than one earlier value?",
        markov_order,
        show_markov_order,
    ),
    "checkpoint-interval": Experiment(
        "Measuring at every k-th step (figure 3)",
        "How often must runs be measured to fit a simulator on them?",
        checkpoint_interval,
        show_checkpoint_interval,
    ),
    "model-size": Experiment(
        "Sizes of the base model (figure 6)",
        "Are runs of larger models harder to predict?",
        model_size,
        show_model_size,
    ),
    "convergence": Experiment(
        "Convergence (figure 9)",
        "How do the paper's two simulators converge under its own optimisers?",
        convergence,
        show_convergence,
    ),
    "cost": Experiment("Cost of a trajectory (table 13)", "What does one predicted trajectory cost?", cost, show_cost),
    "published-tracin": Experiment(
        "Gradient products of the published code",
        "Are the gradient products of the authors' code inner products of gradients?",
        published_products,
        show_published_products,
    ),
    "noise-floor": Experiment(
        "The same curriculum twice",
        "How much do two runs on the same batches differ, so that no method can do better?",
        noise_floor,
        show_noise_floor,
    ),
    "trajectories": Experiment(
        "Trajectories (figures 2 and 10 to 18)", "What do predictions look like?", trajectories, show_trajectories
    ),
}


def run_experiment(name: str, bench: Workbench, output: Path) -> Finished:
    """Run one experiment and write NAME.json, NAME.md and NAME.svg.

    Raises:
        SettingsError: there is no such experiment.
        GPTDynamicsError: the data are missing or damaged.
    """
    command = _command(name, bench, output)
    prepare_results_folder(output)
    began = time.perf_counter()
    measured = EXPERIMENTS[name].measure(bench)
    finished = _finished(name, command, measured, time.perf_counter() - began)
    write_result(finished, output, data=bench.data)
    return finished


def _finished(name: str, command: str, measured: Result, seconds: float) -> Finished:
    """The experiment with its page's tables, figure and notes."""
    experiment = EXPERIMENTS[name]
    page = experiment.show(measured.rows)
    notes = [*methods_note(measured.rows), *page.notes] if page.notes else []
    result = Result(page.tables, page.figures, measured.rows, notes, measured.skipped)
    return Finished(name, experiment.title, result, command, seconds, experiment.question)


def finished_of_record(record: dict[str, Any]) -> Finished:
    """An experiment that was finished before, with its page made from what its JSON has."""
    measured = Result(rows=record["rows"], skipped=record["skipped"])
    return _finished(record["experiment"], record["command"], measured, record["seconds"])


def _command(name: str, bench: Workbench, output: Path) -> str:
    settings = ExperimentSettings(name, str(bench.dataset), tuple(bench.only), bench.exact, output=output)
    return command_line("gptfluence", "experiment", settings)


def run_all(bench: Workbench, output: Path) -> Iterator[Finished]:
    """Run every experiment.

    The numbers of those that were finished before, with the same runs and versions, are taken as they are; their pages
    are written again. One that fails for want of something else than runs is skipped with the reason, and tried again
    the next time.

    Raises:
        SettingsError: there are no runs, or a config is not there.
    """
    # What no experiment can do without is an error here and no reason to skip them all.
    bench.configs()
    prepare_results_folder(output)
    for name in EXPERIMENTS:
        command = _command(name, bench, output)
        before = read_record(name, command, bench.data, output)
        try:
            if before is None:
                yield run_experiment(name, bench, output)
            else:
                finished = finished_of_record(before)
                write_result(finished, output, data=bench.data)
                yield finished
        except GPTDynamicsError as error:
            yield _finished(name, command, Result(skipped=[str(error)]), 0.0)
