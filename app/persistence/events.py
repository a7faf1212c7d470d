"""The history of an experiment: numbered from 1 without gaps, in the transaction of what it tells of."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.persistence.models import Event, Experiment


def append(session: Session, kind: str, told: Iterable[tuple[Experiment, dict[str, Any]]]) -> None:
    """Write the next event of experiments, each with its data, whose rows this transaction holds locked (or has just made)."""
    for row, data in told:
        row.last_event += 1
        session.add(Event(experiment_id=row.id, seq=row.last_event, attempt=row.attempt, type=kind, data=data))
    session.flush()


def after(session: Session, experiment_id: str, seq: int, limit: int) -> Sequence[Event]:
    """Events that follow number `seq`, in order."""
    query = select(Event).where(Event.experiment_id == experiment_id, Event.seq > seq)
    return session.scalars(query.order_by(Event.seq).limit(limit)).all()
