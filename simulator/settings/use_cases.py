"""Settings of what simulators are used for: `simulate`, `influence`, `mislabel`, `select`, `validate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from gptdynamics.configs import config_parts
from gptdynamics.errors import SettingsError
from gptdynamics.hub.source import is_hub_id
from gptdynamics.options import CommandLine
from gptdynamics.ranges import COUNT, INT32, RATE, SEED, Range, check_fields
from gptdynamics.runs.devices import check_device, worker_devices
from simulator.settings.of_dataset import OfDataset

# Titles of the rankings of `mislabel`, in the order of tables, and the names of those made of runs on the rows.
MISLABEL_TITLES = {
    "random": "random (10 shuffles)",
    "tracin_self": "TracIn-CP self-influence",
    "gptfluence_alpha": "GPTfluence self alpha",
    "memory_left_out": "memory, simulated loss when left out",
    "measured_left_out": "measured loss when left out",
    "ridge_left_out": "labels of the others, by ridge regression",
    "mean_rank": "mean of the ranks by several scores",
    "kernel_harm": "recorded gradients against those of the test examples",
}
AUTO, MEAN_RANK, KERNEL_HARM = "auto", "mean_rank", "kernel_harm"
MISLABEL_SCORES = tuple(name for name in MISLABEL_TITLES if name not in ("random", MEAN_RANK, KERNEL_HARM))

Model = Annotated[
    str | None, CommandLine(positional=True, hidden=True, default="trained on the runs, and kept beside them")
]
Dataset = Annotated[str, CommandLine(positional=True)]
# Named only where it is not what the simulator was trained on.
OwnDataset = Annotated[str | None, CommandLine(positional=True, default="that the simulator was trained on")]
Output = Annotated[Path, CommandLine(aliases=("out",))]
Run = Annotated[str | None, CommandLine(default="the first held-out run")]
Workers = Annotated[int | None, CommandLine(default="one per GPU, or one per core")]


class _TrainingSettings(OfDataset):
    """Settings of a command that trains."""

    workers: Workers
    device: str

    @property
    def devices(self) -> list[str]:
        """The device of each worker; raises SettingsError if this machine does not have it."""
        return worker_devices(self.device, self.workers)


@dataclass(frozen=True)
class SimulateSettings(OfDataset):
    """What is simulated.

    Attributes:
        model: the simulator, a folder or a Hub id.
        dataset: runs of its config: a folder, a Hub id or the short name. Needed for a recorded run, and where the
            simulator needs first values that the curriculum file does not give.
        run: a recorded run, e.g. 0004.
        curriculum: a JSON file, e.g. [[3, 17]]: the pool ids of each batch; or an object with `curriculum` and,
            optionally, `learning_rate` (one a step) and `initial` (one a test example).
        interval: also print a prediction interval with this coverage, e.g. 0.9.
        config: which config, if the simulator has several.
        metric: which metric, if the simulator has several.
    """

    model: Annotated[str, CommandLine(positional=True, hidden=True)]
    dataset: Annotated[str | None, CommandLine(positional=True)] = None
    run: Run = None
    curriculum: Path | None = None
    interval: float | None = None
    config: str | None = None
    metric: str | None = None

    def __post_init__(self) -> None:
        check_fields(self, {"interval": Range(0, 1, above=True, below=True)})
        if self.dataset is None and self.curriculum is None and self.run is None:
            raise SettingsError("give a curriculum file, or a dataset with the run to simulate")
        if self.curriculum is not None and self.run is not None:
            raise SettingsError("give a run or a curriculum file, not both")


@dataclass(frozen=True)
class InfluenceSettings(OfDataset):
    """Whose influence is measured, and on what.

    Attributes:
        model: the simulator, a folder or a Hub id.
        dataset: runs of its config: a folder, a Hub id or the short name.
        run: the run whose training examples are listed.
        test_ids: test examples to list one by one, e.g. 3,17.
        top: how many of those that helped most, and harmed most, to list.
        config: which config, if the simulator has several.
        metric: which metric, if the simulator has several.
        output: write a page here.
        prompt: ask about a text of your own instead of the test examples; with TARGET. Its first loss is measured here.
        target: the text after PROMPT, whose loss is asked about, e.g. " positive".
        data: folder with <task>/train.jsonl and eval.jsonl, which gradients of a new text may need. Default: bundled
            rows or the Hub.
    """

    dataset: OwnDataset = None
    model: Model = None
    run: Run = None
    test_ids: Annotated[tuple[int, ...], CommandLine(commas=True, default="the whole test set")] = ()
    top: int = 5
    config: str | None = None
    metric: str | None = None
    output: Annotated[Path | None, CommandLine(aliases=("out",), writes=True)] = None
    prompt: str | None = None
    target: str | None = None
    data: Path | None = None

    def __post_init__(self) -> None:
        check_fields(self, {"top": COUNT})
        if (self.prompt is None) != (self.target is None):
            raise SettingsError("a text of your own needs both: give --prompt and --target")
        if self.prompt is not None and self.test_ids:
            raise SettingsError("give test examples or a text of your own, not both")


@dataclass(frozen=True)
class MislabelSettings(_TrainingSettings):
    """Where wrong labels are searched, and with which trainings.

    Attributes:
        dataset: a dataset folder or a Hub id, whose pool is searched; or a task with labels, e.g. sst2, whose rows are
            read. Recorded runs are searched as they are, with no new training.
        output: folder for runs, suspected rows and figures. Runs that are in it are used.
        data: folder with <task>/train.jsonl and eval.jsonl. Default: bundled rows or the Hub.
        base_model: what is trained: `nano`, a Pythia size, a Hub id or a folder.
        rows: training rows to search.
        flip: make this share of the labels wrong first and see how many are found (paper: 0.4).
        seed: seed of flips, curricula and shuffles.
        learning_rate: rate of the first update of every training.
        batch_size: examples in an update.
        epochs: passes over the rows.
        runs: runs that the dynamics are made of, each on half of the rows.
        retrainings: with --flip: number of seeds for retraining after labels are corrected.
        test_examples: with --flip: test rows that the accuracy after correction is measured on.
        workers: processes, one thread each.
        by: the score that orders the list of suspects; auto: the one that predicts most of the given labels from other
            rows.
        config: which config of the dataset: its pool is searched, with its base model, rate, batches and epochs.
        device: of the trainings: `auto`, `cpu`, `cuda` (all GPUs) or `cuda:<number>`.
    """

    dataset: Dataset
    output: Output
    data: Path | None = None
    base_model: Annotated[str | None, CommandLine(default="the config's, else nano")] = None
    rows: Annotated[int | None, CommandLine(default="1000, or all there are", aliases=("pool",))] = None
    flip: float = 0.0
    seed: int = 0
    learning_rate: Annotated[float | None, CommandLine(default="the config's, else 1e-3")] = None
    batch_size: Annotated[int | None, CommandLine(default="the config's, else 16, and 4 of few rows")] = None
    epochs: Annotated[int | None, CommandLine(default="the config's, else 3")] = None
    runs: int = 20
    retrainings: int = 5
    test_examples: Annotated[int | None, CommandLine(default="872, or all there are")] = None
    workers: Workers = None
    by: str = AUTO
    config: Annotated[str | None, CommandLine(default="of a dataset with one config, that")] = None
    device: str = "auto"

    def __post_init__(self) -> None:
        counts = ("rows", "batch_size", "epochs", "runs", "retrainings", "test_examples", "workers")
        ranges = {"flip": Range(0, 1, below=True), "seed": SEED, "learning_rate": RATE, **dict.fromkeys(counts, COUNT)}
        check_fields(self, ranges)
        check_device(self.device)
        orders = (AUTO, *(name for name in MISLABEL_TITLES if name != "random"))
        if self.by not in orders:
            raise SettingsError(f"by={self.by!r} must be one of {', '.join(orders)}")
        if self.runs < 6:
            raise SettingsError(f"runs={self.runs} must be at least 6: a simulator is trained on them")
        if not self.of_dataset:
            check_label_task(self.task)
        elif self.data is not None or self.base_model is not None:
            raise SettingsError(
                f"{self.dataset} has rows and a base model of its own: leave out --data and --base-model, or name a "
                "task instead of a dataset"
            )

    @classmethod
    def check_options(cls, values: Mapping[str, Any]) -> None:
        """As of `OfDataset`; what is neither a folder nor a Hub id is a task, unless it has a config."""
        if "config" in values:
            super().check_options(values)

    @property
    def of_dataset(self) -> bool:
        """Whether a dataset is searched; else a task's rows are."""
        return self.config is not None or Path(self.dataset).is_dir() or is_hub_id(self.dataset)

    @property
    def task(self) -> str:
        """The task whose labels are searched."""
        return self.dataset if self.config is None else config_parts(self.config)[0]


def check_label_task(name: str) -> None:
    """Raise SettingsError if a task is unknown or has no labels."""
    from gptdynamics.tasks import get_task
    from gptdynamics.tasks.mixture import Mixture

    task = get_task(name)
    if isinstance(task, Mixture) or not task.labels:
        raise SettingsError(f"task {name} has no labels that could be wrong: give a label task, such as sst2")


@dataclass(frozen=True)
class SelectSettings(_TrainingSettings):
    """What training examples are chosen for, and how the choice is judged.

    Attributes:
        model: the simulator, a folder or a Hub id.
        dataset: runs of its config, with texts: a folder, a Hub id or the short name.
        output: folder for the choices, tables, figures and the page. What is trained is kept there.
        count: how many training examples to choose.
        test_ids: the target, ids of test examples, e.g. 3,17.
        seeds: trainings of each choice, in other orders.
        random: random choices to compare with, one training each.
        workers: processes, one thread each.
        config: which config, if the simulator has several.
        metric: which metric, if the simulator has several.
        device: of the trainings: `auto`, `cpu`, `cuda` (all GPUs) or `cuda:<number>`.
    """

    dataset: OwnDataset = None
    model: Model = None
    output: Output = field(kw_only=True)
    count: Annotated[int | None, CommandLine(default="32, or half of a smaller pool")] = None
    test_ids: Annotated[tuple[int, ...], CommandLine(commas=True, default="every other test example")] = ()
    seeds: int = 3
    random: int = 8
    workers: Workers = None
    config: str | None = None
    metric: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise SettingsError(f"count={self.count} leaves nothing to train on: it must be at least 1")
        check_fields(self, {"count": COUNT, "seeds": COUNT, "random": Range(2, INT32), "workers": COUNT})
        check_device(self.device)


@dataclass(frozen=True)
class ValidateSettings(_TrainingSettings):
    """Which counterfactual runs a simulator is checked on.

    Attributes:
        model: the simulator, a folder or a Hub id.
        dataset: runs of its config, with texts: a folder, a Hub id or the short name.
        output: folder for tables, figures and the page. What is trained is kept there.
        run: the run that is changed.
        each: runs of each of the four kinds of change. Runs with rows left out that the dataset has are taken instead
            of trained ones.
        share: share of the run's examples that are left out or replaced.
        test_examples: test examples that are measured, evenly chosen.
        measured: steps that are measured, the first and the last among them.
        seed: seed of the changes.
        workers: processes, one thread each.
        config: which config, if the simulator has several.
        metric: which metric, if the simulator has several.
        device: of the trainings: `auto`, `cpu`, `cuda` (all GPUs) or `cuda:<number>`.
    """

    dataset: OwnDataset = None
    model: Model = None
    output: Output = field(kw_only=True)
    run: Run = None
    each: int = 10
    share: float = 0.1
    test_examples: Annotated[int | None, CommandLine(default="50, or all there are")] = None
    measured: int = 9
    seed: int = 0
    workers: Workers = None
    config: str | None = None
    metric: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        ranges = {
            "each": Range(3, INT32),
            "share": Range(0, 1, above=True, below=True),
            "test_examples": COUNT,
            "measured": Range(2, INT32),
            "seed": SEED,
            "workers": COUNT,
        }
        check_fields(self, ranges)
        check_device(self.device)
