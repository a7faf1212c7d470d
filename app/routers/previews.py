"""`/v1/previews`: what a recipe's view pairs look like, before anything is trained."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from fastapi.responses import JSONResponse

from app import answers, planning, schemas
from app.dependencies import OnceDep, RingDep, SessionDep, WaitDep
from app.errors import Invalid
from app.persistence import previews
from app.persistence.database import open_session
from app.persistence.models import TERMINAL

router = APIRouter(prefix="/v1/previews", tags=["previews"])
PATIENCE = 10  # seconds that a POST waits for the picture
PNG = {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
PENDING = {"model": schemas.Preview, "description": "Not there yet; ask again at `Location`."}


@router.post("", response_class=Response, responses={200: PNG, 202: PENDING})
def make_preview(request: schemas.PreviewRequest, session: SessionDep, ring: RingDep, once: OnceDep, wait: WaitDep) -> Any:
    """A PNG of v1 | v2 pairs, as the encoder would receive them; 202 with `Location` where it takes longer than 10 s."""
    spec = planning.plan_preview(session, request.dataset, request.views)
    row = previews.create(session, spec)
    answer = answers.preview(row)
    once.remember(answer, 202, answer.links["self"])
    session.commit()  # the worker must find the row that the bell is about
    ring("default", 1)
    wait.seconds = PATIENCE if wait.seconds is None else wait.seconds
    wait.until(lambda fresh: previews.get(fresh, row.id).state in TERMINAL, longest=PATIENCE)
    return _picture(answer.id, wait)


@router.get("/{id}", response_class=Response, responses={200: PNG, 202: PENDING})
def get_preview(
    preview_id: Annotated[str, Path(alias="id", pattern="^prv_[0-9a-f]{32}$", description="`prv_…`")],
    session: SessionDep,
    wait: WaitDep,
) -> Any:
    """The PNG, once it is there."""
    previews.get(session, preview_id)
    session.close()
    wait.until(lambda fresh: previews.get(fresh, preview_id).state in TERMINAL)
    return _picture(preview_id, wait)


def _picture(preview_id: str, wait: WaitDep) -> Response:
    with open_session() as session:
        row = previews.get(session, preview_id)
    if row.state == "failed":
        error = row.error or {}
        raise Invalid(f"the preview failed: {error.get('message', 'no reason is known')}", code=error.get("code", "internal"))
    location = {"Location": f"/v1/previews/{preview_id}"}
    if row.png is None:
        return JSONResponse(answers.preview(row).model_dump(mode="json"), 202, headers=location)
    return Response(row.png, media_type="image/png", headers=location)
