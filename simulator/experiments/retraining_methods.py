"""What predicts retrainings of a run with rows left out, besides simulators: each method by name.

Some are given more than the simulators are: the gradients of the very run that is repeated. They are marked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from gptdynamics.configs import run_parts, split_of
from gptdynamics.curriculum import visited_rows
from gptdynamics.dataset import Dynamics
from gptdynamics.dataset.gradient_reading import has_products
from simulator.attribution.exact_first_order import exact_first_order
from simulator.baselines import NotApplicableError
from simulator.baselines.replay import open_bench
from simulator.baselines.tracin import add_up, check_loss, product_changes
from simulator.model.configuration_gptfluence import Scale
from simulator.model.curricula import visit_shares
from simulator.model.dynamics import SimulationInputs
from simulator.model.tangent_dynamics import kernel_examples
from simulator.training.reference_kernels import ReferenceKernels, recorded_kernels
from simulator.training.tangent_features import FittedRuns
from simulator.training.tangent_fit import fit_tangent, tangent_dynamics
from simulator.training.validation_retrainings import validation_retrainings

# Base models of more weights take hours for exact first-order effects.
LARGEST = 5_000_000


@dataclass(frozen=True)
class RetrainedTestRuns:
    """Counterfactual runs of the test runs of a config. R retrainings, S measured steps, M test examples.

    Attributes:
        runs: the R retrainings.
        repeated: the R runs that they repeat.
        facts: every repeated run once, measured at the same steps.
        seen: training and validation runs, at all measured steps.
        on_phase, on_progress: told of slow work.
    """

    runs: Dynamics
    repeated: list[str]
    facts: Dynamics
    seen: Dynamics
    on_phase: Callable[[str, int], None] = field(default=lambda name, total: None)
    on_progress: Callable[[], None] = field(default=lambda: None)

    @classmethod
    def of(
        cls,
        runs: Dynamics,
        seen: Dynamics,
        on_phase: Callable[[str, int], None] = lambda name, total: None,
        on_progress: Callable[[], None] = lambda: None,
    ) -> RetrainedTestRuns:
        """The retrainings among runs that repeat a test run: those of others are for choosing settings.

        Raises:
            NotApplicableError: there are none, or the run that one repeats is not among the runs.
        """
        repeated = {run: run_parts(run).base for run in runs.runs}
        chosen = [run for run, base in repeated.items() if base is not None and split_of(base) == "test"]
        if not chosen:
            raise NotApplicableError(
                f"{runs.config} has no test run that was made again with rows left out; collect with "
                "--counterfactuals 0004=24"
            )
        facts = list(dict.fromkeys(str(repeated[run]) for run in chosen))
        missing = [run for run in facts if run not in repeated]
        if missing:
            raise NotApplicableError(f"{runs.config}: run {missing[0]}, which others repeat, is missing; collect it")
        place = {run: index for index, run in enumerate(runs.runs)}
        return cls(
            runs.take([place[run] for run in chosen]),
            [str(repeated[run]) for run in chosen],
            runs.take([place[run] for run in facts]),
            seen,
            on_phase,
            on_progress,
        )

    def places(self, run: str) -> np.ndarray:
        """Which of the R retrainings repeat a run."""
        return np.flatnonzero(np.array(self.repeated) == run)


Predict = Callable[[RetrainedTestRuns], np.ndarray]


@dataclass(frozen=True)
class RetrainingMethod:
    """A method of the table.

    Attributes:
        name: in tables and figures.
        predict: of retrainings, their losses `[R, M, S]`; raises GPTDynamicsError where it has no answer.
        sees_run: whether it is given gradients of the run that is repeated.
    """

    name: str
    predict: Predict
    sees_run: bool = False


def by_kernels(retrainings: RetrainedTestRuns, summed: bool) -> np.ndarray:
    """TracIn by the recorded gradient products of each repeated run: `[R, M, S]`.

    Args:
        retrainings: which.
        summed: take the mean over all checkpoints for every update; else the last one before it.

    Raises:
        NotApplicableError: a repeated run has no products, or the metric has no gradient.
    """
    runs = retrainings.runs
    check_loss("TracIn", runs)
    predicted = np.empty(runs.values.shape, dtype=np.float32)
    for run in retrainings.facts.runs:
        if not has_products(runs.source, runs.config, run):
            raise NotApplicableError(f"run {run} of {runs.config} has no kernels; collect with --kernels-of {run}")
        kernels = recorded_kernels(runs, run)
        chosen = retrainings.places(run)
        mine = runs.take(chosen.tolist())
        products, step = kernels.products, kernels.step
        if summed:
            products, step = products.mean(0, keepdims=True), step[:1]
        shares = visit_shares(mine.curricula, [example.id for example in runs.pool]).numpy()
        predicted[chosen] = add_up(mine, product_changes(products, step, shares, mine.learning_rate))
    return predicted


def by_target(retrainings: RetrainedTestRuns) -> np.ndarray:
    """Tangent dynamics with 1 for pairs of the same target in place of the kernel: `[R, M, S]`.

    Raises:
        NotApplicableError: the targets are no labels.
    """
    runs, seen = retrainings.runs, retrainings.seen
    if any(example.references or not example.target for example in (*runs.pool, *runs.test)):
        raise NotApplicableError(f"the targets of {runs.config} are no labels")
    targets = [[example.target for example in examples] for examples in (runs.pool, runs.test)]
    same = np.array([[pool == test for test in targets[1]] for pool in targets[0]], dtype=np.float32)
    metric = runs.definition
    scale = Scale(metric.latent, metric.least, metric.greatest)
    reference = ReferenceKernels("", np.zeros(1), runs.learning_rate.shape[1], same[None])
    none = np.zeros(len(seen.runs), dtype=bool)
    fit = fit_tangent(FittedRuns.of(seen, scale), [reference], none, False, validation_retrainings(seen))
    dynamics = tangent_dynamics(fit.arrays, fit.choice, scale, int(seen.step[0]))
    examples = kernel_examples(dynamics.kernels, dynamics.pool_shares, dynamics.kernels, torch.arange(len(runs.test)))
    shares = visit_shares(runs.curricula, [example.id for example in runs.pool])
    rates, first = torch.from_numpy(runs.learning_rate).float(), torch.from_numpy(runs.values[..., :1])
    with torch.no_grad():
        values = dynamics.trajectories(SimulationInputs(shares, rates, examples, first))
    return values[..., torch.from_numpy(runs.step)].numpy()


def by_exact_first_order(retrainings: RetrainedTestRuns) -> np.ndarray:
    """Exact first-order effects of the rows left out: `[R, M, S]`.

    Raises:
        NotApplicableError: the base model is too large, or the repeated runs cannot be made again here.
        SettingsError: they cannot be differentiated.
    """
    runs, facts = retrainings.runs, retrainings.facts
    check_loss("exact_first_order", runs)
    bench = open_bench(facts)
    numbers = bench.base.model.num_parameters()
    if numbers > LARGEST:
        raise NotApplicableError(
            f"the base model of {runs.config} has {numbers / 1e6:.0f} M weights; exact first-order effects are for "
            f"{LARGEST / 1e6:.0f} M at most"
        )
    predicted = np.empty(runs.values.shape, dtype=np.float32)
    for index, run in enumerate(facts.runs):
        effects = exact_first_order(
            bench,
            run,
            facts.curricula[index],
            facts.learning_rate[index].tolist(),
            facts.step.tolist(),
            on_phase=retrainings.on_phase,
            on_progress=retrainings.on_progress,
        )
        chosen = retrainings.places(run)
        left_out = [visited_rows(facts.curricula[index]) - visited_rows(runs.curricula[place]) for place in chosen]
        predicted[chosen] = effects.without(left_out)
    return predicted
