"""Makes a recorded run again, and of it what the methods are given."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.peers.work import Curricula, Work
from gptdynamics.configs import config_parts, run_parts
from gptdynamics.curriculum import Curriculum
from gptdynamics.dataset import Dynamics, read_dynamics
from gptdynamics.errors import SettingsError
from gptdynamics.models.tokens import TokenizedExample
from gptdynamics.runs import Bench
from gptdynamics.tasks.sources import restore_texts
from simulator.baselines.replay import open_bench, replay

CHECKPOINT_EVERY = 8
REORDERED = 16
# How far losses of the run made again may be from the recorded ones: in nats, and beyond that as a share of how much
# the run changed them. A GPU sums in another order, and every update makes the difference larger.
TOLERANCE, SHARE, GPU_SHARE = 1e-3, 0.02, 0.2


def read_runs(dataset: str, config: str, data: str, counterfactual: bool = False) -> Dynamics:
    """The runs of a config with the texts of their examples. Arguments as of `Work`."""
    runs = read_dynamics(dataset, config, counterfactual=counterfactual)
    task, folder = config_parts(config)[0], Path(data) if data else None
    pool, test = (restore_texts(getattr(runs, part), task, part, folder) for part in ("pool", "test"))
    return replace(runs, pool=pool, test=test)


def retrainings_of(runs: Dynamics, run: str) -> Dynamics:
    """The runs that repeat `run` with rows left out.

    Raises:
        SettingsError: there are none.
    """
    places = [place for place, name in enumerate(runs.runs) if run_parts(name).base == run]
    if not places:
        raise SettingsError(f"{runs.config}: run {run} was not made again with rows left out")
    return runs.take(places)


def reorderings(curriculum: Curriculum, count: int) -> Curricula:
    """The same rows in the same epochs in other orders; an epoch ends when each row has been visited once more."""
    rows = [key for batch in curriculum for key in batch]
    size, width = len(set(rows)), len(curriculum[0])
    found = []
    for seed in range(count):
        rng = np.random.default_rng([seed, 1])
        order = [int(key) for start in range(0, len(rows), size) for key in rng.permutation(rows[start : start + size])]
        found.append([order[start : start + width] for start in range(0, len(order), width)])
    return found


def bench_of(work: Work) -> tuple[Bench, Dynamics]:
    """What the run is made again on, and the recorded run."""
    runs = read_runs(work.dataset, work.config, work.data, counterfactual=True)
    return open_bench(runs, work.device), runs.take([runs.runs.index(work.run)])


def make_work(dataset: str, config: str, run: str, data: str, folder: Path, device: str = "cpu") -> Work:
    """Make the work of a run, or load it.

    Args:
        dataset, config, run, data: as of `Work`.
        folder: where it is kept.
        device: to make it on, and of the work: `cpu`, or a GPU such as `cuda`.

    Raises:
        SettingsError: the run was not made again, or comes out otherwise here than it was recorded.
        NotApplicableError: it cannot be made again.
    """
    if (folder / "work.json").exists():
        return Work.load(folder, device)
    runs = read_runs(dataset, config, data, counterfactual=True)
    fact, retrained = runs.take([runs.runs.index(run)]), retrainings_of(runs, run)
    bench = open_bench(runs, device)
    curriculum = fact.curricula[0]
    checkpoints = [*range(0, len(curriculum), CHECKPOINT_EVERY), len(curriculum)]
    rows = sorted({key for batch in curriculum for key in batch})
    pool = {example.id: example for example in runs.pool}
    work = Work(
        dataset,
        config,
        run,
        data,
        rows,
        [example.id for example in runs.test],
        [pool[row].prompt + pool[row].target for row in rows],
        [example.prompt + example.target for example in runs.test],
        [pool[row].target for row in rows],
        [example.target for example in runs.test],
        [_plain(bench.tokenized[row]) for row in rows],
        [_plain(each) for each in bench.test_set.tokenized],
        curriculum,
        [float(rate) for rate in fact.learning_rate[0]],
        {
            "betas": [bench.settings.beta1, bench.settings.beta2],
            "eps": bench.settings.epsilon,
            "weight_decay": bench.settings.weight_decay,
        },
        [int(step) for step in fact.step],
        checkpoints,
        {"left_out": retrained.curricula, "reordered": reorderings(curriculum, REORDERED)},
        folder,
        device,
    )
    shutil.rmtree(folder, ignore_errors=True)
    for done, model in enumerate(replay(bench, fact, 0)):
        if done in checkpoints:
            model.save_pretrained(work.checkpoint(done))
    begun, ended = fact.values[0, :, 0], fact.values[0, :, -1]
    difference = float(np.abs(bench.test_set.losses.measure(model)[0] - ended).mean())
    changed = float(np.abs(ended - begun).mean())
    if not difference <= (SHARE if device == "cpu" else GPU_SHARE) * changed + TOLERANCE:
        raise SettingsError(
            f"run {run} of {config} made again ends {difference:.3g} from the recorded losses, which had changed by "
            f"{changed:.3g}: use the versions of torch and transformers that it was made with"
        )
    work = replace(work, repeated=[difference, changed])
    work.save()
    return work


def _plain(example: TokenizedExample) -> tuple[list[int], list[int]]:
    return example.ids, example.scored
