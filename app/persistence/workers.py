"""Who is there to do the work."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.persistence.models import Worker

SILENCE = 60  # seconds after which a worker is not counted any more


def hello(session: Session, name: str, hardware: dict[str, Any]) -> None:
    """A worker lives; to be said again and again."""
    row = insert(Worker).values(name=name, hardware=hardware)
    session.execute(
        row.on_conflict_do_update(
            index_elements=[Worker.name], set_={"hardware": row.excluded.hardware, "seen_at": func.clock_timestamp()}
        )
    )


def goodbye(session: Session, name: str) -> None:
    """A worker shuts down."""
    session.execute(delete(Worker).where(Worker.name == name))


def alive(session: Session, within: float = SILENCE) -> Sequence[Worker]:
    """Workers heard of in the last `within` seconds."""
    return session.scalars(select(Worker).where(Worker.seen_at > func.clock_timestamp() - timedelta(seconds=within))).all()
