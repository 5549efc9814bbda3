"""Which runs an explorer shows: those that its simulators were trained for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gptdynamics.dataset import read_dynamics
from gptdynamics.errors import SettingsError
from simulator.evaluation.simulated import Simulated, load_simulator
from simulator.explorer.payload import View
from simulator.training import TrainSettings, train_simulator

TRAINED_HERE = (("memory", "gradient"), ("markov", "sentence"))


def views_of(dataset: str, models: Sequence[str], config: str | None = None) -> list[View]:
    """A view for each config and metric that there is a simulator for.

    Args:
        dataset: folder, Hub id or short name of the runs.
        models: folders or Hub ids of simulators.
        config: refuse simulators of others.

    Raises:
        SettingsError: a simulator is of another config.
        DataError: runs or a simulator are missing or damaged.
    """
    together: dict[tuple[str, str], list[Simulated]] = {}
    for source in models:
        simulated = Simulated(load_simulator(source), source)
        trained = simulated.simulator.config
        if config not in (None, trained.dataset_config):
            raise SettingsError(
                f"{source} was trained for {trained.dataset_config}, not {config}; without --config a page shows both"
            )
        together.setdefault((trained.dataset_config, trained.metric), []).append(simulated)
    return [View(read_dynamics(dataset, *key), tuple(members)) for key, members in together.items()]


def view_trained_here(
    dataset: str,
    config: str,
    metric: str,
    on_phase: Callable[[str, int], None] = lambda name, total: None,
    on_progress: Callable[[], None] = lambda: None,
) -> View:
    """A view of one config and metric with a memory and a markov that are trained now.

    Args:
        dataset, config, metric: of the runs.
        on_phase, on_progress: as in `train_simulator`.

    Raises:
        GPTDynamicsError: as `train_simulator`.
    """
    runs = read_dynamics(dataset, config, metric)
    wanted = [TrainSettings(dataset, config, metric, dynamics, encoder) for dynamics, encoder in TRAINED_HERE]
    trained = [train_simulator(settings, on_phase, on_progress, runs=runs) for settings in wanted]
    return View(runs, tuple(Simulated(each.model) for each in trained))
