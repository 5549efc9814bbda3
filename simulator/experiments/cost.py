"""Table 13: seconds and floating-point operations per trajectory, of every method, measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from gptdynamics.curriculum import run_seed
from gptdynamics.dataset import Dynamics
from gptdynamics.errors import GPTDynamicsError
from gptdynamics.gradients import directional_derivatives, gradient_products
from gptdynamics.gradients.products import example_gradients
from gptdynamics.measurement.loss import TargetLosses
from gptdynamics.models.base_model import load_weights
from gptdynamics.runs import Bench
from gptdynamics.runs.gradient_record import CHECKPOINTS
from gptdynamics.runs.updates import Updates
from gptdynamics.scratch import scratch_folder
from simulator.baselines import fit_baseline
from simulator.baselines.published_tracin import separate_products, summed_sides
from simulator.baselines.replay import open_bench
from simulator.evaluation.simulated import Simulated
from simulator.experiments.comparison import Row, distinct
from simulator.experiments.workbench import UNTRAINABLE, Workbench
from simulator.reporting.result import Result, Table

REPEATS = 5
# Steps and test examples of the published approach that are timed; the rest costs the same.
SAMPLED_STEPS, SAMPLED_TESTS = 4, 4
PUBLISHED = "tracin_cp_published, one pair at a time"
EXACT_PAIRS = "tracin_cp_all, one pair at a time"
PAPER = {PUBLISHED: ("153.0", "1.1e13"), "simfluence_linear": ("0.1", "1.6e1"), "markov_1": ("0.2", "5.3e6")}
PREDICTION = "prediction"
HOW = {
    "tracin_cp_all": "while a run trains, all test examples at once: the batch's gradient at every step",
    "tracin_cp_10": f"while a run trains, all pairs of pool and test examples at {CHECKPOINTS} steps",
    EXACT_PAIRS: f"a checkpoint loaded at each step; timed on {SAMPLED_STEPS} steps of {SAMPLED_TESTS} test examples",
    PUBLISHED: "the same with the authors' products",
}
NOTES = (
    "Simulators predict all held-out trajectories at once; the time is divided by their number. It leaves out "
    "encoding and fitting, whose seconds are in the JSON. TracIn is timed once, at the base model's weights, and "
    "multiplied by the number of steps. FLOPs are those of matrix products.",
    'The columns "paper" are its table 13, which names neither model nor machine.',
)
SIMULATORS = (("markov", "sentence"), ("memory", "sentence"), ("memory", "gradient"))


def _timed(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Seconds of one call, the fastest of some."""
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best


def _counted(call: Callable[[], Any]) -> int:
    """Floating-point operations of a call's matrix products."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    total = 0

    class Counter(TorchDispatchMode):
        """torch's own counter follows modules, and then cannot follow gradients with respect to activations."""

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal total
            result = func(*args, **(kwargs or {}))
            if func._overloadpacket in flop_registry:
                total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
            return result

    with Counter():
        call()
    return total


Pair = Callable[[Any, Any, Any], Any]
"""Of a model, a training and a test example, tokenised: what is computed for this pair."""


def published_pair(model: Any, given: Any, wanted: Any) -> Any:
    """Products of the output layer as the authors' code takes them."""
    return separate_products(summed_sides(model, [given])[:2], summed_sides(model, [wanted])[:2])


def exact_pair(model: Any, given: Any, wanted: Any) -> Any:
    """The inner product of two gradients over all parameters."""
    one, other = example_gradients(model, [given, wanted])
    return sum((left * right).sum() for left, right in zip(one, other, strict=True))


def pairwise_cost(run_bench: Bench, runs: Dynamics, pair: Pair) -> tuple[float, float]:
    """Seconds and operations of one trajectory in batches of one.

    At every step a checkpoint is loaded, and every example of the batch is paired with the test example by itself.
    """
    updates = len(runs.curricula[0])
    steps = np.linspace(0, updates - 1, SAMPLED_STEPS).astype(int).tolist()
    tests = list(range(min(SAMPLED_TESTS, len(run_bench.test_set.tokenized))))
    with scratch_folder() as folder:
        run_bench.base.model.save_pretrained(folder)

        def one(model: Any, step: int, test: int) -> None:
            for key in runs.curricula[0][step]:
                pair(model, run_bench.tokenized[key], run_bench.test_set.tokenized[test])

        operations = _counted(partial(one, load_weights(str(folder)), 0, 0))
        began = time.perf_counter()
        for step in steps:
            for test in tests:
                one(load_weights(str(folder)), step, test)
        seconds = (time.perf_counter() - began) / (len(steps) * len(tests))
    return seconds * updates, float(operations * updates)


def exact_cost(run_bench: Bench, runs: Dynamics) -> tuple[float, float]:
    """Seconds and operations of one trajectory where all steps' exact products are taken while the run trains.

    At every step the gradient of the batch, and along it the derivatives of all test examples' losses.
    """
    losses = TargetLosses(run_bench.test_set.tokenized)
    count = len(run_bench.test_set.tokenized)
    batch = [run_bench.tokenized[key] for key in runs.curricula[0][0]]
    updates = Updates(run_bench.base.model, run_bench.settings, run_seed(run_bench.settings, runs.runs[0]))
    weights = {name: value for name, value in updates.model.named_parameters() if value.requires_grad}

    def one_step() -> None:
        gradients = torch.autograd.grad(
            updates.loss(batch), list(weights.values()), allow_unused=True, materialize_grads=True
        )
        directional_derivatives(updates.model, losses.batches, [dict(zip(weights, gradients, strict=True))], count)

    scale = len(runs.curricula[0]) / count
    return _timed(one_step) * scale, _counted(one_step) * scale


def checkpoints_cost(run_bench: Bench) -> tuple[float, float]:
    """Seconds and operations of one trajectory where all pool x test products are taken at `CHECKPOINTS` steps."""
    products = partial(
        gradient_products, run_bench.base.model, list(run_bench.tokenized.values()), run_bench.test_set.tokenized
    )
    scale = CHECKPOINTS / len(run_bench.test_set.tokenized)
    return _timed(products, 1) * scale, _counted(products) * scale


def _row(method: str, seconds: float, operations: float) -> Row:
    return {"method": method, "seconds": seconds, "operations": operations}


def measure(bench: Workbench, config: str) -> tuple[list[Row], list[str]]:
    """Rows of the table for one config, and what could not be measured."""
    runs = bench.runs(config)
    held_out, seen = runs.split("test"), runs.split("train", "validation")
    trajectories = len(held_out.runs) * len(held_out.test)
    rows: list[Row] = []
    skipped: list[str] = []
    for name in ("mean_curve", "simfluence_linear"):
        method = fit_baseline(name, seen)
        seconds = _timed(partial(method.predict, held_out)) / trajectories
        operations = _counted(partial(method.predict, held_out)) / trajectories
        rows.append(_row(name, seconds, operations))
    for dynamics, encoder in SIMULATORS:
        try:
            trained = bench.trained(bench.settings(config, "loss", dynamics, encoder))
        except UNTRAINABLE as error:
            skipped.append(f"{config}, {dynamics} with {encoder} vectors: {error}")
            continue
        simulated = Simulated(trained.model)
        seconds = _timed(partial(simulated.predict, held_out)) / trajectories
        operations = _counted(partial(simulated.predict, held_out)) / trajectories
        rows.append(_row(simulated.name, seconds, operations) | {"fit_seconds": trained.seconds})
    try:
        run_bench = open_bench(held_out)
    except GPTDynamicsError as error:
        return rows, [*skipped, f"{config}, TracIn-CP: {error}"]
    rows.append(_row("tracin_cp_all", *exact_cost(run_bench, held_out)))
    rows.append(_row("tracin_cp_10", *checkpoints_cost(run_bench)))
    for name, pair in ((EXACT_PAIRS, exact_pair), (PUBLISHED, published_pair)):
        rows.append(_row(name, *pairwise_cost(run_bench, held_out, pair)))
    return rows, skipped


def cost(bench: Workbench) -> Result:
    """Time the methods on the configs whose runs recorded gradients, or on the first one where none did."""
    result, configs = bench.begin("finetune")
    held_out = {name: bench.runs(name).split("test") for name in configs}
    with_gradients = [name for name in configs if bench.folder.products_path(name, held_out[name].runs[0]).exists()]
    for config in with_gradients or configs[:1]:
        rows, skipped = measure(bench, config)
        result.skipped.extend(skipped)
        published = next((row["seconds"] for row in rows if row["method"] == PUBLISHED), None)
        about = {
            "config": config,
            "parameters": _parameters(bench, config),
            "updates": len(held_out[config].curricula[0]),
        }
        result.rows.extend(about | row | {"of_published": published and row["seconds"] / published} for row in rows)
    return result


def _parameters(bench: Workbench, config: str) -> int | None:
    try:
        return bench.parameters(config)
    except GPTDynamicsError:
        return None


def show_cost(rows: list[Row]) -> Result:
    """A line for each method, with what it took on the cheapest and on the dearest config."""
    if not rows:
        return Result()
    cells = []
    for method in distinct(rows, "method"):
        mine = [row for row in rows if row["method"] == method]
        seconds, operations = ([row[key] for row in mine] for key in ("seconds", "operations"))
        paper = PAPER.get(method, ("", ""))
        line = [
            _range(seconds, ".2g"),
            paper[0],
            _range(operations, ".1e"),
            paper[1],
            HOW.get(method, PREDICTION),
        ]
        cells.append([method, *line])
    configs = ", ".join(
        f"{row['config']} ({row['parameters'] / 1e6:.1f} M parameters, {row['updates']} updates)"
        if row["parameters"]
        else f"{row['config']} ({row['updates']} updates)"
        for row in {row["config"]: row for row in rows}.values()
    )
    columns = ["method", "seconds", "paper", "FLOPs", "paper", "how"]
    notes = [f"Least and most over {configs}.", *NOTES]
    return Result([Table("One trajectory: one test example in one run", columns, cells)], notes=notes)


def _range(values: list[float], form: str) -> str:
    """The least and the greatest, or the one that they both are."""
    ends = list(dict.fromkeys(f"{value:{form}}" for value in (min(values), max(values))))
    return " to ".join(ends)
