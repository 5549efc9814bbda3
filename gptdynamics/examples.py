"""One example: its prompt, its target, and the source of its row."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Example:
    """A pool or test example.

    Attributes:
        id: number of the row within its split; curricula and trajectories refer to it.
        prompt: text before the target, without loss. Empty if a text of a generation task has no prompt.
        target: text whose tokens have the loss; empty if it is unknown (an imported example may not say where the
            prompt ends) or withheld, which datasets store as null.
        references: texts that generated text is scored against (NLG); empty for label tasks.
        task: name of the task.
        source: the public row that it is made of (dataset, split, row, licence); never shown to a model.
    """

    id: int
    prompt: str
    target: str
    references: tuple[str, ...] = ()
    task: str = ""
    source: dict[str, str] = field(default_factory=dict)

    @property
    def withheld(self) -> bool:
        """Whether the release of this example leaves its texts out."""
        return not self.prompt and not self.references

    @property
    def withheld_message(self) -> str:
        """What is said where a withheld text is needed to train."""
        return (
            f"{self.task} example {self.id} has no text, and training again needs it: this dataset leaves texts out. "
            "Use one that was collected or recorded with its texts"
        )

    @property
    def digest(self) -> str:
        """A digest of prompt and target, 16 hexadecimal digits."""
        return hashlib.sha256(f"{self.prompt}\0{self.target}".encode()).hexdigest()[:16]
