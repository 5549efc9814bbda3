"""Config names, the settings of a run, and the splits runs fall into."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from gptdynamics.errors import SettingsError
from gptdynamics.models.local_models import published_name
from gptdynamics.ranges import COUNT, INT32, RATE, SEED, Range, check_fields

# How prompt and target become one sequence of tokens; see `gptdynamics.models.tokens.tokenize_example`.
Tokenization = Literal["joined", "separate"]
TOKENIZATIONS: tuple[Tokenization, ...] = ("joined", "separate")
# The tokenizers of generated text for BLEU and ROUGE-L; `gptdynamics.measurement.scores` says what each means.
TextTokenizer = Literal["13a", "intl", "zh", "char"]
TEXT_TOKENIZERS: tuple[TextTokenizer, ...] = ("13a", "intl", "zh", "char")
# The values of settings that earlier versions did not record.
EARLIER_SETTINGS: dict[str, Any] = {"tokenization": "separate", "text_tokenizer": "13a", "counterfactual_every": None}

Split = Literal["train", "validation", "test", "test_unseen", "counterfactual"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "test_unseen", "counterfactual")
# Splits that are read only on request.
SPLITS_ON_REQUEST: tuple[Split, ...] = ("test_unseen", "counterfactual")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_RUN = re.compile(r"(?:(u)|c([0-9]{4,})-)?([0-9]{4,})")
# Patterns that the names of runs and of their files match; `run_parts` checks names exactly.
RUN_PATTERN = r"(u|c[0-9]{4,}-)?[0-9]{4,}"
RUN_FILE_PATTERN = rf"({'|'.join(SPLITS)})-{RUN_PATTERN}\.parquet"
# A dataset's folders are named for a config or a task, followed by one of these endings.
RESERVED_SIZES = ("examples", "runs", "gradients")


def run_name(index: int, unseen: bool = False) -> str:
    """The name of a run within its config: `0007`, or `u0007` if it trains on pool rows that no other run uses."""
    return f"u{index:04d}" if unseen else f"{index:04d}"


def counterfactual_name(base: str, index: int) -> str:
    """The name of a run that repeats the run `base` with rows left out: `c0004-0007`."""
    return f"c{base}-{index:04d}"


def planned_names(runs: int, unseen_runs: int = 0, counterfactuals: Mapping[str, int] | None = None) -> list[str]:
    """Names of planned runs, in order: runs on the pool, runs on unseen rows, counterfactual runs by their base run."""
    names = [run_name(index) for index in range(runs)]
    names += [run_name(index, unseen=True) for index in range(unseen_runs)]
    repeated = (counterfactuals or {}).items()
    return names + [counterfactual_name(base, index) for base, count in repeated for index in range(count)]


@dataclass(frozen=True)
class RunParts:
    """The parts of a run's name.

    Attributes:
        index: its number; a counterfactual run's number among those of its base run.
        unseen: whether it trains on unseen pool rows.
        base: the run that it repeats with rows left out; None if it is not a counterfactual run.
    """

    index: int
    unseen: bool = False
    base: str | None = None

    @property
    def order(self) -> tuple[bool, bool, int, int]:
        """The sort key of runs: those on the pool, those on unseen rows, counterfactual runs by their base runs."""
        return self.base is not None, self.unseen, int(self.base or 0), self.index


def run_parts(run: str) -> RunParts:
    """The parts of a run's name.

    Raises:
        SettingsError: it is not a run's name.
    """
    match = _RUN.fullmatch(run)
    if match:
        parts = RunParts(int(match[3]), bool(match[1]), match[2] and run_name(int(match[2])))
        name = counterfactual_name(parts.base, parts.index) if parts.base else run_name(parts.index, parts.unseen)
        if run == name:
            return parts
    raise SettingsError(f"{run!r} is not the name of a run, such as 0007 or u0007")


def split_of(run: str) -> Split:
    """The split of a run: of every 32 runs, 25 train, 2 validation, 5 test; adding runs never moves one."""
    parts = run_parts(run)
    if parts.base is not None:
        return "counterfactual"
    if parts.unseen:
        return "test_unseen"
    index = parts.index
    if index % 32 in (4, 10, 16, 22, 28):
        return "test"
    return "validation" if index % 32 in (3, 19) else "train"


def config_parts(config: str) -> tuple[str, str]:
    """Split a config name `<task>_<size>` at its last underscore.

    Raises:
        SettingsError: the name has no size, has characters that file names may not have, or has a reserved ending.
    """
    task, _, size = config.rpartition("_")
    if not task or not size or not _NAME.fullmatch(config):
        letters = "" if _NAME.fullmatch(config) else "; it may have A-Z, a-z, 0-9 and, after the first of them, . _ -"
        raise SettingsError(f"config {config!r} is not of the form <task>_<size>, e.g. rte_nano{letters}")
    if size.casefold() in RESERVED_SIZES:
        raise SettingsError(
            f"config {config!r} may not end in _{size}: a dataset folder keeps other files under such names. "
            f"Give it another size, e.g. {task}_{size}-1"
        )
    return task, size


def value_differences(theirs: Mapping[str, Any], mine: Mapping[str, Any], here: str = "now") -> list[str]:
    """`name: 1 there, 2 now` for each value that differs; `here` replaces the word `now`."""
    return [
        f"{name}: {theirs.get(name)!r} there, {mine.get(name)!r} {here}"
        for name in sorted(theirs.keys() | mine.keys())
        if theirs.get(name) != mine.get(name)
    ]


def is_of_type(value: Any, annotation: str) -> bool:
    """Whether a value that was read from a file is of a setting's type, such as `int | None`."""
    if value is None:
        return "None" in annotation
    if "str" in annotation or "Literal" in annotation:
        return isinstance(value, str)
    return type(value) is int or (type(value) is float and "float" in annotation)


# Files and folders are named for configs.
LONGEST_CONFIG = 120
_RANGES = {
    # Optimisers hold it in fp32.
    "learning_rate": Range(0, 1e30),
    "seed": SEED,
    **dict.fromkeys(("pool_size", "subset", "batch_size", "epochs", "test_examples"), COUNT),
    **dict.fromkeys(("eval_every", "generate_every", "gradient_width", "lora_alpha", "max_length"), COUNT),
    "counterfactual_every": COUNT,
    "gradient_seed": SEED,
    # Wider than any model.
    "lora_rank": Range(0, 2**16),
    "lora_dropout": Range(0, 1, below=True),
    "weight_decay": RATE,
    "beta1": Range(0, 1, below=True),
    "beta2": Range(0, 1, below=True),
    "epsilon": Range(above=True),
    "temperature": Range(above=True),
    "top_p": Range(0, 1, above=True),
}


@dataclass(frozen=True)
class RunSettings:
    """Everything that, with a run's name, determines the run. The defaults are the paper's table 7.

    For `flan`, a mixture of tasks, `pool_size`, `subset` and `test_examples` count for each task of it.

    Attributes:
        config: `<task>_<size>`.
        learning_rate: rate of the first update; it falls linearly to zero at the last. 0: nothing is learned.
        seed: seed of the config; each run's seed is derived from it.
        pool_size: rows of the pool, the first ones of the task's train split; runs on unseen rows use the next
            `pool_size` rows.
        subset: number of pool examples that one run trains on.
        batch_size: examples in one update.
        epochs: passes over the subset.
        steps: cut the curriculum after this many updates. Default: all of them.
        test_examples: rows of the test set, the first ones of the task's eval split.
        eval_every: updates between measurements of loss and accuracy.
        generate_every: updates between measurements of sampled text: BLEU, ROUGE-L and a task's own metrics.
        counterfactual_every: updates between measurements, of loss and of text, in counterfactual runs. Default: as in
            other runs.
        gradients: which runs also record gradient products: `none`, `test` (the held-out ones) or `all`.
        gradient_width: columns of the projected gradients of the base model.
        gradient_seed: seed of their projection.
        base_model: a known size, a Hub id or a folder. Default: the config's size.
        lora_rank: train LoRA adapters of this rank on query, key and value instead of the weights; 0: none.
        lora_alpha: alpha of the LoRA adapters.
        lora_dropout: dropout of the LoRA adapters.
        weight_decay: weight decay of AdamW.
        beta1, beta2, epsilon: of AdamW.
        max_length: longer inputs are cut from the left of the prompt.
        tokenization: prompt and target are tokenised `joined`, as one text with the tokenizer's own start of text, or
            `separate`, as in releases made before there was a choice.
        precision: of forward and backward passes; the weights are fp32. `fp32`; `tf32`: fp32 with TF32 matrix products
            on GPUs; or `bf16`.
        temperature, top_p: of sampled text.
        text_tokenizer: tokenizer for BLEU and ROUGE-L, by sacrebleu's names: `13a`, `intl`, `zh`, `char`; or `auto`:
            the task's own, else chosen by the script of its references.
    """

    config: str
    learning_rate: float
    seed: int = 0
    pool_size: int = 200
    subset: int = 128
    batch_size: int = 4
    epochs: int = 3
    steps: int | None = None
    test_examples: int = 200
    eval_every: int = 1
    generate_every: int = 1
    counterfactual_every: int | None = None
    gradients: Literal["none", "test", "all"] = "none"
    gradient_width: int = 2048
    gradient_seed: int = 0
    base_model: str | None = None
    lora_rank: int = 0
    lora_alpha: int = 4
    lora_dropout: float = 0.05
    weight_decay: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6
    max_length: int = 2048
    tokenization: Literal["joined", "separate"] = "joined"
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    temperature: float = 0.2
    top_p: float = 0.95
    text_tokenizer: Literal["auto", "13a", "intl", "zh", "char"] = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.config, str):
            config_parts(self.config)
            if len(self.config) > LONGEST_CONFIG:
                raise SettingsError(f"config={self.config[:40]!r}... has more than {LONGEST_CONFIG} characters")
        check_fields(self, _RANGES)
        if self.subset > self.pool_size:
            raise SettingsError(f"subset={self.subset} is larger than pool_size={self.pool_size}")
        if self.batch_size > self.examples:
            raise SettingsError(f"batch_size={self.batch_size} is larger than subset={self.examples}")
        # Ids of pool and test examples, and steps, are stored as 32-bit numbers.
        largest = {
            "pool_size": self.unseen_pool_ids.stop,
            "test_examples": self.test_examples * self.parts,
            "epochs": self.all_steps,
        }
        for name, number in largest.items():
            if number > INT32:
                raise SettingsError(f"{name}={getattr(self, name)} is too large: ids or steps would be above {INT32}")
        if self.steps is not None and not 1 <= self.steps <= self.all_steps:
            raise SettingsError(
                f"steps={self.steps} must be between 1 and the {self.all_steps} that "
                f"{self.epochs} epochs of {self.examples} examples in batches of {self.batch_size} give"
            )
        if self.precision != "fp32" and self.gradients != "none":
            raise SettingsError("gradient products are exact only in fp32: give precision fp32, or gradients none")

    @property
    def task(self) -> str:
        """Task part of the config name."""
        return config_parts(self.config)[0]

    @property
    def base(self) -> str:
        """The base model's name: `base_model`, or the size part of the config name."""
        return self.base_model or config_parts(self.config)[1]

    @property
    def parts(self) -> int:
        """Number of tasks that training examples come from: 1, or the number of tasks in the mixture."""
        from gptdynamics.tasks import get_task

        return len(get_task(self.task).parts)

    @property
    def examples(self) -> int:
        """Training examples of one run."""
        return self.subset * self.parts

    @property
    def pool_ids(self) -> range:
        """Ids of the pool."""
        return range(self.pool_size * self.parts)

    @property
    def unseen_pool_ids(self) -> range:
        """Ids of the pool rows kept for runs of the split `test_unseen`."""
        return range(len(self.pool_ids), 2 * len(self.pool_ids))

    @property
    def all_steps(self) -> int:
        """Updates in `epochs` passes; an incomplete last batch of an epoch is left out."""
        return self.epochs * (self.examples // self.batch_size)

    @property
    def run_steps(self) -> int:
        """Updates in one run."""
        return self.all_steps if self.steps is None else self.steps

    def for_run(self, run: str) -> RunSettings:
        """The settings of one run: a counterfactual run may be measured less often."""
        interval = self.counterfactual_every
        if interval is None or run_parts(run).base is None:
            return self
        return replace(self, eval_every=interval, generate_every=interval)

    def follows_gradients(self, run: str) -> bool:
        """Whether gradient products of this run are recorded."""
        return self.gradients == "all" or (self.gradients == "test" and split_of(run) == "test")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a manifest; a base model in a local folder is named without its path."""
        base_model = None if self.base_model is None else published_name(self.base_model)
        return asdict(self) | {"base_model": base_model}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunSettings:
        """The settings that a manifest holds.

        Raises:
            TypeError: there is no setting of a given name.
            SettingsError: a value is out of range.
        """
        return cls(**(EARLIER_SETTINGS | values))

    def differences(self, recorded: dict[str, Any]) -> list[str]:
        """Settings in which a saved manifest differs from these: `name: 1 there, 2 now`."""
        current, recorded = self.to_dict(), EARLIER_SETTINGS | recorded
        if self._text_tokenizers(self.text_tokenizer) == self._text_tokenizers(recorded["text_tokenizer"]):
            recorded["text_tokenizer"] = self.text_tokenizer
        if isinstance(recorded.get("base_model"), str):
            # Earlier versions recorded the path.
            recorded = recorded | {"base_model": published_name(recorded["base_model"])}
        return value_differences(recorded, current)

    def _text_tokenizers(self, setting: Any) -> list[Any]:
        """The setting for each task that generates text, with `auto` replaced by the task's own tokenizer if any."""
        from gptdynamics.tasks import get_task

        parts = [part for part in get_task(self.task).test_parts if part.generates]
        return [(part.text_tokenizer or setting) if setting == "auto" else setting for part in parts]
