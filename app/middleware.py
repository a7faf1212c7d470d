"""What happens to every request, whatever it asks: its id, its log line, HEAD, its size, and entity tags."""

import hashlib
import re
import time
from collections.abc import Collection

import structlog
from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid6 import uuid7

log = structlog.get_logger()


class RequestId:
    """Echoes `X-Request-Id`, or makes one, and logs under it what changes something or goes wrong."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if re.fullmatch(r"[\x21-\x7e]{1,128}", given) else uuid7().hex
        scope.setdefault("state", {})["request_id"] = request_id
        start = time.monotonic()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
                if scope["method"] != "GET" or message["status"] >= 400:  # who polls need not be told of
                    milliseconds = round(1000 * (time.monotonic() - start), 1)
                    log.info(
                        f"{scope['method']} {scope['path']}", status=message["status"], ms=milliseconds, request_id=request_id
                    )
            await send(message)

        return await self.app(scope, receive, send_with_id)


class Head:
    """Answers HEAD as GET, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return await self.app(scope, receive, send)
        ended = False

        async def send_head(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                await send(message)
            elif not ended:  # at the first piece already: a stream may have no last one
                ended = True
                await send({"type": "http.response.body", "body": b""})

        return await self.app({**scope, "method": "GET"}, receive, send_head)


class BodyLimit:
    """Refuses a body of more than `most` bytes, without reading the rest of it; `streamed` paths see to that themselves."""

    def __init__(self, app: ASGIApp, most: int, streamed: Collection[str] = ()) -> None:
        self.app = app
        self.most = most
        self.streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["path"] in self.streamed:
            return await self.app(scope, receive, send)
        taken = 0

        async def receive_some() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.most:
                raise HTTPException(413, f"the body has more than {self.most} bytes")
            return message

        return await self.app(scope, receive_some, send)


class EntityTags:
    """A strong `ETag` on every whole answer to a GET under /v1, and 304 where `If-None-Match` names it.

    An answer that comes with a tag of its own is passed on as it comes; any other is held back until its digest is known.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].startswith("/v1"):
            return await self.app(scope, receive, send)
        known = [tag.strip().removeprefix("W/") for tag in Headers(scope=scope).get("if-none-match", "").split(",")]
        return await self.app(scope, receive, _Tagged(send, known))


class _Tagged:
    """Sends one answer on, with its tag, or as 304 where the client knows it."""

    def __init__(self, send: Send, known: list[str]) -> None:
        self._send = send
        self._known = known
        self._held: Message | None = None
        self._body = bytearray()
        self._dropped = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self._held is not None:
            self._body.extend(message.get("body", b""))
            if not message.get("more_body"):
                await self._finish(self._held)
        elif not self._dropped:
            await self._send(message)

    async def _begin(self, start: Message) -> None:
        headers = MutableHeaders(scope=start)
        if start["status"] != 200 or headers.get("content-type", "").startswith("text/event-stream"):
            return await self._send(start)
        headers.setdefault("Cache-Control", "no-cache")
        if "etag" not in headers:
            self._held = start
            return None
        self._dropped = self._knows(headers["etag"])
        return await (self._send_not_modified(start) if self._dropped else self._send(start))

    async def _finish(self, start: Message) -> None:
        tag = f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'
        MutableHeaders(scope=start)["ETag"] = tag
        if self._knows(tag):
            return await self._send_not_modified(start)
        await self._send(start)
        return await self._send({"type": "http.response.body", "body": bytes(self._body)})

    def _knows(self, tag: str) -> bool:
        return tag in self._known or "*" in self._known

    async def _send_not_modified(self, start: Message) -> None:
        headers = MutableHeaders(scope=start)
        for name in ("content-length", "content-type"):
            del headers[name]
        await self._send({**start, "status": 304})
        await self._send({"type": "http.response.body", "body": b""})
