"""Pictures of view pairs, asked for by clients and made by workers."""

from typing import Any

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session, undefer

from app.errors import Invalid, NotFound
from app.ids import new_id
from app.persistence import quotas
from app.persistence.datasets import Named, why
from app.persistence.models import Preview
from ml.spec import ExperimentSpec, SpecError


def create(session: Session, asked: ExperimentSpec) -> Preview:
    """Queue a preview of a spec's dataset and views; the spec is resolved, or names an upload that is not decoded yet.

    Raises Invalid, SpecError, QuotaExceeded.
    """
    spec, waits_for = Named(session).settled(asked)
    quotas.require_place(session, 1)
    preview = Preview(id=new_id("prv"), spec=_drawn(spec), waits_for=waits_for)
    session.add(preview)
    session.flush()
    return preview


def get(session: Session, preview_id: str) -> Preview:
    """The preview with its picture, if that is there yet. Raises NotFound."""
    preview = session.scalar(select(Preview).where(Preview.id == preview_id).options(undefer(Preview.png)))
    if preview is None:
        raise NotFound(f"there is no preview {preview_id!r}")
    return preview


def settle(session: Session, dataset_id: str) -> int:
    """As `experiments.settle`."""
    waiting = select(Preview).where(Preview.waits_for == dataset_id, Preview.state == "queued").order_by(Preview.id)
    rows = session.scalars(waiting.with_for_update()).all()
    named = Named(session)
    now = session.scalar(select(func.clock_timestamp()))
    for row in rows:
        try:
            spec, row.waits_for = named.settled(ExperimentSpec.model_validate(row.spec))
        except (Invalid, SpecError, ValidationError) as error:
            row.state, row.finished_at, row.error = "failed", now, why(error)
        else:
            row.spec = _drawn(spec)
    session.flush()
    return sum(row.state == "queued" and row.waits_for is None for row in rows)


def _drawn(spec: ExperimentSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", include={"dataset", "views"})
