"""Synthetic runs, small models and a dataset folder made by hand: no base model is trained for these tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.utils import logging

from gptdynamics.configs import RunSettings, config_parts, run_name
from gptdynamics.curriculum import Curriculum, draw_curriculum, linear_decay
from gptdynamics.dataset import DatasetFolder, Dynamics
from gptdynamics.examples import Example
from gptdynamics.plans import PlanEntry
from gptdynamics.runs import Bench, Run
from gptdynamics.runs.run import KernelCheckpoint, RunKernel
from gptdynamics.tasks import get_task, load_examples
from simulator.baselines.simfluence_descent import Descent
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.example_encoding import content_key
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.training import TrainSettings, markov_fit, train_simulator


@pytest.fixture(scope="session", autouse=True)
def quiet() -> Iterator[None]:
    """No loading bars; the commands turn them off, too."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    yield
    logging.enable_progress_bar()
    logging.set_verbosity_warning()


@pytest.fixture(scope="session", autouse=True)
def quick_descent() -> Iterator[None]:
    """Baselines by descent are trained for a moment, but where a test says how long."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for module in ("simulator.baselines.simfluence_descent", "simulator.experiments.convergence"):
            monkeypatch.setattr(f"{module}.Descent", partial(Descent, epochs=15))
        yield


def sentiment(part: str, count: int) -> list[Example]:
    return load_examples(get_task("mini_sentiment"), part, count)


@pytest.fixture(scope="session")
def make_curricula() -> Callable[..., list[Curriculum]]:
    """Random curricula over pool ids 0..pool-1."""

    def make(seed: int, runs: int, steps: int, pool: int, batch: int = 2) -> list[Curriculum]:
        rng = np.random.default_rng(seed)
        return [[rng.choice(pool, size=batch, replace=False).tolist() for _ in range(steps)] for _ in range(runs)]

    return make


@pytest.fixture(scope="session")
def make_dynamics() -> Callable[..., Dynamics]:
    """`Dynamics` from curricula and values `[R, M, S]`; pool and test are mini_sentiment rows."""

    def make(
        curricula: list[Curriculum],
        values: np.ndarray,
        pool: int,
        step: Sequence[int] | None = None,
        rates: np.ndarray | None = None,
        metric: str = "loss",
        config: str = "mini_sentiment_nano",
    ) -> Dynamics:
        runs, steps = len(curricula), len(curricula[0])
        return Dynamics(
            source="made by hand",
            config=config,
            metric=metric,
            runs=[run_name(index) for index in range(runs)],
            curricula=curricula,
            learning_rate=np.array([linear_decay(1e-3, steps)] * runs) if rates is None else rates,
            step=np.arange(steps + 1) if step is None else np.array(step),
            values=values.astype(np.float32),
            pool=sentiment("pool", pool),
            test=sentiment("test", values.shape[1]),
            base_model="nano",
            base_revision="0123456789ab",
            batch_size=len(curricula[0][0]),
        )

    return make


@pytest.fixture(scope="session")
def make_config() -> Callable[..., GPTfluenceConfig]:
    """A configuration for `pool` and `tests` mini_sentiment rows and `steps` updates."""

    def make(dynamics: str, pool: int = 7, tests: int = 4, steps: int = 6, **changes: object) -> GPTfluenceConfig:
        pool_examples, test_examples = sentiment("pool", pool), sentiment("test", tests)
        settings = {
            "dataset_config": "mini_sentiment_nano",
            "base_model": "nano",
            "base_revision": "0123456789ab",
            "encoder": {"encoder": "label", "width": 64},
            "encoder_width": 5,
            "pool_ids": [example.id for example in pool_examples],
            "pool_keys": [content_key(example) for example in pool_examples],
            "test_ids": [example.id for example in test_examples],
            "test_keys": [content_key(example) for example in test_examples],
            "steps": steps,
            "batch_size": 2,
            "learning_rate": linear_decay(1e-3, steps),
            "hidden": 3,
            "components": 2,
            "test_components": 3,
            "decays": [0.7, 1.0],
            "fade_rates": [0.0, 2.0],
            "momenta": [0.0, 0.6],
            "curvatures": [0.0, 3.0],
            "curve_components": 2,
        }
        return GPTfluenceConfig(dynamics=dynamics, **(settings | changes))

    return make


@pytest.fixture(scope="session")
def make_model() -> Callable[[GPTfluenceConfig], GPTfluenceSimulator]:
    """A simulator of random weights that does not blow up."""

    def make(config: GPTfluenceConfig, seed: int = 0) -> GPTfluenceSimulator:
        random = torch.Generator().manual_seed(seed)
        model = GPTfluenceSimulator(config).eval()
        with torch.no_grad():
            for _, tensor in sorted(model.state_dict().items()):
                tensor.copy_(torch.randn(tensor.shape, generator=random) * 0.5)
            if config.dynamics in ("memory", "tangent"):
                rates = torch.tensor(config.learning_rate)
                model.dynamics.decays.copy_(torch.tensor(config.decays))
                tau = rates.sum() / rates.max() if len(rates) else 1.0
                model.dynamics.fade_rates.copy_(torch.tensor(config.fade_rates) / tau)
                model.dynamics.momenta.copy_(torch.tensor(config.momenta))
                model.dynamics.curvatures.copy_(torch.tensor(config.curvatures) / tau)
                if config.dynamics == "memory":
                    model.dynamics.state_scale.copy_(torch.linspace(1, 2, len(model.dynamics.state_scale)))
                model.dynamics.shrinkage.copy_(torch.linspace(0.5, 1, config.steps + 1))
                model.dynamics.limit.fill_(50.0)
                model.dynamics.unseen_limit.fill_(50.0)
                model.dynamics.curve_range.copy_(torch.tensor([[-50.0], [50.0]]).expand_as(model.dynamics.curve_range))
                model.dynamics.reference_rate.copy_(rates.max())
                model.dynamics.carry.fill_(0.7)
                model.dynamics.tau.copy_(torch.nn.functional.pad((rates / rates.max()).cumsum(0), (1, 0)))
                model.dynamics.baseline.add_(5)
        return model

    return make


RUNS, STEPS, POOL, TESTS = 8, 10, 24, 6
REVISION = "0123456789ab"


def write_runs(
    root: Path,
    config: str,
    base_model: str,
    runs: int,
    generate_every: int = 1,
    kernels: int = 0,
    pool_size: int = POOL,
) -> None:
    """Runs whose loss falls, and is pushed by the label (or id) balance of recent batches; some with kernels."""
    settings = RunSettings(
        config=config,
        learning_rate=1e-3,
        pool_size=pool_size,
        subset=20,
        batch_size=2,
        epochs=1,
        steps=STEPS,
        test_examples=TESTS,
        generate_every=generate_every,
        base_model=base_model,
    )
    task = get_task(settings.task)
    pool, test = load_examples(task, "pool", pool_size), load_examples(task, "test", TESTS)
    folder = DatasetFolder(root)
    folder.begin(PlanEntry(settings, runs), "0123456789ab")
    folder.add_examples(task.name, "pool", pool)
    folder.add_examples(task.name, "test", test)
    sign = {example.id: 1.0 if example.target == test[0].target else -1.0 for example in pool}
    if task.generates:
        sign = {example.id: (-1.0) ** example.id for example in pool}
    side = np.array([(-1.0) ** number for number, example in enumerate(test)])
    if not task.generates:
        side = np.array([1.0 if example.target == test[0].target else -1.0 for example in test])
    start = np.linspace(0.8, 1.6, TESTS)
    for index in range(runs):
        curriculum = draw_curriculum(settings, run_name(index))
        rates = linear_decay(settings.learning_rate, STEPS)
        state, loss = 0.0, [start]
        for done, (batch, rate) in enumerate(zip(curriculum, rates, strict=True), start=1):
            state = 0.9 * state + rate / 1e-3 * float(np.mean([sign[at] for at in batch]))
            loss.append(start * 0.95**done - 0.1 * side * state)
        values = np.stack(loss, axis=-1).astype(np.float32)
        metrics = {"loss": values}
        generation_step: list[int] = []
        if task.generates:
            generation_step = sorted({*range(0, STEPS + 1, generate_every), STEPS})
            metrics |= {"bleu": 20 - 10 * values[:, generation_step], "rougeL": 1 - values[:, generation_step] / 2}
        else:
            metrics["accuracy"] = (values < 0.9).astype(np.float32)
        products, kernel = {}, None
        if index < kernels:
            noise = np.random.default_rng(index).normal(size=(2, pool_size, TESTS)) / 4
            pairs = np.outer([sign[example.id] for example in pool], side)
            products = {at: (pairs + each).astype(np.float32) for at, each in zip((0, 5), noise, strict=True)}
            kernel = RunKernel(8, 0, tuple(KernelCheckpoint(at, 0.1, 1.0) for at in products))
        run = Run(
            run_name(index),
            curriculum,
            rates,
            list(range(STEPS + 1)),
            generation_step,
            metrics,
            products=products,
            kernel=kernel,
        )
        folder.add_run(settings, (base_model, REVISION), test, run)
    folder.write_card()


def collect_runs(root: Path, settings: RunSettings, planned: int, runs: Sequence[str]) -> Path:
    """Really train some of the planned runs of a config on generated rows, and write them into a folder."""
    bench, folder = Bench.load(settings, None), DatasetFolder(root)
    folder.begin(PlanEntry(settings, planned), bench.base.revision)
    for part, examples in (("pool", bench.pool), ("test", bench.test)):
        folder.add_examples(config_parts(settings.config)[0], part, examples)
    for run in runs:
        folder.add_run(settings, (bench.base.name, bench.base.revision), bench.test, bench.run(run))
    return root


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A dataset folder: two label configs, one of them on the tiny model, a generation config measured
    every 4 updates, and configs with too few runs."""
    root = tmp_path_factory.mktemp("dataset")
    write_runs(root, "mini_sentiment_nano", "nano", RUNS, kernels=2)
    write_runs(root, "mini_sentiment_tiny", str(tiny_model_folder), RUNS)
    write_runs(root, "mini_triples_nano", "nano", RUNS, generate_every=4)
    write_runs(root, "mini_sentiment_few", "nano", 3)
    write_runs(root, "mini_sentiment_two", "nano", 2)
    return root


def set_quick_markov(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markov_fit, "LEARNING_RATES", (1e-3,))
    monkeypatch.setattr(markov_fit, "PENALTIES", (1e-5,))
    monkeypatch.setattr(markov_fit, "HIDDEN", (8,))
    short = partial(markov_fit.MarkovTraining, most_updates=20, batch_rows=32, check_every=10)
    monkeypatch.setattr(markov_fit, "MarkovTraining", short)


@pytest.fixture(scope="session")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of label-vector simulators of mini_sentiment_nano's loss, and of two other things, by name."""
    root = tmp_path_factory.mktemp("models")
    wanted = {
        "memory": {},
        "markov": {"dynamics": "markov"},
        "markov_2": {"dynamics": "markov", "order": 2},
        "of accuracy": {"metric": "accuracy"},
        "of triples": {"config": "mini_triples_nano", "metric": "rougeL"},
        "of the tiny model": {"config": "mini_sentiment_tiny"},
    }
    folders = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        set_quick_markov(monkeypatch)
        for name, changes in wanted.items():
            settings = TrainSettings(
                **({"dataset": str(dataset), "config": "mini_sentiment_nano", "encoder": "label"} | changes)
            )
            folders[name] = str(root / name.replace(" ", "-"))
            train_simulator(settings).save(Path(folders[name]), settings)
    return folders


@pytest.fixture
def quick_markov(monkeypatch: pytest.MonkeyPatch) -> None:
    """One setting of markov instead of all, trained for a moment."""
    set_quick_markov(monkeypatch)
