"""What a manifest says of metrics: those of a task's own are described there, so that nobody needs the task's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptdynamics.errors import SettingsError
from gptdynamics.metrics import METRICS, Metric, resolve_metrics
from gptdynamics.tasks import Mixture, Task


def metrics_entry(task: Task | Mixture) -> dict[str, Any]:
    """The entry `metrics` of a manifest; none where they are the usual ones of a task of its kind.

    It has the names of the package's metrics, and everything but the function of others.
    """
    followed = [
        metric.name if METRICS.get(metric.name) == metric else metric.to_dict() for metric in task.followed_metrics
    ]
    usual = dict.fromkeys(metric for part in task.test_parts for metric in part.usual_metrics)
    return {} if followed == list(usual) else {"metrics": followed}


def recorded_metrics(manifest: Mapping[str, Any]) -> tuple[Metric, ...] | None:
    """The metrics that a manifest records, without functions; None: those that are usual for a task of its kind.

    Raises:
        SettingsError: its entry is not what `metrics_entry` gives.
    """
    record = manifest.get("metrics")
    if record is None:
        return None
    if not isinstance(record, list) or not all(isinstance(each, str | dict) for each in record):
        raise SettingsError(f"{record!r:.60} is not a list of metrics")
    return resolve_metrics(each if isinstance(each, str) else Metric.from_dict(each) for each in record)


def own_metrics(manifest: Mapping[str, Any]) -> dict[str, Metric]:
    """Of the metrics that a manifest records, those that are the task's own, by name.

    Raises:
        SettingsError: as of `recorded_metrics`.
    """
    return {metric.name: metric for metric in recorded_metrics(manifest) or () if metric.name not in METRICS}


def metric_differences(theirs: Mapping[str, Any], mine: Mapping[str, Any], here: str = "now") -> list[str]:
    """How the metrics of two manifests differ: `least of metric exact_match: 0 there, -1 now`.

    Args:
        theirs, mine: the manifests.
        here: what `mine` is called, where `theirs` is called `there`.

    Raises:
        SettingsError: as of `recorded_metrics`.
    """
    there, now = (
        {metric.name: metric.to_dict() for metric in recorded_metrics(manifest) or ()} for manifest in (theirs, mine)
    )
    if bool(there) != bool(now):
        missing = "the usual ones"
        return [f"metrics: {', '.join(there) or missing} there, {', '.join(now) or missing} {here}"]
    differences = []
    for name in sorted(there.keys() | now.keys()):
        if name not in there or name not in now:
            differences.append(f"metric {name}: only {'there' if name in there else here}")
            continue
        differences += [
            f"{field} of metric {name}: {there[name][field]!r} there, {now[name][field]!r} {here}"
            for field in there[name]
            if there[name][field] != now[name][field]
        ]
    return differences
