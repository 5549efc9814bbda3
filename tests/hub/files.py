"""Files of the loopback Hub: trees, contents, commits."""

from __future__ import annotations

import base64
import json
import mimetypes
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.hub.requests import commit_of, identity, parameter, repository_of, served_part, store_of, writable_of
from tests.hub.store import Commit, File, HubError, Store, is_large


def _entry(path: str, file: File, commit: Commit, store: Store) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": file.oid, "size": len(file.content), "path": path}
    entry["lastCommit"] = {"id": commit.sha, "title": commit.title, "date": commit.date}
    if file.lfs:
        entry["lfs"] = {"oid": file.sha256, "size": len(file.content), "pointerSize": len(file.pointer)}
        if file.sha256 in store.xet_hashes:
            entry["xetHash"] = store.xet_hashes[file.sha256]
    return entry


def _entries(commit: Commit, store: Store, under: str, recursive: bool) -> list[dict[str, Any]]:
    """Files and folders below a folder, as the client lists them."""
    prefix = f"{under}/" if under else ""
    found: dict[str, dict[str, Any]] = {}
    for path, file in sorted(commit.files.items()):
        if not path.startswith(prefix):
            continue
        parts = path[len(prefix) :].split("/")
        for depth in range(1, len(parts) if recursive else min(2, len(parts))):
            folder = prefix + "/".join(parts[:depth])
            found.setdefault(folder, {"type": "directory", "oid": commit.sha, "size": 0, "path": folder})
        if recursive or len(parts) == 1:
            found[path] = _entry(path, file, commit, store)
    if under and not found:
        raise HubError(404, "EntryNotFound", f"{under} does not exist on this revision")
    return list(found.values())


async def tree(request: Request) -> Response:
    """List a folder."""
    under = parameter(request, "path") if "path" in request.path_params else ""
    recursive = request.query_params.get("recursive", "false").lower() in ("true", "1")
    return JSONResponse(_entries(commit_of(request), store_of(request), under.strip("/"), recursive))


async def paths_info(request: Request) -> Response:
    """Describe the given paths; those that are not there are left out."""
    commit = commit_of(request)
    body = await request.body()
    sent_json = request.headers.get("content-type", "").startswith("application/json")
    asked = json.loads(body)["paths"] if sent_json else parse_qs(body.decode())["paths"]
    listed = {entry["path"]: entry for entry in _entries(commit, store_of(request), "", recursive=True)}
    return JSONResponse([listed[path] for path in asked if path in listed])


async def resolve(request: Request) -> Response:
    """A file's content, or the part of it that is asked for."""
    commit, path = commit_of(request), parameter(request, "path")
    file = commit.files.get(path)
    if file is None:
        raise HubError(404, "EntryNotFound", f"{path} does not exist on this revision")
    headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
    if file.lfs:
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
        headers |= _xet_headers(request, file, commit)
    size = len(file.content)
    start, stop = served_part(request, size)
    content, status = file.content[start:stop], 200
    if "Range" in request.headers:
        status, headers["Content-Range"] = 206, f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(len(content))
    body = b"" if request.method == "HEAD" else content
    return Response(body, status, headers, media_type="application/octet-stream")


def _xet_headers(request: Request, file: File, commit: Commit) -> dict[str, str]:
    """Where a client with Xet finds the chunks of a file that came in chunks."""
    found = store_of(request).xet_hashes.get(file.sha256)
    if found is None:
        return {}
    kind, id = identity(request)
    access = f"{request.base_url}api/{kind}s/{id}/xet-read-token/{commit.sha}"
    return {"X-Xet-Hash": found, "Link": f'<{access}>; rel="xet-auth"'}


async def static_page(request: Request) -> Response:
    """A file of a static Space as a browser gets it; for a folder its index.html."""
    path = parameter(request, "path") or "index.html"
    file = commit_of(request).files.get(path)
    if file is None:
        raise HubError(404, "EntryNotFound", f"{path} does not exist in this Space")
    return Response(file.content, media_type=mimetypes.guess_type(path)[0] or "application/octet-stream")


async def preupload(request: Request) -> Response:
    """Say how each file is to be sent, and what is under its name now."""
    revision = parameter(request, "revision")
    repository, _ = writable_of(request, proposed=_proposes(request, revision))
    there = repository.resolve(revision).files
    asked = (await request.json())["files"]
    answers = [
        {
            "path": each["path"],
            "uploadMode": "lfs" if is_large(each["path"], each["size"]) else "regular",
            "shouldIgnore": False,
            "oid": there[each["path"]].etag if each["path"] in there else None,
        }
        for each in asked
    ]
    return JSONResponse({"files": answers})


def _proposes(request: Request, revision: str) -> bool:
    return request.query_params.get("create_pr") == "1" or revision.startswith("refs/pr/")


def _apply(store: Store, files: dict[str, File], lines: list[dict[str, Any]]) -> None:
    """Change files as the lines of a commit say."""
    for line in lines:
        kind, value = line["key"], line["value"]
        path = value["path"]
        if path.startswith("/") or ".." in path.split("/") or "\\" in path:
            raise HubError(400, "", f"invalid path {path}")
        if kind == "file":
            files[path] = File(base64.b64decode(value["content"]), lfs=False)
        elif kind == "lfsFile":
            if value["oid"] not in store.objects:
                raise HubError(400, "", f"{path}: its content was not uploaded")
            files[path] = File(store.objects[value["oid"]], lfs=True)
        elif kind == "deletedFile":
            if path not in files:
                raise HubError(404, "EntryNotFound", f"A file with this name doesn't exist: {path}")
            del files[path]
        elif kind == "deletedFolder":
            for name in [name for name in files if name.startswith(path.rstrip("/") + "/")]:
                del files[name]
        else:
            raise HubError(400, "", f"unknown operation {kind}")


async def commit(request: Request) -> Response:
    """Make a commit, or a pull request, of all the changes that are sent."""
    revision, store = parameter(request, "revision"), store_of(request)
    repository, user = writable_of(request, proposed=_proposes(request, revision))
    lines = [json.loads(line) for line in (await request.body()).splitlines() if line.strip()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    changes = [line for line in lines if line["key"] != "header"]
    made, pull = store.commit(
        repository,
        revision,
        lambda files: _apply(store, files, changes),
        header["summary"],
        user,
        header.get("description", ""),
        header.get("parentCommit"),
        request.query_params.get("create_pr") == "1",
    )
    kind, id = identity(request)
    place = str(request.base_url) + (f"{kind}s/" if kind != "model" else "") + id
    answer = {"success": True, "commitOid": made.sha, "commitUrl": f"{place}/commit/{made.sha}", "hookOutput": ""}
    if pull is not None:
        answer["pullRequestUrl"] = f"{place}/discussions/{pull.number}"
    return JSONResponse(answer)


async def history(request: Request) -> Response:
    """The commits of a branch, newest first."""
    found = repository_of(request).history(commit_of(request))
    return JSONResponse(
        [
            {
                "id": each.sha,
                "title": each.title,
                "message": each.description,
                "authors": [{"user": each.author}],
                "date": each.date,
            }
            for each in found
        ]
    )


_API = "/api/{kinds:kinds}/{owner}/{name}"
ROUTES = [
    Route(f"{_API}/tree/{{revision}}", tree),
    Route(f"{_API}/tree/{{revision}}/{{path:path}}", tree),
    Route(f"{_API}/paths-info/{{revision}}", paths_info, methods=["POST"]),
    Route(f"{_API}/preupload/{{revision}}", preupload, methods=["POST"]),
    Route(f"{_API}/commit/{{revision}}", commit, methods=["POST"]),
    Route(f"{_API}/commits/{{revision}}", history),
    Route("/{kinds:static}/{owner}/{name}/{path:path}", static_page),
    *(
        Route(f"{kinds}/{{owner}}/{{name}}/resolve/{{revision}}/{{path:path}}", resolve)
        for kinds in ("/{kinds:kinds}", "")
    ),
]
