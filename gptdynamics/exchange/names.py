"""What the names of folders and files in the authors' layout say, and names made in their manner."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from gptdynamics.base_model import PYTHIA_REVISIONS
from gptdynamics.configs import RunSettings, run_parts
from gptdynamics.errors import DataError

UNKNOWN = "unknown"
CURRICULUM_FILE = "train_samples_id.json"

# Their name of a task, where it is not ours.
_TASKS = {"wmt16_de_en": "wmt16"}
_TOKEN = re.compile(r"_(bs|shot|sample|model|lr|weight-decay|epoch|seed)-")
_COUNTS = ("bs", "shot", "sample", "epoch", "seed")
_EXAMPLE_FILE = re.compile(
    r"(?P<task>.+?)(?:_\d+[-_]\d+)?_(?P<part>train|eval|dev|validation|valid|test)(?:_\d+[-_]\d+)?\.jsonl?"
)
_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


@dataclass(frozen=True)
class RunFolder:
    """What the name of a run's folder says; None where it says nothing.

    Attributes:
        path: of the folder, relative to the release.
        task: ours.
        model: as the name has it, e.g. `pythia-410m-deduped`.
        seed, batch_size, shot, sample, epochs: `seed`, `bs`, `shot`, `sample`, `epoch` of the name.
        learning_rate, weight_decay: `lr` and `weight-decay` of the name.
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
        if self.model is None:
            return UNKNOWN
        known = re.fullmatch(r"pythia-(.+?)(-deduped)?", self.model)
        return _plain(known[1] if known else self.model)

    @property
    def base_model(self) -> str:
        """What the dataset calls the base model: our short name where it is the same model, else theirs."""
        if self.model and self.model.endswith("-deduped") and self.size in PYTHIA_REVISIONS:
            return self.size
        return self.model or UNKNOWN

    def settings(self) -> dict[str, Any]:
        """Everything but the path and the seed: runs that differ in it belong to different configs."""
        return {name: value for name, value in vars(self).items() if name not in ("path", "seed")}


def _plain(text: str) -> str:
    """Letters, digits, dots and dashes only: what may stand in the size part of a config's name."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-.") or UNKNOWN


def our_task(theirs: str) -> str:
    """Our name of a task of theirs."""
    return _TASKS.get(theirs, theirs)


def their_task(ours: str) -> str:
    """Their name of a task of ours."""
    return next((theirs for theirs, name in _TASKS.items() if name == ours), ours)


def parse_run_folder(path: PurePosixPath) -> RunFolder:
    """Read the name of a run's folder.

    Args:
        path: of the folder, relative to the release; its name is `output_<task>_bs-4_..._lr-5e-7_..._seed-1`.

    Raises:
        DataError: the name is not of that form, or names no task, learning rate or seed.
    """
    if not path.name.startswith("output_") or not all(_COMPONENT.fullmatch(part) for part in path.parts):
        raise DataError("it is not named output_<task>_..._lr-<rate>_..._seed-<number>")
    task, *pairs = _TOKEN.split(path.name.removeprefix("output_"))
    values: dict[str, Any] = {}
    tags: list[str] = []
    for key, text in zip(pairs[::2], pairs[1::2], strict=True):
        if key in values:
            raise DataError(f"its name has {key} twice")
        value, *more = [text] if key == "model" else text.split("_")
        tags += more
        values[key] = value if key == "model" else _number(key, value)
    for key in ("lr", "seed"):
        if key not in values:
            raise DataError(f"its name has no {key}")
    return RunFolder(
        path=path.as_posix(),
        task=our_task(task),
        model=values.get("model"),
        seed=values["seed"],
        learning_rate=values["lr"],
        batch_size=values.get("bs"),
        shot=values.get("shot"),
        sample=values.get("sample"),
        weight_decay=values.get("weight-decay"),
        epochs=values.get("epoch"),
        tags="_".join(tags),
    )


def _number(key: str, text: str) -> int | float:
    try:
        value = int(text) if key in _COUNTS and re.fullmatch(r"[0-9]{1,9}", text) else float(text)
    except ValueError:
        value = math.nan
    least = 0 if key in ("seed", "weight-decay") else math.ulp(0.0)
    if not least <= value < math.inf or (key in _COUNTS and not isinstance(value, int)):
        raise DataError(f"its name has {key}-{text}, which is no such number")
    return value


def config_names(folders: Iterable[RunFolder]) -> dict[str, list[RunFolder]]:
    """The config of each run: `<task>_<size>`, and in it the runs in the order of their seeds.

    Runs of one task and size that differ in a hyper-parameter cannot be read together. The most frequent
    hyper-parameters have the plain name; the others' names say what is different: `rte_410m-lr-1e-6`.
    """
    kinds: dict[tuple[str, str], dict[tuple[Any, ...], list[RunFolder]]] = defaultdict(lambda: defaultdict(list))
    for folder in sorted(folders, key=lambda each: (each.seed, each.path)):
        kinds[folder.task, folder.size][tuple(folder.settings().values())].append(folder)
    named: dict[str, list[RunFolder]] = {}
    for (task, size), groups in sorted(kinds.items()):
        ordered = sorted(groups.values(), key=lambda runs: (-len(runs), runs[0].path))
        for runs in ordered:
            name = "-".join([f"{task}_{size}", *_differences(ordered[0][0], runs[0])])
            while name in named:
                name += "-other"
            named[name] = runs
    return named


def _differences(usual: RunFolder, other: RunFolder) -> list[str]:
    mine, theirs = other.settings(), usual.settings()
    found = []
    for name, value in mine.items():
        if value != theirs[name]:
            text = short_number(value) if isinstance(value, float) else str(value or "none")
            label = {"learning_rate": "lr", "batch_size": "bs"}.get(name, name.replace("_", "-"))
            found.append(_plain(text) if name == "tags" and value else f"{label}-{_plain(text)}")
    return found


def example_file(name: str) -> tuple[str, str] | None:
    """Our name of the task and the part (`pool` or `test`) that a file of examples is of, by its name.

    None if it is not named like `rte_0_399_train.json` or `boolq_validation_0-199.json`.
    """
    match = _EXAMPLE_FILE.fullmatch(name)
    if not match:
        return None
    return our_task(match["task"]), "pool" if match["part"] == "train" else "test"


def short_number(value: float) -> str:
    """A number as their names have it: `5e-7`, `0.001`."""
    text = repr(float(value)).removesuffix(".0")
    return re.sub(r"e([+-]?)0*", lambda match: f"e{match[1].replace('+', '')}", text)


def run_folder_name(settings: RunSettings, run: str, model: str, tags: Iterable[str] = ()) -> str:
    """The name of a run's folder, made of the settings of its config; its seed is the run's number.

    Args:
        settings: of the config.
        run: name of the run.
        model: name of the base model.
        tags: what else it should say.
    """
    index, unseen = run_parts(run)
    said = [*(["lora-" + str(settings.lora_rank)] if settings.lora_rank else []), *(["unseen-rows"] if unseen else [])]
    parts = [
        f"output_{their_task(settings.task)}",
        f"bs-{settings.batch_size}",
        f"shot-{settings.pool_size}",
        f"sample-{settings.subset}",
        f"model-{their_model(model)}",
        f"lr-{short_number(settings.learning_rate)}",
        f"weight-decay-{short_number(settings.weight_decay)}",
        f"epoch-{settings.epochs}",
        *said,
        *tags,
        f"seed-{index}",
    ]
    return "_".join(parts)


def their_model(model: str) -> str:
    """Their name of a base model: of `410m` it is `pythia-410m-deduped`; of a Hub id or folder the last part."""
    if model in PYTHIA_REVISIONS:
        return f"pythia-{model}-deduped"
    return _plain(model.rstrip("/").rsplit("/", 1)[-1])


def checked_path(text: Any, first: str) -> PurePosixPath:
    """A path inside a release that a dataset names.

    Args:
        text: what it names.
        first: the folder of the release that it must be in.

    Raises:
        DataError: it is no such path: it leads elsewhere, or has characters that it should not have.
    """
    path = PurePosixPath(text) if isinstance(text, str) else PurePosixPath()
    sound = len(path.parts) > 1 and path.parts[0] == first and path.as_posix() == text
    if not sound or not all(_COMPONENT.fullmatch(part) for part in path.parts):
        raise DataError(f"{text!r} is no path inside {first}/ of a release")
    return path
