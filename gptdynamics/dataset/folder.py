"""A dataset folder: at every moment a valid dataset repository that `load_dataset` reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
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
from gptdynamics.dataset.card import CARD, FIGURE, HERE, is_older_card, merge_card, read_card, render_card
from gptdynamics.dataset.card_figure import draw_runs, picture_is_ours
from gptdynamics.dataset.licences import rows_licences
from gptdynamics.dataset.metric_record import metric_differences, metrics_entry, own_metrics
from gptdynamics.dataset.recorded import EARLIER_RECORDING
from gptdynamics.dataset.run_files import read_run_row, read_trajectories
from gptdynamics.dataset.schema import EXAMPLE_SCHEMA, read_parquet, write_parquet
from gptdynamics.dataset.tables import product_table, run_row, trajectory_table, vector_table
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.metrics import METRICS, Metric
from gptdynamics.models.local_models import published_name
from gptdynamics.parsing import parse_object, read_bytes
from gptdynamics.plans import PlanEntry
from gptdynamics.runs import Run
from gptdynamics.tasks import Mixture, Task, get_task

_RUN_FILE = re.compile(r"(train|validation|test|test_unseen)-(u?(?:[0-9]{4}|[1-9][0-9]{4,}))\.parquet")


class DatasetFolder:
    """Paths and contents of a dataset folder (see the data model in docs/dataset.md).

    Args:
        root: the folder; it need not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

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
        """What differs between two identical runs (`timing`), or why one has no numbers (`failed`)."""
        run_parts(run)
        return self.root / "sidecar" / config / f"{run}.{kind}.json"

    def manifest_path(self, config: str) -> Path:
        """The settings a config was collected with."""
        return self.root / "manifests" / f"{config}.json"

    def configs(self) -> list[str]:
        """Configs that were begun, by name."""
        begun = {path.stem for path in self.root.glob("manifests/*.json")}
        found = {path.parent.name.removesuffix("_runs") for path in self.root.glob("data/*_runs/*.parquet")}
        return sorted(begun | found)

    def finished(self, config: str) -> list[str]:
        """Names of the runs whose files are both there: those on the pool, then those on unseen rows."""
        folder = self.root / "data" / config
        names = (_RUN_FILE.fullmatch(path.name) for path in folder.glob("*.parquet"))
        found = {match.group(2) for match in names if match}
        there = (
            run for run in found if self.run_path(config, run).exists() and self.run_row_path(config, run).exists()
        )
        return sorted(there, key=lambda run: (run_parts(run)[1], run_parts(run)[0]))

    def failed(self, config: str) -> dict[str, str]:
        """Reasons of runs that diverged, by run."""
        found = (self.root / "sidecar" / config).glob("*.failed.json")
        return {path.name.split(".")[0]: str(read_json(path).get("reason")) for path in sorted(found)}

    def manifest(self, config: str) -> dict[str, Any]:
        """What a config was begun with: `settings`, `base_revision`, and how many runs were `planned`.

        Raises:
            DataError: it is damaged.
        """
        manifest = read_json(self.manifest_path(config))
        if not all(isinstance(manifest.get(name), dict) for name in ("settings", "planned")):
            raise DataError(f"{self.manifest_path(config)}: not a manifest. Restore it, or collect into another folder")
        return manifest

    def _part(self, config: str, name: str) -> dict[str, Any] | None:
        if not self.manifest_path(config).exists():
            return None
        part = self.manifest(config).get(name)
        return part if isinstance(part, dict) else None

    def origin(self, config: str) -> dict[str, Any] | None:
        """Where a config's runs were imported from, as `begin_imported` was told; None for others.

        Raises:
            DataError: its manifest is damaged.
        """
        return self._part(config, "origin")

    def recording(self, config: str) -> dict[str, Any] | None:
        """How a config's runs were recorded in training of somebody's own, as `begin_recorded` was told; else None.

        Raises:
            DataError: its manifest is damaged.
        """
        return self._part(config, "recording")

    def base_model(self, config: str) -> str | None:
        """What names the base model that a config's runs start from; None of imported runs, whose release says it.

        Raises:
            DataError: its manifest is damaged.
        """
        settings = self.manifest(config)["settings"]
        if settings:
            return str(settings.get("base_model") or config_parts(config)[1])
        recording = self.recording(config)
        return None if recording is None else str(recording.get("base_model"))

    def tokenization(self, config: str) -> Tokenization:
        """How the prompts and targets of a config's runs were tokenised; `joined` where nothing says so.

        Of recorded runs whose training has a rule of its own, whether that tokenises both as one text.

        Raises:
            DataError: its manifest is damaged.
        """
        settings, recording = self._part(config, "settings"), self.recording(config)
        if recording is not None:
            made = (EARLIER_RECORDING | recording)["tokenization"]
            rules = made.get("rules") if isinstance(made, dict) else None
            first = next(iter(rules.values()), None) if isinstance(rules, dict) else None
            return (
                "separate" if "separate" in (made, first.get("text") if isinstance(first, dict) else "") else "joined"
            )
        rule = (EARLIER_SETTINGS | settings)["tokenization"] if settings else "joined"
        if rule not in TOKENIZATIONS:
            raise DataError(f"{self.manifest_path(config)}: tokenization {rule!r} is none. Restore the file")
        return rule

    def own_metrics(self, config: str) -> dict[str, Metric]:
        """The metrics of a config that are its task's own, by name, as its manifest describes them.

        Raises:
            DataError: its manifest is damaged.
        """
        if not self.manifest_path(config).exists():
            return {}
        try:
            return own_metrics(self.manifest(config))
        except SettingsError as error:
            raise DataError(f"{self.manifest_path(config)}: metrics: {error}. Restore the file") from error

    def metrics(self, config: str) -> dict[str, Metric]:
        """The metrics that the runs of a config may have: the package's, then those of its task's own.

        Raises:
            DataError: its manifest is damaged.
        """
        return METRICS | self.own_metrics(config)

    def check_settings(self, entry: PlanEntry, base_revision: str | None = None) -> None:
        """Compare with the manifest that the config was begun with, if there is one.

        Args:
            entry: what is asked for now; the number of runs may differ.
            base_revision: weights of the base model, where they are known already.

        Raises:
            SettingsError: the config was begun with other settings or weights; the message lists them.
        """
        if not self.manifest_path(entry.config).exists():
            return
        manifest = self.manifest(entry.config)
        self.own_metrics(entry.config)
        if not manifest["settings"]:
            raise SettingsError(
                f"{self.root} holds runs of {entry.config} that were not collected: give another --output"
            )
        differences = entry.settings.differences(manifest["settings"])
        if base_revision is not None and manifest.get("base_revision") != base_revision:
            differences.append(f"base_revision: {manifest.get('base_revision')!r} there, {base_revision!r} now")
        differences += metric_differences(manifest, metrics_entry(get_task(entry.settings.task)))
        if differences:
            raise SettingsError(
                f"{self.root} holds {entry.config} made with other settings ({'; '.join(differences)}). "
                "Give the same settings, or another --output"
            )

    def begin(self, entry: PlanEntry, base_revision: str) -> None:
        """Begin a config, or go on with it: check its settings, and write down what is planned."""
        self.check_settings(entry, base_revision)
        path = self.manifest_path(entry.config)
        planned = {"runs": entry.runs, "unseen_runs": entry.unseen_runs}
        if path.exists():
            before = self.manifest(entry.config)["planned"]
            planned = {name: max(count, int(before.get(name, 0))) for name, count in planned.items()}
        manifest = {"settings": entry.settings.to_dict(), "base_revision": base_revision, "planned": planned}
        self._write_manifest(entry.config, manifest | metrics_entry(get_task(entry.settings.task)))

    def _write_manifest(self, config: str, manifest: dict[str, Any]) -> None:
        path = self.manifest_path(config)
        text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)

    def begin_imported(self, config: str, base_revision: str, runs: int, origin: dict[str, Any]) -> None:
        """Begin a config whose runs were made elsewhere, or go on with it: it has no settings of ours.

        Args:
            config: its name.
            base_revision: of the model that they start from, `unknown` if that is not said.
            runs: how many there are to be.
            origin: where they come from; plain values.

        Raises:
            SettingsError: the folder holds a config of that name that was not imported.
        """
        path = self.manifest_path(config)
        if path.exists() and self.origin(config) is None:
            raise SettingsError(f"{self.root} holds runs of {config} that were not imported: give another --output")
        planned = {"runs": runs, "unseen_runs": 0}
        manifest = {"settings": {}, "base_revision": base_revision, "planned": planned, "origin": origin}
        self._write_manifest(config, manifest)

    def check_recorded(self, config: str, base_revision: str, recording: dict[str, Any], task: Task | Mixture) -> None:
        """Compare with the manifest that a recorded config was begun with, if there is one.

        Args:
            config: its name.
            base_revision: of the model that its runs start from.
            recording: how runs are to be recorded; plain values.
            task: of the config.

        Raises:
            SettingsError: the config was begun otherwise; the message lists the differences.
        """
        if not self.manifest_path(config).exists():
            return
        before = self.recording(config)
        if before is None:
            raise SettingsError(f"{self.root} holds runs of {config} that were not recorded: name another folder")
        there = EARLIER_RECORDING | before | {"base_revision": self.manifest(config).get("base_revision")}
        if isinstance(there.get("base_model"), str):
            # Manifests of earlier versions have the path of a folder.
            there["base_model"] = published_name(there["base_model"])
        now = recording | {"base_revision": base_revision}
        differences = [
            f"{name}: {there.get(name)!r} there, {now.get(name)!r} now"
            for name in sorted(there.keys() | now.keys())
            if there.get(name) != now.get(name)
        ]
        self.own_metrics(config)
        differences += metric_differences(self.manifest(config), metrics_entry(task))
        if differences:
            raise SettingsError(
                f"{self.root} holds {config} recorded otherwise ({'; '.join(differences)}). "
                "Record it in the same way, or name another folder or config"
            )

    def begin_recorded(
        self, config: str, base_revision: str, run: str, recording: dict[str, Any], task: Task | Mixture
    ) -> None:
        """Begin a config whose runs are recorded in training of somebody's own, or go on with it.

        Args:
            config: its name.
            base_revision: of the model that its runs start from.
            run: that is to come.
            recording: what its runs share; plain values.
            task: of the config.

        Raises:
            SettingsError: the config was begun otherwise; the message lists the differences.
        """
        self.check_recorded(config, base_revision, recording, task)
        planned = {"runs": 0, "unseen_runs": 0}
        if self.manifest_path(config).exists():
            planned |= {name: int(count) for name, count in self.manifest(config)["planned"].items()}
        index, unseen = run_parts(run)
        kind = "unseen_runs" if unseen else "runs"
        planned[kind] = max(planned[kind], index + 1)
        manifest = {"settings": {}, "base_revision": base_revision, "planned": planned, "recording": recording}
        self._write_manifest(config, manifest | metrics_entry(task))

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
            row["target"] = row["target"] or None
        if path.exists():
            old = {row["id"]: row for row in read_parquet(path).to_pylist()}
            withheld = {key for key, row in old.items() if row["prompt"] is None}
            for key in (old.keys() & rows.keys()) - withheld:
                if any(old[key][name] != rows[key][name] for name in ("prompt", "target", "references")):
                    raise DataError(f"{path}: example {key} has another text than the rows given now")
            if rows.keys() <= old.keys() - withheld:
                return
            rows = old | rows
        ordered = [rows[key] for key in sorted(rows)]
        write_parquet(pa.Table.from_pylist(ordered, schema=EXAMPLE_SCHEMA), path)

    def add_run(self, settings: RunSettings, base: tuple[str, str], test: list[Example], run: Run) -> None:
        """Write a finished run: its description, gradient products and timing; its trajectories last.

        Args:
            settings: of the config.
            base: name and revision of the base model.
            test: test examples, in the order of the run's columns.
            run: what it left behind.
        """
        config = settings.config
        if run.products:
            write_parquet(product_table(settings, run), self.products_path(config, run.name))
        self.add_timing(config, run)
        trajectories = trajectory_table(get_task(settings.task), test, run, settings.gradients != "none")
        self.add_tables(config, run.name, run_row(settings, base, run), trajectories)

    def add_timing(self, config: str, run: Run) -> None:
        """Write where the time of a run went."""
        timing = asdict(run.timing) | {"forward_passes_per_measurement": run.timing.forward_passes}
        write_text(self.sidecar_path(config, run.name, "timing"), json.dumps(timing, indent=1) + "\n")

    def add_tables(self, config: str, run: str, row: pa.Table, trajectories: pa.Table) -> None:
        """Write a run that is tables already: its description, and its trajectories last.

        Args:
            config: that it belongs to.
            run: its name.
            row: one row, of `RUN_SCHEMA` or `RECORDED_RUN_SCHEMA`.
            trajectories: a row for each test example.
        """
        write_parquet(row, self.run_row_path(config, run))
        write_parquet(trajectories, self.run_path(config, run))
        self.sidecar_path(config, run, "failed").unlink(missing_ok=True)

    def add_failure(self, config: str, run: str, reason: str) -> None:
        """Record that a run diverged; it gets no numbers."""
        path = self.sidecar_path(config, run, "failed")
        write_text(path, json.dumps({"run": run, "reason": reason}, indent=1) + "\n")

    def add_vectors(
        self, settings: RunSettings, pool: tuple[list[int], np.ndarray], test: tuple[list[int], np.ndarray]
    ) -> None:
        """Write the projected gradients of the base model: ids and vectors of pool and test examples."""
        write_parquet(vector_table(settings, pool, test), self.vectors_path(settings.config))

    def has_vectors(self, config: str, pool: Iterable[int]) -> bool:
        """Whether the projected gradients of all these pool examples are there; runs on unseen rows need more."""
        path = self.vectors_path(config)
        if not path.exists():
            return False
        rows = read_parquet(path, ["part", "id"]).to_pylist()
        return set(pool) <= {row["id"] for row in rows if row["part"] == "pool"}

    def remove_leftovers(self) -> None:
        """Remove the unfinished files of processes that were killed."""
        remove_leftovers(self.root)

    def patterns(self) -> dict[str, dict[str, str]]:
        """For each configuration of the repository, the files of each of its splits, as a glob."""
        found: dict[str, dict[str, str]] = {}

        def runs(name: str, present: set[str]) -> dict[str, str]:
            return {split: f"data/{name}/{split}-*.parquet" for split in SPLITS if split in present}

        for config in self.configs():
            finished = self.finished(config)
            present: set[str] = {split_of(run) for run in finished}
            if present:
                found[config] = runs(config, present)
                found[f"{config}_runs"] = runs(f"{config}_runs", present)
            products: set[str] = {split_of(run) for run in finished if self.products_path(config, run).exists()}
            base = {"base": f"data/{config}_gradients/base.parquet"} if self.vectors_path(config).exists() else {}
            if base or products:
                found[f"{config}_gradients"] = base | runs(f"{config}_gradients", products)
        for path in sorted(self.root.glob("data/*_examples/*.parquet")):
            found.setdefault(path.parent.name, {})[path.stem] = f"data/{path.parent.name}/{path.name}"
        return found

    def card_files(self, old: str, source: str = HERE, picture: bool = True) -> dict[str, str]:
        """The card, `README.md`, and its picture where there are runs to draw.

        The card has the YAML that makes `load_dataset` work, and what a reader wants to know.

        Args:
            old: the card that is there; what somebody wrote into it is kept, see `merge_card`. Empty: there is none.
            source: what a reader loads it by.
            picture: whether there may be one: not where somebody else's has its name.

        Raises:
            DataError: the old card's YAML cannot be read, or a file that the card is about is damaged.
        """
        licences = rows_licences(sorted(self.root.glob("data/*_examples/*.parquet")))
        finished = {config: self.finished(config) for config in self.configs()}
        own = {config: list(self.own_metrics(config).values()) for config in finished}
        figure = draw_runs(finished, self.run_path, own) if picture else None
        text = render_card(self.patterns(), self._summaries(), licences, source, figure is not None)
        card = {CARD: merge_card(old, text) if old else text}
        return card if figure is None else card | {FIGURE: figure}

    def write_card(self) -> None:
        """Write the card and its picture, where they change.

        What somebody wrote into the card is kept, and so is a picture of theirs that has the name of ours; only a card
        of an older version is replaced.

        Raises:
            DataError: the card that is there cannot be read, or a file that it is about is damaged.
        """
        old = read_card(self.root / CARD)
        picture = self.root / FIGURE
        theirs = picture.exists() and not (picture.is_file() and picture_is_ours(picture.read_text("utf-8", "replace")))
        made = self.card_files("" if is_older_card(old) else old, picture=not theirs)
        for name, text in made.items():
            path = self.root / name
            if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text:
                write_text(path, text)

    def _summaries(self) -> list[dict[str, Any]]:
        summaries = []
        for config in self.configs():
            finished = self.finished(config)
            if not finished:
                continue
            row = read_run_row(self.run_row_path(config, finished[0]), config, finished[0])
            columns = read_trajectories(self.run_path(config, finished[0]), finished[0])
            metrics = self.metrics(config)
            counts = {split: sum(split_of(run) == split for run in finished) for split in SPLITS}
            summaries.append(
                row
                | {
                    "splits": counts,
                    "metrics": [name for name in columns.column_names if name in metrics],
                    "own_metrics": list(self.own_metrics(config).values()),
                    "steps": len(row["curriculum"]),
                    "test_examples": columns.num_rows,
                    "imported": self.origin(config) is not None,
                    "recorded": self.recording(config) is not None,
                    "failed": len(self.failed(config)),
                }
            )
        return summaries


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        return parse_object(read_bytes(path), str(path))
    except DataError as error:
        raise DataError(f"{error}. Restore it, or collect into another folder") from error
