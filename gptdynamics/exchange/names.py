"""Parses and makes names of folders and files in the authors' layout."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from gptdynamics.configs import RunSettings, run_parts
from gptdynamics.errors import DataError
from gptdynamics.exchange.files import UNKNOWN
from gptdynamics.models.base_model import PYTHIA_REVISIONS

CURRICULUM_FILE = "train_samples_id.json"
EXAMPLE_FOLDERS = ("sft_tasks", "it_tasks")
METRIC_FILE = "all_{}_trajectory.out"

# Tasks that have different names: our name by theirs, and the reverse.
OUR_TASKS = {"wmt16_de_en": "wmt16"}
THEIR_TASKS = {ours: theirs for theirs, ours in OUR_TASKS.items()}
# For each part of a folder's name, `<part>-<value>`, the attribute of `RunFolder`.
_PARTS = {
    "bs": "batch_size",
    "shot": "shot",
    "sample": "sample",
    "model": "model",
    "lr": "learning_rate",
    "weight-decay": "weight_decay",
    "epoch": "epochs",
    "seed": "seed",
}
_PART = re.compile(rf"_({'|'.join(_PARTS)})-")
_EXAMPLE_FILE = re.compile(
    r"(?P<task>.+?)(?:_\d+[-_]\d+)?_(?P<part>train|eval|dev|validation|valid|test)(?:_\d+[-_]\d+)?\.jsonl?"
)
_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


@dataclass(frozen=True)
class RunFolder:
    """The parts of the name of a run's folder; None for missing parts.

    Attributes:
        path: of the folder, relative to the release.
        task: our name of the task.
        model: their name of the model, e.g. `pythia-410m-deduped`.
        tags: all other parts, e.g. `loss-last-token`.
    """

    path: str
    task: str
    model: str | None
    seed: int
    learning_rate: float
    batch_size: int | None = None
    shot: int | None = None
    sample: int | None = None
    weight_decay: float | None = None
    epochs: int | None = None
    tags: str = ""

    @property
    def size(self) -> str:
        """The size part of the config's name: of `pythia-410m-deduped` it is `410m`."""
        return _plain(re.sub(r"^pythia-(.+?)(-deduped)?$", r"\1", self.model or UNKNOWN))

    @property
    def base_model(self) -> str:
        """The dataset's name of the base model: our short name if it is the same model, else theirs."""
        is_known = self.model == f"pythia-{self.size}-deduped" and self.size in PYTHIA_REVISIONS
        return self.size if is_known else self.model or UNKNOWN

    def settings(self) -> dict[str, Any]:
        """All parts except path and seed; runs that differ in these belong to different configs."""
        return {name: value for name, value in vars(self).items() if name not in ("path", "seed")}


def _plain(text: str) -> str:
    """Letters, digits, dots and dashes only, as in the size part of a config's name."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-.") or UNKNOWN


def parse_run_folder(path: PurePosixPath) -> RunFolder:
    """Read the name of a run's folder, `output_<task>_bs-4_..._lr-5e-7_..._seed-1`; `path` is relative to the release.

    Raises DataError if the name does not have that form, or lacks task, learning rate or seed.
    """
    if not path.name.startswith("output_") or not all(_COMPONENT.fullmatch(part) for part in path.parts):
        raise DataError("it is not named output_<task>_..._lr-<rate>_..._seed-<number>")
    task, *pairs = _PART.split(path.name.removeprefix("output_"))
    values: dict[str, Any] = {"model": None}
    tags: list[str] = []
    for part, text in zip(pairs[::2], pairs[1::2], strict=True):
        name = _PARTS[part]
        if values.get(name) is not None:
            raise DataError(f"its name has {part} twice")
        if part == "model":
            values[name] = text
        else:
            number, *tags_after = text.split("_")
            values[name] = _number(part, number)
            tags += tags_after
    for part in ("lr", "seed"):
        if _PARTS[part] not in values:
            raise DataError(f"its name has no {part}")
    return RunFolder(path=path.as_posix(), task=OUR_TASKS.get(task, task), tags="_".join(tags), **values)


def _number(part: str, text: str) -> int | float:
    value: int | float = math.nan
    try:
        if part in ("lr", "weight-decay"):
            value = float(text)
        elif re.fullmatch(r"[0-9]{1,9}", text):
            value = int(text)
    except ValueError:
        pass
    smallest = 0 if part in ("seed", "weight-decay") else math.ulp(0.0)
    if not smallest <= value < math.inf:
        raise DataError(f"its name has {part}-{text}, which is not a valid number")
    return value


def config_names(folders: Iterable[RunFolder]) -> dict[str, list[RunFolder]]:
    """The runs of each config `<task>_<size>`, in the order of their seeds.

    Runs of one task and size with different hyper-parameters become different configs. The most frequent
    hyper-parameters get the plain name; names of other configs include the differences: `rte_410m-lr-1e-6`.
    """
    groups: dict[tuple[Any, ...], list[RunFolder]] = defaultdict(list)
    for folder in sorted(folders, key=lambda folder: (folder.seed, folder.path)):
        groups[tuple(folder.settings().values())].append(folder)
    most_frequent_first = sorted(
        groups.values(), key=lambda runs: (runs[0].task, runs[0].size, -len(runs), runs[0].path)
    )
    named: dict[str, list[RunFolder]] = {}
    for runs in most_frequent_first:
        plain = f"{runs[0].task}_{runs[0].size}"
        name = "-".join([plain, *_differences(named[plain][0], runs[0])]) if plain in named else plain
        while name in named:
            name += "-other"
        named[name] = runs
    return named


def _differences(common: RunFolder, other: RunFolder) -> list[str]:
    common_settings, settings = common.settings(), other.settings()
    words = []
    for name in [name for name in settings if settings[name] != common_settings[name]]:
        text = _plain(
            short_number(settings[name]) if isinstance(settings[name], float) else str(settings[name] or "none")
        )
        label = {"learning_rate": "lr", "batch_size": "bs"}.get(name, name.replace("_", "-"))
        words.append(text if name == "tags" and settings[name] else f"{label}-{text}")
    return words


def example_file(name: str) -> tuple[str, str] | None:
    """Our name of the task, and the part (`pool` or `test`), from the name of a file of examples.

    None if the name is not like `rte_0_399_train.json` or `boolq_validation_0-199.json`.
    """
    match = _EXAMPLE_FILE.fullmatch(name)
    if not match:
        return None
    return OUR_TASKS.get(match["task"], match["task"]), "pool" if match["part"] == "train" else "test"


def short_number(value: float) -> str:
    """A number in the form of their names: `5e-7`, `0.001`."""
    text = repr(float(value)).removesuffix(".0")
    return re.sub(r"e([+-]?)0*", lambda match: f"e{match[1].replace('+', '')}", text)


def run_folder_name(settings: RunSettings, run: str, model: str, tags: Iterable[str] = ()) -> str:
    """The name of a run's folder, made of the settings of its config; its seed is the run's number.

    Args:
        settings: of the config.
        run: name of the run.
        model: name of the base model; `410m` becomes `pythia-410m-deduped`, a Hub id or folder its last part.
        tags: further parts.
    """
    run_number = run_parts(run)
    pythia = model in PYTHIA_REVISIONS
    parts = [
        f"output_{THEIR_TASKS.get(settings.task, settings.task)}",
        f"bs-{settings.batch_size}",
        f"shot-{settings.pool_size}",
        f"sample-{settings.subset}",
        f"model-{f'pythia-{model}-deduped' if pythia else _plain(model.rstrip('/').rsplit('/', 1)[-1])}",
        f"lr-{short_number(settings.learning_rate)}",
        f"weight-decay-{short_number(settings.weight_decay)}",
        f"epoch-{settings.epochs}",
        *([f"lora-{settings.lora_rank}"] if settings.lora_rank else []),
        *(["unseen-rows"] if run_number.unseen else []),
        *([f"without-rows-of-{run_number.base}"] if run_number.base else []),
        *tags,
        f"seed-{run_number.index}",
    ]
    return "_".join(parts)


def checked_path(text: Any, first: str) -> PurePosixPath:
    """A path from a dataset, inside the folder `first` of a release; raises DataError if it is not inside."""
    path = PurePosixPath(text) if isinstance(text, str) else PurePosixPath()
    inside = len(path.parts) > 1 and path.parts[0] == first and path.as_posix() == text
    if not inside or not all(_COMPONENT.fullmatch(part) for part in path.parts):
        raise DataError(f"{text!r} is not a path inside {first}/ of a release. Import the dataset again")
    return path
