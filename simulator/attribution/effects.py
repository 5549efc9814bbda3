"""Which visits of which training examples moved which test examples, in one simulated run.

The derivative is with respect to a visit's weight (see `what_if`), at the weights the run has. Test examples do
not touch each other, so one backward pass through the scan gives the derivatives of all of them; what a visit
adds to its step is linear in the factors. Leaving out is no approximation: every run without an example is
simulated.

An effect has one sign everywhere: the metric with the example minus the metric without it. Of a loss, below zero means
that the example helped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from simulator.model.display import COLOURS, Summarised, Summary, library, line_figure, unit_of, with_unit
from simulator.model.dynamics import SimulationInputs
from simulator.model.what_if import WhatIf, simulate_many


@dataclass(frozen=True, repr=False)
class VisitDerivatives(Summarised):
    """Derivatives for V visits and m test examples.

    Attributes:
        steps: `[V]` step of each visit, from 1.
        pool_ids: `[V]` example of each visit.
        test_ids: m test examples.
        final: `[V, m]` derivative of the final change, phi_T - phi_0, with respect to the visit's weight.
        whole: `[V, m]` derivative of the mean over steps 1..T of phi_t - phi_0.
        metric: of which these are changes.
        unit: of the metric; empty where it has none.
        config: of the run, `<task>_<size>`.
    """

    steps: tuple[int, ...]
    pool_ids: tuple[int, ...]
    test_ids: tuple[int, ...]
    final: torch.Tensor
    whole: torch.Tensor
    metric: str
    unit: str = ""
    config: str = ""

    def to_pandas(self) -> Any:
        """A `DataFrame` with a row for each visit and test example: `step`, `pool_id`, `test_id`, `final`, `whole`."""
        return _pairs({"step": self.steps, "pool_id": self.pool_ids}, self.test_ids, self.final, self.whole)

    def plot(self, test_id: int | None = None) -> Any:
        """A plotly figure of the final derivative of each visit, of one test example or averaged over all."""
        values, which = _column(self.final, self.test_ids, test_id)
        figure = line_figure(f"derivative of the final {self.metric}, {which}")
        names = [f"training example {key}" for key in self.pool_ids]
        figure.add_scatter(x=self.steps, y=values, text=names, mode="markers", name="", marker={"color": COLOURS[0]})
        return figure.update_layout(hovermode="closest")

    def _summary(self) -> Summary:
        names = [f"step {step}, training example {key}" for step, key in zip(self.steps, self.pool_ids, strict=True)]
        title = (
            f"derivatives of {_metric(self)} with respect to the weights of {len(names)} occurrences, for "
            f"{len(self.test_ids)} test examples"
        )
        return _extremes(title, names, self.test_ids, self.final, self.whole)


@dataclass(frozen=True, repr=False)
class LeaveOneOut(Summarised):
    """The effects of n training examples on m test examples, by leaving each out of a run.

    Attributes:
        pool_ids: n examples.
        test_ids: m test examples.
        final: `[n, m]` effect on the final metric: with the example minus without it. Of a loss, negative means that
            the example helped.
        whole: `[n, m]` mean over steps 1..T of the same difference.
        metric: on which these are effects.
        unit: of the metric; empty where it has none.
        config: of the run, `<task>_<size>`.
    """

    pool_ids: tuple[int, ...]
    test_ids: tuple[int, ...]
    final: torch.Tensor
    whole: torch.Tensor
    metric: str
    unit: str = ""
    config: str = ""

    def to_pandas(self) -> Any:
        """A `DataFrame` with a row for each training and test example: `pool_id`, `test_id`, `final`, `whole`."""
        return _pairs({"pool_id": self.pool_ids}, self.test_ids, self.final, self.whole)

    def plot(self, test_id: int | None = None) -> Any:
        """A plotly figure of the ten examples that lower the final metric most, and the ten that raise it most.

        Args:
            test_id: of which test example; default: averaged over all.
        """
        values, which = _column(self.final, self.test_ids, test_id)
        order = sorted(range(len(values)), key=values.__getitem__)
        order = order if len(order) <= 20 else order[:10] + order[-10:]
        bars = library("plotly.graph_objects").Bar(
            x=[values[index] for index in order],
            y=[f"training example {self.pool_ids[index]}" for index in order],
            orientation="h",
            marker={"color": [COLOURS[0] if values[index] < 0 else COLOURS[1] for index in order]},
        )
        figure = line_figure("").add_trace(bars)
        title = f"effect on the final {self.metric} (with the example minus without it), {which}"
        return figure.update_layout(hovermode="closest", xaxis_title=title)

    def _summary(self) -> Summary:
        names = [f"training example {key}" for key in self.pool_ids]
        title = (
            f"effects on {_metric(self)} (with minus without) of {len(names)} training examples on "
            f"{len(self.test_ids)} test examples"
        )
        return _extremes(title, names, self.test_ids, self.final, self.whole)


def _metric(effects: VisitDerivatives | LeaveOneOut) -> str:
    """The metric with its unit, and the config."""
    metric = with_unit(effects.metric, effects.unit)
    return f"{metric} of {effects.config}" if effects.config else metric


def _pairs(rows: dict[str, Sequence[int]], test_ids: Sequence[int], final: torch.Tensor, whole: torch.Tensor) -> Any:
    """A `DataFrame` with a row for each pair of a training and a test example."""
    columns = {name: [key for key in keys for _ in test_ids] for name, keys in rows.items()}
    values = {"final": final.flatten().cpu().numpy(), "whole": whole.flatten().cpu().numpy()}
    return library("pandas").DataFrame(columns | {"test_id": list(test_ids) * len(final)} | values)


def _column(values: torch.Tensor, test_ids: Sequence[int], test_id: int | None) -> tuple[list[float], str]:
    """A column of `[n, m]`, or the mean over all, and what that is."""
    if test_id is None:
        return values.mean(1).tolist(), f"mean of {len(test_ids)} test examples"
    if test_id not in test_ids:
        raise ValueError(f"test example {test_id} is not among those asked for")
    return values[:, test_ids.index(test_id)].tolist(), f"test example {test_id}"


def _extremes(
    title: str, names: list[str], test_ids: Sequence[int], final: torch.Tensor, whole: torch.Tensor
) -> Summary:
    """The three rows that lower and the three that raise the final metric most, averaged over test examples."""
    order = final.mean(1).argsort().tolist()
    order = order if len(order) <= 6 else order[:3] + order[-3:]
    rows = [(names[index], [float(final[index].mean()), float(whole[index].mean())]) for index in order]
    mean = f"; mean over {len(test_ids)}" if len(test_ids) > 1 else ""
    return Summary(title + mean, ["final", "whole"], rows)


def _test_indices(run: WhatIf, test_ids: Sequence[int] | None) -> torch.Tensor:
    index = {key: place for place, key in enumerate(run.situation.test_ids)}
    wanted = list(index) if test_ids is None else list(test_ids)
    unknown = [key for key in wanted if key not in index]
    if unknown:
        raise ValueError(f"test example {unknown[0]} is not among those of this run")
    return torch.tensor([index[key] for key in wanted], dtype=torch.long)


def visit_derivatives(run: WhatIf, test_ids: Sequence[int] | None = None) -> VisitDerivatives:
    """Derivatives of trajectories with respect to the weight of each visit, in one pass.

    Args:
        run: `simulator.what_if(...)`, changed or not.
        test_ids: of whom; default: all test examples.

    Raises:
        ValueError: a test example is unknown, or the run has no steps.
    """
    if not run.curriculum:
        raise ValueError("a run without steps has no influence to attribute")
    chosen = _test_indices(run, test_ids)
    situation = run.situation
    model, dynamics = situation.simulator, situation.simulator.dynamics
    examples = situation.examples.of_tests(chosen)
    initial = None if situation.initial is None else situation.initial[:, chosen]
    shares, rates = run.shares(), torch.tensor([run.learning_rate]).to(examples.pool)
    with torch.no_grad():
        factors = dynamics.input_factors(examples)
        # What the batch of each step gives to each factor: `[F, m, steps]`.
        inputs = torch.einsum("tn,fnm->fmt", shares[0], factors)
    inputs.requires_grad_(True)
    with torch.enable_grad():
        simulation = SimulationInputs(shares, rates, examples, initial)
        values = dynamics.from_factors(inputs, simulation)
        change = values[:, 1:] - values[:, :1]
        outcomes = (change[:, -1], change.mean(-1))
        slopes = [torch.autograd.grad(each.sum(), inputs, retain_graph=True)[0] for each in outcomes]
    pool_index = {key: index for index, key in enumerate(situation.pool_ids)}
    visits = [(step, key) for step, batch in enumerate(run.curriculum) for key in batch]
    visit_step = torch.tensor([step for step, _ in visits])
    rows = torch.tensor([pool_index[key] for _, key in visits])
    total = torch.tensor([sum(weights) for weights in run.weights]).to(factors)
    total[total <= 0] = 1  # of steps that make no update, whose slopes are 0
    # More of one visit is less of the others in its batch: its share is its weight over the sum of weights.
    moved = (factors[:, rows] - inputs.detach().mT[:, visit_step]) / total[visit_step].view(1, -1, 1)
    final, whole = (torch.einsum("fvm,fvm->vm", moved, slope.mT[:, visit_step]) for slope in slopes)
    return VisitDerivatives(
        steps=tuple(step + 1 for step, _ in visits),
        pool_ids=tuple(key for _, key in visits),
        test_ids=tuple(situation.test_ids[index] for index in chosen.tolist()),
        final=final,
        whole=whole,
        metric=model.config.metric,
        unit=unit_of(model.config),
        config=model.config.dataset_config,
    )


def leave_out(run: WhatIf, pool_ids: Sequence[int] | None = None, test_ids: Sequence[int] | None = None) -> LeaveOneOut:
    """The effect of each example on a run, by simulating the run without it: the metric with it minus without it.

    Args:
        run: `simulator.what_if(...)`, changed or not.
        pool_ids: which are left out, one at a time; default: all that the run visits.
        test_ids: on whom; default: all test examples.

    Raises:
        ValueError: an example is unknown.
    """
    chosen = _test_indices(run, test_ids)
    wanted = sorted(set().union(*run.curriculum)) if pool_ids is None else list(pool_ids)
    values = simulate_many([run, *(run.drop([key]) for key in wanted)])[:, chosen]
    effect, config = values[:1, :, 1:] - values[1:, :, 1:], run.situation.simulator.config
    return LeaveOneOut(
        pool_ids=tuple(wanted),
        test_ids=tuple(run.situation.test_ids[index] for index in chosen.tolist()),
        final=effect[..., -1],
        whole=effect.mean(-1),
        metric=config.metric,
        unit=unit_of(config),
        config=config.dataset_config,
    )
