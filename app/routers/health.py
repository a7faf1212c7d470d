"""Health, metrics and version, beside the API proper."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from app import schemas
from app.persistence import callers, queues, schema, workers
from app.persistence.database import open_session
from app.version import CODE_VERSION, VERSION

router = APIRouter(tags=["service"])


@router.get("/healthz", response_model=schemas.Health)
def healthz() -> Any:
    """This process answers."""
    return {"status": "ok"}


@router.get("/readyz", response_model=schemas.Health, responses={503: {"model": schemas.Health}})
def readyz() -> Any:
    """Experiments can be submitted: the database answers and has this version's tables.

    `claims` says whether what waits is claimed (`moving`), or since when nobody does; that delays work, and refuses none.
    """
    try:
        with callers.asked_by(None), open_session() as session:
            fault = schema.fault(session)
            if fault is not None:
                return _unavailable(fault)
            found = {
                "database": "ok",
                "workers": str(len(workers.alive(session))),
                "claims": queues.claims(session),
            }
    except SQLAlchemyError as error:
        return _unavailable(f"it does not answer ({type(error).__name__})")
    return {"status": "ready", "checks": found}


@router.get("/metrics", response_class=PlainTextResponse)
def metrics() -> Any:
    """Prometheus metrics; while the database is away, those that this process knows."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@router.get("/version", response_model=schemas.Version)
def version() -> Any:
    """What code this is; results compare only where `code` is the same."""
    return {"version": VERSION, "code": CODE_VERSION}


def _unavailable(why: str) -> JSONResponse:
    return JSONResponse({"status": "unavailable", "checks": {"database": why}}, 503)
