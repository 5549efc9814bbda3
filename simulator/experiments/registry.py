"""Every experiment by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gptdynamics.errors import GPTDynamicsError, SettingsError
from gptdynamics.options import command_line
from gptdynamics.outputs import write_output_text
from simulator.experiments.checkpoint_interval import checkpoint_interval
from simulator.experiments.convergence import convergence
from simulator.experiments.cost import cost
from simulator.experiments.counterfactuals import counterfactuals
from simulator.experiments.encoders import encoders
from simulator.experiments.estimation import estimate
from simulator.experiments.markov_order import markov_order
from simulator.experiments.model_size import model_size
from simulator.experiments.noise_floor import noise_floor
from simulator.experiments.number_of_runs import number_of_runs
from simulator.experiments.published_products import published_products
from simulator.experiments.trajectories import trajectories
from simulator.experiments.unseen import unseen
from simulator.experiments.workbench import Scenario, Workbench
from simulator.ownership import prepare_results_folder
from simulator.reporting.result import Result
from simulator.reporting.result_files import (
    Finished,
    markdown,
    picture_names,
    read_result,
    versions,
    write_result,
    write_results_page,
)
from simulator.settings.experiment import ExperimentSettings

# Folder of each experiment's own files, where all of them are run.
PARTS = "results"


@dataclass(frozen=True)
class Experiment:
    """An experiment; its title names the table or figure of the paper that it repeats."""

    title: str
    run: Callable[[Workbench], Result]


def _table(scenario: Scenario, kind: str) -> Callable[[Workbench], Result]:
    return partial(estimate, scenario=scenario, kind=kind)


EXPERIMENTS: dict[str, Experiment] = {
    "loss-instruct": Experiment("Loss, instruction tuning (table 1)", _table("instruct", "loss")),
    "loss-finetune": Experiment("Loss, fine-tuning (table 2)", _table("finetune", "loss")),
    "metrics-instruct": Experiment("Other metrics, instruction tuning (table 3)", _table("instruct", "metrics")),
    "metrics-finetune": Experiment("Other metrics, fine-tuning (table 4)", _table("finetune", "metrics")),
    "checkpoint-interval": Experiment("Measuring at every k-th step (figure 3)", checkpoint_interval),
    "markov-order": Experiment("Markov order (figure 4, table 10)", markov_order),
    "encoders": Experiment("Encoders (figure 5)", encoders),
    "model-size": Experiment("Sizes of the base model (figure 6)", model_size),
    "unseen": Experiment("Unseen examples (tables 11 and 12, figures 8 and 19 to 30)", unseen),
    "cost": Experiment("Cost of a trajectory (table 13)", cost),
    "published-tracin": Experiment("Gradient products of the published code", published_products),
    "convergence": Experiment("Convergence (figure 9)", convergence),
    "noise-floor": Experiment("The same curriculum twice", noise_floor),
    "counterfactuals": Experiment("Runs made again with rows left out", counterfactuals),
    "number-of-runs": Experiment("How many training runs a simulator needs", number_of_runs),
    "trajectories": Experiment("Trajectories (figures 2 and 10 to 18)", trajectories),
}


def run_experiment(name: str, bench: Workbench, output: Path) -> Finished:
    """Run one experiment and write NAME.json, NAME.md, NAME.html and its pictures.

    Raises:
        SettingsError: there is no such experiment.
        GPTDynamicsError: the data are missing or damaged.
    """
    if name not in EXPERIMENTS:
        raise SettingsError(f"no experiment {name!r}; there are: {', '.join(EXPERIMENTS)}, all")
    prepare_results_folder(output)
    experiment = EXPERIMENTS[name]
    began = time.perf_counter()
    result = experiment.run(bench)
    finished = Finished(name, experiment.title, result, _command(name, bench, output), time.perf_counter() - began)
    write_result(finished, output, bench.data)
    return finished


def _command(name: str, bench: Workbench, output: Path) -> str:
    settings = ExperimentSettings(name, str(bench.dataset), tuple(bench.only), bench.exact, output=output)
    return command_line("gptfluence", "experiment", settings)


def run_all(bench: Workbench, output: Path) -> Iterator[Finished]:
    """Run every experiment, then write results.md and results.html with all tables and figures.

    Those that were finished before, with the same runs and versions, are taken as they are. One that fails for want of
    something else than runs is skipped with the reason, and tried again the next time.

    Raises:
        SettingsError: there are no runs, or a config is not there.
    """
    # What no experiment can do without is an error here and no reason to skip them all.
    bench.configs()
    prepare_results_folder(output)
    done = []
    for name in EXPERIMENTS:
        before = read_result(name, _command(name, bench, output / PARTS), bench.data, output / PARTS)
        try:
            finished = before or run_experiment(name, bench, output / PARTS)
        except GPTDynamicsError as error:
            command = _command(name, bench, output / PARTS)
            finished = Finished(name, EXPERIMENTS[name].title, Result(skipped=[str(error)]), command, 0.0)
        done.append(finished)
        yield finished
    write_overview(done, bench.dataset, output)


def write_overview(done: list[Finished], dataset: str, output: Path) -> None:
    """Write results.md and results.html with all tables and figures."""
    title = f"Results on {Path(dataset).name or dataset}"
    made = ", ".join(f"{package} {number}" for package, number in versions().items())
    minutes = sum(finished.seconds for finished in done) / 60
    about = f"Written by `gptfluence experiment all` in {minutes:.0f} minutes, with {made}; seed 42."
    parts = [f"# {title}\n\n{about}\n"]
    for finished in done:
        pictures = [f"{PARTS}/{name}" for name in picture_names(finished)]
        parts.append(markdown(finished, pictures, level=2))
    write_output_text(output / "results.md", "\n".join(parts))
    write_results_page(output / "results.html", title, done)
