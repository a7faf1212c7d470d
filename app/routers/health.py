"""Health, metrics and version, beside the API proper."""

from typing import Any

import redis
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from app import schemas
from app.dependencies import SessionDep
from app.persistence import workers
from app.persistence.database import open_session
from app.persistence.models import Experiment
from app.planning import WORKER_SILENCE
from app.settings import settings
from app.version import CODE_VERSION, VERSION

router = APIRouter(tags=["service"])
experiments_by_state = Gauge("sweetspot_experiments", "Experiments by state.", ["state"])
oldest_queued = Gauge("sweetspot_oldest_queued_seconds", "Age of the oldest queued experiment.")
workers_alive = Gauge("sweetspot_workers", "Workers heard of in the last minute.")


@router.get("/healthz", response_model=schemas.Health)
def healthz() -> Any:
    """This process answers."""
    return {"status": "ok"}


@router.get("/readyz", response_model=schemas.Health, responses={503: {"model": schemas.Health}})
def readyz() -> Any:
    """Experiments can be submitted: the database answers and is migrated. A broker that is away delays them, and is named."""
    checks = {"redis": _redis(), "workers": "unknown"}
    try:
        with open_session() as session:
            checks["workers"] = str(len(workers.alive(session, within=WORKER_SILENCE)))
            session.execute(select(Experiment.id).limit(1))
    except SQLAlchemyError as error:
        return JSONResponse({"status": "unavailable", "checks": {**checks, "database": type(error).__name__}}, 503)
    return {"status": "ready", "checks": {**checks, "database": "ok"}}


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(session: SessionDep) -> Any:
    """Prometheus metrics."""
    for state in schemas.SweepCounts.model_fields.keys() - {"total"}:
        experiments_by_state.labels(state).set(0)
    for state, count in session.execute(select(Experiment.state, func.count()).group_by(Experiment.state)):
        experiments_by_state.labels(state).set(count)
    age = func.extract("epoch", func.clock_timestamp() - func.min(Experiment.created_at))
    oldest_queued.set(session.scalar(select(age).where(Experiment.state == "queued")) or 0)
    workers_alive.set(len(workers.alive(session, within=WORKER_SILENCE)))
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@router.get("/version", response_model=schemas.Version)
def version() -> Any:
    """What code this is; results compare only where `code` is the same."""
    return {"version": VERSION, "code": CODE_VERSION}


def _redis() -> str:
    try:
        with redis.Redis.from_url(settings().require_redis_url(), socket_timeout=0.5, socket_connect_timeout=0.5) as client:
            client.ping()
    except (redis.RedisError, OSError) as error:
        return type(error).__name__
    return "ok"
