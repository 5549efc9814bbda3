"""Users and repositories of the loopback Hub, in memory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.hub.xorbs import FileEntry, Xorb


class HubError(Exception):
    """An answer that is no success.

    Args:
        status: of HTTP.
        code: the word that clients act on, such as `RepoNotFound`; empty if there is none.
        message: for people.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True)
class User:
    """Who a token belongs to; `role` is `write` or `read`."""

    name: str
    role: str = "write"


@dataclass(frozen=True)
class File:
    """A file's content, and whether it is kept as a large file."""

    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        """What git has for a large file."""
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        return text.encode()

    @property
    def oid(self) -> str:
        """Git's name of the blob."""
        blob = self.pointer if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    """A state of a repository."""

    sha: str
    parent: str | None
    title: str
    description: str
    author: str
    date: str
    files: Mapping[str, File]


@dataclass
class PullRequest:
    """A proposed change: the commits of a reference of its own, on top of `base`."""

    number: int
    title: str
    author: str
    base: str
    head: str
    status: str = "open"

    @property
    def ref(self) -> str:
        return f"refs/pr/{self.number}"


@dataclass
class Repository:
    """One repository with all its states."""

    kind: str
    id: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: list[PullRequest] = field(default_factory=list)

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    def resolve(self, revision: str) -> Commit:
        """The commit that a branch, tag, pull request or sha names."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        pulls = {pull.ref: pull.head for pull in self.pulls}
        sha = self.branches.get(name) or self.tags.get(name) or pulls.get(revision) or revision
        if sha not in self.commits:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.commits[sha]

    def history(self, commit: Commit) -> list[Commit]:
        """A commit and all before it, newest first."""
        found: list[Commit] = [commit]
        while found[-1].parent is not None:
            found.append(self.commits[found[-1].parent])
        return found

    def add(
        self, parent: Commit | None, files: Mapping[str, File], title: str, description: str, author: str
    ) -> Commit:
        """Keep a new state; no reference points to it yet."""
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        parts = [parent.sha if parent else "", title, author, date, str(len(self.commits))]
        parts += [f"{path} {file.oid}" for path, file in sorted(files.items())]
        sha = hashlib.sha1("\n".join(parts).encode()).hexdigest()
        commit = Commit(sha, parent.sha if parent else None, title, description, author, date, dict(files))
        self.commits[sha] = commit
        return commit


Change = Callable[[dict[str, File]], None]


class Store:
    """All of the Hub's state. Methods may be called from several threads, and from tests directly.

    Attributes:
        users: by token.
        repositories: by kind and id.
        objects: contents of large files, by SHA-256.
        xorbs, xet_files: chunks, and what files are made of, by their Xet hashes.
        xet_hashes: by SHA-256, of contents that came in chunks.
        xet_tokens: what each token of the Xet storage is for, `read` or `write`.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.users: dict[str, User] = {}
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.xorbs: dict[str, Xorb] = {}
        self.xet_files: dict[str, FileEntry] = {}
        self.xet_hashes: dict[str, str] = {}
        self.xet_tokens: dict[str, str] = {}

    def add_user(self, name: str, role: str = "write") -> str:
        """Make a user, or a further token of one; the token."""
        token = f"hf_{name}_{role}"
        self.users[token] = User(name, role)
        return token

    def repository(self, kind: str, id: str, user: User | None) -> Repository:
        """A repository as a user sees it: somebody else's private one is not there."""
        found = self.repositories.get((kind, id))
        if found is None or (found.private and (user is None or user.name != found.owner)):
            raise HubError(401 if user is None else 404, "RepoNotFound", "Repository not found")
        return found

    def writable(self, kind: str, id: str, user: User | None, pull_request: bool = False) -> Repository:
        """A repository that this user may change; anybody may propose a change to what they see."""
        repository = self.repository(kind, id, user)
        if user is None:
            raise HubError(401, "", "Invalid username or password.")
        if user.role != "write" or (user.name != repository.owner and not pull_request):
            raise HubError(403, "", f"You don't have the rights to write to {id} with this token")
        return repository

    def create(self, kind: str, id: str, user: User | None, private: bool = False) -> Repository:
        """Make a repository with its first commit."""
        if user is None:
            raise HubError(401, "", "Invalid username or password.")
        if user.role != "write" or id.split("/")[0] != user.name:
            raise HubError(403, "", f"You don't have the rights to create a {kind} under the namespace {id}")
        with self.lock:
            if (kind, id) in self.repositories:
                raise HubError(409, "", "You already created this repo")
            repository = Repository(kind, id, private)
            first = repository.add(None, {".gitattributes": File(_ATTRIBUTES, False)}, "initial commit", "", user.name)
            repository.branches["main"] = first.sha
            self.repositories[kind, id] = repository
        return repository

    def delete(self, kind: str, id: str, user: User | None) -> None:
        """Forget a repository."""
        with self.lock:
            self.writable(kind, id, user)
            del self.repositories[kind, id]

    def commit(
        self,
        repository: Repository,
        revision: str,
        change: Change,
        title: str,
        user: User,
        description: str = "",
        parent: str | None = None,
        pull_request: bool = False,
    ) -> tuple[Commit, PullRequest | None]:
        """Change files of a branch or a pull request, all or none of them.

        Args:
            repository: to change.
            revision: a branch, or `refs/pr/<number>`.
            change: changes the files that it is given.
            title, description, user: of the commit.
            parent: the commit that the change was made for; another one at the branch's head refuses the change.
            pull_request: leave the branch as it is and open a pull request.
        """
        with self.lock:
            head = repository.resolve(revision)
            if parent is not None and parent != head.sha:
                raise HubError(412, "", f"A commit has happened since. Expected {parent}, the head is {head.sha}")
            files = dict(head.files)
            change(files)
            commit = repository.add(head, files, title, description, user.name)
            if pull_request:
                opened = PullRequest(len(repository.pulls) + 1, title, user.name, revision, commit.sha)
                repository.pulls.append(opened)
                return commit, opened
            for pull in repository.pulls:
                if pull.ref == revision:
                    pull.head = commit.sha
                    return commit, pull
            repository.branches[revision] = commit.sha
            return commit, None

    def merge(self, repository: Repository, number: int, user: User) -> Commit:
        """Take over what a pull request changes; a file that its base has changed meanwhile is a conflict."""
        with self.lock:
            pull = next((pull for pull in repository.pulls if pull.number == number and pull.status == "open"), None)
            if pull is None:
                raise HubError(404, "", f"No open pull request {number}")
            theirs = repository.commits[pull.head]
            ours = repository.resolve(pull.base)
            known = {commit.sha for commit in repository.history(ours)}
            common = next(commit for commit in repository.history(theirs) if commit.sha in known)

            def apply(files: dict[str, File]) -> None:
                for path in theirs.files.keys() | common.files.keys():
                    before, after = common.files.get(path), theirs.files.get(path)
                    if before == after or files.get(path) == after:
                        continue
                    if files.get(path) != before:
                        raise HubError(409, "", f"{path} was changed on both sides")
                    if after is None:
                        del files[path]
                    else:
                        files[path] = after

            commit, _ = self.commit(repository, pull.base, apply, f"{pull.title} (#{number})", user)
            pull.status = "merged"
            return commit

    def put(self, kind: str, id: str, files: Mapping[str, bytes | None], title: str = "put") -> str:
        """Change files as the owner, from a test: None removes one. The new commit."""
        repository = self.repositories[kind, id]

        def change(there: dict[str, File]) -> None:
            for path, content in files.items():
                if content is None:
                    del there[path]
                else:
                    there[path] = File(content, is_large(path, len(content)))

        return self.commit(repository, "main", change, title, User(repository.owner))[0].sha

    def files(self, kind: str, id: str, revision: str = "main") -> dict[str, bytes]:
        """Paths and contents of a state, for a test."""
        commit = self.repositories[kind, id].resolve(revision)
        return {path: file.content for path, file in commit.files.items()}

    def history(self, kind: str, id: str, revision: str = "main") -> list[Commit]:
        """Commits of a branch, newest first, for a test."""
        repository = self.repositories[kind, id]
        return repository.history(repository.resolve(revision))


_LARGE = ("bin", "npz", "onnx", "parquet", "png", "pt", "safetensors", "zip")
_ATTRIBUTES = "".join(f"*.{kind} filter=lfs diff=lfs merge=lfs -text\n" for kind in _LARGE).encode()


def is_large(path: str, size: int) -> bool:
    """Whether a file is kept as a large one."""
    return size > 10 * 2**20 or path.rpartition(".")[2] in _LARGE


def card_metadata(commit: Commit) -> dict[str, Any]:
    """YAML at the head of a state's README.md."""
    import yaml

    card = commit.files.get("README.md")
    parts = card.content.decode("utf-8", "replace").split("---\n", 2) if card else []
    try:
        found = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except (yaml.YAMLError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}
