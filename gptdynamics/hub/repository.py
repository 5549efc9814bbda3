"""A repository on the Hub: reads it, changes it in one commit, retries, and turns the Hub's errors into our own."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from gptdynamics.errors import DataError, GPTDynamicsError, SettingsError
from gptdynamics.hub.source import is_hub_id

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Kind = Literal["dataset", "model", "space"]
Result = TypeVar("Result")

ATTEMPTS = 8
FIRST_PAUSE_SECONDS = 0.5


class OvertakenError(GPTDynamicsError):
    """Another user's commit came first; nothing was changed."""


class UnreachableError(GPTDynamicsError):
    """The Hub did not answer, or is overloaded; it is unknown whether anything was changed."""


@dataclass(frozen=True)
class Committed:
    """A new commit; `url` is that of the commit or the pull request."""

    sha: str
    url: str


def file_oid(path: Path, large: bool) -> str:
    """The Hub's id of a file's content: the SHA-256 of a large file, git's blob hash of a small one."""
    content = path.read_bytes()
    if large:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class RemoteFile:
    """A file on the Hub: the id of its content (see `file_oid`), and whether it is stored as a large file."""

    oid: str
    large: bool

    def same_as(self, path: Path) -> bool:
        """Whether a local file has the same bytes."""
        return file_oid(path, self.large) == self.oid


class Repository:
    """A repository on the Hub, with the permissions of a token.

    Args:
        id: `<owner>/<name>`; raises SettingsError if it has no owner.
        kind: `dataset`, `model` or `space` (a static one).
        branch: to read and change.
        token: of the user; default: that of `hf auth login`.
    """

    def __init__(self, id: str, kind: Kind = "dataset", branch: str = "main", token: str | None = None) -> None:
        if not is_hub_id(id):
            raise SettingsError(f"{id!r} is not the name of a repository: give <owner>/<name>, e.g. ada/dynamics")
        self.id, self.kind, self.branch, self._token = id, kind, branch, token

    @property
    def _api(self) -> HfApi:
        from huggingface_hub import HfApi

        return HfApi(library_name="gptdynamics", token=self._token)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of the Hub's client into errors of one line that name this repository."""
        # The client has changed its HTTP library before; this import is the error class of the present one.
        from huggingface_hub.errors import (  # type: ignore[attr-defined]
            HfHubHTTPError,
            HTTPError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        try:
            yield
        except GPTDynamicsError:
            raise
        except RepositoryNotFoundError as error:
            raise DataError(
                f"{self.id}: no such {self.kind} repository, or a private one that your token cannot access. "
                "Check the name, and `hf auth whoami`"
            ) from error
        except RevisionNotFoundError as error:
            raise DataError(f"{self.id}: there is no branch, tag or commit of that name. Check it") from error
        except HfHubHTTPError as error:
            raise self._refused(error) from error
        except (HTTPError, ConnectionError, TimeoutError) as error:
            raise UnreachableError(f"{self.id}: the Hub cannot be reached ({_line(error)})") from error
        except (RecursionError, NotImplementedError) as error:
            raise self._invalid_answer(error) from error
        except RuntimeError as error:  # the client gave up on an upload
            raise UnreachableError(f"{self.id}: {_line(error)} ({_line(error.__cause__ or error)})") from error
        except OSError as error:
            if error.errno is not None:
                raise DataError(f"{self.id}: {error.filename or 'this machine'}: {error.strerror}") from error
            # A file was not transferred completely.
            raise UnreachableError(f"{self.id}: a file could not be fetched ({_line(error)})") from error
        except Exception as error:  # the client does not check answers, so a malformed one may raise any error
            raise self._invalid_answer(error) from error

    def _invalid_answer(self, error: Exception) -> DataError:
        detail = f"{type(error).__name__}: {_line(error)}"
        return DataError(f"{self.id}: the Hub's answer is invalid ({detail}). Check HF_ENDPOINT, or try again later")

    def _refused(self, error: Any) -> GPTDynamicsError:
        status = getattr(error.response, "status_code", 0)
        if status == 401:
            return SettingsError(f"{self.id}: no valid token. Run `hf auth login`, or set HF_TOKEN")
        if status == 403:
            return SettingsError(
                f"{self.id}: your token has no write access. Use a token with write access of its owner, "
                "propose the change with --create-pr, or push to a repository of your own"
            )
        if status in (409, 412):
            return OvertakenError(f"{self.id}: another {'commit' if status == 412 else 'change'} came first")
        if status == 429 or status >= 500:
            return UnreachableError(f"{self.id}: the Hub answers {status}")
        return DataError(f"{self.id}: the Hub refuses ({_line(error)})")

    def user(self) -> str:
        """Name of the token's user; raises SettingsError if there is no valid token."""
        from huggingface_hub import get_token

        if not (self._token or get_token()):
            raise SettingsError(f"{self.id}: no token. Run `hf auth login`, or set HF_TOKEN")
        with self._errors():
            return str(self._api.whoami()["name"])

    def exists(self) -> bool:
        """Whether the repository exists and the user may see it."""
        with self._errors():
            return bool(self._api.repo_exists(self.id, repo_type=self.kind))

    def private(self) -> bool:
        """Whether it is private."""
        with self._errors():
            return bool(self._api.repo_info(self.id, repo_type=self.kind).private)

    def create(self, private: bool) -> None:
        """Create the repository."""
        with self._errors():
            self._api.create_repo(
                self.id,
                repo_type=self.kind,
                private=private,
                exist_ok=True,
                space_sdk="static" if self.kind == "space" else None,
            )

    def head(self) -> str | None:
        """The commit at the branch's head; None if there is no such branch."""
        with self._errors():
            refs = self._api.list_repo_refs(self.id, repo_type=self.kind)
            if not all(isinstance(ref.name, str) and isinstance(ref.target_commit, str) for ref in refs.branches):
                raise TypeError("branches without names or commits")
        return next((ref.target_commit for ref in refs.branches if ref.name == self.branch), None)

    def make_branch(self) -> None:
        """Create the branch from main."""
        with self._errors():
            self._api.create_branch(self.id, branch=self.branch, repo_type=self.kind, exist_ok=True)

    def tags(self) -> dict[str, str]:
        """Names and commits of all tags."""
        with self._errors():
            return {tag.name: tag.target_commit for tag in self._api.list_repo_refs(self.id, repo_type=self.kind).tags}

    def tag(self, name: str, sha: str) -> None:
        """Tag a commit."""
        try:
            with self._errors():
                self._api.create_tag(self.id, tag=name, revision=sha, repo_type=self.kind)
        except OvertakenError as error:
            # An earlier attempt whose answer was lost may have created the tag.
            if self.tags().get(name) != sha:
                raise SettingsError(f"{self.id} has a tag {name!r} on another commit: give another --tag") from error

    def files(self, sha: str) -> dict[str, RemoteFile]:
        """Files of a commit, by path."""
        from huggingface_hub.hf_api import RepoFile

        with self._errors():
            tree = self._api.list_repo_tree(self.id, repo_type=self.kind, revision=sha, recursive=True)
            return {
                str(entry.path): RemoteFile(entry.lfs.sha256 if entry.lfs else entry.blob_id, entry.lfs is not None)
                for entry in tree
                if isinstance(entry, RepoFile)
            }

    def fetch(self, path: str, sha: str, folder: Path | None = None) -> Path:
        """A file of a commit, from the cache, or downloaded to a folder."""
        with self._errors():
            return Path(self._api.hf_hub_download(self.id, path, repo_type=self.kind, revision=sha, local_dir=folder))

    def commit(
        self,
        changes: Mapping[str, Path | None],
        parent: str,
        message: str,
        pull_request: bool = False,
        description: str | None = None,
    ) -> Committed:
        """Change files, all or none of them.

        Args:
            changes: a local file for each path in the repository; None removes it.
            parent: the commit that the changes are based on.
            message: title of the commit.
            pull_request: open one instead of changing the branch.
            description: of the commit, below its title.

        Raises:
            OvertakenError: the branch's head is no longer `parent`.
            UnreachableError: the Hub failed; the commit may or may not have been made.
            SettingsError: the token does not allow it.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        operations: list[Any] = [
            CommitOperationDelete(path) if file is None else CommitOperationAdd(path, str(file))
            for path, file in sorted(changes.items())
        ]
        with self._errors():
            commit = self._api.create_commit(
                self.id,
                operations,
                commit_message=message,
                commit_description=description,
                repo_type=self.kind,
                revision=self.branch,
                parent_commit=parent,
                create_pr=pull_request,
            )
            return Committed(str(commit.oid), str(commit.pr_url or commit.commit_url))

    def read_back(self, committed: Committed, changed: Mapping[str, Path], folder: Path) -> None:
        """Download the uploaded files to a folder; raises DataError if one differs from its local file."""
        for path, file in changed.items():
            fetched = self.fetch(path, committed.sha, folder)
            if file_oid(fetched, large=True) != file_oid(file, large=True):
                raise DataError(f"{self.id}: {path} came back changed from commit {committed.sha[:8]}. Push again")
            fetched.unlink()


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def with_retries(call: Callable[[], Result], on_wait: Callable[[str], None] = lambda reason: None) -> Result:
    """The result of a call that is retried; see `until_done`."""
    return until_done(lambda number: call(), on_wait)


def until_done(attempt: Callable[[int], Result], on_wait: Callable[[str], None] = lambda reason: None) -> Result:
    """The result of the first successful attempt; the pause doubles after each failure.

    Args:
        attempt: called with its number, from 1 on. It must read the state again, as a failure may have changed it.
        on_wait: called with the reason before each retry.

    Raises:
        UnreachableError: all attempts failed.
    """
    for number in range(1, ATTEMPTS):
        try:
            return attempt(number)
        except (OvertakenError, UnreachableError) as error:
            on_wait(str(error))
            # Random, so that two simultaneous pushes do not collide repeatedly.
            time.sleep(FIRST_PAUSE_SECONDS * 2 ** (number - 1) * random.uniform(0.5, 1.0))
    try:
        return attempt(ATTEMPTS)
    except (OvertakenError, UnreachableError) as error:
        raise UnreachableError(
            f"{error}, {ATTEMPTS} times. Uploaded files are kept: run the same command again to continue"
        ) from error
