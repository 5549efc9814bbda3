"""The entry of imported runs in the manifest of their config, which an import writes and an export reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.errors import DataError

LAYOUT = "authors_release"
# The learning rates' source: names of folders do not have the schedule, but the paper has.
_FROM_PAPER = "linear decay to zero without warm-up is that of the paper's tables 5 and 7; the layout does not say it"


@dataclass(frozen=True)
class RunOrigin:
    """The origin of a run, with values that have no column in the dataset.

    Attributes:
        folder: of the run, relative to the release; must be checked before it is used as a path.
        orders: for each metric, ids of test examples in the file's order, if that is not ascending.
        batches_after: batches of updates after the last measurement.
    """

    folder: str
    orders: dict[str, list[int]] = field(default_factory=dict)
    batches_after: list[list[int]] = field(default_factory=list)


def origin_of(runs: dict[str, RunOrigin]) -> dict[str, Any]:
    """The entry `origin` of a config's manifest, without empty values."""
    origins = {run: {name: value for name, value in vars(origin).items() if value} for run, origin in runs.items()}
    return {"layout": LAYOUT, "learning_rate": _FROM_PAPER, "runs": origins}


def run_origins(folder: DatasetFolder, config: str) -> dict[str, RunOrigin]:
    """The origins of a config's runs, by run; none if they were not imported. DataError if the manifest is damaged."""
    origin = folder.origin(config)
    if origin is None or origin.get("layout") != LAYOUT:
        return {}
    try:
        origins = {str(run): RunOrigin(**values) for run, values in origin["runs"].items()}
        lists = [
            ids for run_origin in origins.values() for ids in (*run_origin.orders.values(), *run_origin.batches_after)
        ]
        intact = all(isinstance(run_origin.folder, str) for run_origin in origins.values())
        intact &= all(isinstance(ids, list) and {type(key) for key in ids} <= {int} for ids in lists)
    except (KeyError, TypeError, AttributeError):
        intact = False
    if not intact:
        raise DataError(f"{folder.manifest_path(config)}: its origin is damaged. Restore it, or import again elsewhere")
    return origins
