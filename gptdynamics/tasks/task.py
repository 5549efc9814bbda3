"""What a task is: how its rows become examples, and how answers to them are scored."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from gptdynamics.configs import TextTokenizer
from gptdynamics.errors import DataError
from gptdynamics.examples import Example
from gptdynamics.metrics import Metric, resolve_metrics

Row = Mapping[str, Any]
Split = Literal["train", "eval"]


@dataclass(frozen=True)
class HubSource:
    """Where a task's rows are on the Hub.

    Attributes:
        dataset: repository id.
        config: configuration of that repository, or None.
        splits: the repository's split names for our train and eval rows.
        licence: as the dataset's card states it.
        revision: commit, branch or tag.
        files: for a repository without configurations that `datasets` can read: a file pattern for each split.
    """

    dataset: str
    config: str | None
    splits: Mapping[Split, str]
    licence: str
    revision: str = "main"
    files: Mapping[Split, str] | None = None


def column(row: Row, *names: str) -> Any:
    """A column of a Hub row, or a value nested in one; raises KeyError with the dotted name if it is missing."""
    value: Any = row
    for depth, name in enumerate(names, start=1):
        if not isinstance(value, Mapping) or name not in value:
            raise KeyError(".".join(names[:depth]))
        value = value[name]
    return value


def class_name(value: object, names: Sequence[str]) -> str:
    """The name of a class that the Hub gives as a number; other values are only converted to text."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return names[value]
    return str(value)


class Task(ABC):
    """A task: a name, the fields its rows must have, and the prompt made of them.

    Label tasks (`labels` not empty) have targets without an end-of-text token and are scored by loss and accuracy.
    Targets of generation tasks end with that token and are scored by loss, BLEU and ROUGE-L, or by `metrics`.

    `text_tokenizer` is the tokenizer for BLEU and ROUGE-L: `13a` for English and other Latin text, `intl` for other
    scripts with spaces, `zh` for Chinese, `char` for other scripts without spaces; None: chosen by the script of the
    references.

    Templates name slots in braces. `plain` is the prompt of the scenario `finetune`; `instructions` are the templates
    that `instruct` draws from. Prompt and target are joined with nothing in between: a space between them must be part
    of one of them.

    Example:
        >>> from gptdynamics import Task
        >>> class SupportTickets(Task):
        ...     name = "support_tickets"
        ...     fields = {"text": str, "team": str}
        ...     plain = "Ticket: {text} Team:"
        ...     labels = (" billing", " technical", " sales")
        ...
        ...     def target(self, row):
        ...         return f" {row['team']}"
        >>> SupportTickets().prompt({"text": "The app closes.", "team": "technical"})
        'Ticket: The app closes. Team:'
    """

    name: ClassVar[str]
    fields: ClassVar[Mapping[str, type]]
    plain: ClassVar[str] = ""
    instructions: ClassVar[tuple[str, ...]] = ()
    labels: ClassVar[tuple[str, ...]] = ()
    hub: ClassVar[HubSource | None] = None
    scenario: ClassVar[Literal["finetune", "instruct"]] = "finetune"
    text_tokenizer: ClassVar[TextTokenizer | None] = None

    @property
    def parts(self) -> tuple[Task, ...]:
        """The tasks whose rows runs train on: this one."""
        return (self,)

    @property
    def test_parts(self) -> tuple[Task, ...]:
        """The tasks whose rows are in the test set: this one."""
        return (self,)

    @property
    def generates(self) -> bool:
        """True for NLG tasks: text is sampled and scored against references."""
        return not self.labels

    @property
    def usual_metrics(self) -> tuple[str, ...]:
        """Names of the default metrics of tasks of this kind."""
        return ("loss", "bleu", "rougeL") if self.generates else ("loss", "accuracy")

    @property
    def metrics(self) -> tuple[str | Metric, ...]:
        """The metrics measured for this task: names of the package's metrics, and `Metric` objects of your own.

        A class may set others: `metrics = ("loss", "bleu", Metric("exact_match", ...))`. The loss is always measured.
        Metrics of generated text are for generation tasks only, accuracy for label tasks only.
        """
        return self.usual_metrics

    @property
    def followed_metrics(self) -> tuple[Metric, ...]:
        """The metrics measured for this task, as objects, the loss first; SettingsError if one is unknown."""
        return resolve_metrics(self.metrics)

    def slots(self, row: Row) -> Mapping[str, str]:
        """The values that fill the templates' slots. The default: the row's own texts."""
        return {name: value for name, value in row.items() if isinstance(value, str)}

    def prompt(self, row: Row) -> str:
        """The text before the target. The default: the template `plain`, filled in."""
        return self.plain.format_map(self.slots(row))

    def instruction(self, row: Row, template: int) -> str:
        """The prompt with the instruction of this number."""
        return self.instructions[template].format_map(self.slots(row))

    def draw_template(self, split: Split, number: int) -> int:
        """Which of `instructions` a row gets: fixed by split and row number, each with the same probability."""
        digest = hashlib.sha256(f"{self.name}/{split}/{number}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % len(self.instructions)

    @abstractmethod
    def target(self, row: Row) -> str:
        """The text to learn; it begins with a space if the prompt does not end with white space."""

    def references(self, row: Row) -> Sequence[str]:
        """Texts to score generated text against. The default: the target; none for label tasks."""
        return () if self.labels else (self.target(row).strip(),)

    def adapt(self, row: Row) -> Row:
        """Map a row of the Hub dataset to the fields of local JSONL files. The default changes nothing."""
        return row

    def licence(self) -> str:
        """Licence of the rows, as their source states it."""
        return self.hub.licence if self.hub else "not stated"

    def example(
        self, row: Row, index: int, where: str, source: Mapping[str, str], template: int | None = None
    ) -> Example:
        """Make an example of a row.

        Args:
            row: fields of the row.
            index: the example's id.
            where: file and line, or dataset and row, for messages.
            source: see `Example.source`.
            template: which instruction its prompt has, recorded in its source; None: the plain prompt.

        Raises:
            DataError: a field is missing, empty or of another type, or the prompt, target or references are not valid.
        """
        self._check_fields(row, where)
        try:
            target, references = self.target(row), tuple(self.references(row))
            if self.labels and target not in self.labels:
                raise DataError(f"answer {target!r} is not one of {', '.join(map(repr, self.labels))}")
            prompt = self.prompt(row) if template is None else self.instruction(row, template)
            _check_texts(prompt, target)
            if self.generates and not references:
                raise DataError("there are no references to score generated text against")
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise DataError(
                f"{where}: task {self.name} cannot make an example of this row ({reason}). "
                "Correct the row, or the task's class"
            ) from error
        return Example(
            id=index,
            prompt=prompt,
            target=target,
            references=references,
            task=self.name,
            source=dict(source) | ({} if template is None else {"template": str(template)}),
        )

    def _check_fields(self, row: Row, where: str) -> None:
        for name, kind in self.fields.items():
            if name not in row:
                raise DataError(f"{where}: field {name!r} is missing; {self.name} rows need {', '.join(self.fields)}")
            value = row[name]
            if not isinstance(value, kind):
                remedy = ". Write it in quotes" if kind is str and isinstance(value, int | float) else ""
                types = f"a {kind.__name__}, not {type(value).__name__}"
                raise DataError(f"{where}: field {name!r} must be {types}{remedy}")
            if not isinstance(value, (str, list)):
                continue
            texts = [value] if isinstance(value, str) else value
            if not all(isinstance(text, str) for text in texts):
                raise DataError(f"{where}: field {name!r} must be a list of str")
            if not texts or not all(text.strip() for text in texts):
                raise DataError(f"{where}: field {name!r} is empty. Fill it in, or leave the row out")


def _check_texts(prompt: str, target: str) -> None:
    for part, text in (("prompt", prompt), ("target", target)):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{part} {text!r} must be a text that is not empty")
