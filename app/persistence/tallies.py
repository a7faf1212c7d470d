"""How many attempts ended, and how: counted in the transactions that say so, since workers are other processes than the API.

A worker has rows of its own, so that none waits for another; what the reconciler takes back is counted under its name.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Row, delete, func, literal, select
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.orm import Session

from app.persistence.models import Tally, Worker

RECONCILER = "reconciler"
FORMER = "former workers"


def add(session: Session, owner: str, kind: str, outcome: str, code: str = "") -> None:
    """One more attempt of this owner of a lease has ended."""
    worker = owner.rpartition("/")[0] or owner
    session.execute(_counted(insert(Tally).values(worker=worker, kind=kind, outcome=outcome, code=code, count=1)))


def totals(session: Session, worker: str | None = None) -> Sequence[Row[tuple[str, str, str, int]]]:
    """Attempts by kind, outcome and error code, of all workers or of one."""
    named = (Tally.kind, Tally.outcome, Tally.code)
    query = select(*named, func.sum(Tally.count).label("count")).group_by(*named).order_by(*named)
    return session.execute(query if worker is None else query.where(Tally.worker == worker)).all()


def last(session: Session) -> datetime | None:
    """When an attempt ended last."""
    return session.scalar(select(func.max(Tally.at)))


def fold(session: Session, silent: timedelta) -> None:
    """Add up those of workers that were not heard of for so long: names may be as many as processes ever were."""
    then = func.clock_timestamp() - silent
    alive = select(Worker.name).where(Worker.seen_at > then)
    former = (Tally.at < then, Tally.worker.not_in([RECONCILER, FORMER]), Tally.worker.not_in(alive))
    gone = delete(Tally).where(*former).returning(Tally).cte("gone")
    named = (gone.c.kind, gone.c.outcome, gone.c.code)
    sums = select(literal(FORMER), *named, func.sum(gone.c.count), func.max(gone.c.at)).group_by(*named)
    session.execute(_counted(insert(Tally).from_select(["worker", "kind", "outcome", "code", "count", "at"], sums)))


def _counted(row: Insert) -> Insert:
    more = {"count": Tally.count + row.excluded.count, "at": func.greatest(Tally.at, row.excluded.at)}
    return row.on_conflict_do_update(index_elements=[Tally.worker, Tally.kind, Tally.outcome, Tally.code], set_=more)
