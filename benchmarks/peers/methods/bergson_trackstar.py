"""TrackStar by bergson: projected gradients, whitened by the rows' second moments, as cosines."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.peers.method import Fitted, Method
from benchmarks.peers.methods.bergson_magic import BERGSON
from benchmarks.peers.work import Batch, Work

# What bergson's own command takes.
WIDTH = 16


def fit_trackstar(work: Work) -> Fitted:
    """The steps of bergson's pipeline in memory: its guards would ask for a GPU and for data by name."""
    from bergson import CollectorComputer, GradientProcessor, IndexConfig, InMemoryCollector
    from bergson.hessians.preconditioner import DensePreconditioner
    from datasets import Dataset

    model = work.model()

    def collect(batch: Batch, moments: bool) -> tuple[GradientProcessor, dict[str, torch.Tensor]]:
        lengths = batch["attention_mask"].sum(1).tolist()
        names = ("input_ids", "labels")
        rows = [{name: batch[name][place, :length].tolist() for name in names} for place, length in enumerate(lengths)]
        data, processor = Dataset.from_list(rows), GradientProcessor(projection_dim=WIDTH)
        with tempfile.TemporaryDirectory() as folder:
            settings = IndexConfig(run_path=f"{folder}/index", projection_dim=WIDTH, loss_reduction="mean")
            settings.partial_run_path.mkdir()
            collector = InMemoryCollector(
                model=model.base_model, cfg=settings, processor=processor, data=data, skip_hessians=not moments
            )
            CollectorComputer(model, data, collector=collector, cfg=settings).run_with_collector_hooks()
        return processor, collector.gradients

    processor, gradients = collect(work.row_batch(range(len(work.rows))), True)
    whitened = DensePreconditioner.from_processor(processor, power=-0.5)

    def unit(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
        joined = torch.cat(list(whitened.apply(gradients).values()), dim=1)
        return torch.nn.functional.normalize(joined, dim=1)

    kept = unit(gradients)

    def ask(tests: Sequence[int]) -> np.ndarray:
        return -(kept @ unit(collect(work.test_batch(tests), False)[1]).T).numpy()

    return Fitted(ask)


def passes_of(work: Work) -> tuple[float, float]:
    """The run, and each row's gradient at its end."""
    return work.visits + len(work.rows), 1


METHODS = (
    Method(
        "trackstar",
        "TrackStar (bergson)",
        fit_trackstar,
        passes_of,
        ("new_row", "new_test"),
        BERGSON,
        note=f"{WIDTH} x {WIDTH} projections, second moments of the rows alone, no state of the optimiser",
    ),
)
