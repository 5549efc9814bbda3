"""Cost of gradient products of a pool and test examples at one checkpoint: `python benchmarks/gradients.py`.

Projected and exact products, beside a plain forward and backward pass of the same examples in the same batches, and
beside one whole gradient at a time, timed on a few examples and scaled: to one of each example, which would take 160 GB
at 135 million parameters, and to as many as their products take within the memory (test gradients again for every few
pool rows). The products themselves are left out, in their favour. By processor time of one thread: the ratios do not
depend on what else the machine does. Weights and tokens are random; sequences have 15 to 50 tokens, the last one to
four of which are the target. `--captum` adds the way of captum's TracInCP, on few examples, scaled to all pairs.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from gptdynamics.gradients import gradient_kernel
from gptdynamics.gradients.products import example_gradients
from gptdynamics.measurement.logits import target_logits
from gptdynamics.measurement.loss import example_losses
from gptdynamics.models.tokens import TokenizedExample, length_sorted_batches, make_target_batch

SHAPES: dict[str, dict[str, Any]] = {
    "small": {
        "hidden_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "intermediate_size": 512,
        "vocab_size": 4096,
    },
    "smollm2": {
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
    },
}
SHORTEST, LONGEST, MOST_TARGETS = 15, 50, 4
BATCH_TOKENS = 1024


def make_model(size: str) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPES[size], tie_word_embeddings=True)).eval()


def make_examples(count: int, vocabulary: int, seed: int) -> list[TokenizedExample]:
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        targets = int(rng.integers(1, MOST_TARGETS + 1))
        ids = rng.integers(vocabulary, size=rng.integers(SHORTEST, LONGEST + 1)).tolist()
        examples.append(TokenizedExample.from_parts(ids[:-targets], ids[-targets:]))
    return examples


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def peak_bytes() -> int:
    """The most memory that the process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def pass_plainly(model: Any, examples: list[TokenizedExample]) -> None:
    for rows in length_sorted_batches([example.input_length for example in examples], BATCH_TOKENS):
        batch = make_target_batch(examples, rows)
        example_losses(target_logits(model, batch), batch).sum().backward()
    model.zero_grad()


def take_whole(model: Any, examples: list[TokenizedExample]) -> None:
    for gradient in example_gradients(model, examples):
        torch.cat([each.flatten() for each in gradient])


def gradients_taken(model: Any, pool: int, tests: int, memory: int) -> int:
    """How many whole gradients their products take, where the memory holds a few: as `gradient_products` does."""
    rows = max(2, memory // (4 * model.num_parameters()))
    columns = min(max(1, rows // 9), tests)
    at_once = min(rows - columns, pool)
    return pool + -(-pool // at_once) * tests


def captum_seconds(model: Any, pool: list[TokenizedExample], tests: list[TokenizedExample]) -> float:
    """Seconds of TracInCP for these pairs, which must all have one length; it takes gradients of each row by hooks."""
    from captum.influence import TracInCP

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1]

    def tensors(examples: list[TokenizedExample]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        middle = (SHORTEST + LONGEST) // 2
        rows = [torch.tensor((each.ids * 4)[: middle + 1]) for each in examples]
        return [(row[:-1], row[-1]) for row in rows]

    tracin = TracInCP(
        Logits(),
        torch.utils.data.TensorDataset(*(torch.stack(each) for each in zip(*tensors(pool), strict=True))),
        checkpoints=["here"],
        checkpoints_load_func=lambda module, path: 1.0,
        loss_fn=torch.nn.CrossEntropyLoss(reduction="none"),
        batch_size=len(pool),
    )
    inputs, targets = (torch.stack(each) for each in zip(*tensors(tests), strict=True))
    return seconds(lambda: tracin.influence((inputs, targets), k=None, show_progress=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=sorted(SHAPES), default="small")
    parser.add_argument("--pool", type=int, default=200)
    parser.add_argument("--tests", type=int, default=100)
    parser.add_argument("--columns", type=int, default=96)
    parser.add_argument("--sample", type=int, default=6, help="examples that one whole gradient at a time is timed on")
    parser.add_argument("--memory", type=float, default=4.0, help="GiB")
    parser.add_argument("--skip-exact", action="store_true")
    parser.add_argument("--captum", type=int, default=0, metavar="N", help="take N x N pairs captum's way as well")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = make_model(given.size)
    vocabulary = model.config.vocab_size
    pool, tests = make_examples(given.pool, vocabulary, 1), make_examples(given.tests, vocabulary, 2)
    both = [*pool, *tests]
    limit = int(given.memory * 2**30)
    # Loads what the first pass of a process loads.
    some = make_examples(4, SHAPES["small"]["vocab_size"], 3)
    gradient_kernel(make_model("small"), some, some, columns=8)
    before = peak_bytes()
    kernels: dict[str, Any] = {}
    spent: dict[str, float] = {}
    peaks: dict[str, int] = {}

    def take(method: Any) -> None:
        kernels[method] = gradient_kernel(model, pool, tests, method=method, columns=given.columns, memory_limit=limit)

    for method in ("projected",) if given.skip_exact else ("projected", "exact"):
        spent[method] = seconds(lambda method=method: take(method))
        peaks[method] = peak_bytes() - before
    spent["plain"] = seconds(lambda: pass_plainly(model, both))
    spent["whole"] = seconds(lambda: take_whole(model, both[: given.sample])) * len(both) / given.sample
    repeated = gradients_taken(model, len(pool), len(tests), limit)
    spent["within memory"] = spent["whole"] * repeated / len(both)
    if given.captum:
        pairs = given.captum**2
        found = captum_seconds(model, pool[: given.captum], tests[: given.captum])
        # Gradients of each side once; the products' share is small.
        spent["captum"] = found * len(both) / (2 * given.captum)
        print(f"captum: {found:.1f} s for {pairs} pairs")
    names = {
        "projected": f"projected, {given.columns} columns",
        "exact": "exact",
        "plain": "plain forward and backward",
        "whole": f"one whole gradient at a time (scaled from {given.sample})",
        "within memory": f"whole gradients within the memory: {repeated} of them",
        "captum": f"captum's TracInCP (scaled from {given.captum} x {given.captum})",
    }
    table = Table(title=f"{given.size}: {given.pool} pool x {given.tests} test examples; one thread")
    for heading in ("way", "CPU s", "over plain", "all whole gradients", "within memory", "peak memory, GiB"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for name, each in spent.items():
        peak = f"{peaks[name] / 2**30:.2f}" if name in peaks else ""
        ratios = (
            f"{each / spent['plain']:.2f}",
            f"{spent['whole'] / each:.1f} x",
            f"{spent['within memory'] / each:.1f} x",
        )
        table.add_row(names[name], f"{each:.1f}", *ratios, peak)
    Console(width=120).print(table)
    projected = kernels["projected"]
    errors = {"relative_error": projected.relative_error, "cosine_error": projected.cosine_error}
    if "exact" in kernels:
        exact = kernels["exact"]
        difference = projected.products - exact.products
        norms = np.sqrt(np.outer(exact.pool_norms, exact.test_norms))
        errors["true_relative_error"] = float(np.sqrt((difference**2).mean() / (exact.products**2).mean()))
        errors["true_cosine_error"] = float(np.sqrt(((difference / norms) ** 2).mean()))
    print(json.dumps(errors))
    if given.json:
        figures = {"arguments": {**vars(given), "json": None}, "cpu_seconds": spent, "peak_bytes": peaks, **errors}
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
