"""How suspicious each training example of a label task looks: every score is high where a label seems wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from gptdynamics.curriculum import Curriculum, linear_decay
from gptdynamics.dataset import Dynamics
from gptdynamics.examples import Example
from gptdynamics.gradients.products import example_gradients
from gptdynamics.runs import Bench
from simulator.encoders import encode_cached, make_encoder
from simulator.model.curricula import visit_shares
from simulator.model.modeling_gptfluence import GPTfluenceSimulator

# Penalties of the ridge regression that are tried, in units of a vector component's mean square.
RIDGE = 10.0 ** np.arange(-2, 3.5, 0.5)


@dataclass(frozen=True)
class SelfInfluence:
    """TracIn-CP of each pool example on itself, in one training (section 4.6).

    The sum over checkpoints of the learning rate times the squared length of the example's gradient, exact over all
    trainable parameters.

    Attributes:
        curriculum: `[steps][batch]` of the training.
        checkpoints: how many, evenly spaced from before the first update on.
    """

    curriculum: Curriculum
    checkpoints: int = 5

    def do(self, bench: Bench) -> np.ndarray:
        """Train; `[N]` in the order of the pool."""
        rates = linear_decay(bench.settings.learning_rate, len(self.curriculum))
        steps = {round(index * len(self.curriculum) / self.checkpoints) for index in range(self.checkpoints)}
        pool = list(bench.tokenized.values())
        total = np.zeros(len(pool))
        for step, model in enumerate(bench.weights(self.curriculum, rates, [bench.settings.seed, 0])):
            if step in steps:
                total += rates[step] * squared_lengths(model, pool)
        return total


def squared_lengths(model: torch.nn.Module, examples: Sequence) -> np.ndarray:
    """The squared length of each example's gradient, over all trainable parameters."""
    lengths = [sum(float(part.square().sum()) for part in each) for each in example_gradients(model, examples)]
    return np.array(lengths)


def self_alpha(model: GPTfluenceSimulator) -> np.ndarray:
    """The multiplicative factor of each pool example on itself, A_1 of eq. 7: `[N]`.

    The paper (section 4.6) ranks by it and does not say from which end. Here, as for TracIn, high comes first: an
    example whose visit leaves its own loss high.

    Args:
        model: a markov simulator whose test examples are encoded as its pool is.
    """
    with torch.no_grad():
        train, test = (model.dynamics.project(model.pool_vectors, side)[0] for side in ("train", "test"))
        return (train * test).sum(1).numpy()


def left_out_mean(runs: Dynamics, trajectories: np.ndarray) -> np.ndarray:
    """The mean value of each example in the runs that do not train on it, over all steps but the first: `[N]`.

    A model taught by the other examples finds a wrong label unlikely: its loss is high.

    Args:
        runs: whose test set is their pool.
        trajectories: `[R, N, S]`: measured ones, or what a simulator makes of the runs' curricula.
    """
    shares = visit_shares(runs.curricula, [example.id for example in runs.pool]).numpy()
    without = shares.sum(1) == 0
    mean = trajectories[..., 1:].mean(-1)
    # An example that is in every run has its mean over all of them.
    without[:, ~without.any(0)] = True
    return np.where(without, mean, 0.0).sum(0) / without.sum(0)


def prompt_vectors(pool: Sequence[Example], base_model: str) -> np.ndarray:
    """Sentence vectors of the pool's prompts alone: `[N, E]`."""
    return encode_cached(make_encoder("sentence", base_model), [replace(each, target="") for each in pool])


def ridge_left_out(vectors: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """How far the labels of the other examples speak against each example's own: `[N]`.

    The value that a regression without the example gives another label, at most, less that of its own.

    Args:
        vectors: `[N, E]`, of the prompts without labels.
        labels: of each.
    """
    classes = sorted(set(labels))
    own = np.array([classes.index(label) for label in labels])
    if len(classes) < 2:
        return np.zeros(len(labels))
    guessed = _guessed_without(vectors, np.eye(len(classes))[own])
    mine = guessed[np.arange(len(own)), own]
    guessed[np.arange(len(own)), own] = -np.inf
    score: np.ndarray = guessed.max(1) - mine
    return score


def likelier_labels(vectors: np.ndarray, labels: Sequence[str]) -> list[str]:
    """The label of each example that the others speak for most; arguments as of `ridge_left_out`."""
    classes = sorted(set(labels))
    wanted = np.eye(len(classes))[[classes.index(label) for label in labels]]
    guessed = wanted if len(classes) < 2 else _guessed_without(vectors, wanted)
    return [classes[place] for place in guessed.argmax(1)]


def _guessed_without(vectors: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each label for each example, by ridge regression without it: `[N, classes]`.

    Labels as columns of zeros and ones, `wanted`, are regressed on the vectors, with an unpenalised constant. The
    penalty is the one with the least error on examples left out, all of it in closed form.
    """
    design = np.c_[vectors.astype(np.float64), np.ones(len(vectors))]
    gram = design.T @ design
    penalised = np.eye(len(gram))
    penalised[-1, -1] = 0.0
    scale = np.trace(gram[:-1, :-1]) / (len(gram) - 1) or 1.0
    least, guessed = np.inf, wanted
    for penalty in scale * RIDGE:
        solved = np.linalg.solve(gram + penalty * penalised, design.T)
        errors = wanted - design @ (solved @ wanted)
        errors /= 1 - np.einsum("ne,en->n", design, solved)[:, None]
        if np.square(errors).sum() < least:
            least, guessed = np.square(errors).sum(), wanted - errors
    return guessed.copy()
