"""What a request to the loopback Hub says: who asks, for which repository, at which revision."""

from __future__ import annotations

from urllib.parse import unquote

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request

from tests.hub.store import Commit, HubError, Repository, Store, User


class _Kinds(Convertor[str]):
    """The three kinds of repository, as they stand in paths."""

    regex = "models|datasets|spaces"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _Static(_Kinds):
    """Where the pages of Spaces are served."""

    regex = "_static"

    def convert(self, value: str) -> str:
        return "spaces"


register_url_convertor("kinds", _Kinds())
register_url_convertor("static", _Static())


def store_of(request: Request) -> Store:
    """The state of the Hub that was asked."""
    return request.app.state.store


def user_of(request: Request) -> User | None:
    """Who the token belongs to; None without a token."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Bearer":
        return None
    user = store_of(request).users.get(token)
    if user is None:
        raise HubError(401, "", "Invalid credentials in Authorization header")
    return user


def parameter(request: Request, name: str) -> str:
    """A part of the path. Clients quote slashes within it."""
    return unquote(request.path_params[name])


def identity(request: Request) -> tuple[str, str]:
    """Kind and id of the repository that is asked for: models have no prefix in paths of files."""
    kinds = request.path_params.get("kinds", "models")
    name = parameter(request, "name").removesuffix(".git")
    return kinds.removesuffix("s"), f"{parameter(request, 'owner')}/{name}"


def repository_of(request: Request) -> Repository:
    """The repository that is asked for, if the user may see it."""
    return store_of(request).repository(*identity(request), user_of(request))


def commit_of(request: Request) -> Commit:
    """The state that is asked for; the main branch's if none is named."""
    revision = parameter(request, "revision") if "revision" in request.path_params else "main"
    return repository_of(request).resolve(revision)


def writable_of(request: Request, proposed: bool = False) -> tuple[Repository, User]:
    """The repository that is asked for, and the user, if they may change it, or propose a change."""
    user = user_of(request)
    repository = store_of(request).writable(*identity(request), user, proposed)
    assert user is not None
    return repository, user


def served_part(request: Request, size: int) -> tuple[int, int]:
    """The bytes of a content that are asked for, from the first to before the last; all of it without a range."""
    unit, _, span = request.headers.get("Range", "").partition("=")
    if unit != "bytes":
        return 0, size
    first, _, last = span.partition("-")
    start = int(first) if first else max(0, size - int(last))
    stop = min(int(last) + 1, size) if first and last else size
    if start >= size:
        raise HubError(416, "", f"There are {size} bytes")
    return start, stop
