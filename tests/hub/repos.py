"""Repositories of the loopback Hub: who is asking, making and removing them, references, pull requests."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.hub.requests import commit_of, identity, parameter, repository_of, store_of, user_of, writable_of
from tests.hub.store import HubError, card_metadata


async def whoami(request: Request) -> Response:
    """Who the token belongs to."""
    user = user_of(request)
    if user is None:
        raise HubError(401, "", "Invalid username or password.")
    token = {"displayName": "test", "role": user.role}
    return JSONResponse({"type": "user", "name": user.name, "orgs": [], "auth": {"accessToken": token}})


async def validate_yaml(request: Request) -> Response:
    """Any metadata will do: what cards say is checked by the tests of cards."""
    return JSONResponse({"errors": [], "warnings": []})


def _named(asked: dict[str, Any], request: Request) -> tuple[str, str]:
    user = user_of(request)
    owner = asked.get("organization") or (user.name if user else "")
    return asked.get("type") or "model", f"{owner}/{asked['name']}"


async def create(request: Request) -> Response:
    """Make a repository."""
    asked = await request.json()
    kind, id = _named(asked, request)
    if kind == "space" and asked.get("sdk") != "static":
        raise HubError(400, "", f"Only static Spaces are served here, not {asked.get('sdk')!r}")
    prefix = "" if kind == "model" else f"{kind}s/"
    answer, status = {"url": f"{request.base_url}{prefix}{id}", "name": id}, 200
    try:
        store_of(request).create(kind, id, user_of(request), asked.get("visibility") == "private")
    except HubError as error:
        if error.status != 409:
            raise
        answer["error"], status = error.message, 409
    return JSONResponse(answer, status)


async def delete(request: Request) -> Response:
    """Remove a repository."""
    store_of(request).delete(*_named(await request.json(), request), user_of(request))
    return Response()


async def settings(request: Request) -> Response:
    """Make a repository private or public."""
    repository, _ = writable_of(request)
    asked = await request.json()
    repository.private = asked.get("visibility") == "private" or bool(asked.get("private"))
    return JSONResponse({"private": repository.private})


async def info(request: Request) -> Response:
    """What a repository holds at a revision."""
    repository, commit = repository_of(request), commit_of(request)
    metadata = card_metadata(commit)
    first = repository.history(commit)[-1]
    answer = {
        "id": repository.id,
        "sha": commit.sha,
        "author": repository.owner,
        "private": repository.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "createdAt": first.date,
        "lastModified": commit.date,
        "tags": metadata.get("tags", []),
        "cardData": metadata,
        "siblings": [{"rfilename": path} for path in sorted(commit.files)],
    }
    if repository.kind == "model":
        answer |= {"library_name": metadata.get("library_name"), "pipeline_tag": metadata.get("pipeline_tag")}
    if repository.kind == "space":
        answer |= {"sdk": metadata.get("sdk"), "host": f"{request.base_url}_static/{repository.id}/"}
    return JSONResponse(answer)


async def refs(request: Request) -> Response:
    """Branches, tags and pull requests."""
    repository = repository_of(request)

    def listed(names: dict[str, str], prefix: str) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"{prefix}{name}", "targetCommit": sha} for name, sha in names.items()]

    answer = {
        "branches": listed(repository.branches, "refs/heads/"),
        "tags": listed(repository.tags, "refs/tags/"),
        "converts": [],
    }
    if request.query_params.get("include_prs"):
        answer["pullRequests"] = listed({str(pull.number): pull.head for pull in repository.pulls}, "refs/pr/")
    return JSONResponse(answer)


async def add_branch(request: Request) -> Response:
    """Make a branch."""
    (repository, _), name = writable_of(request), parameter(request, "branch")
    asked = await request.json() if await request.body() else {}
    if name in repository.branches:
        raise HubError(409, "", f"Reference already exists: {name}")
    repository.branches[name] = repository.resolve(asked.get("startingPoint") or "main").sha
    return JSONResponse({})


async def remove_branch(request: Request) -> Response:
    """Remove a branch."""
    (repository, _), name = writable_of(request), parameter(request, "branch")
    if repository.branches.pop(name, None) is None:
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {name}")
    return JSONResponse({})


async def add_tag(request: Request) -> Response:
    """Name a commit."""
    repository, _ = writable_of(request)
    name = (await request.json())["tag"]
    if name in repository.tags:
        raise HubError(409, "", f"Tag already exists: {name}")
    repository.tags[name] = commit_of(request).sha
    return JSONResponse({})


async def remove_tag(request: Request) -> Response:
    """Forget a name."""
    (repository, _), name = writable_of(request), parameter(request, "revision")
    if repository.tags.pop(name, None) is None:
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {name}")
    return JSONResponse({})


async def pull_requests(request: Request) -> Response:
    """All pull requests of a repository."""
    repository = repository_of(request)
    kind, id = identity(request)
    found = [
        {
            "num": pull.number,
            "title": pull.title,
            "author": {"name": pull.author},
            "status": pull.status,
            "isPullRequest": True,
            "createdAt": repository.commits[pull.head].date,
            "repo": {"name": id, "type": kind},
        }
        for pull in repository.pulls
    ]
    return JSONResponse({"discussions": found, "count": len(found), "start": 0})


async def merge(request: Request) -> Response:
    """Merge a pull request."""
    repository, user = writable_of(request)
    commit = store_of(request).merge(repository, int(parameter(request, "number")), user)
    return JSONResponse({"commitOid": commit.sha})


_API = "/api/{kinds:kinds}/{owner}/{name}"
ROUTES = [
    Route("/api/whoami-v2", whoami),
    Route("/api/validate-yaml", validate_yaml, methods=["POST"]),
    Route("/api/repos/create", create, methods=["POST"]),
    Route("/api/repos/delete", delete, methods=["DELETE"]),
    Route(_API, info),
    Route(f"{_API}/revision/{{revision}}", info),
    Route(f"{_API}/settings", settings, methods=["PUT"]),
    Route(f"{_API}/refs", refs),
    Route(f"{_API}/branch/{{branch}}", add_branch, methods=["POST"]),
    Route(f"{_API}/branch/{{branch}}", remove_branch, methods=["DELETE"]),
    Route(f"{_API}/tag/{{revision}}", add_tag, methods=["POST"]),
    Route(f"{_API}/tag/{{revision}}", remove_tag, methods=["DELETE"]),
    Route(f"{_API}/discussions", pull_requests),
    Route(f"{_API}/discussions/{{number}}/merge", merge, methods=["POST"]),
]
