"""EK-FAC influence functions by kronfluence, on the linear layers inside the blocks, as in its language examples."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.peers.method import Fitted, Method
from benchmarks.peers.work import IGNORED, Batch, Work, examples_at_once, losses_of

# Of examples at once, whose gradients take up at most so much.
BATCH, BATCH_GIB = 32, 12


class Rows(torch.utils.data.Dataset):
    """Padded examples as a data set."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch["input_ids"])

    def __getitem__(self, place: int) -> Batch:
        return {name: values[place] for name, values in self.batch.items()}


def fit_ekfac(work: Work) -> Fitted:
    """Factors are fitted on the rows that the run visits, at its end."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments
    from kronfluence.task import Task

    model = work.model()
    batch = examples_at_once(model, BATCH_GIB, BATCH)
    blocks = [name for name, each in model.named_modules() if isinstance(each, torch.nn.Linear) and "layers." in name]

    class TargetLoss(Task):
        """The loss that the run was trained on."""

        def compute_train_loss(self, batch: Batch, model: torch.nn.Module, sample: bool = False) -> torch.Tensor:
            logits, labels = model(input_ids=batch["input_ids"]).logits, batch["labels"]
            if sample:
                with torch.no_grad():
                    drawn = torch.distributions.Categorical(logits=logits[:, :-1]).sample()
                labels = labels.clone()
                labels[:, 1:] = torch.where(labels[:, 1:] == IGNORED, IGNORED, drawn)
            return losses_of(logits, labels).sum()

        def compute_measurement(self, batch: Batch, model: torch.nn.Module) -> torch.Tensor:
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self) -> list[str]:
            return blocks

        def get_attention_mask(self, batch: Batch) -> torch.Tensor:
            return batch["attention_mask"]

    task = TargetLoss()
    kept: Any = tempfile.TemporaryDirectory()
    analyzer = Analyzer(
        "run", prepare_model(model, task), task, cpu=work.device == "cpu", output_dir=kept.name, disable_tqdm=True
    )
    rows = Rows(work.row_batch(range(len(work.rows))))
    torch.manual_seed(0)
    analyzer.fit_all_factors(
        "ekfac", rows, per_device_batch_size=batch, factor_args=FactorArguments(strategy="ekfac"),
        overwrite_output_dir=True,
    )  # fmt: skip

    def ask(tests: Sequence[int]) -> np.ndarray:
        analyzer.compute_pairwise_scores(
            f"asked_{len(tests)}", "ekfac", Rows(work.test_batch(tests)), rows,
            per_device_query_batch_size=batch, per_device_train_batch_size=batch, overwrite_output_dir=True,
        )  # fmt: skip
        # The folder lives as long as the analyzer.
        assert kept
        return -analyzer.load_pairwise_scores(f"asked_{len(tests)}")["all_modules"].T.cpu().numpy()

    return Fitted(ask)


def passes_of(work: Work) -> tuple[float, float]:
    """The run, covariances and eigenvalues of its rows; a test example, and each row's gradient once for all."""
    return work.visits + 3 * len(work.rows), 1


METHODS = (
    Method(
        "ekfac",
        "EK-FAC (kronfluence)",
        fit_ekfac,
        passes_of,
        ("new_row", "new_test"),
        ("kronfluence==1.0.1", "einconv==0.1.0", "einops==0.8.2", "opt_einsum==3.4.0"),
        note="linear layers of the blocks; damping as the package sets it",
    ),
)
