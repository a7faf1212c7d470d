"""Weights that experiments begin from: a file under its SHA-256, and a row for each owner who sent it.

Whoever stores or removes one holds the lock of its hash meanwhile; whoever submits an experiment that names it shares that lock.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.errors import NotFound, StateConflict
from app.persistence import callers, files, quotas
from app.persistence.files import Garbage
from app.persistence.models import ACTIVE, Checkpoint, Experiment
from ml.spec import ExperimentSpec, SpecError


def create(session: Session, name: str, format: str, received: Path, sha256: str, size: int) -> Checkpoint:
    """Store a received file; one that its owner has already gets the new name. Raises QuotaExceeded, OSError."""
    checkpoint_id = f"ckp_{sha256}"
    _lock(session, checkpoint_id)
    row = session.get(Checkpoint, (callers.owner(), checkpoint_id))
    if row is None:
        quotas.require_room(session, size)
        row = Checkpoint(id=checkpoint_id, size=size)
        session.add(row)
    row.name, row.format = name, format
    session.flush()
    files.keep(received, files.checkpoint(sha256))
    return row


def get(session: Session, checkpoint_id: str) -> Checkpoint:
    """What is known of a checkpoint. Raises NotFound."""
    found = _find(session, checkpoint_id)
    if found is None:
        raise NotFound(f"there is no checkpoint {checkpoint_id!r}")
    return found


def delete(session: Session, checkpoint_id: str) -> None:
    """Forget a checkpoint; its file goes with its last owner. Raises NotFound, StateConflict while an unfinished experiment
    begins from it."""
    _lock(session, checkpoint_id)
    row = get(session, checkpoint_id)
    with callers.asked_by(None):  # the file is everybody's who has it
        last = len(session.scalars(select(Checkpoint.owner).where(Checkpoint.id == checkpoint_id)).all()) == 1
        using = select(Experiment.id, Experiment.state).where(Experiment.state.in_(ACTIVE))
        using = using.where(Experiment.spec.contains({"encoder": {"weights": checkpoint_id}}))
        user = session.execute(using.where(Experiment.owner == row.owner).limit(1)).first()
        other = session.scalar(using.with_only_columns(Experiment.state).limit(1)) if last else None
    if user is not None:
        raise StateConflict(f"{user.id}, which is {user.state}, begins from {checkpoint_id}; cancel it first", user.state)
    if other is not None:
        raise StateConflict(f"another owner's experiment, which is {other}, begins from {checkpoint_id}", other)
    session.delete(row)
    session.flush()
    path = _path(checkpoint_id)
    if row.owner == callers.LOCAL.owner:
        files.description(path).unlink(missing_ok=True)
    if last:
        path.unlink(missing_ok=True)


def require(session: Session, spec: ExperimentSpec) -> None:
    """That which a spec begins from is there, and stays until the transaction ends. Raises SpecError."""
    checkpoint_id = spec.encoder.weights
    if checkpoint_id is None:
        return
    session.execute(select(func.pg_advisory_xact_lock_shared(_number(checkpoint_id))))
    if _find(session, checkpoint_id) is None:
        raise SpecError("/encoder/weights", f"there is no checkpoint {checkpoint_id!r}; POST /v1/checkpoints takes one")


def garbage(session: Session) -> Iterator[Garbage]:
    """Files that belong to nobody, as where a process was killed between file and row."""
    paths = {path.name: path for path in files.checkpoint("").glob("*") if files.abandoned(path)}
    owned = {id.removeprefix("ckp_") for id in session.scalars(select(Checkpoint.id))}
    for name, path in paths.items():
        weights = name.removesuffix(".json")
        if path == files.description(files.checkpoint(weights)):
            if not files.checkpoint(weights).exists():
                yield Garbage(path, "the description of no checkpoint")
        elif weights not in owned and not files.description(path).exists():
            yield Garbage(path, "a checkpoint of nobody's")


def discard(session: Session, found: Garbage) -> None:
    """Remove such a file, unless somebody has sent it by now."""
    checkpoint_id = f"ckp_{found.path.name.removesuffix('.json')}"
    _lock(session, checkpoint_id)
    if session.scalar(select(Checkpoint.id).where(Checkpoint.id == checkpoint_id).limit(1)) is None:
        files.remove_path(found.path)


def _find(session: Session, checkpoint_id: str) -> Checkpoint | None:
    """The caller's own row before another's that he may see."""
    path = _path(checkpoint_id)
    if not path.is_file():
        return None
    if files.description(path).is_file():
        _adopt(session, files.description(path))
    rows = select(Checkpoint).where(Checkpoint.id == checkpoint_id)
    return session.scalar(rows.order_by((Checkpoint.owner == callers.owner()).desc(), Checkpoint.owner).limit(1))


def _adopt(session: Session, description: Path) -> None:
    """Weights from before there were owners have a description beside them: they are the local owner's, until he deletes them."""
    known = json.loads(description.read_text())
    session.execute(insert(Checkpoint).values(owner=callers.LOCAL.owner, key_id=None, **known).on_conflict_do_nothing())


def _path(checkpoint_id: str) -> Path:
    return files.checkpoint(checkpoint_id.removeprefix("ckp_"))


def _lock(session: Session, checkpoint_id: str) -> None:
    session.execute(select(func.pg_advisory_xact_lock(_number(checkpoint_id))))


def _number(checkpoint_id: str) -> int:
    return int.from_bytes(hashlib.sha256(checkpoint_id.encode()).digest()[:8], signed=True)
