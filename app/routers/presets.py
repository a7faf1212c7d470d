"""`/v1/presets`: sweeps worth running as they are."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse

from app import planning, presets, schemas
from app.dependencies import OnceDep, RingDep, SessionDep, WaitDep
from app.persistence import sweeps
from app.routers.sweeps import queued

router = APIRouter(prefix="/v1/presets", tags=["presets"])
DRY_RUN_OF_PRESET = {"model": schemas.PresetDryRun, "description": "With `dry_run`: what would be queued."}


@router.post("/{name}/run", status_code=202, response_model=schemas.Sweep, responses={200: DRY_RUN_OF_PRESET})
def run_preset(
    name: Annotated[str, Path(description="One of `GET /v1/catalog/presets`.")],
    session: SessionDep,
    ring: RingDep,
    once: OnceDep,
    wait: WaitDep,
    run: schemas.PresetRun | None = None,
    dry_run: Annotated[bool, Query(description="Answer the resolved sweep, its cost and all sizes'; queue nothing.")] = False,
) -> Any:
    """Queue a preset as a sweep, in one of its sizes."""
    preset, run = presets.get(name), run or schemas.PresetRun()
    resolved, trainings = planning.plan_preset(session, preset, run)
    if dry_run:
        cost = planning.cost(session, *(training for _, training in trainings))
        sizes = planning.sizes_of_preset(session, preset, run.dataset)
        told = schemas.PresetDryRun(spec=resolved, cost=cost, size=run.size, sizes=sizes, paper=presets.paper(name))
        return JSONResponse(told.model_dump(mode="json"))
    return queued(sweeps.create(session, resolved.name, resolved.model_dump(mode="json"), trainings), session, ring, once, wait)
