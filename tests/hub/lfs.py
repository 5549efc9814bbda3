"""Upload of large files to the loopback Hub."""

from __future__ import annotations

import hashlib
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.hub.requests import parameter, store_of, writable_of
from tests.hub.store import HubError


async def batch(request: Request) -> Response:
    """Say where the contents go that are not there yet. Who may propose a change may upload what it needs."""
    writable_of(request, proposed=True)
    base = str(request.base_url).rstrip("/")
    objects = []
    for each in (await request.json())["objects"]:
        answer: dict[str, Any] = {"oid": each["oid"], "size": each["size"]}
        if each["oid"] not in store_of(request).objects:
            place = {"href": f"{base}/_objects/{each['oid']}"}
            answer["actions"] = {"upload": place, "verify": place}
        objects.append(answer)
    return JSONResponse({"transfer": "basic", "objects": objects}, media_type="application/vnd.git-lfs+json")


async def upload(request: Request) -> Response:
    """Take a content; one that is not what its name says is refused."""
    content = await request.body()
    oid = parameter(request, "oid")
    if hashlib.sha256(content).hexdigest() != oid:
        raise HubError(400, "", "The content does not have the hash that it was announced with")
    store_of(request).objects[oid] = content
    return Response()


async def verify(request: Request) -> Response:
    """Say whether a content has arrived."""
    asked = await request.json()
    content = store_of(request).objects.get(asked["oid"])
    if content is None or len(content) != asked["size"]:
        raise HubError(404, "", "That content is not here")
    return JSONResponse({})


ROUTES = [
    Route("/_objects/{oid}", upload, methods=["PUT"]),
    Route("/_objects/{oid}", verify, methods=["POST"]),
    *(
        Route(f"{kinds}/{{owner}}/{{name}}/info/lfs/objects/batch", batch, methods=["POST"])
        for kinds in ("/{kinds:kinds}", "")
    ),
]
