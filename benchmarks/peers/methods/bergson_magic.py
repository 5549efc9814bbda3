"""MAGIC by bergson: the exact derivative through the whole run, backwards, once for each test example."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.method import Fitted, Method, check_size
from benchmarks.peers.work import Work, losses_of

BERGSON = (
    "bergson==2.5.1",
    "jaxtyping==0.3.11",
    "wadler-lindig==0.1.8",
    "ml_dtypes==0.6.0",
    "natsort==8.4.0",
    "petname==2.9",
    "simple-parsing==0.1.9",
    "docstring-parser==0.18.0",
    "torchopt==0.7.3",
    "optree==0.20.0",
    "graphviz==0.21",
)
# Of the way from the base model's weights; another implementation of AdamW rounds otherwise.
TOLERANCE = 0.02


class TiedLoss(torch.nn.Module):
    """The model's weighted training loss; bergson would train tied embeddings as two matrices."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.body = model.base_model

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor, example_weight: torch.Tensor) -> torch.Tensor:
        states = self.body(input_ids=input_ids, use_cache=False).last_hidden_state
        return losses_of(states @ self.body.get_input_embeddings().weight.T, labels) @ example_weight


class Batches:
    """The run's batches as bergson's stream of data, with a weight for each row."""

    device = torch.device("cpu")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.place = {row: index for index, row in enumerate(work.rows)}
        self.weights = torch.nn.Parameter(torch.ones(len(work.rows)))
        self.requires_grad = False

    def __len__(self) -> int:
        return len(self.work.curriculum)

    def __getitem__(self, update: int) -> dict[str, torch.Tensor]:
        places = [self.place[row] for row in self.work.curriculum[update]]
        batch, weight = self.work.row_batch(places), self.weights[places]
        # The loss of a batch is its mean, also of what is left of it.
        return {"input_ids": batch["input_ids"], "labels": batch["labels"], "example_weight": weight / weight.sum()}


def fit_magic(work: Work) -> Fitted:
    """The run again in bergson's trainer, with all of its states on disk; on the CPU."""
    work = replace(work, device="cpu")
    model = work.model(0)
    # Weights and both moments.
    check_size(3 * model.num_parameters() * (len(work.curriculum) + 1), "the optimiser's states of all updates")
    import torchopt
    from bergson.magic.trainer import BackwardState, Trainer
    from torchopt.pytree import tree_iter

    if not model.config.tie_word_embeddings:
        raise NotImplementedError("written for models with tied embeddings")
    rates = torch.tensor([*work.learning_rate, 0.0])
    # Bergson's default: where all gradients are 0 (tokens that no row has), a root of 0 would have no derivative.
    options = {"betas": tuple(work.optimizer["betas"]), "eps": work.optimizer["eps"], "eps_root": 1e-17}
    optimizer = torchopt.adamw(lambda count: rates[int(count)], weight_decay=work.optimizer["weight_decay"], **options)
    trainer, state = Trainer.initialize(TiedLoss(model).eval(), optimizer)
    data, kept = Batches(work), tempfile.TemporaryDirectory()
    state = trainer.train(state, data, save_dir=kept.name, save_mode="all", inplace=True)
    end = state.to("cpu").detach_()
    start, wanted = (dict(TiedLoss(work.model(done)).named_parameters()) for done in (0, None))
    moved, missed = (sum((end.params[name] - each[name]).square().sum() for name in each) for each in (start, wanted))
    if missed > TOLERANCE**2 * moved:
        raise ValueError(f"bergson's training ends {(missed / moved).sqrt():.2g} of its way from where the run ended")
    started = {each.name for each in Path(kept.name).iterdir()}
    moments = [each for each in tree_iter(end.opt_state) if isinstance(each, torch.Tensor) and each.is_floating_point()]

    def one(test: int) -> torch.Tensor:
        state.detach_()
        state.copy_(end)
        batch = work.test_batch([test])
        with state.activate(trainer.model) as weights:
            loss = trainer.model(batch["input_ids"], batch["labels"], torch.ones(1))
            slope = torch.autograd.grad(loss, list(weights.values()))
        state.detach_()
        data.weights.grad = None
        begun = BackwardState(
            dict(zip(weights, slope, strict=True)), [torch.zeros_like(each) for each in moments],
            torch.zeros_like(data.weights),
        )  # fmt: skip
        found = trainer.backward(kept.name, data, begun, state, cleanup=False, save_mode="all").weight_grads.detach()
        assert {each.name for each in Path(kept.name).iterdir()} == started
        return found

    def ask(tests: Sequence[int]) -> np.ndarray:
        return torch.stack([one(test) for test in tests], dim=1).numpy()

    return Fitted(ask)


def passes_of(work: Work) -> tuple[float, float]:
    """Each test example goes back through every update: the pass again, and the backward pass of both its halves."""
    return work.visits, 3 * work.visits


METHODS = (
    Method(
        "magic",
        "MAGIC (bergson)",
        fit_magic,
        passes_of,
        (),
        BERGSON,
        tests=8,
        note="asked of 8 test examples: each costs a passage through the run",
    ),
)
