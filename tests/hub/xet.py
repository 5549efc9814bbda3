"""Xet storage of the loopback Hub: contents in deduplicated chunks, as clients with `hf_xet` send and fetch them."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.hub.requests import commit_of, parameter, repository_of, served_part, store_of, writable_of
from tests.hub.store import HubError
from tests.hub.xorbs import FileEntry, Xorb, read_shard


def _access(request: Request, scope: str) -> Response:
    """A token of the storage for who may read or write the repository; clients look at headers or at the content."""
    token = f"xet_{scope}_{secrets.token_hex(8)}"
    store_of(request).xet_tokens[token] = scope
    expires, place = int(time.time()) + 3600, str(request.base_url).rstrip("/")
    headers = {"X-Xet-Cas-Url": place, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(expires)}
    return JSONResponse({"casUrl": place, "accessToken": token, "exp": expires}, headers=headers)


async def write_token(request: Request) -> Response:
    """Let a user send contents: who may write, or propose a change."""
    writable_of(request, proposed=True)
    return _access(request, "write")


async def read_token(request: Request) -> Response:
    """Let a user fetch contents: who may see the repository."""
    repository_of(request)
    commit_of(request)
    return _access(request, "read")


def _authorize(request: Request, scope: str) -> None:
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    given = store_of(request).xet_tokens.get(token)
    if given is None:
        raise HubError(401, "", "No valid token of the storage")
    if scope == "write" and given != "write":
        raise HubError(403, "", "That token is for reading")


async def take_xorb(request: Request) -> Response:
    """Take chunks."""
    _authorize(request, "write")
    name, xorbs = parameter(request, "hash"), store_of(request).xorbs
    try:
        xorb = Xorb.read(await request.body())
    except ValueError as error:
        raise HubError(400, "", str(error)) from error
    return JSONResponse({"was_inserted": xorbs.setdefault(name, xorb) is xorb})


async def take_shard(request: Request) -> Response:
    """Take note of files whose chunks have come; one whose content is not what its SHA-256 says is refused."""
    _authorize(request, "write")
    store = store_of(request)
    try:
        entries = read_shard(await request.body())
        contents = [b"".join(store.xorbs[t.xorb].unpack(t.start, t.stop) for t in entry.terms) for entry in entries]
    except (ValueError, KeyError, IndexError) as error:
        raise HubError(400, "", f"The shard cannot be read: {error!r}") from error
    for entry, content in zip(entries, contents, strict=True):
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise HubError(400, "", f"The content of {entry.hash} does not have the SHA-256 it was announced with")
        store.objects[entry.sha256] = content
        store.xet_files[entry.hash] = entry
        store.xet_hashes[entry.sha256] = entry.hash
    return JSONResponse({"result": 1})


async def reconstruction(request: Request) -> Response:
    """Say which chunks make a file, or a part of it, and where they are."""
    _authorize(request, "read")
    entry = store_of(request).xet_files.get(parameter(request, "hash"))
    if entry is None:
        raise HubError(404, "", "No such file")
    start, stop = served_part(request, sum(term.size for term in entry.terms))
    return JSONResponse(_plan(request, entry, start, stop))


def _plan(request: Request, entry: FileEntry, start: int, stop: int) -> dict[str, Any]:
    terms: list[dict[str, Any]] = []
    places: dict[str, list[dict[str, Any]]] = {}
    offset = at = 0
    for term in entry.terms:
        begin, at = at, at + term.size
        if at <= start or begin >= stop:
            continue
        if not terms:
            offset = start - begin
        chunks = {"start": term.start, "end": term.stop}
        terms.append({"hash": term.xorb, "unpacked_length": term.size, "range": chunks})
        offsets = store_of(request).xorbs[term.xorb].offsets
        place = {
            "range": chunks,
            "url": f"{request.base_url}_xorbs/{term.xorb}",
            "url_range": {"start": offsets[term.start], "end": offsets[term.stop] - 1},
        }
        if place not in places.setdefault(term.xorb, []):
            places[term.xorb].append(place)
    return {"offset_into_first_range": offset, "terms": terms, "fetch_info": places}


async def give_xorb(request: Request) -> Response:
    """Packed chunks; the address is a secret of who was given it, as on the Hub."""
    packed = store_of(request).xorbs[parameter(request, "hash")].packed
    start, stop = served_part(request, len(packed))
    headers = {"Content-Range": f"bytes {start}-{stop - 1}/{len(packed)}"}
    return Response(packed[start:stop], 206, headers, media_type="application/octet-stream")


_API = "/api/{kinds:kinds}/{owner}/{name}"
ROUTES = [
    Route(f"{_API}/xet-write-token/{{revision}}", write_token),
    Route(f"{_API}/xet-read-token/{{revision}}", read_token),
    Route("/v1/xorbs/default/{hash}", take_xorb, methods=["POST"]),
    Route("/v1/shards", take_shard, methods=["POST"]),
    Route("/v1/reconstructions/{hash}", reconstruction),
    Route("/_xorbs/{hash}", give_xorb),
]
