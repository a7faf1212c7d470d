"""Who asks. Middleware says so for a request, and all that the request reads and writes abides by it: `database` keeps the
queries of whoever is no admin to his own rows, and rows that are made belong to whoever asks. Where nobody asks, in workers and
on the command line, nothing is restricted."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime

READ, SUBMIT, ADMIN = SCOPES = ("read", "submit", "admin")


@dataclass(frozen=True)
class Caller:
    """Who asks, by which key, and what that allows; a limit that is None is none."""

    owner: str
    name: str = ""
    key_id: str | None = None
    scopes: frozenset[str] = field(default=frozenset())
    expires_at: datetime | None = None
    max_queued: int | None = None
    max_running: int | None = None
    max_stored_bytes: int | None = None
    per_minute: int | None = None

    @property
    def sees_all(self) -> bool:
        """Whether rows of every owner are there for him."""
        return ADMIN in self.scopes

    def may(self, scope: str) -> bool:
        """Whether the scope is his; an admin has them all."""
        return scope in self.scopes or self.sees_all


LOCAL = Caller("local", "local", scopes=frozenset(SCOPES))
NOBODY = Caller("")  # for what is open to everybody: no row is there for him
_ASKING: ContextVar[Caller | None] = ContextVar("asking", default=None)


def asking() -> Caller | None:
    """Who asks now; None where nobody does."""
    return _ASKING.get()


def owner() -> str:
    """Whose the rows are that are made now."""
    caller = asking()
    return LOCAL.owner if caller is None else caller.owner


def key_id() -> str | None:
    """The key by which rows are made now."""
    caller = asking()
    return None if caller is None else caller.key_id


@contextmanager
def asked_by(caller: Caller | None) -> Iterator[None]:
    """In this block it is this caller who asks, or nobody."""
    token = _ASKING.set(caller)
    try:
        yield
    finally:
        _ASKING.reset(token)


@contextmanager
def on_behalf_of(owner: str, key_id: str | None = None) -> Iterator[None]:
    """In this block what whoever asks now makes is this owner's; where nobody does, nothing is restricted, by this key."""
    with asked_by(replace(asking() or replace(LOCAL, key_id=key_id), owner=owner)):
        yield
