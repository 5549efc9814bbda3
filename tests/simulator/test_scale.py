"""Datasets larger than memory: values in mapped files, of which no more is loaded than is needed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gptdynamics.curriculum import Curriculum
from gptdynamics.dataset import read_dynamics, reading
from simulator.model.configuration_gptfluence import scale_of
from simulator.model.curricula import Members
from simulator.training import TrainSettings, markov_data, memory_arrays, memory_fit, train_simulator
from simulator.training.markov_data import draw
from simulator.training.memory_fit import fit_memory
from simulator.training.memory_states import spread

CONFIG = "mini_sentiment_nano"
MakeCurricula = Callable[..., list[Curriculum]]


@pytest.mark.usefixtures("quick_markov")
@pytest.mark.parametrize("dynamics", ["memory", "markov"])
def test_mapped_values_give_the_same_model(dataset: Path, dynamics: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainSettings(str(dataset), CONFIG, dynamics=dynamics, encoder="label")
    held = train_simulator(settings).model
    monkeypatch.setattr(reading, "LARGEST_HELD", 0)
    runs = read_dynamics(dataset, CONFIG, "loss")
    assert isinstance(runs.values.base, np.memmap)
    assert isinstance(runs.split("train").values, np.memmap)
    mapped = train_simulator(settings, runs=runs).model
    for name, value in held.state_dict().items():
        assert torch.equal(value, mapped.state_dict()[name]), name


def test_curves_and_responses_are_of_all_runs_however_many_are_taken_at_once(
    make_curricula: MakeCurricula, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    runs, steps, pool, tests = 21, 7, 12, 6
    curricula = make_curricula(0, runs, steps, pool)
    visits = Members.between(curricula, range(pool), range(steps + 1))
    rates = np.tile(np.linspace(1, 0.1, steps), (runs, 1))
    push = np.array([[rng.normal(1, 0.1) * np.mean(batch) for batch in curriculum] for curriculum in curricula])
    values = 2 + np.cumsum(np.pad(push, ((0, 0), (1, 0))), 1)[:, None] * rng.normal(0, 0.02, (tests, 1))
    vectors = rng.normal(size=(pool + tests, 5))
    arguments = (
        rates,
        np.arange(steps + 1),
        values.astype(np.float32),
        vectors[:pool],
        vectors[pool:],
        scale_of("bleu"),
    )
    whole = fit_memory(visits, *arguments)
    monkeypatch.setattr(memory_fit, "COMPONENTS", (whole.choice.components,))
    monkeypatch.setattr(memory_fit, "FILTERS", (whole.choice.filters,))
    monkeypatch.setattr(memory_fit, "RIDGES", (whole.choice.ridge,))
    asked: list[int] = []
    states = memory_fit.states_of

    def counted(few: Members, *others: object) -> tuple[np.ndarray, np.ndarray]:
        asked.append(len(few.places))
        return states(few, *others)

    monkeypatch.setattr(memory_fit, "states_of", counted)
    monkeypatch.setattr(memory_fit, "TUNED_RUNS", 8)
    some = fit_memory(visits, *arguments)
    assert max(asked) == 8
    assert some.residuals[0].shape[0] == 8
    # What is chosen on eight runs differs; what is fitted to all differs by no more than their scales do.
    scale = some.arrays["state_scale"] / whole.arrays["state_scale"]
    assert np.abs(np.log(scale)).max() < 0.2
    first = whole.arrays["baseline"][0]
    np.testing.assert_allclose(some.arrays["baseline"][0], first, atol=1e-4)


def test_runs_are_accumulated_to_the_same_normal_equations(make_curricula: MakeCurricula) -> None:
    rng = np.random.default_rng(1)
    x, values, psi = rng.normal(size=(9, 5, 4)), rng.uniform(1, 2, (9, 6, 5)), rng.normal(size=(6, 3))
    share, step = np.linspace(0.5, 1, 5), np.arange(5)

    def fitted(sizes: list[int]) -> dict[str, np.ndarray]:
        ends = np.cumsum(sizes)
        parts = [(x[end - size : end], values[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
        return memory_arrays.fit_arrays(lambda: iter(parts), psi, 0.1, share, step, scale_of("loss"))

    whole = fitted([9])
    for sizes in ([4, 5], [1] * 9):
        for name, value in fitted(sizes).items():
            np.testing.assert_allclose(value, whole[name], rtol=1e-8, atol=1e-10, err_msg=name)


@pytest.mark.usefixtures("quick_markov")
def test_bands_of_markov_are_made_of_some_runs_where_there_are_many(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(markov_data, "TUNED_RUNS", 5)
    settings = TrainSettings(str(dataset), CONFIG, dynamics="markov", encoder="label")
    assert train_simulator(settings).model.config.calibration_runs == 5


def test_places_are_spread_evenly() -> None:
    assert spread(5, 8).tolist() == [0, 1, 2, 3, 4]
    assert spread(9, 3).tolist() == [0, 4, 8]
    assert len(spread(1000, 64)) == 64


def test_draws_of_several_sets_are_draws_of_their_union() -> None:
    found = draw([3, 5], 4000, torch.Generator().manual_seed(0))
    assert sum(map(len, found)) == 4000
    for size, places in zip((3, 5), found, strict=True):
        counts = torch.bincount(places, minlength=size)
        assert len(counts) == size
        assert counts.min() > 400
    assert torch.equal(found[0], draw([3, 5], 4000, torch.Generator().manual_seed(0))[0])


MEASURED = """
import sys, threading, time
import numpy as np
from gptdynamics.dataset import Dynamics, reading
from gptdynamics.configs import run_name
from gptdynamics.curriculum import linear_decay
from gptdynamics.tasks import get_task, load_examples
from simulator.training import TrainSettings, markov_fit, memory_fit, train_simulator

def held():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) * 1024

reading.LARGEST_HELD = 2**20
markov_fit.LEARNING_RATES, markov_fit.PENALTIES, markov_fit.HIDDEN = (1e-3,), (1e-4,), (8,)
memory_fit.FILTERS, memory_fit.COMPONENTS, memory_fit.TUNED_RUNS = memory_fit.FILTERS[:1], (1,), 8
runs, steps, pool, tests = 2560, 40, 24, 400
rng = np.random.default_rng(0)
curricula = [[rng.choice(pool, 2).tolist() for _ in range(steps)] for _ in range(runs)]
values = reading.run_array((runs, tests, steps + 1))
for run in range(runs):
    values[run] = rng.normal(1, 0.1, (tests, steps + 1)).cumsum(1)
task = get_task("mini_sentiment")
part = lambda name, count: load_examples(task, name, count)
data = Dynamics("made", "mini_sentiment_nano", "loss", [run_name(at) for at in range(runs)], curricula,
    np.array([linear_decay(1e-3, steps)] * runs), np.arange(steps + 1), values, part("pool", pool), part("test", tests),
    "nano", "0", 2)
settings = TrainSettings("made", "mini_sentiment_nano", dynamics=sys.argv[1], encoder="label", bands=False)
before, most, done = held(), [0], threading.Event()

def watch():
    while not done.wait(0.02):
        most[0] = max(most[0], held())

watcher = threading.Thread(target=watch)
watcher.start()
train_simulator(settings, runs=data)
done.set()
watcher.join()
print((most[0] - before) / values.nbytes)
"""


@pytest.mark.slow
@pytest.mark.parametrize("dynamics", ["memory", "markov"])
def test_less_is_held_than_there_is(dynamics: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, dynamics], capture_output=True, text=True, check=False, timeout=1200
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.5
