"""What the names of folders and files in the authors' layout say, and names made in their manner."""

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

# Tasks that have another name here: our name by theirs, and the reverse.
OUR_TASKS = {"wmt16_de_en": "wmt16"}
THEIR_TASKS = {ours: theirs for theirs, ours in OUR_TASKS.items()}
# What `<part>-<value>` in the name of a folder becomes: the attribute of `RunFolder`.
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
    """What the name of a run's folder says; None for what it does not say.

    Attributes:
        path: of the folder, relative to the release.
        task: our name of it.
        model: as the name has it, e.g. `pythia-410m-deduped`.
        tags: everything else in it, e.g. `loss-last-token`.
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
        """What the dataset calls the base model: our short name if it is the same model, else theirs."""
        same = self.model == f"pythia-{self.size}-deduped" and self.size in PYTHIA_REVISIONS
        return self.size if same else self.model or UNKNOWN

    def settings(self) -> dict[str, Any]:
        """Everything but the path and the seed: runs that differ in it belong to different configs."""
        return {name: value for name, value in vars(self).items() if name not in ("path", "seed")}


def _plain(text: str) -> str:
    """Letters, digits, dots and dashes only, as in the size part of a config's name."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-.") or UNKNOWN


def parse_run_folder(path: PurePosixPath) -> RunFolder:
    """Read the name of a run's folder, `output_<task>_bs-4_..._lr-5e-7_..._seed-1`; `path` is relative to the release.

    Raises DataError if the name is not of that form, or names no task, learning rate or seed.
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
            number, *more = text.split("_")
            values[name] = _number(part, number)
            tags += more
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
    least = 0 if part in ("seed", "weight-decay") else math.ulp(0.0)
    if not least <= value < math.inf:
        raise DataError(f"its name has {part}-{text}, which is no such number")
    return value


def config_names(folders: Iterable[RunFolder]) -> dict[str, list[RunFolder]]:
    """The config of each run: `<task>_<size>`, and in it the runs in the order of their seeds.

    Runs of one task and size that differ in a hyper-parameter cannot be read together. The most frequent
    hyper-parameters have the plain name; the others' names say what is different: `rte_410m-lr-1e-6`.
    """
    groups: dict[tuple[Any, ...], list[RunFolder]] = defaultdict(list)
    for folder in sorted(folders, key=lambda each: (each.seed, each.path)):
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


def _differences(usual: RunFolder, other: RunFolder) -> list[str]:
    before, now = usual.settings(), other.settings()
    words = []
    for name in [name for name in now if now[name] != before[name]]:
        text = _plain(short_number(now[name]) if isinstance(now[name], float) else str(now[name] or "none"))
        label = {"learning_rate": "lr", "batch_size": "bs"}.get(name, name.replace("_", "-"))
        words.append(text if name == "tags" and now[name] else f"{label}-{text}")
    return words


def example_file(name: str) -> tuple[str, str] | None:
    """Our name of the task and the part (`pool` or `test`) that a file of examples is of, by its name.

    None if it is not named like `rte_0_399_train.json` or `boolq_validation_0-199.json`.
    """
    match = _EXAMPLE_FILE.fullmatch(name)
    if not match:
        return None
    return OUR_TASKS.get(match["task"], match["task"]), "pool" if match["part"] == "train" else "test"


def short_number(value: float) -> str:
    """A number as their names have it: `5e-7`, `0.001`."""
    text = repr(float(value)).removesuffix(".0")
    return re.sub(r"e([+-]?)0*", lambda match: f"e{match[1].replace('+', '')}", text)


def run_folder_name(settings: RunSettings, run: str, model: str, tags: Iterable[str] = ()) -> str:
    """The name of a run's folder, made of the settings of its config; its seed is the run's number.

    Args:
        settings: of the config.
        run: name of the run.
        model: name of the base model: of `410m` theirs is `pythia-410m-deduped`; of a Hub id or folder the last part.
        tags: what else it should say.
    """
    own = run_parts(run)
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
        *(["unseen-rows"] if own.unseen else []),
        *([f"without-rows-of-{own.base}"] if own.base else []),
        *tags,
        f"seed-{own.index}",
    ]
    return "_".join(parts)


def checked_path(text: Any, first: str) -> PurePosixPath:
    """A path that a dataset names, inside the folder `first` of a release; raises DataError if it is not inside."""
    path = PurePosixPath(text) if isinstance(text, str) else PurePosixPath()
    inside = len(path.parts) > 1 and path.parts[0] == first and path.as_posix() == text
    if not inside or not all(_COMPONENT.fullmatch(part) for part in path.parts):
        raise DataError(f"{text!r} is no path inside {first}/ of a release")
    return path
