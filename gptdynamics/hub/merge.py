"""The changes to a repository that add the runs of a folder to it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from gptdynamics.atomic import write_text
from gptdynamics.configs import RUN_FILE_PATTERN, RUN_PATTERN, config_parts, split_of, value_differences
from gptdynamics.dataset.card import CARD, FIGURE, is_older_card, read_card
from gptdynamics.dataset.card_content import card_files, drawn_runs, may_draw
from gptdynamics.dataset.checks.facts import config_facts
from gptdynamics.dataset.checks.findings import Findings, some
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.manifest import manifest_differences, merge_manifests, read_manifest
from gptdynamics.dataset.schema import EXAMPLE_SCHEMA, read_parquet, write_parquet
from gptdynamics.dataset.verify import verify_run
from gptdynamics.errors import DataError, GPTDynamicsError, SettingsError
from gptdynamics.hub.repository import RemoteFile, Repository
from gptdynamics.models.base_model import unpublished_note
from gptdynamics.tasks.declared import declaration_differences, read_declaration
from gptdynamics.tasks.kept_tasks import FOLDER

# Only files with these names are read or written; none of them leads out of the folder.
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_FILES = (
    rf"manifests/{_NAME}_{_NAME}\.json",
    rf"{FOLDER}/{_NAME}\.toml",
    rf"data/{_NAME}_examples/(pool|test)\.parquet",
    rf"data/{_NAME}_gradients/base\.parquet",
    rf"data/{_NAME}/{RUN_FILE_PATTERN}",
    rf"sidecar/{_NAME}/{RUN_PATTERN}\.failed\.json",
)
_DATASET_FILE = re.compile("|".join(f"(?:{each})" for each in _FILES))


class Merge:
    """The runs of a folder merged with those of a repository at one commit.

    Args:
        folder: its finished runs are added.
        repository: to add them to.
        head: the commit to build on. None: the repository does not exist yet.
        scratch: an empty folder for merged files.
        replace: let runs of the folder replace existing runs of the same name.

    Attributes:
        changes: a local file for each path that changes; None: it is removed.
        runs: `<config>/<run>` of runs that are uploaded.
        notes: lines about what other users cannot get.

    Raises:
        SettingsError: the repository has other settings of a config, or other runs of the same names.
        DataError: the repository is not a dataset of this package, or a file is damaged.
    """

    def __init__(
        self, folder: DatasetFolder, repository: Repository, head: str | None, scratch: Path, replace: bool = False
    ) -> None:
        self.folder, self.repository, self.head = folder, repository, head
        self.replace = replace
        self.remote: Mapping[str, RemoteFile] = {} if head is None else repository.files(head)
        self.dataset_paths = {path for path in self.remote if _DATASET_FILE.fullmatch(path)}
        self.view = DatasetFolder(scratch / "view")
        self.changes: dict[str, Path | None] = {}
        self.runs: list[str] = []
        self.notes: list[str] = []
        with self._report_foreign_files():
            self._merge()

    @contextmanager
    def _report_foreign_files(self) -> Iterator[None]:
        """Report errors that foreign files in the repository cause, as their content can be anything."""
        try:
            yield
        except GPTDynamicsError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError, pa.ArrowException) as error:
            if self.head is None:
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(
                f"{self.repository.id}: a file there is not one of this package ({type(error).__name__}: {reason}). "
                "Correct it there, or push to another repository"
            ) from error

    def _merge(self) -> None:
        self._check_is_dataset()
        folder = self.folder
        tasks = sorted({config_parts(config)[0] for config in folder.configs() if folder.finished(config)})
        for task in tasks:
            self._add_task(task)
        for config in folder.configs():
            if folder.finished(config) or folder.failed(config):
                self._add_config(config)
        for task in tasks:
            for part in ("pool", "test"):
                self._add_examples(task, part)
        self._add_card()

    def _check_is_dataset(self) -> None:
        if not any(path.startswith("manifests/") for path in self.dataset_paths) and any(
            path not in (CARD, FIGURE, ".gitattributes", "LICENSE") for path in self.remote
        ):
            raise DataError(
                f"{self.repository.id} is not a GPTDynamics dataset: it has files, but no manifests. Name another one"
            )

    def _fetch(self, path: str) -> Path:
        assert self.head is not None
        return self.repository.fetch(path, self.head)

    def _put(self, path: str, file: Path) -> None:
        """Upload a file, unless the repository has the same content under its name."""
        present = self.remote.get(path)
        if present is None or not present.same_as(file):
            self.changes[path] = file

    def _local(self, path: str) -> Path:
        return self.folder.root / path

    def _add_config(self, config: str) -> None:
        self._add_manifest(config)
        facts = None
        conflicting = []
        for run in self.folder.finished(config):
            paths = [path for path in run_files(config, run) if self._local(path).exists()]
            changed = [path for path in paths if not self._is_unchanged(path)]
            if not changed:
                continue
            if facts is None:
                findings = Findings(self.folder.root)
                facts = config_facts(self.folder, config, findings)
                _raise_faults(findings.faults)
            _raise_faults(verify_run(self.folder, config, run, facts))
            if any(path in self.dataset_paths for path in changed):
                conflicting.append(run)
            self.runs.append(f"{config}/{run}")
            self.changes |= {path: self._local(path) for path in changed}
        if conflicting and not self.replace:
            raise SettingsError(
                f"{self.repository.id} has other values for {config}/{some(conflicting)}, made with the same "
                f"settings ({self._versions(config, conflicting[0])}). Keep those, or give --replace"
            )
        self._add_vectors(config)
        self._add_failures(config)
        note = self._base_model_note(config)
        if note is not None:
            self.notes.append(f"{config}: {note}")

    def _base_model_note(self, config: str) -> str | None:
        base = self.folder.base_model(config)
        if base is None:
            return None
        if self.folder.recording(config) is None:
            return unpublished_note(base)
        return unpublished_note(base, 'record with RecordSettings(base_model="<owner>/<name>")')

    def _is_unchanged(self, path: str) -> bool:
        """Whether the repository has this file, possibly written by another version of the Parquet library."""
        present = self.remote.get(path)
        if present is None:
            return False
        if present.same_as(self._local(path)):
            return True
        return read_parquet(self._fetch(path)).equals(read_parquet(self._local(path)))

    def _versions(self, config: str, run: str) -> str:
        """How the library versions of a run differ; with equal versions, two machines may still differ."""
        path = run_files(config, run)[1]
        if path not in self.remote:
            return "it lacks the rows that describe them"
        remote, local = (
            json.loads(read_parquet(file, ["versions"])["versions"][0].as_py() or "{}")
            for file in (self._fetch(path), self._local(path))
        )
        return "; ".join(value_differences(remote, local, "here")) or "with the same libraries: on another machine?"

    def _add_manifest(self, config: str) -> None:
        path = f"manifests/{config}.json"
        local = self.folder.manifest(config)
        if path not in self.remote:
            self._put(path, self._local(path))
            return
        try:
            remote = read_manifest(self._fetch(path))
        except DataError as error:
            message = f"{self.repository.id}: {path} is not a manifest. Correct it there, or push to another repository"
            raise DataError(message) from error
        differences = manifest_differences(remote, local, "here")
        if differences:
            raise SettingsError(
                f"{self.repository.id} has {config} made with other settings ({'; '.join(differences)}). "
                "Collect with its settings, or push to another repository"
            )
        merged = self.view.root.parent / path
        write_text(merged, json.dumps(merge_manifests(remote, local), indent=1, sort_keys=True) + "\n")
        self._put(path, merged)

    def _add_task(self, task: str) -> None:
        """Merge the declaration of a task; if only one of the two has templates, these are kept."""
        path = f"{FOLDER}/{task}.toml"
        if not self._local(path).is_file():
            return
        local = read_declaration(self._local(path))
        if path not in self.remote:
            self._put(path, self._local(path))
            return
        remote = read_declaration(self._fetch(path))
        differences = declaration_differences(remote, local, "here")
        if differences:
            raise SettingsError(
                f"{self.repository.id} has another task {task} ({'; '.join(differences)}). Push to another repository"
            )
        if remote.keys() < local.keys():
            self._put(path, self._local(path))

    def _add_vectors(self, config: str) -> None:
        """Upload the projected gradients, unless the repository has them for the same examples or more."""
        path = f"data/{config}_gradients/base.parquet"
        if not self._local(path).exists():
            return
        if path in self.remote and not self.remote[path].same_as(self._local(path)):
            remote, local = (
                {(row["part"], row["id"]) for row in read_parquet(file, ["part", "id"]).to_pylist()}
                for file in (self._fetch(path), self._local(path))
            )
            if local <= remote:
                return
        self._put(path, self._local(path))

    def _add_failures(self, config: str) -> None:
        failed = self.folder.failed(config)
        for run in failed:
            path = f"sidecar/{config}/{run}.failed.json"
            if run_files(config, run)[-1] not in self.remote:
                self._put(path, self._local(path))
        for run in self.folder.finished(config):
            path = f"sidecar/{config}/{run}.failed.json"
            if path in self.dataset_paths:
                self.changes[path] = None

    def _add_examples(self, task: str, part: str) -> None:
        path = f"data/{task}_examples/{part}.parquet"
        if path not in self.remote:
            if self._local(path).exists():
                self._put(path, self._local(path))
            return
        remote, local = (
            {row["id"]: row for row in read_parquet(file).to_pylist()}
            for file in (self._fetch(path), self._local(path))
        )
        for key in remote.keys() & local.keys():
            if not _same_example(remote[key], local[key]):
                raise SettingsError(
                    f"{self.repository.id}: example {key} of {path} differs there. Runs on different rows cannot "
                    "share a config: push to another repository"
                )
        # Published texts stay published; withheld ones are filled in if the folder has them.
        merged = {**local, **{key: row for key, row in remote.items() if row["prompt"] is not None or key not in local}}
        rows = [merged[key] for key in sorted(merged)]
        if rows == [remote[key] for key in sorted(remote)]:
            return
        written = self.view.root.parent / path
        write_parquet(pa.Table.from_pylist(rows, schema=EXAMPLE_SCHEMA), written)
        self._put(path, written)

    def _add_card(self) -> None:
        """Build the card in a folder with the names of all files, but only the contents that the card needs."""
        for path in self.dataset_paths - {path for path, file in self.changes.items() if file is None}:
            needed = path.startswith(("manifests/", "sidecar/")) or "_examples/" in path
            self._add_to_view(path, self._fetch(path) if needed and path not in self.changes else None)
        for path, file in self.changes.items():
            if file is not None:
                self._add_to_view(path, file)
        finished = {config: self.view.finished(config) for config in self.view.configs()}
        needed_paths = {
            path for config, runs in finished.items() for run in runs[:1] for path in run_files(config, run)[1:]
        }
        needed_paths |= {run_files(config, run)[-1] for config, runs in drawn_runs(finished).items() for run in runs}
        for path in needed_paths - self.changes.keys():
            self._add_to_view(path, self._fetch(path))
        source = self._fetch(CARD) if CARD in self.remote else self._local(CARD)
        picture = self._fetch(FIGURE) if FIGURE in self.remote else self._local(FIGURE)
        try:
            old = "" if is_older_card(card := read_card(source)) else card
            content = card_files(self.view, old, self.repository.id, may_draw(picture))
        except DataError as error:
            raise DataError(f"{self.repository.id}: {error}") from error
        for path, text in content.items():
            write_text(self.view.root / path, text)
            self._put(path, self.view.root / path)

    def _add_to_view(self, path: str, file: Path | None) -> None:
        """Add a file of this name to the view: the given file, or an empty one."""
        target = self.view.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if file is None:
            target.touch()
        else:
            target.symlink_to(file.resolve())


def run_files(config: str, run: str) -> list[str]:
    """Paths of a run's files in the repository, the trajectories last; gradient products may not exist."""
    name = f"{split_of(run)}-{run}.parquet"
    return [f"data/{config}{kind}/{name}" for kind in ("_gradients", "_runs", "")]


def _raise_faults(faults: list[Any]) -> None:
    if faults:
        suffix = f" (and {len(faults) - 1} more; gptdynamics verify lists them)" if len(faults) > 1 else ""
        raise DataError(f"nothing was pushed: {faults[0]}{suffix}")


def _same_example(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two rows are the same example; without texts, only their sources are compared."""
    if first["prompt"] is not None and second["prompt"] is not None:
        return all(first[name] == second[name] for name in ("prompt", "target", "references", "task"))
    return first["task"] == second["task"] and _source_row(first) == _source_row(second)


def _source_row(row: dict[str, Any]) -> dict[str, Any]:
    source = json.loads(row["source"] or "{}")
    return {name: value for name, value in source.items() if name != "fields"}
