"""The manifest of a config, which its runs share; comparing and merging two manifests of one config."""

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
    """How the runs of a config were made; None if its manifest does not say."""
    if isinstance(manifest.get("origin"), dict):
        return "imported"
    if isinstance(manifest.get("recording"), dict):
        return "recorded"
    return "collected" if manifest["settings"] else None


def manifest_differences(recorded: Mapping[str, Any], current: Mapping[str, Any], here: str = "now") -> list[str]:
    """Differences between two manifests of one config: `seed: 0 there, 1 now`; `here` replaces the word `now`.

    Not compared: runs that only one of two imports has, the numbers of planned runs, and the base revision if `current`
    has none. Raises SettingsError if the metrics in one of them are damaged.
    """

    def compare(part: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> list[str]:
        return value_differences(part(recorded), part(current), here)

    common = _imported_runs(recorded).keys() & _imported_runs(current).keys()
    if recorded["settings"] and current["settings"] and here == "now":
        differences = RunSettings.from_dict(current["settings"]).differences(recorded["settings"])
    else:
        differences = compare(lambda manifest: _settings(manifest, "settings", EARLIER_SETTINGS))
    differences += compare(lambda manifest: _settings(manifest, "recording", EARLIER_RECORDING))
    differences += compare(lambda manifest: _settings(manifest, "origin", {"runs": None}) | {"runs": None})
    differences += compare(lambda manifest: {f"run {run}": _imported_runs(manifest)[run] for run in common})
    if current.get("base_revision") is not None:
        differences += compare(lambda manifest: {"base_revision": manifest.get("base_revision")})
    return differences + _metric_differences(recorded, current, here)


def merge_manifests(earlier: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
    """`current` with the runs of `earlier`: the greater numbers of planned runs, and the origins of all runs."""
    counts: dict[str, Any] = {
        name: max(int(current["planned"].get(name, 0)), int((earlier.get("planned") or {}).get(name, 0)))
        for name in COUNTS
    }
    repeated: list[dict[str, int]] = [
        manifest["planned"].get("counterfactuals") or {} for manifest in (earlier, current)
    ]
    if any(repeated):
        names = sorted(repeated[0].keys() | repeated[1].keys())
        counts["counterfactuals"] = {base: max(manifest.get(base, 0) for manifest in repeated) for base in names}
    merged = {**current, "planned": counts}
    if current.get("origin") and earlier.get("origin"):
        merged["origin"] = current["origin"] | {"runs": earlier["origin"]["runs"] | current["origin"]["runs"]}
    return merged


def _settings(manifest: Mapping[str, Any], part: str, earlier: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a manifest for comparison: with defaults of values that earlier versions lack, and without paths."""
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
    """The entry `metrics` of a manifest; empty if a task has the default metrics of its kind.

    It has the names of the package's metrics, and descriptions of metrics that the task defines, so that the task's
    file is not needed.
    """
    followed = [
        metric.name if METRICS.get(metric.name) == metric else metric.to_dict() for metric in task.followed_metrics
    ]
    defaults = dict.fromkeys(metric for part in task.test_parts for metric in part.usual_metrics)
    return {} if followed == list(defaults) else {"metrics": followed}


def recorded_metrics(manifest: Mapping[str, Any]) -> tuple[Metric, ...] | None:
    """The metrics of a manifest, without their functions; None: the default metrics of its kind of task.

    Raises SettingsError if the entry is damaged.
    """
    record = manifest.get("metrics")
    if record is None:
        return None
    if not isinstance(record, list) or not all(isinstance(entry, str | dict) for entry in record):
        raise SettingsError(f"{record!r:.60} is not a list of metrics")
    return resolve_metrics(entry if isinstance(entry, str) else Metric.from_dict(entry) for entry in record)


def own_metrics(manifest: Mapping[str, Any]) -> dict[str, Metric]:
    """The metrics of a manifest that the task defines, by name; raises SettingsError if the entry is damaged."""
    return {metric.name: metric for metric in recorded_metrics(manifest) or () if metric.name not in METRICS}


def _metric_differences(recorded: Mapping[str, Any], current: Mapping[str, Any], here: str) -> list[str]:
    """`least of metric exact_match: 0 there, -1 now`."""
    before, after = (
        {metric.name: metric.to_dict() for metric in recorded_metrics(manifest) or ()}
        for manifest in (recorded, current)
    )
    if bool(before) != bool(after):
        default = "the usual ones"
        return [f"metrics: {', '.join(before) or default} there, {', '.join(after) or default} {here}"]
    differences = []
    for name in sorted(before.keys() | after.keys()):
        if name in before and name in after:
            recorded, current = (
                {f"{field} of metric {name}": value for field, value in metric[name].items()}
                for metric in (before, after)
            )
            differences += value_differences(recorded, current, here)
        else:
            differences.append(f"metric {name}: only {'there' if name in before else here}")
    return differences
