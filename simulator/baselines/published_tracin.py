"""TracIn-CP as the authors' published code computes it. It is not the inner product of gradients; see below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from gptdynamics.dataset import Dynamics
from gptdynamics.measurement.loss import BATCH_TOKENS
from gptdynamics.models.tokens import TokenizedExample, length_sorted_batches, make_target_batch
from gptdynamics.runs import Bench
from simulator.baselines.predictor import NotApplicableError
from simulator.baselines.replay import open_bench, replay
from simulator.baselines.tracin import add_up, check_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Recorded and replayed losses differ in the last digits where thread counts or libraries do.
TOLERANCE = 0.01


@torch.no_grad()
def summed_sides(
    model: PreTrainedModel, examples: Sequence[TokenizedExample]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the published code makes of the output layer, a linear one without bias.

    Args:
        model: in evaluation mode.
        examples: n tokenised examples.

    Returns:
        Activations that enter the layer, summed over all of an example's tokens, prompt and target, `[n, hidden]`;
        gradients of its loss with respect to the logits, summed over its target tokens, `[n, vocabulary]`; its loss
        `[n]`.
    """
    head = model.get_output_embeddings()
    activations = torch.zeros(len(examples), head.weight.size(1))
    gradients = torch.zeros(len(examples), head.weight.size(0))
    losses = torch.zeros(len(examples))
    for rows in length_sorted_batches([len(example) - 1 for example in examples], BATCH_TOKENS):
        batch = make_target_batch(examples, rows).to(model.device)
        hidden = model.base_model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        log_probabilities = head(hidden[batch.row, batch.position]).float().log_softmax(-1)
        weight = 1 / batch.counts[batch.row].float()
        change = log_probabilities.exp() * weight.unsqueeze(1)
        places = torch.arange(len(batch.target), device=change.device)
        change[places, batch.target] -= weight
        for index, row in enumerate(rows):
            activations[row] = hidden[index, : len(examples[row]) - 1].float().sum(0).cpu()
            of_example = batch.row == index
            gradients[row] = change[of_example].sum(0).cpu()
            losses[row] = -(log_probabilities[places, batch.target] * weight)[of_example].sum().cpu()
    return activations, gradients, losses


def separate_products(pool: tuple[torch.Tensor, torch.Tensor], test: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Product of the activations' and the gradients' inner products, `[N, M]`; each side as from `summed_sides`."""
    return (pool[0] @ test[0].T) * (pool[1] @ test[1].T)


class PublishedTracIn:
    """TracIn at every step, over the output layer only, with tokens summed too early.

    The gradient of the output layer is the sum over tokens of the outer product of output gradient d_t and activation
    a_t, so that the inner product of two examples' gradients is sum over t, s of <d_t, d'_s> <a_t, a'_s>. The authors'
    code sums first: <sum d_t, sum d'_s> <sum a_t, sum a'_s>, with the activations of prompt tokens, which have no
    output gradient, among the sums. It equals the inner product only for inputs of a single token. Further factors in
    that code (the padded length of the batch in tokens, a sum over the batch where training takes the mean) only
    change the scale; they are left out, so that what is seen here is the method, not a choice of units.

    No dataset holds what it needs: each run is trained again from its base model. That takes the base model, the
    texts, and the config's manifest, and about as long as the run's updates and a measurement of pool and test set
    after each of them.

    Args:
        runs: of the config that it will be compared on; nothing is fitted.
    """

    name = "tracin_cp_published"
    model: str | None = None
    history = 1

    def __init__(self, runs: Dynamics) -> None:
        check_loss(self.name, runs)

    def predict(self, runs: Dynamics) -> np.ndarray:
        """The first value plus all predicted changes: `[R, M, S]`.

        Raises:
            NotApplicableError: runs cannot be trained again here, or come out differently.
        """
        check_loss(self.name, runs)
        bench = open_bench(runs)
        return add_up(runs, np.stack([self._changes(bench, runs, index) for index in range(len(runs.runs))]))

    @staticmethod
    def _changes(bench: Bench, runs: Dynamics, index: int) -> np.ndarray:
        """`[M, T]`."""
        changes = []
        measured = runs.step.tolist()
        for update, model in enumerate(replay(bench, runs, index)):
            test, gradients, losses = summed_sides(model, bench.test_set.tokenized)
            if update in measured:
                recorded = runs.values[index, :, measured.index(update)]
                difference = float(np.abs(losses.numpy() - recorded).max())
                if difference > TOLERANCE:
                    raise NotApplicableError(
                        f"run {runs.runs[index]} of {runs.config}, trained again, has other losses after {update} "
                        f"updates (by up to {difference:.2g})"
                    )
            if update == len(runs.curricula[index]):
                break
            batch = [bench.tokenized[pool_id] for pool_id in runs.curricula[index][update]]
            side = summed_sides(model, batch)
            product = separate_products(side[:2], (test, gradients)).mean(0)
            changes.append(-runs.learning_rate[index][update] * product.numpy())
        return np.stack(changes, axis=-1)
