"""What recording adds to a training step beyond the evaluation: `python benchmarks/recorder_overhead.py`.

Four trainings of nano on the same rows take turns, step by step, in threads of one process, so that whatever else the
machine does falls on all of them: as it is; with a bare evaluation of the test set after each update; recorded, with
the same evaluation; recorded, but with nothing measured in between. Once as a `transformers.Trainer` with accumulation,
once as a plain loop. Medians of the thread's CPU time are shown; shares are of the step as it is, and the target is 2%.
`own work` is what the recorder does after an update, less the evaluation within: it does not suffer from the others.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

from gptdynamics.examples import Example
from gptdynamics.measurement import TestSet
from gptdynamics.models.base_model import BaseModel, load_base_model
from gptdynamics.models.tokens import make_target_batch, tokenize_example
from gptdynamics.recorder import DynamicsRecorder, RecordSettings, StepRecorder
from gptdynamics.tasks import get_task, load_examples

TASK, CONFIG = "mini_sentiment", "mini_sentiment_nano"
KINDS = ("as it is", "evaluated", "recorded", "recorded, not measured")
NEVER = 10**9


class Turns:
    """Lets threads work one after another, and notes how much CPU time each turn takes."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.spent: dict[str, list[float]] = {name: [] for name in names}
        self.own: list[float] = []
        self.broken = False
        self._turn = 0
        self._moved = threading.Condition()
        self._began: dict[str, float] = {}

    def begin(self, name: str) -> None:
        with self._moved:
            self._moved.wait_for(lambda: self.broken or self.names[self._turn % len(self.names)] == name)
        if self.broken:
            raise RuntimeError("another training ended with an error")
        self._began[name] = time.thread_time()

    def give_up(self) -> None:
        """Let nobody wait for a turn that will not come."""
        with self._moved:
            self.broken = True
            self._moved.notify_all()

    def end(self, name: str) -> None:
        self.spent[name].append(time.thread_time() - self._began[name])
        with self._moved:
            self._turn += 1
            self._moved.notify_all()


class Turn(TrainerCallback):
    """A step of a Trainer is a turn: it begins where the last one ended, so that loading batches is in it."""

    def __init__(self, turns: Turns, name: str) -> None:
        self.turns, self.name = turns, name

    def on_train_begin(self, *arguments: Any, **named: Any) -> None:
        self.turns.begin(self.name)

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        self.turns.end(self.name)
        if state.global_step < state.max_steps:
            self.turns.begin(self.name)


class Evaluated(TrainerCallback):
    """A bare evaluation of the test set after each update."""

    def __init__(self, test_set: TestSet) -> None:
        self.test_set = test_set

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        named["model"].eval()
        self.test_set.measure(named["model"])


class Data:
    """Pool and test set, and models to train on them."""

    def __init__(self, pool: int, test: int) -> None:
        self.pool, self.test = (load_examples(get_task(TASK), *part) for part in (("pool", pool), ("test", test)))

    def base(self) -> BaseModel:
        return load_base_model("nano")

    def test_set(self, base: BaseModel) -> TestSet:
        return TestSet(self.test, base, RecordSettings(), {})

    def rows(self, tokenizer: Any) -> Iterator[tuple[Example, Any]]:
        for example in self.pool:
            yield example, tokenize_example(tokenizer, example, 512, end_of_text=False)


def watch(recorder: DynamicsRecorder | StepRecorder, turns: Turns) -> None:
    """Note the recorder's own work after each update."""
    recording = recorder.recording
    after_update = recording.after_update

    def watched(*arguments: Any, **named: Any) -> None:
        evaluated, measure = 0.0, recording.test_set.measure

        def noted(model: Any) -> Any:
            nonlocal evaluated
            began = time.thread_time()
            found = measure(model)
            evaluated += time.thread_time() - began
            return found

        recording.test_set.measure = noted
        began = time.thread_time()
        after_update(*arguments, **named)
        turns.own.append(time.thread_time() - began - evaluated)
        recording.test_set.measure = measure

    recording.after_update = watched


def how(kind: str) -> RecordSettings:
    return RecordSettings(eval_every=1 if kind == "recorded" else NEVER)


def make_trainer(kind: str, data: Data, steps: int, batch: int, out: Path, turns: Turns) -> Callable[[], Any]:
    base = data.base()
    tokenizer = base.tokenizer
    tokenizer.pad_token = tokenizer.eos_token
    rows = [
        {"id": example.id, "input_ids": [*each.prompt, *each.target], "labels": [-100] * len(each.prompt) + each.target}
        for example, each in data.rows(tokenizer)
    ]
    arguments: dict[str, Any] = {"gradient_accumulation_steps": 2, "max_steps": steps, "save_strategy": "no"}
    arguments |= {"report_to": [], "disable_tqdm": True, "use_cpu": True, "logging_strategy": "no"}
    trainer = Trainer(
        model=base.model,
        args=TrainingArguments(str(out / "trainer"), per_device_train_batch_size=batch // 2, **arguments),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        callbacks=[Evaluated(data.test_set(base))] if kind == "evaluated" else [],
    )
    if kind.startswith("recorded"):
        recorder = DynamicsRecorder(out / kind, CONFIG, data.pool, data.test, settings=how(kind))
        if kind == "recorded":
            watch(recorder, turns)
        recorder.attach(trainer)
    trainer.add_callback(Turn(turns, kind))
    return trainer.train


def make_loop(kind: str, data: Data, steps: int, batch: int, out: Path, turns: Turns) -> Callable[[], Any]:
    base = data.base()
    model, tokens = base.model, {example.id: each for example, each in data.rows(base.tokenizer)}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    test_set = data.test_set(base)
    recorder: Any = nullcontext()
    if kind.startswith("recorded"):
        given = (model, base.tokenizer, optimizer)
        recorder = StepRecorder(out / kind, CONFIG, data.pool, data.test, *given, settings=how(kind))
        if kind == "recorded":
            watch(recorder, turns)
    rng = np.random.default_rng(0)

    def train() -> None:
        with recorder:
            for _ in range(steps):
                turns.begin(kind)
                ids = rng.choice(len(tokens), batch, replace=False).tolist()
                with recorder.step(ids) if kind.startswith("recorded") else nullcontext():
                    model.train()
                    for part in (ids[: batch // 2], ids[batch // 2 :]):
                        made = make_target_batch([tokens[at] for at in part], list(range(len(part))))
                        logits = model(input_ids=made.input_ids).logits[made.row, made.position]
                        (torch.nn.functional.cross_entropy(logits, made.target) / 2).backward()
                    optimizer.step()
                    optimizer.zero_grad()
                if kind == "evaluated":
                    model.eval()
                    test_set.measure(model)
                turns.end(kind)

    return train


def side_by_side(make: Callable[..., Callable[[], Any]], *arguments: Any) -> dict[str, np.ndarray]:
    """CPU seconds of each step of the four kinds, and of own work, without the first steps, where things are made."""
    turns = Turns(KINDS)

    def work(train: Callable[[], Any]) -> None:
        torch.set_num_threads(1)
        try:
            train()
        except BaseException:
            turns.give_up()
            raise

    with tempfile.TemporaryDirectory() as scratch:
        trainings = [make(kind, *arguments, Path(scratch), turns) for kind in KINDS]
        with ThreadPoolExecutor(len(KINDS)) as pool:
            for ended in [pool.submit(work, train) for train in trainings]:
                ended.result()
    return {kind: np.array(spent[2:-1]) for kind, spent in (turns.spent | {"own": turns.own}).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--test-examples", type=int, default=50)
    given = parser.parse_args()
    console = Console(width=120)
    title = f"nano, {TASK}, batches of {given.batch}, {given.test_examples} test examples, {given.steps} steps"
    table = Table("training", *(f"{kind}, ms" for kind in KINDS), "beyond", "not measured", "own work", title=title)
    data = Data(200, given.test_examples)
    for name, make in (("Trainer", make_trainer), ("plain loop", make_loop)):
        found = side_by_side(make, data, given.steps, given.batch)
        middle = {kind: float(np.median(spent)) for kind, spent in found.items()}
        beyond = float(np.median(found["recorded"] - found["evaluated"])) / middle["as it is"]
        unmeasured = float(np.median(found["recorded, not measured"] - found["as it is"])) / middle["as it is"]
        times = (f"{1000 * middle[kind]:.2f}" for kind in KINDS)
        own = float(np.median(found["own"])) / middle["as it is"]
        table.add_row(name, *times, f"{beyond:+.1%}", f"{unmeasured:+.1%}", f"{own:.2%}")
    console.print(table)


if __name__ == "__main__":
    main()
