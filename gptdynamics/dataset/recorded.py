"""The manifest entry of a recorded config: how runs of a user's training were measured, and on which examples."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from gptdynamics.configs import config_parts
from gptdynamics.dataset.manifest import EARLIER_RECORDING
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.models.token_rule import named_rule
from gptdynamics.ranges import COUNT, SEED, Range, check_fields
from gptdynamics.tasks import Mixture, Task, get_task
from gptdynamics.tasks.declared import declared_task

if TYPE_CHECKING:
    from gptdynamics.dataset.folder import DatasetFolder


_RANGES = {
    **dict.fromkeys(("eval_every", "generate_every", "max_length", "pool_size", "test_examples"), COUNT),
    "seed": SEED,
    "temperature": Range(above=True),
    "top_p": Range(0, 1, above=True),
}


@dataclass(frozen=True)
class RecordSettings:
    """How runs are measured. All runs of a config have the same settings; the defaults are those of `RunSettings`.

    Attributes:
        eval_every: updates between measurements of loss and accuracy.
        generate_every: updates between measurements of sampled text: BLEU, ROUGE-L and a task's own metrics.
        base_model: the model that runs start from: `nano`, a Pythia size, a Hub id or a folder. None: the name that
            the model was loaded by.
        labels: the targets of a label task that is not registered. None: the task is registered, or generates text.
        max_length: longer inputs are cut from the left of the prompt.
        precision: `fp32`, or `bf16` for forward passes in mixed precision; weights other than fp32 need `bf16`.
        temperature, top_p: of sampled text.
        seed: of sampled text, together with the run's number, the step and the example.
        text_tokenizer: of BLEU and ROUGE-L, see `RunSettings`.
    """

    eval_every: int = 1
    generate_every: int = 1
    base_model: str | None = None
    labels: tuple[str, ...] | None = None
    max_length: int = 2048
    precision: Literal["fp32", "bf16"] = "fp32"
    temperature: float = 0.2
    top_p: float = 0.95
    seed: int = 0
    text_tokenizer: Literal["auto", "13a", "intl", "zh", "char"] = "auto"

    def __post_init__(self) -> None:
        check_fields(self, _RANGES)
        if isinstance(self.labels, str):
            raise SettingsError(f"labels={self.labels!r} must be a tuple of texts")


@dataclass(frozen=True)
class Recorded(RecordSettings):
    """Settings that all runs of a recorded config share.

    Attributes:
        declared: whether the task is given by `labels` only, and comes neither with the package nor in a task file.
        tokenization: how test examples were tokenised: `joined` or `separate`, see `tokenize_example`; `rules`: a
            `TokenRule` for each task, inferred from the training; or `rows`: a digest of given ids.
        pool_size: number of training examples in the pool, for each task of a mixture.
        test_examples: number of test examples, for each task of a mixture.
    """

    declared: bool = False
    tokenization: Any = "joined"
    pool_size: int = 0
    test_examples: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        named_rule(self.tokenization)
        if not isinstance(self.base_model, str) or not self.base_model:
            raise SettingsError(f"base_model={self.base_model!r} does not name a model")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a manifest."""
        return asdict(self) | {"labels": None if self.labels is None else list(self.labels)}

    @classmethod
    def of(cls, values: dict[str, Any]) -> Recorded:
        """From the result of `to_dict`; raises SettingsError if a value is missing, unknown or out of range."""
        values = EARLIER_RECORDING | values
        names = {field.name for field in fields(cls)}
        differing = sorted(names ^ values.keys())
        if differing:
            lacks = f"it lacks {differing[0]}"
            unknown = f"it has an unknown {differing[0]}, perhaps of a later version of gptdynamics"
            raise SettingsError(lacks if differing[0] in names else unknown)
        labels = values["labels"]
        if labels is not None and not isinstance(labels, list):
            raise SettingsError(f"labels={labels!r} are not a list")
        try:
            return cls(**(values | {"labels": None if labels is None else tuple(labels)}))
        except TypeError as error:
            raise SettingsError(f"a value is of the wrong type ({error})") from error

    def task(self, name: str) -> Task | Mixture:
        """The config's task: a declared one, or the registered one; raises SettingsError if it is not known."""
        return declared_task(name, self.labels or ()) if self.declared else get_task(name)


def config_task(folder: DatasetFolder, config: str) -> Task | Mixture:
    """The task of a config: the one that its folder declares, if its runs were recorded; else the registered one."""
    recorded = recorded_config(folder, config)
    name = config_parts(config)[0]
    return get_task(name) if recorded is None else recorded.task(name)


def recorded_config(folder: DatasetFolder, config: str) -> Recorded | None:
    """Settings that the runs of a recorded config share; None if it was not recorded. DataError if damaged."""
    values = folder.recording(config)
    if values is None:
        return None
    try:
        return Recorded.of(values)
    except SettingsError as error:
        raise DataError(f"{folder.manifest_path(config)}: recording: {error}. Restore it") from error
