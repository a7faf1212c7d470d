"""What endpoints ask for by type: a session, the doorbell, an idempotency guard, a wait, a page."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Response
from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.errors import FieldError, IdempotencyMismatch, InFlight, Invalid
from app.persistence import bell, callers
from app.persistence.database import open_session
from app.persistence.models import IdempotencyKey
from app.problems import escaped

LONGEST_WAIT = 60  # seconds
DEEPEST = 32  # levels of a body
UNKEEPABLE = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")  # by databases, XML and terminals
TEXT = r"^[^\x00]*$"  # what a database can look for
WAITERS = threading.BoundedSemaphore(128)  # of the thread pool's 256, so that waiting clients cannot starve the others


def _session() -> Iterator[Session]:
    with open_session() as session:
        yield session


def _ring() -> bell.Ring:
    return bell.ring


SessionDep = Annotated[Session, Depends(_session, scope="function")]
RingDep = Annotated[bell.Ring, Depends(_ring)]


class Replay(Exception):
    """This request was answered before: here is that answer."""

    def __init__(self, status: int, headers: Mapping[str, str], body: str) -> None:
        super().__init__("replayed")
        self.status = status
        self.headers = headers
        self.body = body


class Once:
    """Sees to it that a POST with an `Idempotency-Key` happens once. The key is stored in the transaction of what it made."""

    def __init__(self, session: Session, response: Response, key: str | None, fingerprint: str) -> None:
        self.session = session
        self.response = response
        self.key = key
        self.fingerprint = fingerprint

    def remember(self, answer: BaseModel, status: int, location: str) -> None:
        """Store the answer and set its `Location`; the caller commits."""
        self.response.headers["Location"] = location
        if self.key is not None:
            row = IdempotencyKey(
                key=self.key,
                fingerprint=self.fingerprint,
                status=status,
                headers={"Location": location},
                body=answer.model_dump_json(),
            )
            self.session.add(row)


async def _request_body(request: Request) -> bytes:
    return await request.body()


KeyHeader = Annotated[
    str | None,
    Header(
        max_length=200,
        pattern=r"^[!-~]+$",
        description="Makes a repeated POST answer as the first one did when it was queued, before any wait.",
    ),
]


def _once(
    request: Request,
    response: Response,
    session: SessionDep,
    body: Annotated[bytes, Depends(_request_body)],
    idempotency_key: KeyHeader = None,
) -> Once:
    parsed = _parsed(body)
    refuse_unkeepable(parsed)
    return once_for(request, response, session, idempotency_key, parsed)


def once_for(request: Request, response: Response, session: Session, key: str | None, asked: Any) -> Once:
    """The guard of a request for `asked`. Raises Replay, InFlight, IdempotencyMismatch."""
    query = request.scope["query_string"].decode("latin-1")
    words = f"{request.method} {request.scope['path']}?{query}\n{json.dumps(asked, sort_keys=True)}"
    fingerprint = hashlib.sha256(words.encode()).hexdigest()
    once = Once(session, response, key, fingerprint)
    if key is None:
        return once
    owner = callers.owner()
    number = int.from_bytes(hashlib.sha256(f"{owner}\n{key}".encode()).digest()[:8], signed=True)
    if not session.scalar(select(func.pg_try_advisory_xact_lock(number))):
        raise InFlight("the first request with this Idempotency-Key is still being answered")
    row = session.get(IdempotencyKey, (owner, key))
    if row is None:
        return once
    if row.fingerprint != fingerprint:
        message = "it was used with another request before; take a fresh key for a new request"
        raise IdempotencyMismatch(message, errors=(FieldError("header/Idempotency-Key", message),))
    raise Replay(row.status, {**row.headers, "Idempotent-Replayed": "true"}, row.body)


class _Twice(dict[str, Any]):
    """An object of which a name comes twice, so that readers may differ on what it says."""

    name: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    twice = _Twice(made)
    twice.name = next(name for index, (name, _) in enumerate(pairs) if name in dict(pairs[:index]))
    return twice


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body, object_pairs_hook=_object) if body else None
    except (ValueError, RecursionError):  # whether that is wrong is for the endpoint to say, which may need no body
        return body.hex()


def refuse_unkeepable(value: Any, pointer: str = "", depth: int = DEEPEST) -> None:
    """What no spec needs and not everybody keeps: control characters, halves of surrogate pairs, nesting without end, and names
    that come twice.

    Raises Invalid.
    """
    if depth == 0:
        raise Invalid.field(pointer, f"nested more than {DEEPEST} levels deep")
    if isinstance(value, str) and (found := UNKEEPABLE.search(value)):
        raise Invalid.field(pointer, f"any text without the character {found[0]!r}, which cannot be kept")
    if isinstance(value, list):
        for index, item in enumerate(value):
            refuse_unkeepable(item, f"{pointer}/{index}", depth - 1)
    if isinstance(value, _Twice):
        raise Invalid.field(f"{pointer}/{escaped(value.name)}", "once, not twice in one object")
    if isinstance(value, dict):
        for name, item in value.items():
            refuse_unkeepable(name, pointer, depth)
            refuse_unkeepable(item, f"{pointer}/{escaped(name)}", depth - 1)


OnceDep = Annotated[Once, Depends(_once)]


class Wait:
    """Waits as long as the client prefers (`Prefer: wait=N`, else not at all) for something to happen."""

    def __init__(self, response: Response, seconds: float | None) -> None:
        self.response = response
        self.seconds = seconds

    def until(self, done: Callable[[Session], bool], longest: float = LONGEST_WAIT) -> None:
        """Return once `done` says so or the time is up, and hold no connection in between."""
        seconds = min(self.seconds or 0, longest)
        if seconds <= 0 or not WAITERS.acquire(blocking=False):  # a preference: with too many waiting it is not honoured
            return
        self.response.headers["Preference-Applied"] = f"wait={seconds:g}"
        deadline = time.monotonic() + seconds
        pause = 0.02
        try:
            while time.monotonic() < deadline:
                with open_session() as session:
                    if done(session):
                        return
                time.sleep(min(pause, max(deadline - time.monotonic(), 0)))
                pause = min(1.5 * pause, 0.5)
        finally:
            WAITERS.release()


def _wait(
    response: Response,
    prefer: Annotated[
        str | None,
        Header(description="`wait=N`: answer when it is finished, or after N seconds, at most 60.", examples=["wait=10"]),
    ] = None,
) -> Wait:
    match = re.search(r"(?:^|[,;\s])wait=(\d{1,9})(?:$|[,;\s])", prefer or "")
    return Wait(response, float(match[1]) if match else None)


WaitDep = Annotated[Wait, Depends(_wait)]


class Slice(BaseModel):
    """Which page of a list."""

    limit: int
    cursor: str | None


def _slice(
    limit: Annotated[int, Query(ge=1, le=200, description="Items a page.")] = 50,
    cursor: Annotated[
        str | None, Query(pattern="^[a-z]{2,3}_[0-9a-f]{32}$", description="`next_cursor` of the page before.")
    ] = None,
) -> Slice:
    return Slice(limit=limit, cursor=cursor)


SliceDep = Annotated[Slice, Depends(_slice)]
