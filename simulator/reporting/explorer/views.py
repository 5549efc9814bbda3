"""Which runs an explorer shows: those that its simulators were trained for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gptdynamics.dataset import read_dynamics
from gptdynamics.errors import SettingsError
from simulator.evaluation.simulated import Simulated, load_simulator, simulated_of
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.reporting.explorer.payload import View
from simulator.training import TrainSettings, train_simulator

TRAINED_HERE = (("memory", "gradient"), ("markov", "sentence"))


def views_of(dataset: str, models: Sequence[str], config: str | None = None) -> list[View]:
    """A view for each config and metric that there is a simulator for.

    Args:
        dataset: folder, Hub id or short name of the runs.
        models: folders or Hub ids of simulators.
        config: show only this one.

    Raises:
        SettingsError: a simulator knows nothing of it.
        DataError: runs or a simulator are missing or damaged.
    """
    together: dict[tuple[str, str], list[tuple[GPTfluenceSimulator, str]]] = {}
    for source in models:
        model = load_simulator(source)
        wanted = [group for group in model.config.groups if config in (None, group[0])]
        if not wanted:
            groups = ", ".join(dict.fromkeys(name for name, _ in model.config.groups))
            raise SettingsError(
                f"{source} was trained for {groups}, not {config}; without --config a page shows what there is"
            )
        for group in wanted:
            together.setdefault(group, []).append((model, source))
    views = []
    for group, members in together.items():
        runs = read_dynamics(dataset, *group)
        views.append(View(runs, tuple(simulated_of(model, source, runs) for model, source in members)))
    return views


def view_trained_here(
    dataset: str,
    config: str,
    metric: str,
    on_phase: Callable[[str, int], None] = lambda name, total: None,
    on_progress: Callable[[], None] = lambda: None,
) -> View:
    """A view of one config and metric with a memory and a markov that are trained now.

    Raises:
        GPTDynamicsError: as `train_simulator`.
    """
    runs = read_dynamics(dataset, config, metric)
    wanted = [TrainSettings(dataset, config, metric, dynamics, encoder) for dynamics, encoder in TRAINED_HERE]
    trained = [train_simulator(settings, on_phase, on_progress, runs=runs) for settings in wanted]
    return View(runs, tuple(Simulated(each.model) for each in trained))
