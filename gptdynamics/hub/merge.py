"""What has to change in a repository so that it also holds the runs of a folder."""

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
from gptdynamics.dataset.checks.findings import Findings
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.manifest import manifest_differences, merge_manifests, read_manifest
from gptdynamics.dataset.schema import EXAMPLE_SCHEMA, read_parquet, write_parquet
from gptdynamics.dataset.verify import verify_run
from gptdynamics.errors import DataError, GPTDynamicsError, SettingsError
from gptdynamics.hub.repository import RemoteFile, Repository
from gptdynamics.models.base_model import unpublished_note
from gptdynamics.tasks.declared import declaration_differences, read_declaration
from gptdynamics.tasks.kept_tasks import FOLDER

# Only files of these names are read or written: none of them leads out of a folder.
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_FILES = (
    rf"manifests/{_NAME}_{_NAME}\.json",
    rf"{FOLDER}/{_NAME}\.toml",
    rf"data/{_NAME}_examples/(pool|test)\.parquet",
    rf"data/{_NAME}_gradients/base\.parquet",
    rf"data/{_NAME}/{RUN_FILE_PATTERN}",
    rf"sidecar/{_NAME}/{RUN_PATTERN}\.failed\.json",
)
_OURS = re.compile("|".join(f"(?:{each})" for each in _FILES))


class Merge:
    """The runs of a folder and those of a repository at one commit, put together.

    Args:
        folder: whose finished runs are to be added.
        repository: to add them to.
        head: the commit to build on. None: the repository does not exist yet.
        scratch: an empty folder for files that are neither the folder's nor the repository's.
        replace: let runs of the folder replace others of the same name.

    Attributes:
        changes: a local file for each path that changes; None: it is removed.
        runs: `<config>/<run>` of runs that go up.
        notes: what others will miss, a line each.

    Raises:
        SettingsError: the repository has other settings of a config, or other runs of the same names.
        DataError: the repository is not one of ours, or a file is damaged.
    """

    def __init__(
        self, folder: DatasetFolder, repository: Repository, head: str | None, scratch: Path, replace: bool = False
    ) -> None:
        self.folder, self.repository, self.head = folder, repository, head
        self.replace = replace
        self.remote: Mapping[str, RemoteFile] = {} if head is None else repository.files(head)
        self.ours = {path for path in self.remote if _OURS.fullmatch(path)}
        self.view = DatasetFolder(scratch / "view")
        self.changes: dict[str, Path | None] = {}
        self.runs: list[str] = []
        self.notes: list[str] = []
        with self._odd_files():
            self._merge()

    @contextmanager
    def _odd_files(self) -> Iterator[None]:
        """What anybody may have put into the repository can be anything."""
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
                "Mend it there, or push to another repository"
            ) from error

    def _merge(self) -> None:
        self._refuse_strangers()
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

    def _refuse_strangers(self) -> None:
        if not any(path.startswith("manifests/") for path in self.ours) and any(
            path not in (CARD, FIGURE, ".gitattributes", "LICENSE") for path in self.remote
        ):
            raise DataError(
                f"{self.repository.id} is not a GPTDynamics dataset: it has files, but no manifests. Name another one"
            )

    def _fetch(self, path: str) -> Path:
        assert self.head is not None
        return self.repository.fetch(path, self.head)

    def _put(self, path: str, file: Path) -> None:
        """Let a file go up, unless the repository has the same bytes under its name."""
        present = self.remote.get(path)
        if present is None or not present.same_as(file):
            self.changes[path] = file

    def _local(self, path: str) -> Path:
        return self.folder.root / path

    def _add_config(self, config: str) -> None:
        self._add_manifest(config)
        facts = None
        differ = []
        for run in self.folder.finished(config):
            paths = [path for path in run_files(config, run) if self._local(path).exists()]
            other = [path for path in paths if not self._same(path)]
            if not other:
                continue
            if facts is None:
                findings = Findings(self.folder.root)
                facts = config_facts(self.folder, config, findings)
                _refuse_faults(findings.faults)
            _refuse_faults(verify_run(self.folder, config, run, facts))
            if any(path in self.ours for path in other):
                differ.append(run)
            self.runs.append(f"{config}/{run}")
            self.changes |= {path: self._local(path) for path in other}
        if differ and not self.replace:
            raise SettingsError(
                f"{self.repository.id} has other numbers for {_named(config, differ)}, made with the same settings "
                f"({self._versions(config, differ[0])}). Keep those, or give --replace"
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

    def _same(self, path: str) -> bool:
        """Whether the repository has this file, be it written by another version of the Parquet library."""
        present = self.remote.get(path)
        if present is None:
            return False
        if present.same_as(self._local(path)):
            return True
        return read_parquet(self._fetch(path)).equals(read_parquet(self._local(path)))

    def _versions(self, config: str, run: str) -> str:
        """How the library versions of a run differ; what two machines compute may differ as well."""
        path = run_files(config, run)[1]
        if path not in self.remote:
            return "it lacks their descriptions"
        theirs, mine = (
            json.loads(read_parquet(file, ["versions"])["versions"][0].as_py() or "{}")
            for file in (self._fetch(path), self._local(path))
        )
        return "; ".join(value_differences(theirs, mine, "here")) or "with the same libraries: on another machine?"

    def _add_manifest(self, config: str) -> None:
        path = f"manifests/{config}.json"
        mine = self.folder.manifest(config)
        if path not in self.remote:
            self._put(path, self._local(path))
            return
        try:
            theirs = read_manifest(self._fetch(path))
        except DataError as error:
            message = f"{self.repository.id}: {path} is not a manifest. Mend it there, or push to another one"
            raise DataError(message) from error
        differences = manifest_differences(theirs, mine, "here")
        if differences:
            raise SettingsError(
                f"{self.repository.id} holds {config} made with other settings ({'; '.join(differences)}). "
                "Collect with its settings, or push to another repository"
            )
        merged = self.view.root.parent / path
        write_text(merged, json.dumps(merge_manifests(theirs, mine), indent=1, sort_keys=True) + "\n")
        self._put(path, merged)

    def _add_task(self, task: str) -> None:
        """What is kept of a task; where only one of the two has its templates, those."""
        path = f"{FOLDER}/{task}.toml"
        if not self._local(path).is_file():
            return
        mine = read_declaration(self._local(path))
        if path not in self.remote:
            self._put(path, self._local(path))
            return
        theirs = read_declaration(self._fetch(path))
        differences = declaration_differences(theirs, mine, "here")
        if differences:
            raise SettingsError(
                f"{self.repository.id} holds another task {task} ({'; '.join(differences)}). Push to another repository"
            )
        if theirs.keys() < mine.keys():
            self._put(path, self._local(path))

    def _add_vectors(self, config: str) -> None:
        """Projected gradients follow from base model, settings and rows: those that cover more examples serve all."""
        path = f"data/{config}_gradients/base.parquet"
        if not self._local(path).exists():
            return
        if path in self.remote and not self.remote[path].same_as(self._local(path)):
            theirs, mine = (
                {(row["part"], row["id"]) for row in read_parquet(file, ["part", "id"]).to_pylist()}
                for file in (self._fetch(path), self._local(path))
            )
            if mine <= theirs:
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
            if path in self.ours:
                self.changes[path] = None

    def _add_examples(self, task: str, part: str) -> None:
        path = f"data/{task}_examples/{part}.parquet"
        if path not in self.remote:
            if self._local(path).exists():
                self._put(path, self._local(path))
            return
        theirs, mine = (
            {row["id"]: row for row in read_parquet(file).to_pylist()}
            for file in (self._fetch(path), self._local(path))
        )
        for key in theirs.keys() & mine.keys():
            if not _same_example(theirs[key], mine[key]):
                raise SettingsError(
                    f"{self.repository.id}: example {key} of {path} is another one there. Runs on other rows cannot "
                    "share a config: push to another repository"
                )
        # Published texts stay published; withheld ones are filled in if the folder has them.
        merged = {**mine, **{key: row for key, row in theirs.items() if row["prompt"] is not None or key not in mine}}
        rows = [merged[key] for key in sorted(merged)]
        if rows == [theirs[key] for key in sorted(theirs)]:
            return
        written = self.view.root.parent / path
        write_parquet(pa.Table.from_pylist(rows, schema=EXAMPLE_SCHEMA), written)
        self._put(path, written)

    def _add_card(self) -> None:
        """Build the card in a folder that has the names of all files, and what little of them the card is about."""
        for path in self.ours - {path for path, file in self.changes.items() if file is None}:
            needed = path.startswith(("manifests/", "sidecar/")) or "_examples/" in path
            self._show(path, self._fetch(path) if needed and path not in self.changes else None)
        for path, file in self.changes.items():
            if file is not None:
                self._show(path, file)
        finished = {config: self.view.finished(config) for config in self.view.configs()}
        wanted = {path for config, runs in finished.items() for run in runs[:1] for path in run_files(config, run)[1:]}
        wanted |= {run_files(config, run)[-1] for config, runs in drawn_runs(finished).items() for run in runs}
        for path in wanted - self.changes.keys():
            self._show(path, self._fetch(path))
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

    def _show(self, path: str, file: Path | None) -> None:
        """Let the view have a file of this name: that one, or one without content."""
        target = self.view.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if file is None:
            target.touch()
        else:
            target.symlink_to(file.resolve())


def run_files(config: str, run: str) -> list[str]:
    """Paths of a run's files in the repository, the trajectories last; the gradient products may not be there."""
    name = f"{split_of(run)}-{run}.parquet"
    return [f"data/{config}{kind}/{name}" for kind in ("_gradients", "_runs", "")]


def _refuse_faults(faults: list[Any]) -> None:
    if faults:
        more = f" (and {len(faults) - 1} more; gptdynamics verify lists them)" if len(faults) > 1 else ""
        raise DataError(f"nothing was pushed: {faults[0]}{more}")


def _same_example(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two rows are the same example; of one without texts only the source can tell."""
    if one["prompt"] is not None and other["prompt"] is not None:
        return all(one[name] == other[name] for name in ("prompt", "target", "references", "task"))
    return one["task"] == other["task"] and _row_named(one) == _row_named(other)


def _row_named(row: dict[str, Any]) -> dict[str, Any]:
    source = json.loads(row["source"] or "{}")
    return {name: value for name, value in source.items() if name != "fields"}


def _named(config: str, runs: list[str]) -> str:
    more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
    return f"{config}/{', '.join(runs[:3])}{more}"
