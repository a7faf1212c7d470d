"""`/v1/experiments`."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from itertools import count
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Header, HTTPException, Path, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import MalformedRangeHeader, RangeNotSatisfiable

from app import answers, planning, schemas
from app.dependencies import TEXT, OnceDep, RingDep, SessionDep, SliceDep, WaitDep
from app.errors import NotFound
from app.persistence import callers, events, experiments, files, keys
from app.persistence.database import open_session
from app.persistence.models import TERMINAL
from app.version import CODE_VERSION, VERSION
from ml.spec import ExperimentSpec

router = APIRouter(prefix="/v1/experiments", tags=["experiments"])
ExperimentId = Annotated[str, Path(alias="id", pattern="^exp_[0-9a-f]{32}$", description="`exp_…`")]
DRY_RUN = {"model": schemas.DryRun, "description": "With `dry_run`: what would be queued."}
Text = Annotated[str, Query(pattern=TEXT)]
SSE_PAUSE = 0.25  # seconds between looks at the database
SSE_KEY_LOOKS = 8  # looks at the database from one at the key to the next: two seconds
SSE_KEEP_ALIVE = 15.0  # seconds of silence that proxies bear


@router.post("", status_code=202, response_model=schemas.Experiment, responses={200: DRY_RUN})
def submit_experiment(
    spec: ExperimentSpec,
    session: SessionDep,
    ring: RingDep,
    once: OnceDep,
    wait: WaitDep,
    dry_run: Annotated[bool, Query(description="Answer the resolved spec and its cost, and queue nothing.")] = False,
) -> Any:
    """Queue an experiment; follow it at `GET /v1/experiments/{id}`."""
    resolved = planning.plan(session, spec)
    if dry_run:
        return JSONResponse(schemas.DryRun(spec=resolved, cost=planning.cost(session, resolved)).model_dump(mode="json"))
    row = experiments.create(session, resolved)
    return _queued(row, session, ring, once, wait)


@router.get("", response_model=schemas.Page[schemas.Experiment])
def list_experiments(
    session: SessionDep,
    page: SliceDep,
    state: Annotated[schemas.State | None, Query(description="Only those in this state.")] = None,
    sweep: Annotated[Text | None, Query(max_length=100, description="Only those of this sweep.")] = None,
    tag: Annotated[Text | None, Query(max_length=60, description="Only those with this tag.")] = None,
    created_after: Annotated[
        datetime | None, Query(description="Only those submitted after this time (RFC 3339; UTC where it names no offset).")
    ] = None,
    q: Annotated[Text | None, Query(max_length=200, description="Only those with this in their name, or with this id.")] = None,
) -> Any:
    """Experiments, newest first."""
    filters = {"state": state, "sweep": sweep, "tag": tag, "created_after": created_after, "q": q}
    rows = experiments.page(session, after=page.cursor, limit=page.limit + 1, **filters)
    return answers.page([answers.experiment(row) for row in rows], page.limit)


@router.get("/{id}", response_model=schemas.Experiment)
def get_experiment(experiment_id: ExperimentId, session: SessionDep, wait: WaitDep) -> Any:
    """An experiment: its state, progress, spec and, once it succeeded, its results."""
    experiments.get(session, experiment_id)
    session.rollback()
    wait.until(lambda fresh: experiments.get(fresh, experiment_id).state in TERMINAL)
    return answers.experiment(experiments.get(session, experiment_id))


@router.post("/{id}/cancel", status_code=202, response_model=schemas.Experiment)
def cancel_experiment(experiment_id: ExperimentId, session: SessionDep, wait: WaitDep) -> Any:
    """Cancel an experiment. It is `cancelled` only once nothing works on it any more; until then `cancelling`."""
    experiments.cancel(session, experiment_id)
    session.commit()
    wait.until(lambda fresh: experiments.get(fresh, experiment_id).state in TERMINAL)
    session.expire_all()
    return answers.experiment(experiments.get(session, experiment_id))


@router.post("/{id}/retry", status_code=202, response_model=schemas.Experiment)
def retry_experiment(experiment_id: ExperimentId, session: SessionDep, ring: RingDep, once: OnceDep, wait: WaitDep) -> Any:
    """Queue a new experiment of the same spec, `retry_of` the old one; if cancelled, it goes on from its last checkpoint."""
    return _queued(experiments.retry(session, experiment_id), session, ring, once, wait)


@router.delete("/{id}", status_code=204)
def delete_experiment(experiment_id: ExperimentId, session: SessionDep, afterwards: BackgroundTasks) -> None:
    """Forget a finished experiment and free its files."""
    experiments.delete(session, experiment_id)
    session.commit()
    afterwards.add_task(files.remove, experiment_id)


@router.get(
    "/{id}/events",
    response_model=schemas.Page[schemas.Event],
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
def get_events(
    experiment_id: ExperimentId,
    request: Request,
    response: Response,
    session: SessionDep,
    limit: Annotated[int, Query(ge=1, le=200, description="Events a page.")] = 200,
    cursor: Annotated[int, Query(ge=0, le=2**31 - 1, description="Answer the events after this sequence number.")] = 0,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=2**31 - 1, description="As a stream: replay the events after this sequence number.")
    ] = None,
) -> Any:
    """What happened to an experiment: JSON, or with `Accept: text/event-stream` a stream that ends when the experiment does.

    A stream's `id` is the sequence number; `progress` messages come in between, without an id and without replay.
    """
    experiments.get(session, experiment_id)
    if "text/event-stream" in request.headers.get("accept", ""):
        session.close()
        headers = {"Vary": "Accept", "Cache-Control": "no-store"}
        return StreamingResponse(_stream(experiment_id, last_event_id or cursor), 200, headers, media_type="text/event-stream")
    response.headers["Vary"] = "Accept"
    rows = events.after(session, experiment_id, cursor, limit + 1)
    data = [_event(row) for row in rows[:limit]]
    more = len(rows) > limit
    return schemas.Page(data=data, has_more=more, next_cursor=str(data[-1].seq) if more else None)


@router.get("/{id}/metrics", response_model=schemas.Metrics)
def get_metrics(
    experiment_id: ExperimentId,
    session: SessionDep,
    name: Annotated[list[Text] | None, Query(max_length=20, description="Only metrics of these names.")] = None,
) -> Any:
    """What was measured during the current attempt."""
    rows = experiments.metrics(session, experiments.get(session, experiment_id), name)
    return schemas.Metrics(data=[schemas.MetricPoint(name=row.name, step=row.step, value=row.value) for row in rows])


@router.get("/{id}/artifacts", response_model=schemas.Artifacts)
def list_artifacts(experiment_id: ExperimentId, session: SessionDep) -> Any:
    """The files that a succeeded experiment left."""
    rows = experiments.artifacts(session, experiments.get(session, experiment_id))
    return schemas.Artifacts(
        data=[
            schemas.Artifact(
                name=row.name,
                media_type=row.media_type,
                size=row.size,
                sha256=row.sha256,
                url=f"/v1/experiments/{experiment_id}/artifacts/{row.name}",
            )
            for row in rows
        ]
    )


@router.get(
    "/{id}/artifacts/{name}",
    response_class=FileResponse,
    responses={200: {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}},
)
def get_artifact(
    experiment_id: ExperimentId,
    name: Annotated[str, Path(max_length=200, pattern=TEXT, description="Name of the file.")],
    session: SessionDep,
) -> Any:
    """One of its files."""
    return _file(session, experiment_id, name)


@router.get(
    "/{id}/preview.png",
    response_class=FileResponse,
    responses={200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}},
)
def get_preview(experiment_id: ExperimentId, session: SessionDep) -> Any:
    """A grid of v1 | v2 pairs as the encoder saw them."""
    return _file(session, experiment_id, "preview.png")


@router.get(
    "/{id}/logs",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def get_logs(
    experiment_id: ExperimentId,
    session: SessionDep,
    attempt: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="Which attempt; the current one by default.")] = None,
) -> Any:
    """What an attempt printed."""
    row = experiments.get(session, experiment_id)
    return PlainTextResponse(files.log_text(experiment_id, attempt or row.attempt))


@router.get("/{id}/reproduce", response_model=schemas.Reproduce)
def reproduce(experiment_id: ExperimentId, session: SessionDep) -> Any:
    """All that is needed to come to the same numbers: spec, versions, seeds, data hashes, hardware."""
    row = experiments.get(session, experiment_id)
    results = row.results or {}
    hardware = results.get("hardware", {})
    spec = ExperimentSpec.model_validate(row.spec)
    return schemas.Reproduce(
        spec=spec,
        seed=spec.seed,
        versions={"sweetspot": VERSION, "code": results.get("code", CODE_VERSION), **hardware.get("versions", {})},
        data=results.get("data"),
        hardware=hardware or None,
        command=f"curl -s $SWEETSPOT_URL/v1/experiments/{row.id}/reproduce | jq .spec | sweetspot submit - --wait",
    )


def _queued(row: Any, session: SessionDep, ring: RingDep, once: OnceDep, wait: WaitDep) -> Any:
    answer = answers.experiment(row)
    once.remember(answer, 202, answer.links["self"])
    session.commit()  # the worker must find the row that the bell is about
    ring(row.queue, 1)
    if not wait.seconds:
        return answer
    wait.until(lambda fresh: experiments.get(fresh, answer.id).state in TERMINAL)
    session.expire_all()
    return answers.experiment(experiments.get(session, answer.id))


def _file(session: SessionDep, experiment_id: str, name: str) -> Response:
    row = experiments.get(session, experiment_id)
    artifact = experiments.artifact(session, row, name)
    path = files.attempt_folder(experiment_id, row.attempt) / artifact.name
    if path.is_symlink() or not path.is_file():
        raise NotFound(f"{experiment_id}'s {name!r} is not in the artifacts folder any more")
    return _File(path, media_type=artifact.media_type, headers={"ETag": f'"{artifact.sha256}"'})


class _File(FileResponse):
    """A file, or the part of it that is asked for; what is no range is passed over, RFC 9110, 14.2."""

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []
        except RangeNotSatisfiable:
            headers = {"Content-Range": f"bytes */{file_size}"}
            raise HTTPException(416, f"the file has {file_size} bytes, and none in this range", headers) from None


def _event(row: Any) -> schemas.Event:
    return schemas.Event(seq=row.seq, attempt=row.attempt, type=row.type, data=row.data, at=row.at)


async def _stream(experiment_id: str, seq: int) -> AsyncIterator[str]:
    silence = 0.0
    last_progress = None
    for looks in count(1):
        if looks % SSE_KEY_LOOKS == 0 and not await run_in_threadpool(_is_still_let_in):
            return
        rows, progress, finished = await run_in_threadpool(_look, experiment_id, seq)
        for event in rows:
            seq = event.seq
            yield f"id: {seq}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n"
        if progress != last_progress and not finished:
            last_progress = progress
            yield f"event: progress\ndata: {json.dumps(progress)}\n\n"
        elif not rows:
            silence += SSE_PAUSE
        if finished and not rows:
            return
        if silence >= SSE_KEEP_ALIVE:
            silence = 0.0
            yield ": still here\n\n"
        await asyncio.sleep(SSE_PAUSE)


def _is_still_let_in() -> bool:
    key_id = callers.key_id()
    if key_id is None:
        return True
    with open_session() as session:
        return keys.is_usable(session, key_id)


def _look(experiment_id: str, seq: int) -> tuple[list[schemas.Event], dict[str, Any], bool]:
    with open_session() as session:
        try:
            row = experiments.get(session, experiment_id)
        except NotFound:
            return [], {}, True
        return [_event(event) for event in events.after(session, experiment_id, seq, 200)], row.progress, row.state in TERMINAL
