"""The result of an evaluation: its rows, and what they were computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gptdynamics.dataset import Dynamics
from gptdynamics.outputs import write_output_json
from simulator.evaluation.scoring import Row


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Rows of the table, and what they were computed from.

    Attributes:
        rows: one for each method.
        runs: the held-out runs.
        predictions: `[R, M, S]` by method.
        history: first values that are not scored, the longest history of any method.
    """

    rows: list[Row]
    runs: Dynamics
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    history: int = 1

    def write_json(self, path: Path) -> None:
        """Write the rows as a JSON list."""
        write_rows(self.rows, path)

    def to_pandas(self) -> Any:
        """The rows as a `DataFrame`."""
        import pandas

        return pandas.DataFrame([asdict(row) for row in self.rows])

    # Reporting builds on the rows of this package and is imported only when something is drawn.
    def plot(self, run: str | None = None, test_id: int | None = None, errors: bool = False) -> Any:
        """One run as measured and as predicted, or the error at each step; see `plot_predictions`."""
        from simulator.reporting.prediction_figures import plot_predictions

        return plot_predictions(self.runs, self.predictions, run, test_id, errors)

    def __repr__(self) -> str:
        from simulator.reporting.tables import rows_text

        return rows_text(self.rows)

    def _repr_html_(self) -> str:
        from simulator.reporting.notebook_result import html_table
        from simulator.reporting.tables import evaluation_table

        return html_table(evaluation_table(self.rows))


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write rows, of one evaluation or several, as a JSON list."""
    write_output_json(path, [asdict(row) for row in rows])
