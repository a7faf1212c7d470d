"""Who asks: by a key, by the cookie of a browser that signed in with one, or by neither where the request is of this machine."""

import re
from ipaddress import IPv6Address, ip_address
from urllib.parse import quote

import structlog
from fastapi import Request
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import problems
from app.errors import DomainError, Forbidden, RateExceeded, Unauthorized
from app.persistence import callers, keys
from app.persistence.callers import ADMIN, LOCAL, NOBODY, READ, SUBMIT, Caller
from app.persistence.database import open_session
from app.rates import Standing, failures, rates
from app.settings import settings

COOKIE = "sweetspot_session"
OPEN = frozenset({"/healthz", "/readyz", "/version", "/openapi.json", "/docs", "/docs/oauth2-redirect", "/sign-in", "/sign-out"})
OPEN_FOLDERS = ("/static/", "/static-offline-docs/")
SAFE = ("GET", "HEAD", "OPTIONS")
HOW = "send a key as a bearer token in the header Authorization"
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")


class Authentication:
    """Lets in who may, and says for the rest of the request who asks."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request = Request(scope)
        try:
            refuse_other_sites(request)
            caller = NOBODY if _is_open(scope["path"]) else await self._admitted(request)
        except Unauthorized as error:
            return await self._turned_away(request, error)(scope, receive, send)
        except (DomainError, OperationalError, PoolTimeout) as error:
            return await problems.answer(request, error)(scope, receive, _with(send, request.scope["state"].get("standing")))
        if caller.key_id is not None:
            structlog.contextvars.bind_contextvars(owner=caller.owner, key=caller.key_id)
        with callers.asked_by(caller):
            return await self.app(scope, receive, _with(send, request.scope["state"].get("standing")))

    async def _admitted(self, request: Request) -> Caller:
        """Who asks. Raises Unauthorized, Forbidden, RateExceeded."""
        presented = request.headers.get("authorization")
        cookie = request.cookies.get(COOKIE)
        if settings().auth == "off":
            return LOCAL
        caller = None
        if presented is not None or cookie:
            caller = await run_in_threadpool(_known, presented, cookie)
        if caller is None:
            if not is_local(request.scope):
                raise Unauthorized(f"{HOW}; `sweetspot keys create` makes one")
            return LOCAL
        request.state.signed_in = caller if presented is None else None
        if caller.per_minute is not None:
            standing = await run_in_threadpool(rates().count, str(caller.key_id), caller.per_minute)
            request.state.standing = standing
            if not standing.good:
                raise RateExceeded(f"the key may ask {standing.limit} times a minute", standing.seconds)
        needed = ADMIN if request.scope["path"] == "/metrics" else READ if request.method in SAFE else SUBMIT
        if not caller.may(needed):
            has = ", ".join(sorted(caller.scopes))
            raise Forbidden(f"it takes a key with the scope `{needed}`; this one has {has}", scope=needed)
        return caller

    def _turned_away(self, request: Request, error: Unauthorized) -> Response:
        if "authorization" in request.headers:
            seconds = failures().too_many(address(request))
            return problems.answer(request, error if seconds is None else RateExceeded("too many bad keys", seconds))
        path, query = request.scope["path"], request.scope["query_string"]  # `request.url` decodes it, and it may be no UTF-8
        if request.method == "GET" and not path.startswith("/v1") and path != "/metrics":
            asked = path.encode() + (b"?" + query if query else b"")
            return RedirectResponse(f"/sign-in?next={quote(asked, safe='/')}", 303)
        return problems.answer(request, error)


def is_local(scope: Scope) -> bool:
    """Whether keys are not asked for here: in the setting `auto` of a request that was made on this machine, for this machine.

    One that came through a proxy is not: its headers say so, or HTTP/1.0, which proxies speak and hardly anybody else. Nor is one
    whose Host is another name, by which a page of another site may have been led here (DNS rebinding).
    """
    if settings().auth != "auto":
        return settings().auth == "off"
    headers = Headers(scope=scope)
    ends = (scope.get("server"), scope.get("client"))
    if not all(end is not None and _is_loopback(end[0]) for end in ends) or scope.get("http_version") == "1.0":
        return False
    if any(name in headers for name in FORWARDED):
        return False
    host = _host(headers.get("host", ""))
    return host == "localhost" or _is_loopback(host)


def refuse_other_sites(request: Request) -> None:
    """A browser sends cookies, and reaches this machine, for pages of any site: only ours may change things. Raises Forbidden.

    A key that is looked at shows that no such page asks: a browser adds passwords by itself, and no keys.
    """
    scheme, _, _ = request.headers.get("authorization", "").partition(" ")
    if request.method in SAFE or (scheme.lower() == "bearer" and settings().auth != "off"):
        return
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "none")
    ours = origin is None or origin.partition("://")[2].lower() == request.headers.get("host", "").lower()
    if site not in ("same-origin", "none") or not ours:
        raise Forbidden(f"a page of {origin or 'another site'} may not ask for this")


def address(request: Request) -> str:
    """Where a request comes from."""
    return request.client.host if request.client else "unknown"


def is_secure(request: Request) -> bool:
    """Whether it came by https, at least as far as a proxy."""
    return "https" in (request.scope.get("scheme", "http"), request.headers.get("x-forwarded-proto", "").split(",")[0].strip())


def local_path(asked: str) -> str:
    """Where to go on to after signing in: a path of ours, and nowhere else."""
    return asked if re.fullmatch(r"/(?![/\\])[!-\[\]-~]*", asked) else "/"


def _known(presented: str | None, cookie: str | None) -> Caller | None:
    """Whose the key is, or else the cookie, None for a cookie of nobody. Raises Unauthorized for a bad key."""
    with open_session() as session:
        if presented is None:
            return keys.signed_in(session, cookie or "")
        scheme, _, secret = presented.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized(HOW)
        return keys.caller(session, secret.strip())


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith(OPEN_FOLDERS)


def _is_loopback(host: str) -> bool:
    try:
        found = ip_address(host)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return (mapped or found).is_loopback


def _host(header: str) -> str:
    """A Host header without its port and brackets; empty where it is no such thing."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::\d{1,5})?", header)
    return "" if match is None else (match[1] or match[2]).lower()


def _with(send: Send, standing: Standing | None) -> Send:
    """Answers of a key that has a limit say where it stands."""
    if standing is None:
        return send

    async def send_with_standing(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(standing.headers)
        await send(message)

    return send_with_standing
