"""What a key may have at once. Whoever creates something holds its key's row until the transaction ends, so that many at once
cannot have more than one after another could. A worker that adds to a search asks for nothing: the search was accepted."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, true
from sqlalchemy.orm import Session, aliased

from app.errors import QuotaExceeded
from app.persistence import callers
from app.persistence.models import ACTIVE, LEASED, ApiKey, Artifact, Checkpoint, Dataset, Experiment, MiEstimate, Preview, Sweep


def require_place(session: Session, more: int) -> None:
    """The queue takes so many more of the caller's key, which does not store too much. Raises QuotaExceeded."""
    require_room(session, 0)
    caller = callers.asking()
    if caller is None or caller.key_id is None or caller.max_queued is None:
        return
    hold(session, caller.key_id)
    used, limit = queued(session, caller.key_id), caller.max_queued
    if used + more > limit:
        detail = f"the key may have {limit} queued, has {used}, and {more} more would be too many; cancel some, or wait"
        raise QuotaExceeded("max_queued", limit, used, detail)


def require_room(session: Session, size: int) -> None:
    """What is stored by the caller's key may grow by `size` bytes. Raises QuotaExceeded."""
    caller = callers.asking()
    if caller is not None and caller.key_id is not None and caller.max_stored_bytes is not None:
        hold(session, caller.key_id)
        room(session).require(size)


@dataclass(frozen=True)
class Room:
    """Bytes that a key stores, and may store; a limit that is None is none."""

    used: int
    limit: int | None

    def require(self, size: int) -> None:
        """There is room for so many more. Raises QuotaExceeded."""
        if self.limit is not None and self.used + max(size, 0) > self.limit:
            now = f"may store {self.limit} bytes, and stores {self.used}"
            detail = f"the key {now}; this would be too many: delete some datasets or experiments"
            raise QuotaExceeded("max_stored_bytes", self.limit, self.used, detail)


def room(session: Session) -> Room:
    """What the caller's key stores and may store as things stand."""
    caller = callers.asking()
    if caller is None or caller.key_id is None or caller.max_stored_bytes is None:
        return Room(0, None)
    return Room(stored(session, caller.key_id), caller.max_stored_bytes)


def may_be_claimed() -> ColumnElement[bool]:
    """Of experiments: those whose key has not as many at work as it may. It looks at what is leased, which is little."""
    held = aliased(Experiment)
    at_work = select(func.count()).where(held.key_id == ApiKey.id, held.state.in_(LEASED), held.finished_at.is_(None))
    busy = select(ApiKey.id).where(ApiKey.max_running <= at_work.scalar_subquery())
    return or_(Experiment.key_id.is_(None), Experiment.key_id.not_in(busy))


def may_run(session: Session, key_id: str | None) -> bool:
    """Whether one more of a key may be at work, whoever else is about to take one. Nothing is asked where it has no limit."""
    limited = select(ApiKey.max_running).where(ApiKey.id == key_id, ApiKey.max_running.is_not(None))
    most = None if key_id is None else session.scalar(limited.with_for_update(key_share=True))
    return most is None or running(session, str(key_id)) < most


def hold(session: Session, key_id: str) -> None:
    """Let nobody else count what the key has until the transaction ends."""
    session.execute(select(ApiKey.id).where(ApiKey.id == key_id).with_for_update(key_share=True))


def queued(session: Session, key_id: str) -> int:
    """Experiments, estimates and previews of a key that wait for a worker, and its searches, each of which will queue some."""
    waiting = (
        select(func.count()).where(model.key_id == key_id, model.state == "queued", model.finished_at.is_(None))
        for model in (Experiment, MiEstimate, Preview)
    )
    searching = Sweep.search["ended"].astext.is_(None)
    goes_on = select(func.count()).where(Sweep.key_id == key_id, Sweep.search.is_not(None), searching)
    return sum(_number(session, query) for query in (*waiting, goes_on))


def running(session: Session, key_id: str) -> int:
    """Experiments of a key that workers hold."""
    held = Experiment.state.in_(LEASED)
    return _number(session, select(func.count()).where(Experiment.key_id == key_id, held, Experiment.finished_at.is_(None)))


def stored(session: Session, key_id: str) -> int:
    """Bytes of the files that a key sent, and that its experiments left, as far as they are still there."""
    kept = (
        (Dataset, Dataset.state != "failed"),
        (Checkpoint, true()),
        (MiEstimate, MiEstimate.state.in_(ACTIVE) & MiEstimate.finished_at.is_(None)),
    )
    sizes = [select(func.coalesce(func.sum(model.size), 0)).where(model.key_id == key_id, there) for model, there in kept]
    left = select(func.coalesce(func.sum(Artifact.size), 0)).join(Experiment, Experiment.id == Artifact.experiment_id)
    return sum(_number(session, query) for query in (*sizes, left.where(Experiment.key_id == key_id)))


def _number(session: Session, query: Any) -> int:
    with callers.asked_by(None):  # a key that was given another owner counts what it had before, too
        return int(session.scalar(query) or 0)
