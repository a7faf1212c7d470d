"""Estimates of two arrays' information as clients see and steer them. What workers write to them is in `leases`.

The arrays lie under the estimate's id until it is finished; then nobody needs them any more.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.errors import NotFound, StateConflict
from app.ids import new_id
from app.persistence import callers, files, quotas, steering
from app.persistence.files import Garbage
from app.persistence.models import IDLE, TERMINAL, MiEstimate
from app.version import CODE_VERSION
from ml import spec


def create(session: Session, name: str, asked: spec.MiEstimate, received: Path, sha256: str, size: int) -> MiEstimate:
    """Store a received file and queue its estimate; at once finished where the same was asked of the same file before.

    Raises QuotaExceeded, or OSError where the file cannot be stored.
    """
    row = MiEstimate(id=new_id("mie"), name=name, spec=asked.model_dump(mode="json"), sha256=sha256, size=size, progress=IDLE)
    same = select(MiEstimate).where(MiEstimate.sha256 == sha256, MiEstimate.state == "succeeded", MiEstimate.spec == row.spec)
    same = same.where(MiEstimate.results["code"].astext == CODE_VERSION).order_by(MiEstimate.id).limit(1)
    twin = session.scalar(same.where(MiEstimate.owner == callers.owner()))
    if twin is None:
        quotas.require_room(session, size)
        quotas.require_place(session, 1)
    session.add(row)
    session.flush()
    if twin is None:
        files.keep(received, files.arrays(row.id))
    else:
        now = session.scalar(select(func.clock_timestamp()))
        row.state, row.finished_at, row.results, row.same_as = "succeeded", now, twin.results, twin.id
        session.flush()
    return row


def get(session: Session, estimate_id: str, *, lock: bool = False) -> MiEstimate:
    """The estimate, locked against changes if asked. Raises NotFound."""
    row = session.get(MiEstimate, estimate_id, with_for_update=lock or None)
    if row is None:
        raise NotFound(f"there is no estimate {estimate_id!r}")
    return row


def page(session: Session, *, after: str | None, limit: int) -> Sequence[MiEstimate]:
    """Newest first, by keyset."""
    query = select(MiEstimate).order_by(MiEstimate.id.desc()).limit(limit)
    return session.scalars(query if after is None else query.where(MiEstimate.id < after)).all()


def cancel(session: Session, estimate_id: str) -> None:
    """Cancel at once what is queued; ask the worker to stop what is running. Raises NotFound, StateConflict."""
    steering.cancel(session, get(session, estimate_id, lock=True))


def delete(session: Session, estimate_id: str) -> None:
    """Forget a finished estimate. Raises NotFound, StateConflict while it still works."""
    row = get(session, estimate_id, lock=True)
    if row.state not in TERMINAL:
        raise StateConflict(f"{estimate_id} is {row.state}; cancel it before deleting it", row.state)
    session.delete(row)
    session.flush()


def garbage(session: Session) -> Iterator[Garbage]:
    """The arrays of finished estimates, and those that a killed process left without one."""
    paths = {path.stem: path for path in files.arrays("").parent.glob("*.npz")}
    rows = session.execute(select(MiEstimate.id, MiEstimate.state).where(MiEstimate.id.in_(paths)))
    states = {row.id: row.state for row in rows}
    for estimate_id, path in paths.items():
        state = states.get(estimate_id)
        if state in TERMINAL or (state is None and files.abandoned(path)):
            yield Garbage(path, f"of an estimate that has {state}" if state else "of no estimate")


def tidy(session: Session) -> None:
    """Remove such arrays, unless another is at it, or a backup runs, which may be about to copy them."""
    if found := list(garbage(session)):
        with files.alone() as alone:
            for one in found if alone else ():
                discard(session, one)


def discard(_: Session, found: Garbage) -> None:
    """Remove such arrays, which nobody can come to want."""
    files.remove_path(found.path)
