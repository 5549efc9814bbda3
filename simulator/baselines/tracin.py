"""TracIn and its relatives: first-order changes of the loss, exact over all trainable parameters.

All four begin with the given loss and add up, over the updates t, a first-order change of each test example's loss.
They differ in where the gradients are taken and in the direction of the update:

* `tracin_cp_all` (Pruthi et al., 2020; eq. 1): - eta_t <G_t, grad loss(z')> at the weights before update t, with G_t
  the gradient of the batch. What the paper calls TracIn-CP with all steps.
* `tracin_cp_10` (eq. 2 with ten checkpoints): the same with the mean over the batch of the pool examples' gradients and
  the test gradient both taken at the last of ten evenly spaced checkpoints.
* `grad_dot` (Charpiat et al., 2019): the same, all gradients taken at the end of training (A.2). The paper does not say
  how a trajectory is made of it; here each visit of an example counts with the learning rate of its update, as in
  TracIn, of which it is then the case of a single, final checkpoint. It looks into the future: a simulator cannot.
* `update_dot`: <D_t, grad loss(z')> with D_t the change of the weights that the optimiser really made; the first-order
  change under AdamW, where eta_t G_t is that under plain gradient descent.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gptdynamics.dataset import Dynamics
from gptdynamics.dataset.gradient_reading import has_products, read_products, read_update_products
from simulator.baselines.predictor import NotApplicableError
from simulator.model.curricula import visit_shares

Changes = Callable[[Dynamics, int], np.ndarray]
"""Of runs and the place of one of them: the predicted change of every test loss in each update, `[M, T]`."""


def add_up(runs: Dynamics, changes: np.ndarray) -> np.ndarray:
    """The first value plus all changes `[R, M, T]` of updates up to each measured step: `[R, M, S]`."""
    sums = np.pad(changes.astype(np.float64).cumsum(-1), ((0, 0), (0, 0), (1, 0)))[..., runs.step]
    return (runs.values[..., :1] + sums - sums[..., :1]).astype(np.float32)


def check_loss(method: str, runs: Dynamics) -> None:
    """Raise NotApplicableError if the metric has no gradient."""
    if runs.metric != "loss":
        raise NotApplicableError(f"{method} predicts changes of the loss; {runs.metric} has no gradient")


def test_places(runs: Dynamics, recorded: list[int], run: str) -> list[int]:
    """Where each test example of `runs` stands among those that a run recorded gradients of.

    Raises:
        NotApplicableError: one is not among them.
    """
    place = {key: index for index, key in enumerate(recorded)}
    missing = [example.id for example in runs.test if example.id not in place]
    if missing:
        raise NotApplicableError(f"run {run} of {runs.config} has no gradient products of test example {missing[0]}")
    return [place[example.id] for example in runs.test]


def update_changes(runs: Dynamics, index: int, column: str) -> np.ndarray:
    """Recorded product of each update with every test gradient, `[M, T]`.

    Args:
        runs: of which.
        index: of the run.
        column: `grad_dot` or `update_dot`.

    Raises:
        NotApplicableError: the run has none.
    """
    products = read_update_products(runs.source, runs.config, runs.runs[index])
    if products is None:
        raise NotApplicableError(
            f"run {runs.runs[index]} of {runs.config} has no {column} column; collect with --gradients test"
        )
    return products.values[column][test_places(runs, products.test_ids, runs.runs[index])]


def checkpoint_changes(runs: Dynamics, index: int, at_the_end: bool) -> np.ndarray:
    """- eta_t times the mean over the batch of <grad loss(z_i), grad loss(z')> at checkpoints, `[M, T]`.

    Args:
        runs: of which.
        index: of the run.
        at_the_end: take all gradients at the end; else each at the last checkpoint before its update.

    Raises:
        NotApplicableError: the run has no products.
    """
    run = runs.runs[index]
    if not has_products(runs.source, runs.config, run):
        raise NotApplicableError(f"run {run} of {runs.config} has no gradient products; collect with --gradients test")
    products = read_products(runs.source, runs.config, run)
    shares = visit_shares([runs.curricula[index]], products.pool_ids).numpy()
    values = products.values[:, :, test_places(runs, products.test_ids, run)]
    if at_the_end:
        return product_changes(values[-1:], products.step[:1], shares, runs.learning_rate[[index]])[0]
    return product_changes(values, products.step, shares, runs.learning_rate[[index]])[0]


def product_changes(products: np.ndarray, step: np.ndarray, shares: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """- eta_t times the mean over each batch of products of gradients, at the last checkpoint before its update.

    Args:
        products: `[C, N, M]` of pool and test examples at each checkpoint.
        step: `[C]` updates made before each checkpoint, ascending; the first serves earlier updates, too.
        shares: `[R, T, N]` of pool examples in the batches of R runs.
        rates: `[R, T]` learning rates.

    Returns:
        `[R, M, T]`.
    """
    used = np.searchsorted(step, np.arange(shares.shape[1]), side="right").clip(min=1) - 1
    moved = np.stack([shares[:, update] @ products[checkpoint] for update, checkpoint in enumerate(used)], axis=-1)
    return -rates[:, None] * moved


class FirstOrder:
    """A method that adds up `changes`; nothing is fitted, but the metric of `runs` is checked."""

    model: str | None = None
    history = 1

    def __init__(self, name: str, changes: Changes, runs: Dynamics) -> None:
        check_loss(name, runs)
        self.name = name
        self.changes = changes

    def predict(self, runs: Dynamics) -> np.ndarray:
        """The first value plus all predicted changes: `[R, M, S]`."""
        check_loss(self.name, runs)
        return add_up(runs, np.stack([self.changes(runs, index) for index in range(len(runs.runs))]))


def tracin_cp_all(runs: Dynamics) -> FirstOrder:
    """TracIn with a checkpoint at every step."""
    return FirstOrder(
        "tracin_cp_all",
        lambda runs, index: -runs.learning_rate[index] * update_changes(runs, index, "grad_dot"),
        runs,
    )


def tracin_cp_10(runs: Dynamics) -> FirstOrder:
    """TracIn with ten checkpoints."""
    return FirstOrder("tracin_cp_10", lambda runs, index: checkpoint_changes(runs, index, at_the_end=False), runs)


def grad_dot(runs: Dynamics) -> FirstOrder:
    """Grad-Dot: TracIn with gradients at the end of training only."""
    return FirstOrder("grad_dot", lambda runs, index: checkpoint_changes(runs, index, at_the_end=True), runs)


def update_dot(runs: Dynamics) -> FirstOrder:
    """TracIn along the changes that the optimiser really made."""
    return FirstOrder("update_dot", lambda runs, index: update_changes(runs, index, "update_dot"), runs)
