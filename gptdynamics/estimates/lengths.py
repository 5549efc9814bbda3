"""How long the inputs of a task are, in tokens: recorded for the six real tasks, or measured from examples."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptdynamics.tasks import Mixture, Task
    from gptdynamics.tokens import TokenizedExample

_FILE = Path(__file__).with_name("lengths.toml")


@dataclass(frozen=True)
class Lengths:
    """Prompt and target tokens of examples, or of groups of examples that all stand for as many.

    Attributes:
        pairs: (prompt tokens, target tokens) of each example or group; means of groups need not be whole.
    """

    pairs: tuple[tuple[float, float], ...]

    def cut(self, longest: int) -> Lengths:
        """What is left of inputs of at most `longest` tokens: a prompt loses what is too much, and keeps one token."""
        return Lengths(tuple((max(1.0, min(prompt, longest - target)), target) for prompt, target in self.pairs))

    @property
    def prompt(self) -> float:
        """Mean prompt tokens."""
        return sum(prompt for prompt, _ in self.pairs) / len(self.pairs)

    @property
    def target(self) -> float:
        """Mean target tokens."""
        return sum(target for _, target in self.pairs) / len(self.pairs)

    @property
    def fed(self) -> float:
        """Mean tokens fed in: all but the last of the target."""
        return self.prompt + self.target - 1

    @property
    def square(self) -> float:
        """Mean square of the tokens fed in, which attention grows with."""
        return sum((prompt + target - 1) ** 2 for prompt, target in self.pairs) / len(self.pairs)

    def longest_of(self, draws: int) -> tuple[float, float]:
        """Mean and mean square of the tokens fed in by the longest of `draws` examples drawn at random.

        Of n lengths in order, the k-th is the longest of b draws with probability (k / n)^b - ((k - 1) / n)^b.
        """
        inputs = sorted(prompt + target - 1 for prompt, target in self.pairs)
        count = len(inputs)
        chances = [(at / count) ** draws - ((at - 1) / count) ** draws for at in range(1, count + 1)]
        mean = sum(chance * each for chance, each in zip(chances, inputs, strict=True))
        return mean, sum(chance * each**2 for chance, each in zip(chances, inputs, strict=True))

    def batches(self, examples: int, most_tokens: int, new_tokens: int = 0) -> list[tuple[int, float, float]]:
        """Rows, longest prompt and longest input of each batch that `examples` such examples are measured in.

        Put in order of length, as many go into a batch as make at most `most_tokens` tokens with padding.

        Args:
            examples: how many; each pair stands for as many of them, as nearly as can be.
            most_tokens: of a batch.
            new_tokens: room for text that is generated, where that takes the place of the target.
        """
        if new_tokens:
            each = sorted((prompt + new_tokens, prompt) for prompt, _ in self.pairs)
        else:
            each = sorted((prompt + target - 1, prompt) for prompt, target in self.pairs)
        found: list[tuple[int, float, float]] = []
        for at in range(examples):
            length, prompt = each[at * len(each) // examples]
            rows, longest_prompt, _ = found[-1] if found else (0, 0.0, 0.0)
            if rows and (rows + 1) * length <= most_tokens:
                found[-1] = (rows + 1, max(prompt, longest_prompt), length)
            else:
                found.append((1, prompt, length))
        return found


@dataclass(frozen=True)
class TaskLengths:
    """Lengths of a task's rows.

    Attributes:
        pool: of training examples.
        test: of test examples.
        new_tokens: at most this many in a generated text; 0 for tasks that generate none.
    """

    pool: Lengths
    test: Lengths
    new_tokens: int = 0


# Of a task that nothing is known of: (pool and test lengths, new tokens), by whether it generates text.
DEFAULT_LABELLED = TaskLengths(Lengths(((64.0, 1.0),)), Lengths(((64.0, 1.0),)))
DEFAULT_GENERATED = TaskLengths(Lengths(((64.0, 32.0),)), Lengths(((64.0, 32.0),)), new_tokens=64)


def measured_lengths(
    pool: Sequence[TokenizedExample], test: Sequence[TokenizedExample], new_tokens: int = 0
) -> TaskLengths:
    """Lengths of tokenised examples of one task.

    Args:
        pool: training examples.
        test: test examples.
        new_tokens: at most this many in a generated text.
    """

    def of(examples: Sequence[TokenizedExample]) -> Lengths:
        return Lengths(tuple((float(len(each.prompt)), float(len(each.target))) for each in examples))

    return TaskLengths(of(pool), of(test), new_tokens)


@cache
def _recorded() -> dict[str, dict[str, Any]]:
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))


def task_lengths(
    task: Task | Mixture, tokenizer: str = "", known: Mapping[str, TaskLengths] | None = None
) -> dict[str, TaskLengths]:
    """Lengths of a task, or of each task of a mixture, by name.

    Args:
        task: the six real ones and mixtures of them are recorded, with plain prompts and with instructions.
        tokenizer: `nano` multiplies recorded lengths, which are Pythia tokens, by what its smaller vocabulary takes.
        known: measured lengths by task; they come before recorded ones. Others without a record get the default:
            64 tokens of prompt and 1 of target, or 32 of target and at most 64 new ones where text is generated.
    """
    recorded = _recorded()
    scale = recorded["scale"].get(tokenizer, 1.0)
    found = {}
    for part in dict.fromkeys((*task.parts, *task.test_parts)):
        entry = recorded[task.scenario].get(part.name)
        if known and part.name in known:
            found[part.name] = known[part.name]
        elif entry:
            found[part.name] = TaskLengths(
                _lengths(entry["pool"], scale, part.generates),
                _lengths(entry["test"], scale, part.generates),
                round(entry["new_tokens"] * scale) if part.generates else 0,
            )
        else:
            found[part.name] = DEFAULT_GENERATED if part.generates else DEFAULT_LABELLED
    return found


def _lengths(entry: dict[str, list[float]], scale: float, generates: bool) -> Lengths:
    # A label stays one token.
    target_scale = scale if generates else 1.0
    return Lengths(
        tuple(
            (prompt * scale, target * target_scale)
            for prompt, target in zip(entry["prompt"], entry["target"], strict=True)
        )
    )
