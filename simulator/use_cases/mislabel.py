"""Finding wrong labels (section 4.6, figure 7): which examples look suspicious, and what inspecting them is worth.

The dynamics are collected on the pool as it is labelled, with the pool itself as the test set: in every run half of
it is trained on, and all of it is measured. With `flip`, labels are first made wrong on purpose, so that it is known
which are; then the rankings are compared, and the base model is really trained again on what each would correct.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gptdynamics.cache import Entries
from gptdynamics.configs import RunSettings, run_name
from gptdynamics.curriculum import Curriculum, run_seed
from gptdynamics.dataset import DatasetFolder, Dynamics, read_dynamics
from gptdynamics.examples import Example
from gptdynamics.models.base_model import model_revision
from gptdynamics.models.local_models import published_name
from gptdynamics.plans import PlanEntry
from gptdynamics.runs import BenchContents
from gptdynamics.tasks import get_single_task
from simulator.evaluation.held_out import some_tests
from simulator.evaluation.simulated import Simulated
from simulator.ownership import prepare_results_folder
from simulator.reporting.notebook_result import NotebookResult
from simulator.reporting.result import Result
from simulator.settings.use_cases import MISLABEL_SCORES, MislabelSettings
from simulator.training import TrainSettings, train_simulator
from simulator.use_cases.mislabel_recorded import RecordedSearch
from simulator.use_cases.mislabel_retraining import Retrained, bucketed_curriculum, retrain, trainings
from simulator.use_cases.mislabel_scores import (
    SelfInfluence,
    left_out_mean,
    prompt_vectors,
    ridge_left_out,
    self_alpha,
)
from simulator.use_cases.mislabel_search import MEASURED, Search
from simulator.use_cases.mislabel_signals import Order, Signal, mean_rank, ridge_signal, settle_order
from simulator.use_cases.trial import Trial, time_trials
from simulator.use_cases.trials import do_all, train_all

SHARES = (0.1, 0.2, 0.5)
SHUFFLES = 10
RETRAINED = ("random", "tracin_self", "gptfluence_alpha", "memory_left_out", "ridge_left_out")
# Pool examples that markov predicts in training; its factors on all of them follow from their vectors.
MARKOV_TESTS = 256
_SECONDS = "seconds."
# Processor seconds of fitting both simulators and of sentence vectors: of nano on a 2020s core, and for each row.
FIT_SECONDS, FIT_SECONDS_EACH = 20.0, 0.05


@dataclass(frozen=True, repr=False)
class Mislabels(NotebookResult):
    """What was found. N pool examples.

    Attributes:
        pool: the examples as they were searched.
        truth: the true target of each example whose label was flipped.
        scores: `[N]` by method, high where a label seems wrong.
        retrained: accuracies after correction, or None where nothing was flipped.
        seconds: processor time of trainings, by what they were for.
        order: the score that orders the list of suspects, and why.
        likelier: `[N]` the label that the other examples speak for, of each example; empty: not known.
    """

    settings: MislabelSettings
    pool: list[Example]
    truth: dict[int, str]
    scores: dict[str, np.ndarray]
    retrained: Retrained | None
    seconds: dict[str, float]
    order: Order
    likelier: tuple[str, ...] = ()

    def result(self) -> Result:
        """Tables, figures and rows."""
        # The report builds on this module.
        from simulator.use_cases.mislabel_report import mislabel_result, suspects_result

        return mislabel_result(self) if self.truth else suspects_result(self)

    def ranking(self, method: str | None = None) -> list[int]:
        """Pool ids, the most suspicious first, by a score; default: that which orders the list."""
        order = np.argsort(-self.scores[method or self.order.by], kind="stable")
        return [self.pool[index].id for index in order]


def flip_labels(pool: list[Example], share: float, seed: int) -> tuple[list[Example], dict[int, str]]:
    """Give a seeded share of the examples another label of their task.

    Returns:
        The examples, and the true target of each that was changed, by id.
    """
    rng = np.random.default_rng([seed, 1])
    chosen = rng.choice(len(pool), size=round(share * len(pool)), replace=False)
    flipped, truth = list(pool), {}
    for index in sorted(chosen.tolist()):
        example = pool[index]
        others = [label for label in get_single_task(example.task).labels if label != example.target]
        truth[example.id] = example.target
        flipped[index] = replace(example, target=others[int(rng.integers(len(others)))])
    return flipped, truth


def _collect(search: Search, pool: list[Example], on_progress: Callable[[], None]) -> float:
    """Make the runs that are missing, with the pool as the test set; processor seconds."""
    settings, run_settings = search.settings, search.runs
    folder = DatasetFolder(settings.output / "dynamics")
    entry = PlanEntry(run_settings, settings.runs)
    contents = BenchContents(run_settings, tuple(pool), tuple(pool))
    revision = model_revision(run_settings.base)
    folder.begin(entry, revision)
    for part in ("pool", "test"):
        folder.add_examples(settings.task, part, pool)
    trials = [Trial(half_curriculum(run_settings, pool, run), run) for run in entry.run_names]
    worked = train_all(contents, trials, settings.output / "trials", settings.devices, on_progress)
    for run in worked.results:
        folder.add_run(run_settings, (published_name(run_settings.base), revision), pool, run)
    folder.write_card()
    return worked.seconds


def half_curriculum(settings: RunSettings, pool: list[Example], run: str) -> Curriculum:
    """The batches of a run on half of the pool, which its name draws."""
    rng = np.random.default_rng(run_seed(settings, run))
    ids = rng.choice([example.id for example in pool], size=settings.subset, replace=False).tolist()
    lengths = {example.id: len(example.prompt) for example in pool}
    return bucketed_curriculum(ids, lengths, settings.batch_size, settings.epochs, [*run_seed(settings, run), 3])


def score_examples(
    runs: Dynamics, on_phase: Callable[[str, int], None], on_progress: Callable[[], None]
) -> dict[str, np.ndarray]:
    """The scores that are made of dynamics whose test set is the pool: `[N]` by method."""
    # No band is asked for; those of markov would be five more fits.
    wanted = TrainSettings(runs.source, runs.config, "loss", "markov", "sentence", bands=False)
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(runs.test), size=min(MARKOV_TESTS, len(runs.test)), replace=False)
    markov = train_simulator(wanted, on_phase, on_progress, runs=some_tests(runs, sorted(chosen.tolist()))).model
    memory = train_simulator(
        replace(wanted, dynamics="memory", encoder="gradient"), on_phase, on_progress, runs=runs
    ).model
    return {
        "gptfluence_alpha": self_alpha(markov),
        "memory_left_out": left_out_mean(runs, Simulated(memory).predict(runs)),
        "measured_left_out": left_out_mean(runs, runs.values),
        "ridge_left_out": ridge_left_out(
            prompt_vectors(runs.pool, runs.base_model), [example.target for example in runs.pool]
        ),
    }


def _whole_curriculum(settings: RunSettings, pool: list[Example]) -> Curriculum:
    ids, lengths = [example.id for example in pool], {example.id: len(example.prompt) for example in pool}
    return bucketed_curriculum(ids, lengths, settings.batch_size, settings.epochs, [settings.seed, 3, 0])


def _scores(
    search: Search,
    pool: list[Example],
    on_phase: Callable[[str, int], None],
    on_progress: Callable[[], None],
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Every score `[N]` by method, and processor seconds: those kept, or new ones."""
    settings, run_settings = search.settings, search.runs
    names = PlanEntry(run_settings, settings.runs).run_names
    texts = [(each.id, each.prompt, each.target) for each in pool]
    key = [run_settings.to_dict(), names, texts, model_revision(run_settings.base)]
    stored = Entries(settings.output / "scores")
    arrays = stored.load_arrays(key)
    if arrays is not None and arrays.keys() >= set(MISLABEL_SCORES):
        times = {name.removeprefix(_SECONDS): float(arrays[name]) for name in arrays if name.startswith(_SECONDS)}
        return {name: arrays[name] for name in MISLABEL_SCORES}, times
    on_phase("runs on the pool", settings.runs)
    seconds = {"dynamics": _collect(search, pool, on_progress)}
    runs = read_dynamics(settings.output / "dynamics", run_settings.config, "loss")
    began = time.process_time()
    scores = score_examples(runs, on_phase, on_progress)
    seconds["simulators"] = time.process_time() - began
    on_phase("TracIn-CP self-influence", 1)
    contents = BenchContents(search.whole, tuple(pool), tuple(pool[:1]))
    [(_, traced, seconds["tracin_self"])] = do_all(
        contents, [SelfInfluence(_whole_curriculum(search.whole, pool))], settings.devices[:1]
    )
    on_progress()
    scores = {"tracin_self": traced, **scores}
    stored.save_arrays(key, {**scores, **{f"{_SECONDS}{name}": np.array(value) for name, value in seconds.items()}})
    return scores, seconds


def _signals(
    search: Search, pool: list[Example], scores: dict[str, np.ndarray]
) -> tuple[list[Signal], tuple[str, ...]]:
    """The two scores that say which labels they predict, of rows that they have not seen; and the likelier labels."""
    ridge, likelier = ridge_signal(prompt_vectors(pool, search.runs.base), [each.target for each in pool])
    accuracy = read_dynamics(search.settings.output / "dynamics", search.runs.config, "accuracy")
    right = left_out_mean(accuracy, accuracy.values) > 0.5
    measured = Signal("measured_left_out", "runs without the row", scores["measured_left_out"], right)
    return [replace(ridge, score=scores[ridge.name]), measured], likelier


def find_mislabels(
    search: Search | RecordedSearch,
    on_phase: Callable[[str, int], None] = lambda name, total: None,
    on_progress: Callable[[], None] = lambda: None,
) -> Mislabels:
    """Score every row of the pool, and where labels were flipped compare the rankings by training again.

    Args:
        search: what to do. Runs, scores and trainings that `output` has already are not made again; of recorded runs
            none are made.

    Raises:
        GPTDynamicsError: the base model cannot be had, or a training diverged.
    """
    settings = search.settings
    prepare_results_folder(settings.output)
    if isinstance(search, RecordedSearch):
        return _of_recorded(search)
    pool, truth = flip_labels(search.pool, settings.flip, settings.seed)
    scores, seconds = _scores(search, pool, on_phase, on_progress)
    signals, likelier = _signals(search, pool, scores)
    scores |= mean_rank(signals)
    order = settle_order(settings.by, signals, scores, [each.target for each in pool])
    mislabels = Mislabels(settings, pool, truth, scores, None, seconds, order, likelier)
    if not settings.flip:
        return mislabels
    on_phase("training again after correction", trainings(len(RETRAINED), len(SHARES), settings.retrainings))
    whole = BenchContents(search.whole, tuple(pool), tuple(search.test))
    ids = [example.id for example in pool]
    rankings = {"random": shuffles(ids, settings.seed), **{name: [mislabels.ranking(name)] for name in RETRAINED[1:]}}
    keep = settings.output / "trials"
    retrained = retrain(whole, rankings, truth, SHARES, settings.retrainings, keep, settings.devices, on_progress)
    return replace(mislabels, retrained=retrained, seconds={**seconds, "retraining": retrained.seconds})


def _of_recorded(search: RecordedSearch) -> Mislabels:
    signals, likelier = search.signals()
    scores = {each.name: each.score for each in signals} | mean_rank(signals)
    targets = [each.target for each in search.pool]
    order = settle_order(search.settings.by, signals, scores, targets, search.unlabelled)
    return Mislabels(search.settings, search.pool, {}, scores, None, {}, order, likelier)


def shuffles(ids: list[int], seed: int) -> list[list[int]]:
    """Ten random rankings."""
    return [np.random.default_rng([seed, 2, each]).permutation(ids).tolist() for each in range(SHUFFLES)]


def detected_shares(ranking: list[int], truth: dict[int, str]) -> np.ndarray:
    """Share of the mislabelled examples among the first n of a ranking, for n = 0 .. N: `[N + 1]`."""
    hits = np.array([key in truth for key in ranking], dtype=float)
    return np.concatenate([[0.0], hits.cumsum() / max(1.0, hits.sum())])


@dataclass(frozen=True)
class MislabelPlan:
    """What `find_mislabels` would do.

    Attributes:
        runs: that are missing, of `run_steps` updates and so many measurements of the pool each.
        run_steps: updates.
        retrainings: at most, of `whole_steps` updates each.
        whole_steps: updates.
        seconds: of processor time in all, from a few updates timed here, and fits of simulators timed elsewhere.
    """

    runs: int
    run_steps: int
    retrainings: int
    whole_steps: int
    seconds: float


def plan_mislabels(search: Search | RecordedSearch) -> MislabelPlan:
    """Count the trainings, and estimate their time by a few updates and one measurement.

    Raises:
        GPTDynamicsError: the base model cannot be had.
    """
    if isinstance(search, RecordedSearch):
        return MislabelPlan(0, 0, 0, 0, 0.0)
    settings, pool, run_settings, whole = search.settings, search.pool, search.runs, search.whole
    finished = DatasetFolder(settings.output / "dynamics").finished(run_settings.config)
    missing = len([index for index in range(settings.runs) if run_name(index) not in finished])
    again = trainings(len(RETRAINED), len(SHARES), settings.retrainings) if settings.flip else 0
    cost = time_trials(
        BenchContents(run_settings, tuple(pool), tuple(pool)),
        half_curriculum(run_settings, pool, "0000"),
        settings.devices[0],
    )
    each_run = cost.training(run_settings.run_steps, MEASURED + 2, len(pool))
    each_again = cost.training(whole.run_steps, 2, len(search.test))
    # A backward pass for one example costs about as much as its part of an update.
    traced = 5 * len(pool) * cost.update * 2 / run_settings.batch_size
    # What one process has spent on libraries and the model until now, every other one spends, too.
    workers = min(len(settings.devices), missing or again)
    start = time.process_time() if workers > 1 else cost.opening
    fits = FIT_SECONDS + FIT_SECONDS_EACH * len(pool)
    seconds = missing * each_run + again * each_again + traced + workers * start + fits
    return MislabelPlan(missing, run_settings.run_steps, again, whole.run_steps, seconds)
