"""Uploading files to a repository on the Hub in one commit, without changing its other files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gptdynamics.atomic import write_text
from gptdynamics.dataset.card import CARD, has_generated_part, merge_card, read_card
from gptdynamics.errors import DataError
from gptdynamics.hub.push import Pushed, prepare
from gptdynamics.hub.repository import RemoteFile, Repository, until_done
from gptdynamics.scratch import scratch_folder
from gptdynamics.settings.datasets import PushOptions


def push_files(
    repository: Repository,
    files: Mapping[str, Path],
    check: Callable[[Mapping[str, RemoteFile], str], None],
    message: str,
    private: bool = False,
    on_wait: Callable[[str], None] = lambda reason: None,
    own_metadata: Sequence[str] = (),
    pull_request: bool = False,
    description: str | None = None,
) -> Pushed:
    """Upload files to a repository in one commit; the repository is created if it does not exist.

    A user's changes to the card are kept (see `merge_card`), if the new card has a marked generated part.

    Args:
        repository: to upload to.
        files: a local file for each path in the repository.
        check: called with the repository's files and commit; raises an error if they may not be changed.
        message: title of the commit.
        private: make the repository private.
        on_wait: called with the reason before each retry.
        own_metadata: names in the card's YAML whose values are generated.
        pull_request: open one instead of changing the branch.
        description: of the commit, below its title.

    Raises:
        SettingsError: no token, no permission, or the repository is public and should be private; nothing was changed.
        UnreachableError: the Hub failed repeatedly.
        DataError: the YAML of the present card cannot be read; nothing was changed.
    """
    created = prepare(repository, PushOptions(private=private), on_wait)

    def attempt(number: int) -> Pushed:
        if repository.head() is None:
            repository.make_branch()
        head = repository.head()
        if head is None:
            raise DataError(f"{repository.id} has no branch {repository.branch}")
        remote = repository.files(head)
        if not created:
            check(remote, head)
        with scratch_folder() as scratch:
            merged = dict(files)
            if CARD in files and CARD in remote:
                merged[CARD] = _merged_card(files[CARD], repository, head, own_metadata, Path(scratch))
            changed = {
                path: file for path, file in merged.items() if path not in remote or not remote[path].same_as(file)
            }
            size = sum(file.stat().st_size for file in changed.values())
            if not changed:
                return Pushed(repository.id, created, sha=head)
            committed = repository.commit(dict(changed), head, message, pull_request, description)
            repository.read_back(committed, changed, Path(scratch) / "read")
        return Pushed(repository.id, created, files=sorted(changed), size=size, sha=committed.sha, url=committed.url)

    return until_done(attempt, on_wait)


def refuse_replacing(repository: Repository, files: Mapping[str, Path], remote: Mapping[str, RemoteFile]) -> None:
    """Raise DataError if a file that this package did not write would be replaced; a card that is merged may be."""
    for path, file in files.items():
        merged = path == CARD and has_generated_part(file.read_text(encoding="utf-8", errors="replace"))
        if path in remote and not merged and not remote[path].same_as(file):
            raise DataError(
                f"{repository.id} has a {path} that this package did not write: name another {repository.kind}"
            )


def _merged_card(card: Path, repository: Repository, head: str, own_metadata: Sequence[str], scratch: Path) -> Path:
    new = card.read_text(encoding="utf-8")
    if not has_generated_part(new):
        return card
    try:
        old = read_card(repository.fetch(CARD, head))
        write_text(scratch / CARD, merge_card(old, new, own_metadata))
    except DataError as error:
        raise DataError(f"{repository.id}: {error}") from error
    return scratch / CARD
