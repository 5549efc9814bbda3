"""A dataset folder: at every moment a valid dataset repository that `load_dataset` reads."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gptdynamics.atomic import remove_leftovers, write_text
from gptdynamics.configs import (
    EARLIER_SETTINGS,
    SPLITS,
    TOKENIZATIONS,
    RunSettings,
    Tokenization,
    config_parts,
    run_parts,
    split_of,
)
from gptdynamics.dataset.card_content import write_card
from gptdynamics.dataset.manifest import (
    EARLIER_RECORDING,
    Kind,
    kind_of,
    manifest_differences,
    merge_manifests,
    metrics_entry,
    own_metrics,
    read_manifest,
)
from gptdynamics.dataset.schema import COUNTERFACTUAL_COLUMNS, EXAMPLE_SCHEMA, read_parquet, write_parquet
from gptdynamics.dataset.tables import product_table, run_row, trajectory_table, vector_table
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.metrics import METRICS, Metric
from gptdynamics.parsing import read_object
from gptdynamics.plans import PlanEntry
from gptdynamics.runs import Run
from gptdynamics.tasks import Mixture, Task, get_task, is_of_package
from gptdynamics.tasks.declared import declaration_differences, declaration_of, to_toml
from gptdynamics.tasks.kept_tasks import FOLDER, read_kept_task, remember_kept_tasks

_NUMBER = r"(?:[0-9]{4}|[1-9][0-9]{4,})"
_RUN_FILE = re.compile(rf"({'|'.join(SPLITS)})-((?:u|c{_NUMBER}-)?{_NUMBER})\.parquet")
# For each kind of runs: in which state a config with another manifest is, and the remedies.
_REMEDIES: dict[Kind, tuple[str, str, str]] = {
    "collected": ("made with other settings", "Give the same settings, or another --output", "give another --output"),
    "recorded": (
        "recorded with other settings",
        "Record it in the same way, or name another folder or config",
        "name another folder",
    ),
    "imported": ("imported with other settings", "Give another --output", "give another --output"),
}


class DatasetFolder:
    """Paths and contents of a dataset folder, which need not exist yet (its files: docs/reference/files.md)."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        remember_kept_tasks(self.root)

    def run_path(self, config: str, run: str) -> Path:
        """Trajectories of a run."""
        return self.root / "data" / config / f"{split_of(run)}-{run}.parquet"

    def run_row_path(self, config: str, run: str) -> Path:
        """The row that describes a run."""
        return self.root / "data" / f"{config}_runs" / f"{split_of(run)}-{run}.parquet"

    def products_path(self, config: str, run: str) -> Path:
        """Pool x test gradient products of a run."""
        return self.root / "data" / f"{config}_gradients" / f"{split_of(run)}-{run}.parquet"

    def vectors_path(self, config: str) -> Path:
        """Projected gradients of the base model."""
        return self.root / "data" / f"{config}_gradients" / "base.parquet"

    def examples_path(self, task: str, part: str) -> Path:
        """Examples of a task; `part` is `pool` or `test`."""
        return self.root / "data" / f"{task}_examples" / f"{part}.parquet"

    def sidecar_path(self, config: str, run: str, kind: str) -> Path:
        """The file of a run's `timing`, which may differ between identical runs, or of why it `failed`."""
        run_parts(run)
        return self.root / "sidecar" / config / f"{run}.{kind}.json"

    def task_path(self, task: str) -> Path:
        """The declaration of a task that does not come with the package."""
        return self.root / FOLDER / f"{task}.toml"

    def manifest_path(self, config: str) -> Path:
        """The settings a config was collected with."""
        return self.root / "manifests" / f"{config}.json"

    def configs(self) -> list[str]:
        """Names of the configs that have a manifest or runs."""
        from_manifests = {path.stem for path in self.root.glob("manifests/*.json")}
        return sorted(
            from_manifests
            | {path.parent.name.removesuffix("_runs") for path in self.root.glob("data/*_runs/*.parquet")}
        )

    def finished(self, config: str) -> list[str]:
        """Names of the runs that have both files: those on the pool, on unseen rows, then counterfactual runs."""
        matches = (_RUN_FILE.fullmatch(path.name) for path in (self.root / "data" / config).glob("*.parquet"))
        runs = {match.group(2) for match in matches if match}
        complete = [
            run for run in runs if self.run_path(config, run).exists() and self.run_row_path(config, run).exists()
        ]
        return sorted(complete, key=lambda run: run_parts(run).order)

    def failed(self, config: str) -> dict[str, str]:
        """Reasons of runs that diverged, by run."""
        paths = sorted((self.root / "sidecar" / config).glob("*.failed.json"))
        remedy = "Restore it, or collect into another folder"
        return {path.name.split(".")[0]: str(read_object(path, remedy).get("reason")) for path in paths}

    def manifest(self, config: str) -> dict[str, Any]:
        """The manifest of a config: `settings`, `base_revision`, numbers of `planned` runs, and more."""
        return read_manifest(self.manifest_path(config))

    def _part(self, config: str, name: str) -> dict[str, Any] | None:
        part = self.manifest(config).get(name) if self.manifest_path(config).exists() else None
        return part if isinstance(part, dict) else None

    def origin(self, config: str) -> dict[str, Any] | None:
        """The origin of a config's imported runs; None if they were not imported."""
        return self._part(config, "origin")

    def recording(self, config: str) -> dict[str, Any] | None:
        """How a config's runs were recorded from a user's training; None if they were not recorded."""
        return self._part(config, "recording")

    def base_model(self, config: str) -> str | None:
        """The base model that a config's runs start from; None for imported runs, whose release names it."""
        settings = self.manifest(config)["settings"]
        if settings:
            return str(settings.get("base_model") or config_parts(config)[1])
        recording = self.recording(config)
        return None if recording is None else str(recording.get("base_model"))

    def tokenization(self, config: str) -> Tokenization:
        """How prompts and targets of a config's runs were tokenised; `joined` if that is not recorded.

        For recorded runs whose training has its own rule, it says whether that rule tokenises both as one text.
        """
        settings, recording = self._part(config, "settings"), self.recording(config)
        if recording is not None:
            recorded = (EARLIER_RECORDING | recording)["tokenization"]
            rules = recorded.get("rules") if isinstance(recorded, dict) else None
            first = next(iter(rules.values()), None) if isinstance(rules, dict) else None
            text = first.get("text") if isinstance(first, dict) else None
            return "separate" if "separate" in (recorded, text) else "joined"
        rule = (EARLIER_SETTINGS | settings)["tokenization"] if settings else "joined"
        if rule not in TOKENIZATIONS:
            raise DataError(f"{self.manifest_path(config)}: unknown tokenization {rule!r}. Restore the file")
        return rule

    def token_rule(self, config: str) -> str:
        """What tells one way of making tokens and targets of texts from another.

        A name or, of a rule that was inferred from a training, a digest. Rows whose tokens were given have `rows`.
        """
        recording = self.recording(config)
        if recording is None:
            return self.tokenization(config)
        rule = (EARLIER_RECORDING | recording)["tokenization"]
        if isinstance(rule, dict) and "rows" not in rule:
            return hashlib.sha256(json.dumps(rule, sort_keys=True).encode()).hexdigest()[:16]
        return rule if isinstance(rule, str) else "rows"

    def own_metrics(self, config: str) -> dict[str, Metric]:
        """The metrics of a config that its task defines, by name; raises DataError if the manifest is damaged."""
        if not self.manifest_path(config).exists():
            return {}
        try:
            return own_metrics(self.manifest(config))
        except SettingsError as error:
            raise DataError(f"{self.manifest_path(config)}: metrics: {error}. Restore the file") from error

    def metrics(self, config: str) -> dict[str, Metric]:
        """The metrics that the runs of a config may have: the package's, then those that its task defines."""
        return METRICS | self.own_metrics(config)

    def _check(self, config: str, manifest: dict[str, Any]) -> None:
        """Raise SettingsError if the config has another manifest than this one."""
        if not self.manifest_path(config).exists():
            return
        present, kind = self.manifest(config), kind_of(manifest)
        self.own_metrics(config)
        if kind is None or kind_of(present) != kind:
            remedy = _REMEDIES[kind][2] if kind else "name another folder"
            raise SettingsError(f"{self.root} holds runs of {config} that were not {kind}: {remedy}")
        differences = [] if kind == "imported" else manifest_differences(present, manifest)
        if differences:
            state, remedy, _ = _REMEDIES[kind]
            raise SettingsError(f"{self.root} holds {config} {state} ({'; '.join(differences)}). {remedy}")

    def _check_task(self, task: Task | Mixture) -> None:
        """Raise SettingsError if the folder stores another task of this name."""
        path = self.task_path(task.name)
        if isinstance(task, Mixture) or is_of_package(task.name) or not path.is_file():
            return
        differences = declaration_differences(declaration_of(read_kept_task(path)), declaration_of(task))
        if differences:
            raise SettingsError(
                f"{path} declares another task {task.name} ({'; '.join(differences)}). "
                "Name its file with --task-file, or give another --output"
            )

    def _keep_task(self, task: Task | Mixture) -> None:
        """Write the declaration of a task, for all commands that read this folder later."""
        if isinstance(task, Mixture) or is_of_package(task.name):
            return
        path, values = self.task_path(task.name), declaration_of(task)
        if path.is_file():
            values = declaration_of(read_kept_task(path)) | values
        text = to_toml(values)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
        remember_kept_tasks(self.root)

    def _begin(self, config: str, manifest: dict[str, Any]) -> None:
        """Begin a config, or continue it: check the manifest, and write the planned numbers of runs."""
        self._check(config, manifest)
        path = self.manifest_path(config)
        if path.exists():
            manifest = merge_manifests(self.manifest(config), manifest)
        text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)

    def check_settings(self, entry: PlanEntry, base_revision: str | None = None) -> None:
        """Compare with the manifest of the config, if there is one; the numbers of runs may differ.

        Raises SettingsError, with the differences, if it has other settings or (if known) another base revision.
        """
        self._check(entry.config, _collected_manifest(entry, base_revision))
        self._check_task(get_task(entry.settings.task))

    def begin(self, entry: PlanEntry, base_revision: str) -> None:
        """Begin a config that is collected, or continue it; raises like `check_settings`."""
        task = get_task(entry.settings.task)
        self._check_task(task)
        self._begin(entry.config, _collected_manifest(entry, base_revision))
        self._keep_task(task)

    def begin_imported(self, config: str, base_revision: str, runs: int, origin: dict[str, Any]) -> None:
        """Begin a config whose runs were made elsewhere, or continue it; `origin` says where, in plain values.

        Raises SettingsError if the folder has a config of that name that was not imported.
        """
        planned = {"runs": runs, "unseen_runs": 0}
        manifest = {"settings": {}, "base_revision": base_revision, "planned": planned, "origin": origin}
        self._begin(config, manifest)

    def check_recorded(self, config: str, base_revision: str, recording: dict[str, Any], task: Task | Mixture) -> None:
        """Compare with the manifest of a recorded config, if there is one; `recording` is plain values.

        Raises SettingsError, with the differences, if it has other settings.
        """
        self._check(config, _recorded_manifest(base_revision, recording, task))

    def begin_recorded(
        self, config: str, base_revision: str, run: str, recording: dict[str, Any], task: Task | Mixture
    ) -> None:
        """Begin a config whose run `run` is recorded from a user's training; raises like `check_recorded`."""
        index, unseen = run_parts(run).index, run_parts(run).unseen
        planned = {"runs": 0 if unseen else index + 1, "unseen_runs": index + 1 if unseen else 0}
        self._check_task(task)
        self._begin(config, _recorded_manifest(base_revision, recording, task) | {"planned": planned})
        self._keep_task(task)

    def add_examples(self, task: str, part: str, examples: list[Example]) -> None:
        """Write a task's examples, or add those that are not in the file yet.

        Raises DataError if an example in the file has another text.
        """
        path = self.examples_path(task, part)
        rows = {example.id: asdict(example) for example in examples}
        for row in rows.values():
            row["source"] = json.dumps(row["source"], sort_keys=True)
            row["references"] = list(row["references"])
            row["target"] = row["target"] or None
        if path.exists():
            old = {row["id"]: row for row in read_parquet(path).to_pylist()}
            withheld = {key for key, row in old.items() if row["prompt"] is None}
            for key in (old.keys() & rows.keys()) - withheld:
                if any(old[key][name] != rows[key][name] for name in ("prompt", "target", "references")):
                    raise DataError(
                        f"{path}: example {key} has another text than the given rows. Give the rows of the first "
                        "collection, or another --output"
                    )
            if rows.keys() <= old.keys() - withheld:
                return
            rows = old | rows
        ordered = [rows[key] for key in sorted(rows)]
        write_parquet(pa.Table.from_pylist(ordered, schema=EXAMPLE_SCHEMA), path)

    def add_run(self, settings: RunSettings, base: tuple[str, str], test: list[Example], run: Run) -> None:
        """Write a finished run: its description, gradient products and timing; its trajectories last.

        `base` is name and revision of the base model; `test` are the test examples, in the order of the run's columns.
        """
        config = settings.config
        self.add_products(config, settings.pool_ids, run)
        self.add_timing(config, run)
        trajectories = trajectory_table(get_task(settings.task), test, run, settings.gradients != "none")
        self.add_tables(config, run.name, run_row(settings, base, run), trajectories)

    def add_products(self, config: str, pool_ids: Sequence[int], run: Run) -> None:
        """Write a run's gradient products, if it has any."""
        if run.products:
            write_parquet(product_table(pool_ids, run), self.products_path(config, run.name))

    def add_timing(self, config: str, run: Run) -> None:
        """Write the seconds spent on the parts of a run."""
        timing = asdict(run.timing) | {"forward_passes_per_measurement": run.timing.forward_passes}
        write_text(self.sidecar_path(config, run.name, "timing"), json.dumps(timing, indent=1) + "\n")

    def add_tables(self, config: str, run: str, row: pa.Table, trajectories: pa.Table) -> None:
        """Write a run from its tables: one row of `RUN_SCHEMA` or `RECORDED_RUN_SCHEMA`, then the trajectories."""
        write_parquet(self._with_columns_of(config, row), self.run_row_path(config, run))
        write_parquet(trajectories, self.run_path(config, run))
        self.sidecar_path(config, run, "failed").unlink(missing_ok=True)

    def _with_columns_of(self, config: str, row: pa.Table) -> pa.Table:
        """A run's row with the columns of the config's other rows, because a configuration has one schema.

        Rows of earlier versions lack the columns of counterfactual runs: when the first such run is added, these
        columns are added to the other rows, with nulls.
        """
        run_files = [path for path in self.root.glob(f"data/{config}_runs/*.parquet") if _RUN_FILE.fullmatch(path.name)]
        earlier = [path for path in run_files if not set(COUNTERFACTUAL_COLUMNS) & set(read_parquet(path).column_names)]
        if not earlier or not set(COUNTERFACTUAL_COLUMNS) <= set(row.column_names):
            return row
        if row["repeats"].null_count == row.num_rows:
            return row.drop_columns(list(COUNTERFACTUAL_COLUMNS))
        for path in earlier:
            old = read_parquet(path)
            for name in COUNTERFACTUAL_COLUMNS:
                old = old.append_column(row.schema.field(name), pa.nulls(old.num_rows, row.schema.field(name).type))
            write_parquet(old, path)
        return row

    def add_failure(self, config: str, run: str, reason: str) -> None:
        """Record that a run failed, instead of its values."""
        path = self.sidecar_path(config, run, "failed")
        write_text(path, json.dumps({"run": run, "reason": reason}, indent=1) + "\n")

    def add_vectors(
        self, settings: RunSettings, pool: tuple[list[int], np.ndarray], test: tuple[list[int], np.ndarray]
    ) -> None:
        """Write the projected gradients of the base model: ids and vectors of pool and test examples."""
        write_parquet(vector_table(settings, pool, test), self.vectors_path(settings.config))

    def has_vectors(self, config: str, pool: Iterable[int]) -> bool:
        """Whether the projected gradients of all these pool examples exist; runs on unseen rows need more of them."""
        path = self.vectors_path(config)
        if not path.exists():
            return False
        rows = read_parquet(path, ["part", "id"]).to_pylist()
        return set(pool) <= {row["id"] for row in rows if row["part"] == "pool"}

    def remove_leftovers(self) -> None:
        """Remove the unfinished files of processes that were killed."""
        remove_leftovers(self.root)

    def patterns(self) -> dict[str, dict[str, str]]:
        """For each configuration of the repository, a file pattern for each of its splits."""
        patterns: dict[str, dict[str, str]] = {}

        def add(name: str, runs: list[str], other_globs: dict[str, str]) -> None:
            splits = {split_of(run) for run in runs}
            globs = other_globs | {split: f"data/{name}/{split}-*.parquet" for split in SPLITS if split in splits}
            if globs:
                patterns[name] = globs

        for config in self.configs():
            finished = self.finished(config)
            add(config, finished, {})
            add(f"{config}_runs", finished, {})
            base = {"base": f"data/{config}_gradients/base.parquet"} if self.vectors_path(config).exists() else {}
            with_products = [run for run in finished if self.products_path(config, run).exists()]
            add(f"{config}_gradients", with_products, base)
        for path in sorted(self.root.glob("data/*_examples/*.parquet")):
            patterns.setdefault(path.parent.name, {})[path.stem] = f"data/{path.parent.name}/{path.name}"
        return patterns

    def write_card(self) -> None:
        """Write the card and its picture, if they change; see `gptdynamics.dataset.card_content.write_card`."""
        write_card(self)


def _collected_manifest(entry: PlanEntry, base_revision: str | None) -> dict[str, Any]:
    planned: dict[str, Any] = {"runs": entry.runs, "unseen_runs": entry.unseen_runs}
    if entry.counterfactuals:
        planned["counterfactuals"] = dict(entry.counterfactuals)
    manifest = {"settings": entry.settings.to_dict(), "base_revision": base_revision, "planned": planned}
    return manifest | metrics_entry(get_task(entry.settings.task))


def _recorded_manifest(base_revision: str, recording: dict[str, Any], task: Task | Mixture) -> dict[str, Any]:
    manifest = {"settings": {}, "base_revision": base_revision, "planned": {}, "recording": recording}
    return manifest | metrics_entry(task)
