"""A dataset folder: at every moment a valid dataset repository that `load_dataset` reads."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from gptdynamics.atomic import write_text
from gptdynamics.base_model import BaseModel
from gptdynamics.configs import SPLITS, RunSettings, run_name, split_of
from gptdynamics.dataset.card import render_card
from gptdynamics.dataset.schema import (
    EXAMPLE_SCHEMA,
    GENERATED_METRICS,
    RUN_SCHEMA,
    read_parquet,
    trajectory_schema,
    write_parquet,
)
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.runs import Run

_RUN_FILE = re.compile(r"(train|validation|test)-(\d{4,})\.parquet")
_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "sacrebleu", "rouge-score")


def library_versions() -> str:
    """Versions of the libraries that a run's numbers depend on, as JSON."""
    return json.dumps({name: version(name) for name in _LIBRARIES}, sort_keys=True)


class DatasetFolder:
    """Paths and contents of a dataset folder (see the data model in docs/dataset.md).

    Args:
        root: the folder; it need not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def run_path(self, config: str, index: int) -> Path:
        """Trajectories of a run."""
        return self.root / "data" / config / f"{split_of(index)}-{run_name(index)}.parquet"

    def run_row_path(self, config: str, index: int) -> Path:
        """The row that describes a run."""
        return self.root / "data" / f"{config}_runs" / f"{split_of(index)}-{run_name(index)}.parquet"

    def examples_path(self, task: str, part: str) -> Path:
        """Examples of a task; `part` is `pool` or `test`."""
        return self.root / "data" / f"{task}_examples" / f"{part}.parquet"

    def sidecar_path(self, config: str, index: int, kind: str) -> Path:
        """What differs between two identical runs (`timing`), or why one has no numbers (`failed`)."""
        return self.root / "sidecar" / config / f"{run_name(index)}.{kind}.json"

    def manifest_path(self, config: str) -> Path:
        """The settings a config was collected with."""
        return self.root / "manifests" / f"{config}.json"

    def configs(self) -> list[str]:
        """Configs that have at least one run."""
        found = self.root.glob("data/*_runs/*.parquet")
        return sorted({path.parent.name.removesuffix("_runs") for path in found})

    def finished(self, config: str) -> list[int]:
        """Indices of runs whose files are both there."""
        folder = self.run_path(config, 0).parent
        names = (_RUN_FILE.fullmatch(path.name) for path in folder.glob("*.parquet"))
        found = {int(match.group(2)) for match in names if match}
        return sorted(
            at for at in found if self.run_path(config, at).exists() and self.run_row_path(config, at).exists()
        )

    def failed(self, config: str) -> dict[int, str]:
        """Reasons of runs that diverged, by index."""
        reasons = {}
        for path in sorted(self.sidecar_path(config, 0, "failed").parent.glob("*.failed.json")):
            reasons[int(path.name.split(".")[0])] = str(_read_json(path).get("reason"))
        return reasons

    def check_settings(self, settings: RunSettings, base_revision: str | None = None) -> None:
        """Compare with the manifest that the config was begun with, if there is one.

        Args:
            settings: what is asked for now.
            base_revision: weights of the base model, where they are known already.

        Raises:
            SettingsError: the config was begun with other settings or weights; the message lists them.
        """
        path = self.manifest_path(settings.config)
        if not path.exists():
            return
        manifest = _read_json(path)
        revision = manifest.pop("base_revision", None)
        differences = settings.differences(manifest)
        if base_revision is not None and revision != base_revision:
            differences.append(f"base_revision: {revision!r} there, {base_revision!r} now")
        if differences:
            raise SettingsError(
                f"{self.root} holds {settings.config} made with other settings ({'; '.join(differences)}). "
                "Give the same settings, or another --out"
            )

    def begin(self, settings: RunSettings, base_revision: str) -> None:
        """Begin a config, or go on with it: check its settings, and write the manifest if there is none."""
        self.check_settings(settings, base_revision)
        path = self.manifest_path(settings.config)
        if not path.exists():
            manifest = settings.to_dict() | {"base_revision": base_revision}
            write_text(path, json.dumps(manifest, indent=1, sort_keys=True) + "\n")

    def add_examples(self, task: str, part: str, examples: list[Example]) -> None:
        """Write a task's examples, or add those that an earlier config did not need.

        Raises:
            DataError: an example that is already there has another text.
        """
        path = self.examples_path(task, part)
        rows = {example.id: asdict(example) for example in examples}
        for row in rows.values():
            row["source"] = json.dumps(row["source"], sort_keys=True)
            row["references"] = list(row["references"])
        if path.exists():
            old = {row["id"]: row for row in read_parquet(path).to_pylist()}
            for key in old.keys() & rows.keys():
                if any(old[key][name] != rows[key][name] for name in ("prompt", "target", "references")):
                    raise DataError(f"{path}: example {key} has another text than the rows given now")
            if rows.keys() <= old.keys():
                return
            rows = old | rows
        ordered = [rows[key] for key in sorted(rows)]
        write_parquet(pa.Table.from_pylist(ordered, schema=EXAMPLE_SCHEMA), path)

    def add_run(self, settings: RunSettings, base: BaseModel, test_ids: list[int], run: Run) -> None:
        """Write a finished run: its description, its trajectories, its timing; then the card, which counts runs."""
        row = self._run_row(settings, base, run)
        write_parquet(pa.Table.from_pylist([row], schema=RUN_SCHEMA), self.run_row_path(settings.config, run.index))
        write_parquet(_trajectories(test_ids, run), self.run_path(settings.config, run.index))
        timing = asdict(run.timing) | {"forward_passes_per_measurement": run.timing.forward_passes}
        timing_path = self.sidecar_path(settings.config, run.index, "timing")
        write_text(timing_path, json.dumps(timing, indent=1) + "\n")
        self.sidecar_path(settings.config, run.index, "failed").unlink(missing_ok=True)
        self.write_card()

    def add_failure(self, config: str, index: int, reason: str) -> None:
        """Record that a run diverged; it gets no numbers."""
        path = self.sidecar_path(config, index, "failed")
        write_text(path, json.dumps({"run": run_name(index), "reason": reason}, indent=1) + "\n")

    def splits(self) -> dict[str, list[str]]:
        """The splits that have files, by configuration of the repository."""
        found: dict[str, list[str]] = {}
        for config in self.configs():
            present = {split_of(at) for at in self.finished(config)}
            if present:
                found[config] = found[f"{config}_runs"] = [split for split in SPLITS if split in present]
        for path in sorted(self.root.glob("data/*_examples/*.parquet")):
            found.setdefault(path.parent.name, []).append(path.stem)
        return found

    def write_card(self) -> None:
        """Write README.md, if it changes: the YAML that makes `load_dataset` work, and what a reader wants to know."""
        path, text = self.root / "README.md", render_card(self.splits(), self._summaries())
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)

    def _summaries(self) -> list[dict[str, Any]]:
        summaries = []
        for config in self.configs():
            finished = self.finished(config)
            if not finished:
                continue
            row = read_parquet(self.run_row_path(config, finished[0])).to_pylist()[0]
            columns = read_parquet(self.run_path(config, finished[0]))
            metrics = [name for name in columns.column_names if name in ("loss", "accuracy", *GENERATED_METRICS)]
            summaries.append(
                row
                | {
                    "splits": {s: sum(split_of(at) == s for at in finished) for s in SPLITS},
                    "metrics": metrics,
                    "steps": len(row["curriculum"]),
                    "test_examples": columns.num_rows,
                }
            )
        return summaries

    def _run_row(self, settings: RunSettings, base: BaseModel, run: Run) -> dict[str, Any]:
        values = settings.to_dict()
        return {name: values[name] for name in RUN_SCHEMA.names if name in values} | {
            "run": run_name(run.index),
            "index": run.index,
            "task": settings.task,
            "scenario": "finetune",
            "base_model": base.name,
            "base_revision": base.revision,
            "curriculum": run.curriculum,
            "learning_rate": run.learning_rate,
            "peak_learning_rate": settings.learning_rate,
            "optimizer": "adamw",
            "schedule": "linear",
            "precision": "fp32",
            "versions": library_versions(),
        }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}). Restore it, or collect into another folder") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: not a JSON object. Restore it, or collect into another folder")
    return content


def _trajectories(test_ids: list[int], run: Run) -> pa.Table:
    metrics = tuple(run.metrics)
    rows = len(test_ids)
    columns: dict[str, Any] = {
        "run": [run_name(run.index)] * rows,
        "test_id": test_ids,
        "step": [run.step] * rows,
        "generation_step": [run.generation_step] * rows,
    }
    columns |= {name: list(values.T) for name, values in run.metrics.items()}
    schema = trajectory_schema(metrics)
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)
