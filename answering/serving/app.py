"""The HTTP side: OpenAI's chat completions and list of models over one worker."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from answering.serving.chat_request import Offer, read_request
from answering.serving.errors import ApiError
from answering.serving.outgoing import Answering, events, whole
from answering.serving.worker import Worker, Written

MAX_BODY = 64 * 2**20
"""Bytes of a request."""
BODY_S = 60.0
"""Seconds for the whole of a request to come."""
HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]*\]|[^:\[\]]*)(:\d{1,5})?", re.ASCII)
"""A server's name and port, as clients say it."""


@dataclass(frozen=True)
class Doors:
    """Who is let in.

    Attributes:
        key: that requests must bring; empty asks for none.
        hosts: names under which the server may be called; empty takes any. Without a key a web page that was made to
            point at this machine could ask otherwise.
    """

    key: str
    hosts: Sequence[str] = ()

    def refuse(self, request: Request) -> None:
        """Refuse a request.

        Raises:
            ApiError: it has not the key, or calls the server by a strange name.
        """
        host = request.headers.get("host", "")
        called = HOST.fullmatch(host)
        if self.hosts and (called is None or called["name"].strip("[]") not in self.hosts):
            raise ApiError(403, f"this server is not called {host[:100]!r}", code="invalid_host")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if self.key and not (scheme.lower() == "bearer" and hmac.compare_digest(given.encode(), self.key.encode())):
            raise ApiError(401, "wrong or no API key: send Authorization: Bearer KEY", code="invalid_api_key")


class Server:
    """What each address does."""

    def __init__(self, worker: Worker, offer: Offer, doors: Doors) -> None:
        """Keep who answers, what may be asked for, and who may ask."""
        self.worker, self.offer, self.doors = worker, offer, doors
        self.started = int(time.time())

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        self.doors.refuse(request)
        return JSONResponse({"object": "list", "data": [self.listed(name) for name in self.offer.models]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        self.doors.refuse(request)
        name = request.path_params["name"]
        if name not in self.offer.models:
            raise ApiError(404, f"model: {name[:100]!r} is not served here", "model", "model_not_found")
        return JSONResponse(self.listed(name))

    def listed(self, name: str) -> dict[str, Any]:
        """A model as the list has it."""
        return {"id": name, "object": "model", "created": self.started, "owned_by": "this server"}

    async def completions(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        self.doors.refuse(request)
        asked = await asyncio.to_thread(read_request, await body_of(request), self.offer)
        answer = Answering(self.worker, asked, request.is_disconnected)
        found = await answer.next()  # before a status is sent: what is refused has one of its own
        if asked.stream:
            return StreamingResponse(events(answer, found, asked), media_type="text/event-stream")
        while not isinstance(found, Written):
            found = await answer.next()
        return JSONResponse(whole(asked.model, found))

    async def health(self, _: Request) -> Response:
        """GET /health."""
        return JSONResponse({"status": "ok"})


def application(worker: Worker, offer: Offer, doors: Doors) -> Starlette:
    """The ASGI application; arguments as of `Server`."""
    server = Server(worker, offer, doors)
    routes = [
        Route("/v1/chat/completions", server.completions, methods=["POST"]),
        Route("/v1/models", server.models),
        Route("/v1/models/{name:path}", server.model),
        Route("/health", server.health),
    ]
    handlers = dict.fromkeys((ApiError, HTTPException, ClientDisconnect, Exception), refused)
    return Starlette(routes=routes, exception_handlers=handlers)


async def refused(_: Request, error: Exception) -> Response:
    """What is said of a request that was not answered; of our own faults the server's log says more."""
    if isinstance(error, HTTPException):
        error = ApiError(error.status_code, f"{error.detail}: there are POST /v1/chat/completions and GET /v1/models")
    elif isinstance(error, ClientDisconnect):
        error = ApiError(499, "nobody waits for the answer any more")
    elif not isinstance(error, ApiError):
        error = ApiError(500, "the server failed; its log says how")
    return JSONResponse(error.body, error.status)


async def body_of(request: Request) -> bytes:
    """The bytes of a request.

    Raises:
        ApiError: it is not said to be JSON, is too long, or takes too long to come.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"Content-Type: expected application/json, got {kind[:60]!r}", code="invalid_content_type")
    pieces, size = [], 0
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.stream():
                size += len(piece)
                if size > MAX_BODY:
                    raise ApiError(413, f"the body has more than {MAX_BODY} bytes", code="request_too_large")
                pieces.append(piece)
    except TimeoutError as error:
        raise ApiError(408, f"the body did not come within {BODY_S:g} s", code="timeout") from error
    return b"".join(pieces)
