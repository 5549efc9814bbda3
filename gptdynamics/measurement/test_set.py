"""The test set of a config, and the measurement of a model on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from gptdynamics.configs import TextTokenizer
from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from gptdynamics.measurement.generation import BATCH_TOKENS, GPU_BATCH_TOKENS, Generator
from gptdynamics.measurement.loss import TargetLosses
from gptdynamics.measurement.own_scores import score_own_metric
from gptdynamics.measurement.scores import score_texts, text_tokenizer_of
from gptdynamics.metrics import METRICS, names_of
from gptdynamics.models.tokens import ExampleTokenizer, TokenizedExample
from gptdynamics.tasks import Task, get_single_task

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from gptdynamics.configs import RunSettings
    from gptdynamics.dataset.recorded import RecordSettings
    from gptdynamics.models.base_model import BaseModel


# Called with an example, and optionally with a target that replaces its own.
Tokenize = Callable[..., TokenizedExample]


def new_token_limits(pool: Sequence[Example], tokenized: Sequence[TokenizedExample]) -> dict[str, int]:
    """The most tokens of a generated text, by task: the 99th percentile of the target lengths in the pool."""
    lengths: dict[str, list[int]] = {}
    for example, tokens in zip(pool, tokenized, strict=True):
        lengths.setdefault(example.task, []).append(len(tokens) - tokens.prompt_length)
    return {task: int(np.ceil(np.percentile(task_lengths, 99))) for task, task_lengths in lengths.items()}


def text_tokenizers(
    examples: Sequence[Example],
    setting: Literal["auto", "13a", "intl", "zh", "char"],
    tasks: Mapping[str, Task] | None = None,
) -> dict[str, TextTokenizer]:
    """Names of text tokenizers, by the task of the examples.

    Args:
        examples: a test set.
        setting: of its runs; `auto`: the task's own, else chosen by the script of its references.
        tasks: tasks that are not registered, by name.
    """
    unregistered = tasks or {}
    tokenizers: dict[str, TextTokenizer] = {}
    for name in dict.fromkeys(example.task for example in examples):
        if setting != "auto":
            tokenizers[name] = setting
            continue
        references = [text for example in examples if example.task == name for text in example.references]
        task = unregistered[name] if name in unregistered else get_single_task(name)
        tokenizers[name] = task.text_tokenizer or text_tokenizer_of(references)
    return tokenizers


class TestSet:
    """Test examples of one or several tasks, tokenised once, measured at every step.

    Args:
        examples: the test examples, in the order of the results.
        base: the model's tokenizer, context and device.
        settings: sampling and length limits.
        limits: the most tokens of a generated text, by task.
        tokenize: tokenises an example, or an example with another target. Default: an `ExampleTokenizer`.
        generate: whether to sample and score text for generation tasks.
        tasks: tasks that are not registered, by name.

    Raises:
        DataError: an example cannot be tokenised, or two labels of a task become the same tokens.
    """

    __test__ = False

    def __init__(
        self,
        examples: Sequence[Example],
        base: BaseModel,
        settings: RunSettings | RecordSettings,
        limits: Mapping[str, int],
        tokenize: Tokenize | None = None,
        generate: bool = True,
        tasks: Mapping[str, Task] | None = None,
    ) -> None:
        self.examples = list(examples)
        self.context = min(base.context, settings.max_length)
        self.tokenizer = base.tokenizer
        self.tokenize = tokenize or ExampleTokenizer(base, settings.max_length)
        unregistered = tasks or {}
        names = {example.task for example in self.examples}
        tasks = {name: unregistered[name] if name in unregistered else get_single_task(name) for name in names}
        self.metrics = {name: task.followed_metrics for name, task in tasks.items()}
        metric_names = {name: names_of(metrics) for name, metrics in self.metrics.items()}
        self.followed: dict[str, np.ndarray] = {
            metric: np.array([metric in metric_names[example.task] for example in self.examples], dtype=bool)
            for metric in dict.fromkeys([*METRICS, *(metric for names in metric_names.values() for metric in names)])
        }
        texts = {name: names_of(metrics, needs_text=True) for name, metrics in self.metrics.items()}
        generates = np.array([bool(texts[example.task]) for example in self.examples])
        self.tokenized = [self.tokenize(example) for example in self.examples]
        labels = [self._labels(example, tasks[example.task].labels) for example in self.examples]
        self.losses = TargetLosses(
            self.tokenized,
            [[each.ids[-1] for each in sequences] if _differ_in_last_token(sequences) else [] for sequences in labels],
            base.model.device,
        )
        # Labels of several tokens need a pass each: `rivals` has the rows of these passes, by example.
        self.rivals: dict[int, slice] = {}
        rivals: list[TokenizedExample] = []
        for index, sequences in enumerate(labels):
            if sequences and not _differ_in_last_token(sequences):
                self.rivals[index] = slice(len(rivals), len(rivals) + len(sequences))
                rivals += sequences
        self.label_losses = TargetLosses(rivals, device=base.model.device) if rivals else None
        self.answers = {
            index: tasks[self.examples[index].task].labels.index(self.examples[index].target) for index in self.rivals
        }
        self.generated = np.flatnonzero(generates).tolist()
        chosen = [self.examples[index] for index in self.generated]
        self.text_tokenizers = text_tokenizers(chosen, settings.text_tokenizer, tasks)
        self.generator = self._generator(settings, limits, base.model.device) if self.generated and generate else None

    def _labels(self, example: Example, labels: Sequence[str]) -> list[TokenizedExample]:
        """The example with each label of its task as its target."""
        sequences = [self.tokenize(example, label) for label in labels]
        first: dict[tuple[int, ...], str] = {}
        for label, sequence in zip(labels, sequences, strict=True):
            previous = first.setdefault(tuple(sequence.ids), label)
            if previous != label:
                tokens = self.tokenizer.convert_ids_to_tokens(sequence.target)
                raise DataError(
                    f"labels {previous!r} and {label!r} of task {example.task} become the same tokens, {tokens}, so "
                    "accuracy cannot be measured. Choose other labels, or another base model"
                )
        return sequences

    def _generator(
        self, settings: RunSettings | RecordSettings, limits: Mapping[str, int], device: torch.device
    ) -> Generator:
        prompts, new_tokens = [], []
        for index in self.generated:
            task = self.examples[index].task
            if task not in limits:
                raise DataError(f"the pool has no example of task {task}, which the test set has")
            new_tokens.append(limits[task])
            prompts.append(self._shortened(self.tokenized[index].prompt, max(1, self.context - limits[task])))
        tokens = BATCH_TOKENS if device.type == "cpu" else GPU_BATCH_TOKENS
        return Generator(self.tokenizer, prompts, new_tokens, settings.temperature, settings.top_p, tokens)

    def _shortened(self, prompt: list[int], room: int) -> list[int]:
        """The prompt, cut from the left if it is longer than `room` tokens, but with its start-of-text token."""
        begin = prompt[:1] if prompt[0] == self.tokenizer.bos_token_id and room > 1 else []
        return prompt if len(prompt) <= room else [*begin, *prompt[len(prompt) - room + len(begin) :]]

    @property
    def cut(self) -> int:
        """Test examples whose prompt was cut to fit the context."""
        return sum(example.cut > 0 for example in self.tokenized)

    def measure(self, model: PreTrainedModel) -> dict[str, np.ndarray]:
        """`loss` and, if there are label tasks, `accuracy`: `[examples]` float32; NaN for other tasks' examples."""
        loss, accuracy = self.losses.measure(model)
        if self.label_losses:
            label_losses = self.label_losses.measure(model)[0]
            for index, rows in self.rivals.items():
                # NaN makes the run fail, instead of counting as a wrong answer.
                finite = np.isfinite(label_losses[rows]).all()
                accuracy[index] = label_losses[rows].argmin() == self.answers[index] if finite else np.nan
        if not self.followed["accuracy"].any():
            return {"loss": loss}
        return {"loss": loss, "accuracy": np.where(self.followed["accuracy"], accuracy, np.float32(np.nan))}

    def generate(self, model: PreTrainedModel, seed: Sequence[int]) -> dict[str, np.ndarray]:
        """Sample text for every example of a generation task and score it: by metric, `[examples]` float32 each.

        Args:
            model: in evaluation mode.
            seed: of the run and the step; each example adds its own id.

        Returns:
            `bleu`, `rougeL` and the metrics that tasks define; NaN where an example does not have the metric.

        Raises:
            SettingsError: the function of a metric that a task defines fails, or its result is outside the range.
        """
        if self.generator is None:
            return {}
        chosen = [self.examples[index] for index in self.generated]
        texts = self.generator.sample(model, [[*seed, example.id] for example in chosen])
        scores: dict[str, np.ndarray] = {}
        for task, tokenizer in self.text_tokenizers.items():
            indices = [index for index, example in enumerate(chosen) if example.task == task]
            examples, sampled = [chosen[index] for index in indices], [texts[index] for index in indices]
            by_metric: dict[str, np.ndarray] = {}
            for metric in self.metrics[task]:
                if metric.score is not None:
                    by_metric[metric.name] = score_own_metric(metric, sampled, examples)
                elif metric.needs_text and metric.name not in by_metric:
                    by_metric |= score_texts(sampled, [example.references for example in examples], tokenizer)
            for name in names_of(self.metrics[task], needs_text=True):
                values = scores.setdefault(name, np.full(len(self.examples), np.nan, dtype=np.float32))
                values[[self.generated[index] for index in indices]] = by_metric[name]
        return scores


def _differ_in_last_token(sequences: Sequence[TokenizedExample]) -> bool:
    """Whether one forward pass is enough for all labels: only the last token is scored, and only it differs."""
    return bool(sequences) and all(
        each.scored == [len(each) - 1] and each.ids[:-1] == sequences[0].ids[:-1] for each in sequences
    )
