"""`/v1/mi-estimates`: the mutual information of two arrays of one's own."""

from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, Path, Request, Response

from app import answers, array_headers, schemas
from app.dependencies import KeyHeader, Once, RingDep, SessionDep, SliceDep, WaitDep, once_for
from app.persistence import files, mi_estimates
from app.persistence.models import TERMINAL
from app.uploads import Received, documented, receiving
from ml.spec import MiEstimate

router = APIRouter(prefix="/v1/mi-estimates", tags=["mi-estimates"])
EstimateId = Annotated[str, Path(alias="id", pattern="^mie_[0-9a-f]{32}$", description="`mie_…`")]
ReceivedDep = Annotated[Received, Depends(receiving(schemas.MiEstimateForm))]
BODY = documented(
    schemas.MiEstimateForm, "An npz of `x` and `y`, each [N, d] or [N], of numbers; row i of one belongs to row i of the other."
)


def _once(
    request: Request, response: Response, session: SessionDep, received: ReceivedDep, idempotency_key: KeyHeader = None
) -> Once:
    return once_for(request, response, session, idempotency_key, {"file": received.sha256, **received.fields})


@router.post("", status_code=202, response_model=schemas.MiEstimation, openapi_extra=BODY)
def estimate_information(
    received: ReceivedDep, session: SessionDep, ring: RingDep, once: Annotated[Once, Depends(_once)], wait: WaitDep
) -> Any:
    """Estimate the mutual information of two arrays; follow it at `GET /v1/mi-estimates/{id}`.

    `estimators` may come several times, or once with commas between. What was asked of the same file before is answered at once.
    """
    form = schemas.MiEstimateForm.model_validate(received.fields)
    asked = MiEstimate.model_validate(form.model_dump(exclude={"name"}))
    array_headers.check(received.path, asked)
    name = received.title[:200] if form.name is None else form.name
    row = mi_estimates.create(session, name, asked, received.path, received.sha256, received.size)
    answer = answers.mi_estimate(row)
    once.remember(answer, 202, answer.links["self"])
    session.commit()  # the worker must find the row that the bell is about
    if answer.state == "queued":
        ring("default", 1)
    return _finished(answer.id, session, wait) if wait.seconds else answer


@router.get("", response_model=schemas.Page[schemas.MiEstimation])
def list_estimates(session: SessionDep, page: SliceDep) -> Any:
    """Estimates, newest first."""
    rows = mi_estimates.page(session, after=page.cursor, limit=page.limit + 1)
    return answers.page([answers.mi_estimate(row) for row in rows], page.limit)


@router.get("/{id}", response_model=schemas.MiEstimation)
def get_estimate(estimate_id: EstimateId, session: SessionDep, wait: WaitDep) -> Any:
    """An estimate: its state, its progress and, once it succeeded, its results with a verdict in words."""
    mi_estimates.get(session, estimate_id)
    session.rollback()
    return _finished(estimate_id, session, wait)


@router.post("/{id}/cancel", status_code=202, response_model=schemas.MiEstimation)
def cancel_estimate(estimate_id: EstimateId, session: SessionDep, wait: WaitDep) -> Any:
    """Cancel an estimate. It is `cancelled` only once nothing works on it any more; until then `cancelling`."""
    mi_estimates.cancel(session, estimate_id)
    session.commit()
    return _finished(estimate_id, session, wait)


@router.delete("/{id}", status_code=204)
def delete_estimate(estimate_id: EstimateId, session: SessionDep, afterwards: BackgroundTasks) -> None:
    """Forget a finished estimate."""
    mi_estimates.delete(session, estimate_id)
    session.commit()
    afterwards.add_task(files.arrays(estimate_id).unlink, missing_ok=True)


def _finished(estimate_id: str, session: SessionDep, wait: WaitDep) -> schemas.MiEstimation:
    wait.until(lambda fresh: mi_estimates.get(fresh, estimate_id).state in TERMINAL)
    session.expire_all()
    return answers.mi_estimate(mi_estimates.get(session, estimate_id))
