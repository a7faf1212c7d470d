"""What happens to every request, whatever it asks: its id, its log line, and entity tags."""

import hashlib
import re
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid6 import uuid7

log = structlog.get_logger()


class RequestId:
    """Echoes `X-Request-Id`, or makes one, and logs the request under it."""

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
                if scope["path"].startswith("/v1"):
                    milliseconds = round(1000 * (time.monotonic() - start), 1)
                    log.info(
                        f"{scope['method']} {scope['path']}", status=message["status"], ms=milliseconds, request_id=request_id
                    )
            await send(message)

        return await self.app(scope, receive, send_with_id)


class EntityTags:
    """A strong `ETag` on every whole answer to a GET under /v1, and 304 where `If-None-Match` names it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].startswith("/v1"):
            return await self.app(scope, receive, send)
        known = [tag.strip().removeprefix("W/") for tag in Headers(scope=scope).get("if-none-match", "").split(",")]
        start: Message | None = None
        body = bytearray()

        async def send_tagged(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                kind = Headers(raw=message["headers"]).get("content-type", "")
                if message["status"] != 200 or kind.startswith("text/event-stream"):
                    return await send(message)
                start = message
                return None
            if start is None:
                return await send(message)
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return None
            tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            headers = MutableHeaders(scope=start)
            headers["ETag"] = tag
            headers.setdefault("Cache-Control", "no-cache")
            if tag in known or "*" in known:
                start["status"] = 304
                body.clear()
                for name in ("content-length", "content-type"):
                    del headers[name]
            await send(start)
            return await send({"type": "http.response.body", "body": bytes(body)})

        return await self.app(scope, receive, send_tagged)
