"""Time to measure a test set once, ours against a Trainer's evaluation: `python benchmarks/collection.py`.

Theirs is what a script on transformers does after each update: `Trainer.predict` over the whole test set, in batches
of 8 as they come, padded, with logits at every position and -100 on the prompt, and `generate` with one prompt at a
time. Ours is the code that `gptdynamics collect` runs. Two processes with one thread each work at the same time, as two
workers do; each takes turns between theirs and ours after every update, and medians of the thread's CPU time are shown:
the ratio does not depend on what else the machine does.

The model is a GPT-NeoX of a Pythia size with random weights, its output matrix ten times as wide as transformers makes
it, which gives sampling about as few likely tokens as a trained model has. Inputs are random tokens of the lengths
recorded for each task; `--data` and `--tokenizer` take real rows. `--device cuda` times ours only, on one GPU.
`--size smollm2` times the loss at every step of a real model instead, see `loss_at_every_step.py`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from gptdynamics.estimates import PYTHIA_SHAPES, Lengths, task_lengths
from gptdynamics.estimates.flops import GENERATION_SHARE, generation_flops, loss_flops
from gptdynamics.estimates.throughput import CPU_UTILISATION, matmul_rate
from gptdynamics.measurement.generation import Generator
from gptdynamics.measurement.loss import TargetLosses, example_losses, target_logits
from gptdynamics.models.random_base import random_neox
from gptdynamics.models.tokens import TokenizedExample, make_target_batch, tokenize_example
from gptdynamics.tasks import get_single_task, load_examples

TEMPERATURE, TOP_P, END = 0.2, 0.95, 0
YES, NO = 4754, 642
ROWS = (("sst2", "loss"), ("webnlg", "loss"), ("webnlg", "generation"))


@dataclass(frozen=True)
class Sizes:
    """What is run: the model's shape, test examples, texts among them, steps, and the two lengths of memory's run."""

    shape: str = "14m"
    device: str = "cpu"
    examples: int = 200
    texts: int = 20
    steps: int = 3
    memory: tuple[int, int] = (5, 50)
    data: str | None = None
    tokenizer: str | None = None


class NoText:
    """Stands for a tokenizer where tokens are random."""

    eos_token_id = END

    def decode(self, ids: list[int], **options: Any) -> str:
        return " ".join(map(str, ids))


def lengths_of(examples: list[TokenizedExample]) -> Lengths:
    return Lengths(tuple((len(each.prompt), len(each.target)) for each in examples))


def make_model(sizes: Sizes) -> Any:
    model = random_neox(PYTHIA_SHAPES[sizes.shape])
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(10)
    return model.to(sizes.device).eval()


def make_examples(sizes: Sizes, task_name: str) -> tuple[list[TokenizedExample], int]:
    """Test examples of a task and how long its texts may be."""
    task = get_single_task(task_name)
    lengths = task_lengths(task)[task_name]
    if sizes.data and sizes.tokenizer:
        from transformers import PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast(tokenizer_file=sizes.tokenizer, eos_token="<|endoftext|>")
        rows = load_examples(task, "test", sizes.examples, Path(sizes.data))
        return [tokenize_example(tokenizer, row, 2048, task.generates) for row in rows], lengths.new_tokens
    rng = np.random.default_rng(0)
    pairs = lengths.test.pairs
    examples = []
    for at in rng.permutation(sizes.examples):
        prompt, target = pairs[at * len(pairs) // sizes.examples]
        made = rng.integers(1, 50000, round(prompt)).tolist(), rng.integers(1, 50000, round(target)).tolist()
        examples.append(TokenizedExample.from_parts(*made))
    return examples, lengths.new_tokens


class Updates:
    """AdamW on batches of four."""

    def __init__(self, model: Any, examples: list[TokenizedExample]) -> None:
        self.model, self.examples = model, examples
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
        self.rng = np.random.default_rng(1)

    def step(self) -> None:
        rows = self.rng.choice(len(self.examples), 4, replace=False).tolist()
        batch = make_target_batch(self.examples, rows).to(self.model.device)
        example_losses(target_logits(self.model, batch), batch).mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


@dataclass(frozen=True)
class Ours:
    """A measurement by this package.

    Attributes:
        work: does it, given the step; losses, or None.
        examples: what is measured.
        tokens: fed in without padding, or sampled.
        flops: as estimated.
        new_tokens: of a text, at most.
    """

    work: Callable[[int], np.ndarray | None]
    examples: list[TokenizedExample]
    tokens: int
    flops: float
    new_tokens: int


def make_ours(sizes: Sizes, model: Any, task: str, kind: str) -> Ours:
    shape = PYTHIA_SHAPES[sizes.shape]
    examples, new_tokens = make_examples(sizes, task)
    if kind == "loss":
        labels = [] if new_tokens else [[YES, NO]] * len(examples)
        losses = TargetLosses(examples, labels, sizes.device)
        flops = loss_flops(shape, len(examples), lengths_of(examples))
        return Ours(lambda step: losses.measure(model)[0], examples, losses.tokens, flops, new_tokens)
    examples = examples[: sizes.texts]
    generator = Generator(NoText(), [each.prompt for each in examples], new_tokens, TEMPERATURE, TOP_P)
    lengths = lengths_of(examples)
    flops = generation_flops(shape, len(examples), lengths, new_tokens, shape.context)

    def sample(step: int) -> None:
        generator.sample(model, [[step, at] for at in range(len(examples))])

    return Ours(sample, examples, len(examples) * new_tokens, flops, new_tokens)


def measured(task: str, kind: str, sizes: Sizes) -> dict[str, list[float]]:
    """At each step: CPU seconds of theirs and ours, largest difference of a loss, predicted over measured seconds."""
    from trainer_evaluation import Theirs

    torch.set_num_threads(1)
    model = make_model(sizes)
    ours = make_ours(sizes, model, task, kind)
    updates = Updates(model, make_examples(sizes, task)[0])
    theirs = Theirs(model, ours.examples, TEMPERATURE, TOP_P, END)
    found: dict[str, list[float]] = {"theirs": [], "ours": [], "difference": [], "predicted": []}

    def theirs_once(step: int) -> np.ndarray | None:
        return theirs.losses() if kind == "loss" else theirs.texts(ours.new_tokens)

    for step in range(sizes.steps):
        updates.step()
        model.eval()
        rate = matmul_rate(seconds=0.2) * 1e12 * CPU_UTILISATION
        values: dict[str, np.ndarray | None] = {}
        turns = [("theirs", theirs_once), ("ours", ours.work)]
        for name, work in turns if step % 2 == 0 else turns[::-1]:
            began = time.process_time()
            values[name] = work(step)
            found[name].append(time.process_time() - began)
        share = GENERATION_SHARE if kind == "generation" else 1
        found["predicted"].append(ours.flops / share / rate / found["ours"][-1])
        if values["theirs"] is not None and values["ours"] is not None:
            found["difference"].append(float(np.abs(values["theirs"] - values["ours"]).max()))
    return found


def peak_mib(steps: tuple[int, int], sizes: Sizes) -> list[float]:
    """Largest memory of a fresh process after so many steps of updating and measuring, in MiB."""
    import resource

    torch.set_num_threads(1)
    model = make_model(sizes)
    examples, _ = make_examples(sizes, "sst2")
    losses, updates = TargetLosses(examples), Updates(model, examples)
    peaks = []
    for step in range(1, max(steps) + 1):
        updates.step()
        losses.measure(model)
        if step in steps:
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return peaks


_kept: dict[str, Any] = {}


def measure_some(sizes: Sizes, times: int) -> float:
    """Seconds of so many measurements of webnlg's losses, in a process that keeps its model."""
    if not _kept:
        torch.set_num_threads(1)
        _kept["model"] = make_model(sizes)
        _kept["losses"] = TargetLosses(make_examples(sizes, "webnlg")[0])
        _kept["losses"].measure(_kept["model"])
    began = time.perf_counter()
    for _ in range(times):
        _kept["losses"].measure(_kept["model"])
    return time.perf_counter() - began


def workers(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))


def two_workers(sizes: Sizes) -> float:
    """How many times the work of one worker two do, each in its process: median of turns."""
    with workers(1) as first, workers(1) as second:
        pools, ratios = (first, second), []
        for pool in pools:
            pool.submit(measure_some, sizes, 1).result()
        for _ in range(sizes.steps):
            alone = first.submit(measure_some, sizes, 1).result()
            both = [pool.submit(measure_some, sizes, 1) for pool in pools]
            ratios.append(2 * alone / max(each.result() for each in both))
    return float(np.median(ratios))


def side_by_side(sizes: Sizes, console: Console) -> None:
    title = f"Pythia-{sizes.shape}'s shape, {sizes.examples} examples ({sizes.texts} texts), medians of one thread"
    table = Table(title=title)
    headings = "measurement|theirs, CPU s|ours, CPU s|ratio|max loss difference|predicted / measured"
    for heading in headings.split("|"):
        table.add_column(heading, justify="left" if heading == "measurement" else "right")
    for task, kind in ROWS:
        with workers(2) as pool:
            both = [each.result() for each in [pool.submit(measured, task, kind, sizes) for _ in range(2)]]
        found = {name: both[0][name] + both[1][name] for name in both[0]}
        ratio = np.median(np.array(found["theirs"]) / found["ours"])
        table.add_row(
            f"{task} {kind}",
            f"{np.median(found['theirs']):.2f}",
            f"{np.median(found['ours']):.2f}",
            f"{ratio:.1f}",
            f"{max(found['difference']):.1e}" if found["difference"] else "",
            f"{np.median(found['predicted']):.2f}",
        )
    console.print(table)
    with workers(1) as pool:
        few, many = pool.submit(peak_mib, sizes.memory, sizes).result()
    console.print(f"peak memory after {sizes.memory[0]} steps {few:.0f} MiB, after {sizes.memory[1]}: {many:.0f} MiB")
    console.print(f"two workers do {two_workers(sizes):.2f} times the work of one")


def on_gpu(sizes: Sizes, console: Console) -> None:
    """Tokens per second of ours, and the share of the fp32 matrix product's rate that they reach."""
    rate = matmul_rate(sizes.device, size=4096, seconds=1.0)
    console.print(f"Pythia-{sizes.shape}'s shape on {sizes.device}: matrix products at {rate:.1f} TFLOP/s (fp32)")
    model = make_model(sizes)
    table = Table()
    for heading in ("measurement", "seconds", "tokens/s", "TFLOP/s", "share of matrix product"):
        table.add_column(heading, justify="left" if heading == "measurement" else "right")
    for task, kind in ROWS:
        ours, best = make_ours(sizes, model, task, kind), float("inf")
        for step in range(sizes.steps + 1):
            began = time.perf_counter()
            ours.work(step)
            # The first is for warming up.
            best = min(best, time.perf_counter() - began) if step else best
        reached = ours.flops / best / 1e12
        values = f"{best:.3f}", f"{ours.tokens / best:.0f}", f"{reached:.2f}", f"{reached / rate:.2f}"
        table.add_row(f"{task} {kind}", *values)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=("small", "smollm2"), help="the loss at every step of this model alone")
    parser.add_argument("--steps", type=int, default=3, help="with --size: updates that are measured")
    parser.add_argument("--json", type=Path, help="with --size: write the figures there")
    parser.add_argument("--quick", action="store_true", help="a fifth of the examples, one step")
    parser.add_argument("--shape", default="14m", choices=PYTHIA_SHAPES)
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU such as cuda")
    parser.add_argument("--data", help="folder with <task>/eval.jsonl, together with --tokenizer")
    parser.add_argument("--tokenizer", help="tokenizer.json of Pythia")
    given = parser.parse_args()
    if (given.data is None) != (given.tokenizer is None):
        parser.error("--data and --tokenizer go together")
    if given.size is not None:
        import loss_at_every_step

        chosen = loss_at_every_step.Settings(steps=given.steps, size=given.size)
        loss_at_every_step.run(chosen, Console(width=120), given.json)
        return
    sizes = Sizes(given.shape, given.device, data=given.data, tokenizer=given.tokenizer)
    if given.quick:
        sizes = replace(sizes, examples=40, texts=6, steps=1, memory=(2, 6))
    began = time.perf_counter()
    console = Console(width=120)
    (side_by_side if given.device == "cpu" else on_gpu)(sizes, console)
    console.print(f"{time.perf_counter() - began:.0f} seconds in all")


if __name__ == "__main__":
    main()
