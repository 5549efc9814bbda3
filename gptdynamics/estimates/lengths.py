"""The lengths of the inputs of a task, in tokens, as recorded in `lengths.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gptdynamics.tasks import Mixture, Task


@dataclass(frozen=True)
class Lengths:
    """Prompt and target tokens of each example, or means over groups of examples of equal size."""

    pairs: tuple[tuple[float, float], ...]

    def cut(self, longest: int) -> Lengths:
        """The lengths with prompts cut so that inputs have at most `longest` tokens; a prompt keeps at least one."""
        return Lengths(tuple((max(1.0, min(prompt, longest - target)), target) for prompt, target in self.pairs))

    @property
    def inputs(self) -> np.ndarray:
        """Input tokens of each example: all but the last token of its target."""
        return np.sum(self.pairs, axis=1) - 1

    @property
    def prompt(self) -> float:
        """Mean prompt tokens."""
        return float(np.mean(self.pairs, axis=0)[0])

    @property
    def target(self) -> float:
        """Mean target tokens."""
        return float(np.mean(self.pairs, axis=0)[1])

    @property
    def fed(self) -> float:
        """Mean number of input tokens."""
        return self.longest_of(1)[0]

    @property
    def square(self) -> float:
        """Mean squared number of input tokens, to which the cost of attention is proportional."""
        return self.longest_of(1)[1]

    def longest_of(self, draws: int) -> tuple[float, float]:
        """Mean and mean square of the input tokens of the longest of `draws` examples drawn at random.

        Of n lengths in order, the k-th is the longest of b draws with probability (k / n)^b - ((k - 1) / n)^b.
        """
        inputs = np.sort(self.inputs)
        chances = np.diff((np.arange(len(inputs) + 1) / len(inputs)) ** draws)
        return float(chances @ inputs), float(chances @ inputs**2)

    def batches(self, examples: int, most_tokens: int) -> list[tuple[int, float, float]]:
        """Rows, longest prompt and longest input of each batch of at most `most_tokens` tokens with padding.

        Examples are in order of length; each pair stands for the same number of examples, as nearly as possible.
        """
        ordered = sorted((prompt + target - 1, prompt) for prompt, target in self.pairs)
        batches: list[tuple[int, float, float]] = []
        for index in range(examples):
            length, prompt = ordered[index * len(ordered) // examples]
            rows, longest_prompt, _ = batches[-1] if batches else (0, 0.0, 0.0)
            if rows and (rows + 1) * length <= most_tokens:
                batches[-1] = (rows + 1, max(prompt, longest_prompt), length)
            else:
                batches.append((1, prompt, length))
        return batches


@dataclass(frozen=True)
class TaskLengths:
    """Lengths of a task's rows, and the most tokens of a generated text; 0 for tasks that generate none."""

    pool: Lengths
    test: Lengths
    new_tokens: int = 0

    def cut(self, longest: int) -> TaskLengths:
        """The lengths with prompts cut so that inputs have at most `longest` tokens."""
        return TaskLengths(self.pool.cut(longest), self.test.cut(longest), self.new_tokens)


@cache
def _recorded() -> dict[str, dict[str, Any]]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def task_lengths(task: Task | Mixture, tokenizer: str = "") -> dict[str, TaskLengths]:
    """Lengths of a task, or of each task of a mixture, by name; defaults for a task that is not recorded.

    Recorded lengths are numbers of Pythia tokens; for the tokenizer `nano` they are scaled to its smaller vocabulary.
    """
    recorded = _recorded()
    lengths = {}
    for part in dict.fromkeys((*task.parts, *task.test_parts)):
        entry, scale = recorded[task.scenario].get(part.name), recorded["scale"].get(tokenizer, 1.0)
        if entry is None:
            entry, scale = recorded["default"]["generated" if part.generates else "labelled"], 1.0
        # A label is one token with any tokenizer.
        scales = (scale, scale if part.generates else 1.0)
        pool, test = (
            Lengths(tuple(map(tuple, (np.array([entry[side]["prompt"], entry[side]["target"]]).T * scales).tolist())))
            for side in ("pool", "test")
        )
        lengths[part.name] = TaskLengths(pool, test, round(entry["new_tokens"] * scale))
    return lengths
