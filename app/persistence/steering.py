"""What clients ask of work that a worker may hold."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.errors import StateConflict
from app.persistence.models import TERMINAL, Experiment, MiEstimate


def cancel(session: Session, row: Experiment | MiEstimate) -> bool:
    """Cancel a locked row at once if it is queued, ask its worker to stop if it runs; say whether that changed its state.

    Raises StateConflict.
    """
    if row.state in TERMINAL:
        raise StateConflict(f"{row.id} has {row.state} and cannot be cancelled", row.state)
    if row.state == "cancelling":
        return False
    if row.state == "queued":
        row.state, row.finished_at = "cancelled", session.scalar(select(func.clock_timestamp()))
    else:
        row.state = "cancelling"
    session.flush()
    return True
