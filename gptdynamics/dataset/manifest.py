"""The manifest of a config: what its runs share, how two manifests of one config differ, and what both say together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from gptdynamics.configs import EARLIER_SETTINGS, RunSettings, value_differences
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.metrics import METRICS, Metric, resolve_metrics
from gptdynamics.models.local_models import published_name
from gptdynamics.parsing import read_object
from gptdynamics.tasks import Mixture, Task

Kind = Literal["collected", "recorded", "imported"]
# The values of settings that earlier versions did not record.
EARLIER_RECORDING = {name: EARLIER_SETTINGS[name] for name in ("text_tokenizer", "tokenization")}
COUNTS = ("runs", "unseen_runs")


def read_manifest(path: Path) -> dict[str, Any]:
    """`settings`, `base_revision`, `planned`, and perhaps `recording`, `origin`, `metrics`; DataError if damaged."""
    manifest = read_object(path, "Restore it, or collect into another folder")
    if not all(isinstance(manifest.get(name), dict) for name in ("settings", "planned")):
        raise DataError(f"{path}: not a manifest. Restore it, or collect into another folder")
    return manifest


def kind_of(manifest: Mapping[str, Any]) -> Kind | None:
    """How the runs of a config came to be; None if its manifest does not say it."""
    if isinstance(manifest.get("origin"), dict):
        return "imported"
    if isinstance(manifest.get("recording"), dict):
        return "recorded"
    return "collected" if manifest["settings"] else None


def manifest_differences(theirs: Mapping[str, Any], mine: Mapping[str, Any], here: str = "now") -> list[str]:
    """What two manifests of one config say differently: `seed: 0 there, 1 now`; `here` is another word for `now`.

    Runs that only one of two imports has, the numbers of planned runs, and a base revision that `mine` lacks, are no
    difference. Raises SettingsError if the metrics in one of them are damaged.
    """

    def compare(part: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> list[str]:
        return value_differences(part(theirs), part(mine), here)

    common = _imported_runs(theirs).keys() & _imported_runs(mine).keys()
    if theirs["settings"] and mine["settings"] and here == "now":
        differences = RunSettings.from_dict(mine["settings"]).differences(theirs["settings"])
    else:
        differences = compare(lambda each: _settings(each, "settings", EARLIER_SETTINGS))
    differences += compare(lambda each: _settings(each, "recording", EARLIER_RECORDING))
    differences += compare(lambda each: _settings(each, "origin", {"runs": None}) | {"runs": None})
    differences += compare(lambda each: {f"run {run}": _imported_runs(each)[run] for run in common})
    if mine.get("base_revision") is not None:
        differences += compare(lambda each: {"base_revision": each.get("base_revision")})
    return differences + _metric_differences(theirs, mine, here)


def merge_manifests(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> dict[str, Any]:
    """`mine`, with the runs that only `theirs` has: the greater numbers of planned runs, the origins of all."""
    counts: dict[str, Any] = {
        name: max(int(mine["planned"].get(name, 0)), int((theirs.get("planned") or {}).get(name, 0))) for name in COUNTS
    }
    repeated: list[dict[str, int]] = [each["planned"].get("counterfactuals") or {} for each in (theirs, mine)]
    if any(repeated):
        names = sorted(repeated[0].keys() | repeated[1].keys())
        counts["counterfactuals"] = {base: max(each.get(base, 0) for each in repeated) for base in names}
    merged = {**mine, "planned": counts}
    if mine.get("origin") and theirs.get("origin"):
        merged["origin"] = mine["origin"] | {"runs": theirs["origin"]["runs"] | mine["origin"]["runs"]}
    return merged


def _settings(manifest: Mapping[str, Any], part: str, earlier: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a manifest as it is compared: with what earlier versions did not record, and no path."""
    values = manifest.get(part)
    if not isinstance(values, dict) or not values:
        return {}
    values = {**earlier, **values}
    if isinstance(values.get("base_model"), str):
        # Earlier versions recorded the path of a folder.
        values["base_model"] = published_name(values["base_model"])
    return values


def _imported_runs(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_settings(manifest, "origin", {}).get("runs") or {})


def metrics_entry(task: Task | Mixture) -> dict[str, Any]:
    """The entry `metrics` of a manifest; none for the usual metrics of a task of its kind.

    It has the names of the package's metrics; a task's own are described, so that nobody needs the task's file.
    """
    followed = [
        metric.name if METRICS.get(metric.name) == metric else metric.to_dict() for metric in task.followed_metrics
    ]
    usual = dict.fromkeys(metric for part in task.test_parts for metric in part.usual_metrics)
    return {} if followed == list(usual) else {"metrics": followed}


def recorded_metrics(manifest: Mapping[str, Any]) -> tuple[Metric, ...] | None:
    """The metrics of a manifest, without their functions; None: those that are usual for a task of its kind.

    Raises SettingsError if the entry is damaged.
    """
    record = manifest.get("metrics")
    if record is None:
        return None
    if not isinstance(record, list) or not all(isinstance(each, str | dict) for each in record):
        raise SettingsError(f"{record!r:.60} is not a list of metrics")
    return resolve_metrics(each if isinstance(each, str) else Metric.from_dict(each) for each in record)


def own_metrics(manifest: Mapping[str, Any]) -> dict[str, Metric]:
    """The metrics of a manifest that are the task's own, by name; raises SettingsError if the entry is damaged."""
    return {metric.name: metric for metric in recorded_metrics(manifest) or () if metric.name not in METRICS}


def _metric_differences(theirs: Mapping[str, Any], mine: Mapping[str, Any], here: str) -> list[str]:
    """`least of metric exact_match: 0 there, -1 now`."""
    left, right = ({each.name: each.to_dict() for each in recorded_metrics(one) or ()} for one in (theirs, mine))
    if bool(left) != bool(right):
        usual = "the usual ones"
        return [f"metrics: {', '.join(left) or usual} there, {', '.join(right) or usual} {here}"]
    differences = []
    for name in sorted(left.keys() | right.keys()):
        if name in left and name in right:
            theirs, mine = (
                {f"{field} of metric {name}": value for field, value in each[name].items()} for each in (left, right)
            )
            differences += value_differences(theirs, mine, here)
        else:
            differences.append(f"metric {name}: only {'there' if name in left else here}")
    return differences
