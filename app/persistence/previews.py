"""Pictures of view pairs, asked for by clients and made by workers."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from app.errors import NotFound
from app.ids import new_id
from app.persistence.models import Preview


def create(session: Session, spec: dict[str, Any]) -> Preview:
    """Queue a preview of {dataset, views}."""
    preview = Preview(id=new_id("prv"), spec=spec)
    session.add(preview)
    session.flush()
    return preview


def get(session: Session, preview_id: str) -> Preview:
    """The preview with its picture, if that is there yet. Raises NotFound."""
    preview = session.scalar(select(Preview).where(Preview.id == preview_id).options(undefer(Preview.png)))
    if preview is None:
        raise NotFound(f"there is no preview {preview_id!r}")
    return preview
