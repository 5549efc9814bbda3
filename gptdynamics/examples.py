"""One example: what is shown to the model, what it should say, and where the row came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Example:
    """A pool or test example.

    Attributes:
        id: number of the row within its split; curricula and trajectories refer to it.
        prompt: text before the target; no loss is taken on it. Empty where a text of a generation task has none.
        target: text whose tokens the loss is the mean over; empty where it is not known (imported examples may not say
            where the prompt ends) or withheld, which datasets store as null.
        references: texts that generated text is scored against (NLG); empty for label tasks.
        task: name of the task.
        source: which public row this is (dataset, split, row, licence); never shown to a model.
    """

    id: int
    prompt: str
    target: str
    references: tuple[str, ...] = ()
    task: str = ""
    source: dict[str, str] = field(default_factory=dict)

    @property
    def withheld(self) -> bool:
        """Whether the release that this example was read from leaves its texts out."""
        return not self.prompt and not self.references

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that stand for prompt and target."""
        return hashlib.sha256(f"{self.prompt}\0{self.target}".encode()).hexdigest()[:16]
