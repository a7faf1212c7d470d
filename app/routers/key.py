"""`/v1/key`: who asks."""

from typing import Any

from fastapi import APIRouter, Request

from app import schemas
from app.dependencies import SessionDep
from app.persistence import callers, quotas

router = APIRouter(prefix="/v1/key", tags=["service"])


@router.get("", response_model=schemas.Key)
def get_key(request: Request, session: SessionDep) -> Any:
    """The key that this request came with: whose it is, what it may do, and what it has used of its quotas."""
    caller = callers.asking() or callers.LOCAL
    standing = getattr(request.state, "standing", None)
    used = {"per_minute": standing.limit - standing.left if standing else 0}
    if caller.key_id is not None:
        counted = {"max_queued": quotas.queued, "max_running": quotas.running, "max_stored_bytes": quotas.stored}
        used |= {name: count(session, caller.key_id) for name, count in counted.items()}
    return schemas.Key(
        id=caller.key_id,
        name=caller.name,
        owner=caller.owner,
        scopes=sorted(caller.scopes),
        expires_at=caller.expires_at,
        quotas={name: schemas.Quota(limit=getattr(caller, name), used=used.get(name, 0)) for name in schemas.Quotas.model_fields},
    )
