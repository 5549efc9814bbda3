"""What recording gradients costs: `python benchmarks/recording_gradients.py`.

A recorded step takes the derivatives of every test example's loss along two directions (`grad_dot`, `update_dot`), on
top of its update. That is timed beside one measurement of the losses, and beside forward mode through the whole model,
in turns in one process of one thread, by CPU time: the ratio does not depend on what else the machine does. Inputs are
random tokens of the lengths recorded for each task; Pythia shapes have random weights.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from collection import Sizes, make_examples, make_model
from rich.console import Console
from rich.table import Table

from gptdynamics.configs import RunSettings
from gptdynamics.gradients.directions import forward_derivatives
from gptdynamics.measurement.loss import TargetLosses
from gptdynamics.models.base_model import load_base_model
from gptdynamics.models.tokens import TokenizedExample
from gptdynamics.runs.gradient_record import GradientRecord
from gptdynamics.runs.updates import Updates

ROWS = (
    ("nano", "rte", 100, 0),
    ("nano", "sst2", 100, 0),
    ("nano", "boolq", 50, 0),
    ("nano", "webnlg", 50, 0),
    ("nano", "wmt16", 50, 0),
    ("14m", "sst2", 100, 0),
    ("14m", "webnlg", 50, 0),
    ("14m", "webnlg", 50, 8),
)


def costs(updates: Updates, examples: list[TokenizedExample], turns: int) -> dict[str, float]:
    """Medians over the turns: CPU seconds of a measurement, and how many of them the others cost."""
    model, losses = updates.model, TargetLosses(examples)
    record = GradientRecord(model, [], SimpleNamespace(losses=losses), turns)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    spent: dict[str, list[float]] = {"measure": [], "record": [], "forward": []}

    def timed(work: Callable[[], object]) -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    def through_the_model(directions: list[dict[str, torch.Tensor]]) -> None:
        for batch in losses.batches:
            forward_derivatives(model, batch, directions)

    for _ in range(turns + 1):
        updates.loss([examples[at] for at in rng.choice(len(examples), 4, replace=False)]).backward()
        gradient = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
        before = timed(record.before_update)
        updates.step(1e-6)
        spent["record"].append(before + timed(record.after_update))
        spent["measure"].append(timed(partial(losses.measure, model)))
        spent["forward"].append(timed(partial(through_the_model, [gradient, gradient])))
    # The first turn is for warming up.
    ratios = {name: float(np.median(np.array(each[1:]) / spent["measure"][1:])) for name, each in spent.items()}
    return ratios | {"measure": float(np.median(spent["measure"][1:]))}


def within(examples: list[TokenizedExample], model: Any) -> list[TokenizedExample]:
    """The examples with token ids of the model's vocabulary, no longer than the nano release allows."""
    size = model.config.vocab_size
    return [
        TokenizedExample.from_parts([at % size for at in e.prompt][-400:], [at % size for at in e.target])
        for e in examples
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=5, help="of each pair")
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title=f"a recorded step, medians of {given.turns} turns")
    for heading in (
        "model",
        "task",
        "test examples",
        "measurement, CPU s",
        "recording / measurement",
        "by forward mode",
    ):
        table.add_column(heading, justify="left" if heading in ("model", "task") else "right")
    for name, task, count, rank in ROWS:
        sizes = Sizes(shape="14m", examples=count)
        model = load_base_model("nano").model if name == "nano" else make_model(sizes)
        examples = within(make_examples(sizes, task)[0], model)
        updates = Updates(model, RunSettings("rte_nano", 1e-6, lora_rank=rank), [0])
        found = costs(updates, examples, given.turns)
        label = f"{name}, LoRA rank {rank}" if rank else name
        ratios = (f"{found['record']:.2f}", f"{found['forward']:.2f}")
        table.add_row(label, task, str(count), f"{found['measure']:.3f}", *ratios)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
