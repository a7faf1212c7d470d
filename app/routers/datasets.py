"""`/v1/datasets`: images of one's own. The API takes the file in and hashes it; a worker decodes it."""

from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, Path, Request, Response

from app import answers, schemas
from app.dependencies import KeyHeader, Once, RingDep, SessionDep, SliceDep, WaitDep, once_for
from app.persistence import datasets
from app.persistence.database import open_session
from app.persistence.models import TERMINAL
from app.uploads import Received, documented, receiving

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])
DatasetId = Annotated[str, Path(alias="id", pattern="^ds_[0-9a-f]{32}$", description="`ds_…`")]
ReceivedDep = Annotated[Received, Depends(receiving(schemas.UploadForm))]
BODY = documented(schemas.UploadForm, "A zip or an npz.")


def _once(
    request: Request, response: Response, session: SessionDep, received: ReceivedDep, idempotency_key: KeyHeader = None
) -> Once:
    return once_for(request, response, session, idempotency_key, {"file": received.sha256, **received.fields})


@router.post("", status_code=202, response_model=schemas.Upload, openapi_extra=BODY)
def upload_dataset(
    received: ReceivedDep, session: SessionDep, ring: RingDep, once: Annotated[Once, Depends(_once)], wait: WaitDep
) -> Any:
    """Upload a dataset. Experiments on it may be submitted at once, and begin when it is `ready`.

    A file that was uploaded and decoded before, under the same layout, is ready at once.
    """
    form = schemas.UploadForm.model_validate(received.fields)
    name = received.title[:200] if form.name is None else form.name
    row = datasets.create(session, name, form.layout, received.path, received.sha256, received.size)
    answer = answers.upload(row)
    once.remember(answer, 202, answer.links["self"])
    session.commit()  # the worker must find the row that the bell is about
    if answer.state == "processing":
        ring("default", 1)
    if not wait.seconds:
        return answer
    return _decoded(answer.id, session, wait)


@router.get("", response_model=schemas.Page[schemas.Upload])
def list_datasets(session: SessionDep, page: SliceDep) -> Any:
    """Uploaded datasets, newest first; those that everybody has are in `GET /v1/catalog/datasets`."""
    rows = datasets.page(session, after=page.cursor, limit=page.limit + 1)
    return answers.page([answers.upload(row) for row in rows], page.limit)


@router.get("/{id}", response_model=schemas.Upload)
def get_dataset(dataset_id: DatasetId, session: SessionDep, wait: WaitDep) -> Any:
    """An uploaded dataset: `processing`, then `ready` with its facts, or `rejected` with the reason."""
    datasets.get(session, dataset_id)
    session.rollback()
    return _decoded(dataset_id, session, wait)


@router.delete("/{id}", status_code=204)
def delete_dataset(dataset_id: DatasetId, session: SessionDep, afterwards: BackgroundTasks) -> None:
    """Forget an uploaded dataset that no experiment is at work on, and free its files."""
    row = datasets.delete(session, dataset_id)
    session.commit()
    afterwards.add_task(_free, row.id, row.sha256)


def _decoded(dataset_id: str, session: SessionDep, wait: WaitDep) -> schemas.Upload:
    wait.until(lambda fresh: datasets.get(fresh, dataset_id).state in TERMINAL)
    session.expire_all()
    return answers.upload(datasets.get(session, dataset_id))


def _free(dataset_id: str, sha256: str) -> None:
    with open_session() as session:
        datasets.free(session, dataset_id, sha256)
        session.commit()
