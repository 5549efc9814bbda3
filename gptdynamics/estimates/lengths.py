"""How long the inputs of a task are, in tokens, as recorded in `lengths.toml`."""

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
    """Prompt and target tokens of each example, or means of groups of equally many examples."""

    pairs: tuple[tuple[float, float], ...]

    def cut(self, longest: int) -> Lengths:
        """What is left of inputs of at most `longest` tokens: a prompt loses what is too much, and keeps one token."""
        return Lengths(tuple((max(1.0, min(prompt, longest - target)), target) for prompt, target in self.pairs))

    @property
    def inputs(self) -> np.ndarray:
        """Tokens that each example feeds in: all but the last of its target."""
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
        """Mean tokens fed in."""
        return self.longest_of(1)[0]

    @property
    def square(self) -> float:
        """Mean square of the tokens fed in, which attention grows with."""
        return self.longest_of(1)[1]

    def longest_of(self, draws: int) -> tuple[float, float]:
        """Mean and mean square of the tokens fed in by the longest of `draws` examples drawn at random.

        Of n lengths in order, the k-th is the longest of b draws with probability (k / n)^b - ((k - 1) / n)^b.
        """
        inputs = np.sort(self.inputs)
        chances = np.diff((np.arange(len(inputs) + 1) / len(inputs)) ** draws)
        return float(chances @ inputs), float(chances @ inputs**2)

    def batches(self, examples: int, most_tokens: int) -> list[tuple[int, float, float]]:
        """Rows, longest prompt and longest input of each batch of at most `most_tokens` tokens with padding.

        Examples are in order of length; each pair stands for equally many, as nearly as possible.
        """
        each = sorted((prompt + target - 1, prompt) for prompt, target in self.pairs)
        batches: list[tuple[int, float, float]] = []
        for index in range(examples):
            length, prompt = each[index * len(each) // examples]
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
        """What is left of inputs of at most `longest` tokens."""
        return TaskLengths(self.pool.cut(longest), self.test.cut(longest), self.new_tokens)


@cache
def _recorded() -> dict[str, dict[str, Any]]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def task_lengths(task: Task | Mixture, tokenizer: str = "") -> dict[str, TaskLengths]:
    """Lengths of a task, or of each task of a mixture, by name; of a task without a record the default.

    Recorded lengths are Pythia tokens; those of the tokenizer `nano` are scaled to its smaller vocabulary.
    """
    recorded = _recorded()
    lengths = {}
    for part in dict.fromkeys((*task.parts, *task.test_parts)):
        entry, scale = recorded[task.scenario].get(part.name), recorded["scale"].get(tokenizer, 1.0)
        if entry is None:
            entry, scale = recorded["default"]["generated" if part.generates else "labelled"], 1.0
        # A label stays one token.
        scales = (scale, scale if part.generates else 1.0)
        pool, test = (
            Lengths(tuple(map(tuple, (np.array([entry[side]["prompt"], entry[side]["target"]]).T * scales).tolist())))
            for side in ("pool", "test")
        )
        lengths[part.name] = TaskLengths(pool, test, round(entry["new_tokens"] * scale))
    return lengths
