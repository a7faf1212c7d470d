"""What happens to every request, whatever it asks: its id, its log line, HEAD, its size, and entity tags."""

import asyncio
import hashlib
import re
import time
from collections.abc import Collection

import structlog
from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid6 import uuid7

from app import metrics

NOTHING = "default-src 'none'; frame-ancestors 'none'"  # that a browser may do with an answer that is no page
DRAWN = f"{NOTHING}; style-src 'unsafe-inline'; img-src data:; sandbox"  # a picture that could hold scripts
SAFE_HEADERS = {
    "Content-Security-Policy": NOTHING,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
PAGE = "frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'"  # that no page does
DOCS = f"default-src 'self' 'unsafe-inline'; img-src 'self' data:; {PAGE}"
YEAR = 365 * 24 * 3600  # seconds

log = structlog.get_logger()

PATIENCE = 60.0  # seconds from one piece of a body to the next


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
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)  # until this request's task ends, whoever logs meanwhile
        start = time.monotonic()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
                if scope["method"] != "GET" or message["status"] >= 400:  # who polls need not be told of
                    milliseconds = round(1000 * (time.monotonic() - start), 1)
                    log.info(f"{scope['method']} {scope['path']}", status=message["status"], ms=milliseconds)
            await send(message)

        return await self.app(scope, receive, send_with_id)


class SafeHeaders:
    """Says with every answer what a browser may do with it: pages have policies of their own, the rest is not run or framed."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        secure = "https" in (scope.get("scheme", "http"), Headers(scope=scope).get("x-forwarded-proto", "").split(",")[0].strip())

        async def send_safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if scope["path"] == "/docs":
                    headers["Content-Security-Policy"] = DOCS
                elif headers.get("content-type", "").startswith("image/svg+xml"):
                    headers["Content-Security-Policy"] = DRAWN
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
                if secure:  # elsewhere browsers ignore both, and complain of the second
                    headers["Strict-Transport-Security"] = f"max-age={YEAR}"
                    headers["Cross-Origin-Opener-Policy"] = "same-origin"
            await send(message)

        return await self.app(scope, receive, send_safe)


class Latency:
    """Measures how long it takes until an answer begins, by route and not by path, of which there are as many as ids."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start = time.monotonic()

        def measured(status: int) -> None:
            metrics.observe(scope, status, time.monotonic() - start)

        async def send_measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                measured(message["status"])
            await send(message)

        try:
            return await self.app(scope, receive, send_measured)
        except Exception:
            measured(500)  # the answer is made further out
            raise


class Head:
    """Answers HEAD as GET, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return await self.app(scope, receive, send)
        ended = False
        inner: Scope = {**scope, "method": "GET"}

        async def send_head(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                scope["route"] = inner.get("route")
                await send(message)
            elif not ended:  # at the first piece already: a stream may have no last one
                ended = True
                await send({"type": "http.response.body", "body": b""})

        return await self.app(inner, receive, send_head)


class BodyLimit:
    """Refuses a body of more than `most` bytes, one that is packed and one that stops coming, without reading the rest of it.

    `streamed` paths see to the size themselves.
    """

    def __init__(self, app: ASGIApp, most: int, streamed: Collection[str] = ()) -> None:
        self.app = app
        self.most = most
        self.streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        encoding = Headers(scope=scope).get("content-encoding", "identity").strip().lower()
        counted = scope["path"] not in self.streamed
        taken, whole = 0, False

        async def receive_some() -> Message:
            nonlocal taken, whole
            if whole:  # what comes now is that the client has gone, whenever that is
                return await receive()
            try:
                async with asyncio.timeout(PATIENCE):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"nothing more of the body came for {PATIENCE:g} seconds") from None
            whole = not message.get("more_body")
            taken += len(message.get("body", b""))
            if taken and encoding != "identity":
                raise HTTPException(415, "the body must come as it is, without Content-Encoding", {"Accept-Encoding": "identity"})
            if counted and taken > self.most:
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
