"""What the loss at every step costs on a real model's shape: `python benchmarks/collection.py --size smollm2`.

A Trainer that evaluates after every update (`Trainer.predict`, logits at every position, -100 on the prompt, batches as
they come) against the code that `gptdynamics collect` runs, in turns after the same updates, in one process with one
thread, by processor time: the ratios do not depend on what else the machine does. Both get the same number of rows in a
batch. What remains of our time is told apart: the update, the forward pass to the hidden states, and the rest, which is
the vocabulary. Weights are those of `make smollm2` where they are in the cache, else random ones; that changes no time.
Inputs are random tokens of the lengths recorded for each task.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gradients import make_model as make_random_model
from rich.console import Console
from rich.table import Table
from trainer_evaluation import Theirs

from gptdynamics.errors import GPTDynamicsError
from gptdynamics.estimates import task_lengths
from gptdynamics.measurement.logits import pass_forward
from gptdynamics.measurement.loss import TargetLosses, example_losses, target_logits
from gptdynamics.models.base_model import load_base_model
from gptdynamics.models.tokens import TokenizedExample, make_target_batch
from gptdynamics.tasks import get_single_task

BATCH = 4


@dataclass(frozen=True)
class Settings:
    """What is timed.

    Attributes:
        tasks: whose lengths inputs have, each with its number of test examples.
        steps: updates, after each of which both measure.
        size: of the model, as `benchmarks/gradients.py` knows it.
    """

    tasks: tuple[tuple[str, int], ...] = (("sst2", 64), ("webnlg", 32))
    steps: int = 3
    size: str = "smollm2"


def load_model(size: str) -> tuple[Any, str]:
    """The real model if it is there, else its shape with random weights; and which of the two it is."""
    if size == "smollm2":
        try:
            base = load_base_model(size)
        except GPTDynamicsError:
            pass
        else:
            return base.model.eval(), base.revision
    return make_random_model(size), "random"


def make_examples(task_name: str, count: int, vocabulary: int) -> list[TokenizedExample]:
    """Random tokens of the lengths recorded for a task, in an order that is not theirs."""
    rng = np.random.default_rng(0)
    pairs = task_lengths(get_single_task(task_name))[task_name].test.pairs
    chosen = [pairs[at * len(pairs) // count] for at in rng.permutation(count)]
    return [
        TokenizedExample.from_parts(*(rng.integers(1, vocabulary, max(1, round(size))).tolist() for size in pair))
        for pair in chosen
    ]


class Turns:
    """Updates, and after each of them the measurements of both, in turns."""

    def __init__(self, model: Any, examples: list[TokenizedExample]) -> None:
        self.model, self.examples = model, examples
        self.losses = TargetLosses(examples)
        self.rows = -(-len(examples) // len(self.losses.batches))
        self.theirs = Theirs(model, examples, 1.0, 1.0, 0, self.rows)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
        self.rng = np.random.default_rng(1)
        self.seconds: dict[str, list[float]] = {}
        self.difference = 0.0

    def _timed(self, name: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = work()
        self.seconds.setdefault(name, []).append(time.process_time() - began)
        return result

    def _update(self) -> None:
        rows = self.rng.choice(len(self.examples), BATCH, replace=False).tolist()
        batch = make_target_batch(self.examples, rows)
        example_losses(target_logits(self.model, batch), batch).mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def _forward(self, inputs: list[torch.Tensor]) -> None:
        for each in inputs:
            pass_forward(self.model, each)

    def step(self, number: int) -> None:
        """One update and both measurements; every second time ours comes first."""
        self._timed("update", self._update)
        self.model.eval()
        turns = [("theirs", self.theirs.losses), ("ours", lambda: self.losses.measure(self.model)[0])]
        found = {name: self._timed(name, work) for name, work in (turns if number % 2 else turns[::-1])}
        self.difference = max(self.difference, float(np.abs(found["theirs"] - found["ours"]).max()))
        self._timed("our forward pass", lambda: self._forward([each.input_ids for each in self.losses.batches]))
        padded = [
            torch.nn.utils.rnn.pad_sequence([torch.tensor(each.ids) for each in part], batch_first=True)
            for part in (self.examples[at : at + self.rows] for at in range(0, len(self.examples), self.rows))
        ]
        self._timed("their forward pass", lambda: self._forward(padded))


def figures(turns: Turns) -> dict[str, float]:
    """Medians over the steps, the first of which loads what the first pass of a process loads."""
    found = {name: float(np.median(each[1:] or each)) for name, each in turns.seconds.items()}
    found["our vocabulary"] = found["ours"] - found["our forward pass"]
    found["their vocabulary"] = found["theirs"] - found["their forward pass"]
    found["ratio"] = found["theirs"] / found["ours"]
    found["ratio with the update"] = (found["update"] + found["theirs"]) / (found["update"] + found["ours"])
    found["rows in a batch"] = turns.rows
    found["largest difference of a loss"] = turns.difference
    return found


def run(settings: Settings, console: Console, report: Path | None) -> None:
    """Time every task, show a table, and write the figures as JSON if a file is given."""
    torch.set_num_threads(1)
    model, weights = load_model(settings.size)
    found: dict[str, dict[str, float]] = {}
    for task, count in settings.tasks:
        turns = Turns(model, make_examples(task, count, model.config.vocab_size))
        for number in range(settings.steps + 1):
            turns.step(number)
        found[task] = figures(turns)
    table = Table(title=f"{settings.size} ({weights}), loss at every step, CPU s, medians of {settings.steps} steps")
    table.add_column("")
    for task, count in settings.tasks:
        table.add_column(f"{task}, {count} examples", justify="right")
    for name in next(iter(found.values())):
        table.add_row(name, *(f"{each[name]:.3g}" for each in found.values()))
    console.print(table)
    if report is not None:
        content = {"arguments": asdict(settings) | {"weights": weights}, "cpu_seconds": found}
        report.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
