"""Names of the files in a dataset repository on the Hub: only such as these are read or written."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gptdynamics.configs import split_of

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_RUN = r"u?[0-9]{4,}"
_FILES = (
    rf"manifests/{_NAME}_{_NAME}\.json",
    rf"data/{_NAME}_examples/(pool|test)\.parquet",
    rf"data/{_NAME}_gradients/base\.parquet",
    rf"data/{_NAME}/(train|validation|test|test_unseen)-{_RUN}\.parquet",
    rf"sidecar/{_NAME}/{_RUN}\.failed\.json",
)
_OURS = re.compile("|".join(f"(?:{each})" for each in _FILES))


def ours(paths: Iterable[str]) -> list[str]:
    """Those paths that a dataset repository has; none of them can lead out of a folder."""
    return [path for path in paths if _OURS.fullmatch(path)]


def run_files(config: str, run: str) -> list[str]:
    """Paths of a run's files in the repository, the trajectories last; the gradient products may not be there."""
    name = f"{split_of(run)}-{run}.parquet"
    return [f"data/{config}{kind}/{name}" for kind in ("_gradients", "_runs", "")]
