"""How far the authors' gradient products are from inner products of gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from gptdynamics.dataset.gradient_reading import has_products, read_products
from gptdynamics.errors import GPTDynamicsError
from gptdynamics.measurement.logits import target_logits
from gptdynamics.measurement.loss import example_losses
from gptdynamics.models.tokens import TokenizedExample, make_target_batch
from gptdynamics.runs import Bench
from simulator.baselines.published_tracin import separate_products, summed_sides
from simulator.baselines.replay import open_bench
from simulator.experiments.comparison import Row
from simulator.experiments.workbench import Workbench
from simulator.reporting.numbers import number_text
from simulator.reporting.result import Result, Table

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def output_layer_products(
    model: PreTrainedModel, left: Sequence[TokenizedExample], right: Sequence[TokenizedExample]
) -> np.ndarray:
    """Inner products of the gradients of the output layer alone, `[left, right]`."""
    weight = model.get_output_embeddings().weight

    def gradient(example: TokenizedExample) -> torch.Tensor:
        batch = make_target_batch([example], [0]).to(model.device)
        loss = example_losses(target_logits(model, batch), batch).sum()
        return torch.autograd.grad(loss, weight)[0].flatten()

    of_right = torch.stack([gradient(example) for example in right])
    return np.stack([(of_right @ gradient(example)).cpu().numpy() for example in left])


def agreement(products: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """How products compare: ratio of mean sizes, correlation, and share of pairs with the same sign."""
    return {
        "size": float(np.abs(products).mean() / np.abs(exact).mean()),
        "correlation": float(np.corrcoef(products.ravel(), exact.ravel())[0, 1]),
        "same_sign": float((np.sign(products) == np.sign(exact)).mean()),
    }


def _rows(config: str, run_bench: Bench, exact: np.ndarray) -> list[Row]:
    model = run_bench.base.model
    published = separate_products(
        summed_sides(model, list(run_bench.tokenized.values()))[:2],
        summed_sides(model, run_bench.test_set.tokenized)[:2],
    ).numpy()
    layer = output_layer_products(model, list(run_bench.tokenized.values()), run_bench.test_set.tokenized)
    pairs = (
        ("published against exact", published, exact),
        ("published against the output layer, exact", published, layer),
        ("output layer against all parameters, both exact", layer, exact),
    )
    return [{"config": config, "what": what} | agreement(products, of) for what, products, of in pairs]


def published_products(bench: Workbench) -> Result:
    """Compare products of pool and test examples at the base model's weights."""
    result, configs = bench.begin()
    for config in configs:
        runs = bench.runs(config).split("test")
        if not has_products(bench.dataset, config, runs.runs[0]):
            result.skipped.append(f"{config}: no gradient products; collect with --gradients test")
            continue
        try:
            run_bench = open_bench(runs)
        except GPTDynamicsError as error:
            result.skipped.append(f"{config}: {error}")
            continue
        bench.on_phase(f"{config}: products", 1)
        result.rows.extend(_rows(config, run_bench, read_products(bench.dataset, config, runs.runs[0]).values[0]))
        bench.on_progress()
    return result


def show_published_products(rows: list[Row]) -> Result:
    """A line for each config and pair of products."""
    cells = [
        [
            row["config"],
            row["what"],
            number_text(row["size"]),
            number_text(row["correlation"]),
            f"{100 * row['same_sign']:.0f} %",
        ]
        for row in rows
    ]
    if not cells:
        return Result()
    columns = ["config", "what", "mean size, ratio", "correlation", "same sign"]
    note = (
        "`published`: as the authors' code does it, for the output layer: activations and output gradients are "
        "summed over tokens before they are multiplied. `exact`: inner products of gradients, of all parameters "
        "where no layer is named. The sums over tokens make the difference, not the restriction to the output layer: "
        "its exact products agree with those of all parameters."
    )
    return Result([Table("Gradient products of pool and test examples before training", columns, cells)], notes=[note])
