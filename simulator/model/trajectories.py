"""What a simulation gives: tensors that know their test examples, and can be drawn and made into a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from .display import COLOURS, Summarised, Summary, library, line_figure, with_unit

# Of more test examples than this only some are drawn or listed, unless they are asked for.
_SHOWN = 6
# By measured step, a value of each test example.
Measured = Mapping[int, Sequence[float]]


class Trajectories(Summarised, torch.Tensor):
    """Trajectories of one simulated run, `[M, steps + 1]`: a tensor like any other, with test examples and a metric.

    The difference of two runs is of this kind, too. Whatever else is computed from it is a plain tensor.

    Attributes:
        test_ids: M test examples, in the order of the rows.
        quantity: what the values are: a metric, or the change of one.
        unit: of the values; empty where they have none.
        config: of the simulated run, `<task>_<size>`; empty where none is named.
        measured: what was measured in the same run; None: it was not made, or its values are not here.
    """

    test_ids: tuple[int, ...]
    quantity: str
    unit: str
    config: str
    measured: Measured | None

    @classmethod
    def of(
        cls,
        values: torch.Tensor,
        test_ids: Sequence[int],
        quantity: str,
        unit: str = "",
        config: str = "",
        measured: Measured | None = None,
    ) -> Trajectories:
        """Name what `values` `[M, steps + 1]` are.

        Raises:
            ValueError: there is not one test example for each row.
        """
        if values.dim() != 2 or len(values) != len(test_ids):
            raise ValueError(f"values of shape {tuple(values.shape)} are not trajectories of {len(test_ids)} examples")
        named = values.detach().as_subclass(cls)
        named.test_ids = tuple(test_ids)
        named.quantity, named.unit, named.config, named.measured = quantity, unit, config, measured
        return named

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Results are plain tensors, but for differences of the same test examples."""
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
        if func not in (torch.Tensor.sub, torch.sub) or len(args) != 2:
            return result
        left, right = args
        are_trajectories = isinstance(left, Trajectories) and isinstance(right, Trajectories)
        if not are_trajectories or left.test_ids != right.test_ids or result.shape != left.shape:
            return result
        change = left.quantity if left.quantity.startswith("change of") else f"change of {left.quantity}"
        config = left.config if left.config == right.config else ""
        return cls.of(result, left.test_ids, change, left.unit, config)

    def __deepcopy__(self, memo: dict[int, Any]) -> Trajectories:
        return Trajectories.of(self.as_subclass(torch.Tensor).clone(), *self._names())

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Trajectories.of, (self.as_subclass(torch.Tensor), *self._names())

    def _names(self) -> tuple[tuple[int, ...], str, str, str, Measured | None]:
        return self.test_ids, self.quantity, self.unit, self.config, self.measured

    def _values(self, test_ids: Sequence[int] | None) -> tuple[list[int], torch.Tensor]:
        """The rows of these test examples; by default all, or of many a few from the most fallen to the most risen."""
        values = self.as_subclass(torch.Tensor)
        place = {key: index for index, key in enumerate(self.test_ids)}
        if test_ids is not None:
            unknown = [key for key in test_ids if key not in place]
            if unknown:
                raise ValueError(f"test example {unknown[0]} is not among those of this run")
            chosen = [place[key] for key in test_ids]
        elif len(values) <= _SHOWN:
            chosen = list(range(len(values)))
        else:
            order = (values[:, -1] - values[:, 0]).argsort(stable=True)
            chosen = order[torch.linspace(0, len(order) - 1, _SHOWN).round().long()].tolist()
        return [self.test_ids[index] for index in chosen], values[chosen]

    def to_pandas(self) -> Any:
        """A `DataFrame` with a row for each test example and step: `test_id`, `step` and the quantity."""
        pandas = library("pandas")
        steps = self.size(1)
        return pandas.DataFrame(
            {
                "test_id": [key for key in self.test_ids for _ in range(steps)],
                "step": list(range(steps)) * len(self.test_ids),
                self.quantity: self.as_subclass(torch.Tensor).flatten().cpu().numpy(),
            }
        )

    def plot(self, test_ids: Sequence[int] | None = None) -> Any:
        """A plotly figure with a line for each test example, and dots where it was measured.

        Args:
            test_ids: whose; default: all, or of more than six those spread evenly from the most fallen to the most
                risen.

        Raises:
            ValueError: a test example is unknown.
            ImportError: plotly is not installed.
        """
        ids, values = self._values(test_ids)
        figure = line_figure(with_unit(self.quantity, self.unit))
        for index, (key, row) in enumerate(zip(ids, values.tolist(), strict=True)):
            figure.add_scatter(y=row, name=f"test example {key}", mode="lines", line={"color": COLOURS[index % 6]})
        for index, key in enumerate(ids if self.measured else ()):
            steps, place = list(self.measured or {}), self.test_ids.index(key)
            figure.add_scatter(
                x=steps,
                y=[values[place] for values in (self.measured or {}).values()],
                name=f"test example {key}, measured",
                mode="markers",
                marker={"color": COLOURS[index % 6]},
            )
        return figure

    def _summary(self) -> Summary:
        """The values of some test examples, and of the mean over all, at five steps."""
        last = self.size(1) - 1
        ids, values = self._values(None)
        quantity, config = with_unit(self.quantity, self.unit), f" of {self.config}" if self.config else ""
        steps = sorted({round(last * part / 4) for part in range(5)})
        rows = [(f"test example {key}", row) for key, row in zip(ids, values[:, steps].tolist(), strict=True)]
        if len(self.test_ids) > 1:
            mean = self.as_subclass(torch.Tensor).mean(0)
            rows.append((f"mean of {len(self.test_ids)}", mean[steps].tolist()))
        if self.measured:
            means = {step: sum(values) / len(values) for step, values in self.measured.items()}
            rows.append((f"mean of {len(self.test_ids)}, measured", [means.get(step, float("nan")) for step in steps]))
        title = f"{quantity}{config}: {len(self.test_ids)} test examples, steps 0 to {last}"
        return Summary(title, [f"step {step}" for step in steps], rows)


@dataclass(frozen=True, repr=False)
class Band(Summarised):
    """A predicted run with a band that each value lies in with probability `level`.

    Attributes:
        prediction, low, high: `[M, steps + 1]` each; the first given values have no width.
        level: of the band.
    """

    prediction: Trajectories
    low: Trajectories
    high: Trajectories
    level: float

    def to_pandas(self) -> Any:
        """As of `Trajectories`, with `low` and `high` besides."""
        table = self.prediction.to_pandas()
        ends = {"low": self.low, "high": self.high}
        return table.assign(**{name: end.flatten().cpu().numpy() for name, end in ends.items()})

    def plot(self, test_ids: Sequence[int] | None = None) -> Any:
        """As of `Trajectories`, with the band of each test example behind its line."""
        ids, _ = self.prediction._values(test_ids)
        lines = self.prediction.plot(ids).data
        figure = line_figure(with_unit(self.prediction.quantity, self.prediction.unit))
        place = {key: index for index, key in enumerate(self.prediction.test_ids)}
        # Lines come first, then dots where values were measured.
        for line, key in zip(lines[: len(ids)], ids, strict=True):
            low, high = (end[place[key]].tolist() for end in (self.low, self.high))
            steps = list(range(len(low)))
            # There and back: the outline of the band.
            figure.add_scatter(
                x=steps + steps[::-1],
                y=high + low[::-1],
                fill="toself",
                mode="none",
                fillcolor=line.line.color,
                opacity=0.2,
                name=f"{self.level:.0%} interval",
                legendgroup=str(key),
                showlegend=False,
                hoverinfo="skip",
            )
            line.legendgroup = str(key)
            figure.add_trace(line)
        for dots in lines[len(ids) :]:
            figure.add_trace(dots)
        return figure

    def _summary(self) -> Summary:
        width = (self.high - self.low).as_subclass(torch.Tensor)[:, -1].mean()
        note = f"{self.level:.0%} interval, at the last step {float(width):.3g} wide on average"
        return replace(self.prediction._summary(), note=note)
