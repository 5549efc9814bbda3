"""What an import notes of each run in the manifest of its config, and an export reads there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.errors import DataError

LAYOUT = "authors_release"

# What the folders do not say and the paper does.
_FROM_PAPER = "linear decay to zero without warm-up is that of the paper's tables 5 and 7; the layout does not say it"


@dataclass(frozen=True)
class RunOrigin:
    """Where a run came from, and what our columns have no place for.

    Attributes:
        folder: of the run, relative to the release.
        orders: for each metric ids of test examples in the file's order, if that is not ascending.
        batches_after: of updates after the last measurement.
    """

    folder: str
    orders: dict[str, list[int]] = field(default_factory=dict)
    batches_after: list[list[int]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a manifest; without what is empty."""
        return {name: value for name, value in vars(self).items() if value}


def origin_of(runs: dict[str, RunOrigin]) -> dict[str, Any]:
    """The `origin` of a config's manifest."""
    origins = {name: run.to_dict() for name, run in runs.items()}
    return {"layout": LAYOUT, "learning_rate": _FROM_PAPER, "runs": origins}


def run_origins(folder: DatasetFolder, config: str) -> dict[str, RunOrigin]:
    """The origins of a config's runs, by run; none for runs of ours.

    Raises:
        DataError: the manifest is damaged. Folders are texts, not yet checked to be paths.
    """
    origin = folder.origin(config)
    if origin is None or origin.get("layout") != LAYOUT:
        return {}
    try:
        found = {str(name): RunOrigin(**values) for name, values in origin["runs"].items()}
        sound = all(
            isinstance(each.folder, str)
            and all(isinstance(ids, list) and all(type(at) is int for at in ids) for ids in each.orders.values())
            and all(isinstance(batch, list) and all(type(at) is int for at in batch) for batch in each.batches_after)
            for each in found.values()
        )
    except (KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise DataError(f"{folder.manifest_path(config)}: its origin is damaged. Restore it, or import again elsewhere")
    return found
