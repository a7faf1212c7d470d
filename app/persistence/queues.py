"""What waits to be claimed, and since when nobody has claimed it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.persistence import tallies
from app.persistence.leases import KINDS

SLOW = 60  # seconds: an idle worker looks every 30 s for what no bell told it of


@dataclass(frozen=True)
class Queue:
    """What is queued of one kind, and since when, in `seconds`, its oldest; `claimable` now, or waiting for an upload."""

    kind: str
    claimable: bool
    count: int
    oldest: datetime | None
    seconds: float


def waiting(session: Session) -> Iterator[Queue]:
    """All queues; counted on the partial indexes of what can be claimed."""
    for kind, model in KINDS.items():
        for claimable in (True, False):
            waits_for = getattr(model, "waits_for", None)
            if waits_for is None and not claimable:
                continue
            age = func.extract("epoch", func.clock_timestamp() - func.min(model.created_at))
            query = select(func.count(), func.min(model.created_at), age).where(model.state == "queued")
            if waits_for is not None:
                query = query.where(waits_for.is_(None) if claimable else waits_for.is_not(None))
            count, oldest, seconds = session.execute(query).one()
            yield Queue(kind, claimable, count, oldest, float(seconds or 0))


def claims(session: Session) -> str:
    """Whether what can be claimed is claimed: `idle` where nothing is there, `moving`, or since when nobody does."""
    now: datetime = session.scalar(select(func.clock_timestamp()))  # type: ignore[assignment]
    ended = tallies.last(session)
    found = "idle"
    for queue in waiting(session):
        if not queue.claimable:
            continue
        model = KINDS[queue.kind]
        held = session.scalar(select(func.max(model.lease_expires_at)).where(model.lease_owner.is_not(None)))
        if held is not None and held > now:
            found = "moving"
        elif queue.oldest is not None:
            since = max(moment for moment in (queue.oldest, ended, held) if moment is not None)
            seconds = (now - since).total_seconds()
            if seconds > SLOW:
                what = queue.kind.replace("_", " ")
                return f"nobody has claimed for {seconds:.0f} s what waits since {queue.oldest:%Y-%m-%dT%H:%M:%SZ} (kind: {what})"
            found = "moving"
    return found
