"""Pushing a dataset folder to a repository on the Hub, in one commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.withheld import copy_without_texts
from gptdynamics.errors import DataError, GPTDynamicsError, SettingsError
from gptdynamics.hub.merge import Merge
from gptdynamics.hub.repository import Repository, until_done, with_retries
from gptdynamics.scratch import scratch_folder
from gptdynamics.settings.datasets import PushOptions

OnLine = Callable[[str], None]


@dataclass(frozen=True)
class Pushed:
    """The result of a push, or the planned changes of a dry run.

    Attributes:
        repository: its id.
        created: whether the repository is new.
        runs: `<config>/<run>` of the uploaded runs.
        files, size: paths that changed, and their bytes.
        sha: the commit that has all files; None in a dry run.
        url: of the commit or the pull request; None if nothing had to change.
        notes: lines about what other users cannot get.
    """

    repository: str
    created: bool = False
    runs: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    size: int = 0
    sha: str | None = None
    url: str | None = None
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dict(vars(self))


def push(
    folder: str | Path,
    repo: str,
    options: PushOptions | None = None,
    on_wait: Callable[[str], None] = lambda reason: None,
) -> Pushed:
    """Add the finished runs of a folder to a dataset repository, which is created if it does not exist.

    Only new files are uploaded, in one commit on top of the state that was read. If another commit comes first, the new
    state is read, so that nobody's runs are lost. Files uploaded before an interruption are not uploaded again. At the
    end, all uploaded files are downloaded and compared.

    Args:
        folder: the dataset folder.
        repo: `<owner>/<name>`.
        options: default: all defaults.
        on_wait: called with the reason before each retry.

    Raises:
        SettingsError: no token, no permission, or the repository's runs were made with other settings; nothing was
            changed.
        DataError: the folder is damaged, or the repository is not a dataset of this package; nothing was changed.
        UnreachableError: the Hub failed repeatedly.
    """
    options = options or PushOptions()
    repository = Repository(repo, "dataset", options.branch)
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{folder}: no such dataset folder")
    if not any(DatasetFolder(root).finished(config) for config in DatasetFolder(root).configs()):
        raise DataError(f"{folder}: there are no finished runs to push. Collect some first")
    with scratch_folder() as scratch:
        if options.no_texts:
            copy_without_texts(root, Path(scratch) / "copy")
            root = Path(scratch) / "copy"
        created = prepare(repository, options, on_wait)
        copy = DatasetFolder(root)
        return until_done(
            lambda number: _push_once(copy, repository, created, options, Path(scratch) / str(number)), on_wait
        )


def check_access(repo: str) -> None:
    """Raise an error if a repository cannot be pushed to, as far as that shows without changing it."""
    prepare(Repository(repo), PushOptions(dry_run=True))


def prepare(repository: Repository, options: PushOptions, on_wait: Callable[[str], None] = lambda reason: None) -> bool:
    """Check that the repository can be pushed to, and create it if it does not exist; returns whether it did not."""
    user = with_retries(repository.user, on_wait)
    if not with_retries(repository.exists, on_wait):
        owner = repository.id.split("/")[0]
        if options.create_pr:
            raise DataError(f"{repository.id}: no such dataset repository to open a pull request for. Check the name")
        if not options.dry_run:
            with_retries(lambda: repository.create(options.private), on_wait)
        elif owner != user:
            raise SettingsError(
                f"{repository.id} does not exist (or is private), and its owner is not you, {user}. Name another one"
            )
        return True
    if options.private and not with_retries(repository.private, on_wait):
        raise SettingsError(f"{repository.id} exists and is public: make it private in its settings, or name another")
    if options.tag is not None and options.tag in with_retries(repository.tags, on_wait):
        raise SettingsError(f"{repository.id} already has a tag {options.tag!r}: give another --tag")
    return False


def _push_once(
    folder: DatasetFolder, repository: Repository, created: bool, options: PushOptions, scratch: Path
) -> Pushed:
    head = None if created and options.dry_run else repository.head()
    if head is None and not (created and options.dry_run):
        if options.dry_run:
            head = Repository(repository.id, "dataset").head()
        else:
            repository.make_branch()
            head = repository.head()
    merge = Merge(folder, repository, head, scratch, options.replace)
    changed = {path: file for path, file in merge.changes.items() if file is not None}
    pushed = Pushed(
        repository=repository.id,
        created=created,
        runs=merge.runs,
        files=sorted(merge.changes),
        size=sum(file.stat().st_size for file in changed.values()),
        notes=merge.notes,
    )
    if options.dry_run:
        return pushed
    assert head is not None
    committed = None
    if merge.changes:
        message = _message(merge.runs)
        committed = repository.commit(merge.changes, head, message, options.create_pr)
        repository.read_back(committed, changed, scratch / "read")
    sha = committed.sha if committed else head
    if options.tag is not None:
        repository.tag(options.tag, sha)
    return Pushed(**(vars(pushed) | {"sha": sha, "url": committed.url if committed else None}))


def _message(runs: list[str]) -> str:
    if not runs:
        return "Update card and examples"
    configs = sorted({run.split("/")[0] for run in runs})
    return f"Add {len(runs)} run{'s' if len(runs) > 1 else ''} of {', '.join(configs)}"


class RunPusher:
    """Pushes each run when it ends; without a repository it does nothing.

    Args:
        folder: the dataset folder.
        repo: `<owner>/<name>`, or None; raises GPTDynamicsError if it cannot be pushed to.
        no_texts: leave out texts of tasks whose rows this package does not generate.
        on_run: called with a line for each pushed run.
        on_note: called with a line for each run that could not be pushed.
    """

    def __init__(self, folder: Path, repo: str | None, no_texts: bool, on_run: OnLine, on_note: OnLine) -> None:
        self.folder, self.repo, self.no_texts = folder, repo, no_texts
        self.on_run, self.on_note = on_run, on_note
        if repo is not None:
            check_access(repo)

    def push_run(self, run: str) -> None:
        """Push everything. After a failure, which is only noted, the run is pushed together with the next one."""
        try:
            self.push_all()
        except GPTDynamicsError as error:
            self.on_note(f"note: {run} is not on the Hub yet: {error}")

    def push_all(self) -> None:
        """Push everything; raises the same errors as `push`."""
        folder = DatasetFolder(self.folder)
        if self.repo is None or not any(folder.finished(config) for config in folder.configs()):
            return
        for run in push(self.folder, self.repo, PushOptions(no_texts=self.no_texts)).runs:
            self.on_run(f"{run} is in {self.repo}")
