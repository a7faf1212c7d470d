"""`/v1/presets`: sweeps worth running as they are."""

from typing import Annotated, Any

from fastapi import APIRouter, Path

from app import planning, presets, schemas
from app.dependencies import OnceDep, RingDep, SessionDep, WaitDep
from app.persistence import sweeps
from app.routers.sweeps import queued

router = APIRouter(prefix="/v1/presets", tags=["presets"])


@router.post("/{name}/run", status_code=202, response_model=schemas.Sweep)
def run_preset(
    name: Annotated[str, Path(description="One of `GET /v1/catalog/presets`.")],
    session: SessionDep,
    ring: RingDep,
    once: OnceDep,
    wait: WaitDep,
    run: schemas.PresetRun | None = None,
) -> Any:
    """Queue a preset as a sweep."""
    run = run or schemas.PresetRun()
    preset = presets.get(name)
    sweep = preset.sweep if run.dataset is None else preset.on(run.dataset)
    base = sweep.base if run.seed is None else sweep.base.model_copy(update={"seed": run.seed})
    chosen = sweep.model_copy(update={"base": base, "name": run.name or sweep.name})
    resolved, trainings = planning.plan_sweep(session, chosen)
    return queued(sweeps.create(session, resolved.name, resolved.model_dump(mode="json"), trainings), session, ring, once, wait)
