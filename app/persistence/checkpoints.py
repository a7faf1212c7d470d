"""Weights that experiments begin from. The folder is the truth: a file under its SHA-256, and beside it what is known of it.

Whoever stores or removes one holds the lock of its hash meanwhile; whoever submits an experiment that names it shares that lock.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.errors import NotFound, StateConflict
from app.persistence import files
from app.persistence.models import ACTIVE, Experiment
from ml.spec import ExperimentSpec, SpecError


def create(session: Session, name: str, format: str, received: Path, sha256: str, size: int) -> dict[str, Any]:
    """Store a received file; one that is there already gets the new name. Raises OSError."""
    checkpoint_id = f"ckp_{sha256}"
    session.execute(select(func.pg_advisory_xact_lock(_number(checkpoint_id))))
    known = {"id": checkpoint_id, "name": name, "size": size, "format": format}
    description = received.with_name(f"{received.name}.json")
    description.write_text(json.dumps(known))
    files.keep(description, files.description(files.checkpoint(sha256)))
    files.keep(received, files.checkpoint(sha256))
    return known


def get(checkpoint_id: str) -> dict[str, Any]:
    """What is known of a checkpoint. Raises NotFound."""
    path = _path(checkpoint_id)
    if not path.is_file():
        raise NotFound(f"there is no checkpoint {checkpoint_id!r}")
    known: dict[str, Any] = json.loads(files.description(path).read_text())
    return known


def delete(session: Session, checkpoint_id: str) -> None:
    """Remove a checkpoint. Raises NotFound, StateConflict while an unfinished experiment begins from it."""
    session.execute(select(func.pg_advisory_xact_lock(_number(checkpoint_id))))
    get(checkpoint_id)
    named = Experiment.spec.contains({"encoder": {"weights": checkpoint_id}})
    user = session.execute(select(Experiment.id, Experiment.state).where(Experiment.state.in_(ACTIVE), named).limit(1)).first()
    if user is not None:
        raise StateConflict(f"{user.id}, which is {user.state}, begins from {checkpoint_id}; cancel it first", user.state)
    path = _path(checkpoint_id)
    path.unlink()
    files.description(path).unlink()


def require(session: Session, spec: ExperimentSpec) -> None:
    """That which a spec begins from is there, and stays until the transaction ends. Raises SpecError."""
    checkpoint_id = spec.encoder.weights
    if checkpoint_id is None:
        return
    session.execute(select(func.pg_advisory_xact_lock_shared(_number(checkpoint_id))))
    if not _path(checkpoint_id).is_file():
        raise SpecError("/encoder/weights", f"there is no checkpoint {checkpoint_id!r}; POST /v1/checkpoints takes one")


def _path(checkpoint_id: str) -> Path:
    return files.checkpoint(checkpoint_id.removeprefix("ckp_"))


def _number(checkpoint_id: str) -> int:
    return int.from_bytes(hashlib.sha256(checkpoint_id.encode()).digest()[:8], signed=True)
