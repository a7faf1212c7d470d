"""Keys of the API. The secret is shown once, when the key is made; the database knows its SHA-256. That needs no salt and no slow
hash, since the secret is 256 bits of chance."""

import hashlib
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.orm import Session

from app.errors import NotFound, Unauthorized
from app.ids import new_id
from app.persistence.callers import Caller
from app.persistence.models import ApiKey, SignIn

SECRET = re.compile(r"ssk_[A-Za-z0-9_-]{43}")
QUOTAS = ("max_queued", "max_running", "max_stored_bytes", "per_minute")
PER_MINUTE = 600  # requests, of a new key
SIGNED_IN = timedelta(days=7)
NOTED = timedelta(minutes=1)  # how closely the last use of a key is known


def create(
    session: Session,
    name: str,
    owner: str,
    scopes: Collection[str],
    expires_at: datetime | None = None,
    quotas: Mapping[str, int | None] | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its secret, which is not to be had again."""
    secret = f"ssk_{secrets.token_urlsafe(32)}"
    given = {"per_minute": PER_MINUTE, **(quotas or {})}
    key = ApiKey(
        id=new_id("key"), name=name, owner=owner, hash=_hash(secret), scopes=sorted(scopes), expires_at=expires_at, **given
    )
    session.add(key)
    session.flush()
    return key, secret


def page(session: Session) -> Sequence[ApiKey]:
    """All keys, newest first."""
    return session.scalars(select(ApiKey).order_by(ApiKey.id.desc())).all()


def revoke(session: Session, key_id: str) -> ApiKey:
    """Let a key, and all browsers that are signed in with it, be refused from now on. Raises NotFound."""
    key = session.get(ApiKey, key_id)
    if key is None:
        raise NotFound(f"there is no key {key_id!r}")
    session.execute(delete(SignIn).where(SignIn.key_id == key_id))
    key.revoked_at = key.revoked_at or session.scalar(select(func.clock_timestamp()))
    session.flush()
    return key


def any_usable(session: Session) -> bool:
    """Whether there is a key that is not refused."""
    return session.scalar(select(ApiKey.id).where(_usable()).limit(1)) is not None


def is_usable(session: Session, key_id: str) -> bool:
    """Whether a key that was good is so still."""
    return session.scalar(select(ApiKey.id).where(ApiKey.id == key_id, _usable())) is not None


def caller(session: Session, secret: str) -> Caller:
    """Who asks with this secret; the use is noted. Raises Unauthorized, which tells of a key only to whoever knows its secret."""
    key = session.scalar(select(ApiKey).where(ApiKey.hash == _hash(secret))) if SECRET.fullmatch(secret) else None
    if key is None:
        raise Unauthorized("there is no such key")
    if key.revoked_at is not None:
        raise Unauthorized(f"the key {key.id} was revoked on {key.revoked_at:%Y-%m-%d}")
    now = _now(session)
    if key.expires_at is not None and key.expires_at <= now:
        raise Unauthorized(f"the key {key.id} expired on {key.expires_at:%Y-%m-%d}")
    return _noted(session, key, now)


def signed_in(session: Session, secret: str) -> Caller | None:
    """Who asks with this cookie; the use is noted."""
    sign_in = select(ApiKey).join(SignIn, SignIn.key_id == ApiKey.id)
    key = session.scalar(sign_in.where(SignIn.hash == _hash(secret), SignIn.expires_at > func.clock_timestamp(), _usable()))
    return None if key is None else _noted(session, key, _now(session))


def sign_in(session: Session, who: Caller) -> tuple[str, timedelta]:
    """The content of a new cookie, and how long it is good for."""
    now = _now(session)
    until = now + SIGNED_IN if who.expires_at is None else min(now + SIGNED_IN, who.expires_at)
    secret = secrets.token_urlsafe(32)
    session.add(SignIn(hash=_hash(secret), key_id=who.key_id, expires_at=until))
    session.flush()
    return secret, until - now


def sign_out(session: Session, secret: str) -> None:
    """Refuse the cookie from now on."""
    session.execute(delete(SignIn).where(SignIn.hash == _hash(secret)))


def _noted(session: Session, key: ApiKey, now: datetime) -> Caller:
    if key.last_used_at is None or key.last_used_at < now - NOTED:
        free = select(ApiKey.id).where(ApiKey.id == key.id).with_for_update(skip_locked=True, key_share=True)
        session.execute(update(ApiKey).where(ApiKey.id.in_(free)).values(last_used_at=now))  # who submits holds it: another time
        session.commit()
    quotas = {name: getattr(key, name) for name in QUOTAS}
    return Caller(key.owner, key.name, key.id, frozenset(key.scopes), key.expires_at, **quotas)


def _usable() -> ColumnElement[bool]:
    lasts = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.clock_timestamp())
    return and_(ApiKey.revoked_at.is_(None), lasts)


def _now(session: Session) -> datetime:
    now = session.scalar(select(func.clock_timestamp()))
    assert now is not None, "a database has a clock"
    return now


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
