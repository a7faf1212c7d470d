"""`/v1/sweeps`, and the curves they trace."""

import re
from collections.abc import Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from sqlalchemy import func, select

from app import answers, planning, recipes, schemas, tracing
from app import datasets as available
from app.dependencies import OnceDep, RingDep, SessionDep, SliceDep, WaitDep
from app.errors import Invalid
from app.persistence import datasets, files, sweeps
from app.persistence.models import TERMINAL, Experiment, Sweep
from ml import curve
from ml.spec import WHOLE, ExperimentSpec, SweepSpec

router = APIRouter(prefix="/v1/sweeps", tags=["sweeps"])
SweepId = Annotated[str, Path(alias="id", pattern="^swp_[0-9a-f]{32}$", description="`swp_…`")]
BINARY = {"schema": {"type": "string", "format": "binary"}}


class CurveFormat(StrEnum):
    """Formats of a curve: the same numbers in each."""

    JSON = "json"
    CSV = "csv"
    SVG = "svg"
    PNG = "png"
    PDF = "pdf"
    VEGA_LITE = "vl.json"


MEDIA_TYPES = {
    CurveFormat.JSON: "application/json",
    CurveFormat.CSV: "text/csv",
    CurveFormat.SVG: "image/svg+xml",
    CurveFormat.PNG: "image/png",
    CurveFormat.PDF: "application/pdf",
    CurveFormat.VEGA_LITE: "application/vnd.vegalite.v6+json",
}
OBJECT = {"schema": {"type": "object"}}
CURVES = {
    200: {"content": {kind: OBJECT if kind.endswith("json") else BINARY for kind in [*MEDIA_TYPES.values()][1:]}},
}
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
RECIPES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/x-python": {"schema": {"type": "string"}}}},
    409: {"description": "Nothing has finished yet.", "content": PROBLEM},
}
DRY_RUN = {"model": schemas.SweepDryRun, "description": "With `dry_run`: what would be queued."}
TaskQuery = Annotated[str | None, Query(max_length=60, description="Draw this task alone; the numbers are of all.")]


@router.post("", status_code=202, response_model=schemas.Sweep, responses={200: DRY_RUN})
def submit_sweep(
    spec: SweepSpec,
    session: SessionDep,
    ring: RingDep,
    once: OnceDep,
    wait: WaitDep,
    dry_run: Annotated[bool, Query(description="Answer the resolved sweep and its cost, and queue nothing.")] = False,
) -> Any:
    """Queue experiments along one axis, times seeds; watch the curve grow at `GET /v1/sweeps/{id}/curve`."""
    resolved, trainings = planning.plan_sweep(session, spec)
    if dry_run:
        cost = planning.cost(session, *(training for _, training in trainings))
        return JSONResponse(schemas.SweepDryRun(spec=resolved, cost=cost).model_dump(mode="json"))
    return queued(sweeps.create(session, resolved.name, resolved.model_dump(mode="json"), trainings), session, ring, once, wait)


@router.get("", response_model=schemas.Page[schemas.SweepSummary])
def list_sweeps(session: SessionDep, page: SliceDep) -> Any:
    """Sweeps, newest first."""
    rows = sweeps.page(session, after=page.cursor, limit=page.limit + 1)
    counts = sweeps.counts(session, [row.id for row in rows])
    data = [answers.sweep_summary(row, counts[row.id]) for row in rows[: page.limit]]
    more = len(rows) > page.limit
    return {"data": data, "has_more": more, "next_cursor": data[-1].id if more else None}


@router.get("/{id}", response_model=schemas.Sweep)
def get_sweep(sweep_id: SweepId, session: SessionDep, wait: WaitDep) -> Any:
    """A sweep: its state, its counts and its experiments."""
    row = sweeps.get(session, sweep_id)
    session.commit()
    wait.until(lambda fresh: _finished(fresh, row))
    return _answer(session, row)


@router.post("/{id}/cancel", status_code=202, response_model=schemas.Sweep)
def cancel_sweep(sweep_id: SweepId, session: SessionDep, wait: WaitDep) -> Any:
    """Cancel those of its experiments that are not finished."""
    row = sweeps.get(session, sweep_id, lock=True)
    sweeps.cancel(session, row)
    session.commit()
    wait.until(lambda fresh: _finished(fresh, row))
    return _answer(session, row)


@router.post("/{id}/retry", status_code=202, response_model=schemas.Sweep)
def retry_sweep(sweep_id: SweepId, session: SessionDep, ring: RingDep, once: OnceDep, wait: WaitDep) -> Any:
    """Queue its failed and cancelled experiments anew."""
    row = sweeps.get(session, sweep_id, lock=True)
    sweeps.retry(session, row)
    return queued(row, session, ring, once, wait)


@router.delete("/{id}", status_code=204)
def delete_sweep(sweep_id: SweepId, session: SessionDep, afterwards: BackgroundTasks) -> None:
    """Forget a finished sweep, and the experiments that were made for it alone."""
    removed = sweeps.delete(session, sweeps.get(session, sweep_id, lock=True))
    session.commit()
    for experiment_id in removed:
        afterwards.add_task(files.remove, experiment_id)


@router.get("/{id}/curve", response_model=curve.Curve, responses=CURVES)
def get_curve(
    sweep_id: SweepId,
    session: SessionDep,
    request: Request,
    task: TaskQuery = None,
) -> Any:
    """Mutual information against accuracy, with a verdict a task, in the format that `Accept` names; JSON by default."""
    answer = _curve(session, sweep_id, _preferred(request.headers.get("accept", "")), task)
    answer.headers["Vary"] = "Accept"
    return answer


@router.get("/{id}/curve.{format}", response_model=curve.Curve, responses=CURVES)
def get_curve_as(
    sweep_id: SweepId,
    format: Annotated[CurveFormat, Path(description="The format.")],
    session: SessionDep,
    task: TaskQuery = None,
) -> Any:
    """Mutual information against accuracy, with a verdict a task; while the sweep still runs, of what is there."""
    return _curve(session, sweep_id, format, task)


@router.get("/{id}/report.html", response_class=HTMLResponse)
def get_report(sweep_id: SweepId, session: SessionDep, request: Request) -> Any:
    """The question, the answer, the curve, the views and how to do it again: one HTML file that needs nothing beside it."""
    row, members = sweeps.whole(session, sweep_id)
    traced = tracing.curve_of(row, members)
    from app import report  # noqa: PLC0415 - drawing is slow to import

    finished = {member.experiment.id: member.experiment for member in members if member.experiment.state == "succeeded"}
    found = report.Sources(
        sweep=_answer(session, row),
        curve=traced,
        title=_title(session, row),
        dataset=datasets.title(session, row.spec["base"]["dataset"]["name"]),
        specs={id: experiment.spec for id, experiment in finished.items()},
        results={id: experiment.results or {} for id, experiment in finished.items()},
        pairs=[report.Pairs(*at, png) for at in report.shown(traced) if (png := _view_pairs(at[1], finished))],
        url=str(request.base_url).rstrip("/"),
    )
    session.close()  # drawing takes a while
    return HTMLResponse(report.render(found), headers={"Content-Security-Policy": report.POLICY})


@router.get("/{id}/recipe", response_model=recipes.Recipe, responses=RECIPES)
def get_recipe(
    sweep_id: SweepId,
    session: SessionDep,
    request: Request,
    format: Annotated[recipes.RecipeFormat, Query(description="What to write it for.")] = recipes.RecipeFormat.TORCHVISION,
    task: Annotated[str | None, Query(max_length=60, description="The task that chooses; the first by default.")] = None,
) -> Any:
    """The winning recipe as code that runs, or as a spec: at the sweet spot, or else the best so far, and it says which."""
    row, members = sweeps.whole(session, sweep_id)
    traced = tracing.curve_of(row, members)
    chosen, point = recipes.winner(traced, sweeps.state_now(session, row.id), task)
    experiment = next(member.experiment for member in members if member.experiment.id == point.experiments[0])
    found = recipes.Recipe(
        spec=ExperimentSpec.model_validate(experiment.spec),
        provenance=recipes.provenance(traced, chosen, point, row.id, row.name),
    )
    if format is recipes.RecipeFormat.JSON:
        return found
    try:
        facts = available.facts(found.spec.dataset)
    except Invalid:  # it is not there any more
        facts = None
    path = files.attempt_folder(experiment.id, experiment.attempt) / recipes.LOADER
    generator = path.read_text() if path.is_file() else None
    code = recipes.code(found, format, facts, generator, url=str(request.base_url).rstrip("/"))
    return Response(code, media_type="text/x-python")


def queued(row: Sweep, session: SessionDep, ring: RingDep, once: OnceDep, wait: WaitDep) -> schemas.Sweep:
    """Commit a sweep that was just made or revived, ring for it, and answer it."""
    answer = _answer(session, row)
    once.remember(answer, 202, answer.links["self"])
    session.commit()  # the workers must find the rows that the bell is about
    ring("default", max(answer.counts.queued, row.search is not None))
    if not wait.seconds:
        return answer
    wait.until(lambda fresh: _finished(fresh, row))
    return _answer(session, row)


def _answer(session: SessionDep, row: Sweep) -> schemas.Sweep:
    now = session.scalar(select(func.clock_timestamp()))
    assert now is not None, "a database has a clock"
    return answers.sweep(*sweeps.whole(session, row.id), now)


def _finished(session: SessionDep, row: Sweep) -> bool:
    return sweeps.state_now(session, row.id) in TERMINAL


def _preferred(accept: str) -> CurveFormat:
    """The format that an `Accept` header likes best, RFC 9110, 12.5.1; JSON where it likes none."""
    best, best_quality = CurveFormat.JSON, 0.0
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        qualities = [parameter[2:] for parameter in parameters if parameter.startswith("q=")]
        quality = float(qualities[0]) if qualities and re.fullmatch(r"[01](\.\d{0,3})?", qualities[0]) else 1.0
        found = next((name for name, offered in MEDIA_TYPES.items() if fnmatchcase(offered, kind)), None)
        if found is not None and quality > best_quality:
            best, best_quality = found, quality
    return best


def _title(session: SessionDep, row: Sweep) -> str:
    path = row.spec["axis"]["path"]
    return row.name or f"{'recipes' if path == WHOLE else path} on {datasets.title(session, row.spec['base']['dataset']['name'])}"


def _view_pairs(point: curve.Point, finished: Mapping[str, Experiment]) -> bytes | None:
    """The picture of view pairs that the first of a point's experiments left whose files are there."""
    rows = [finished[id] for id in point.experiments if id in finished]
    paths = [files.attempt_folder(row.id, row.attempt) / "preview.png" for row in rows]
    return next((path.read_bytes() for path in paths if path.is_file()), None)


def _curve(session: SessionDep, sweep_id: str, chosen: CurveFormat, task: str | None) -> Response:
    row, members = sweeps.whole(session, sweep_id)
    title = _title(session, row)
    session.close()  # drawing takes a while
    traced = tracing.curve_of(row, members)
    if task is not None and traced.verdicts and task not in traced.verdicts:
        raise Invalid.field("query/task", f"{' or '.join(traced.verdicts)}, not {task!r}")
    if chosen is CurveFormat.JSON:
        return Response(traced.model_dump_json(), media_type=MEDIA_TYPES[chosen])
    from app import figure  # noqa: PLC0415 - drawing is slow to import

    if chosen is CurveFormat.CSV:
        return Response(figure.to_csv(traced), media_type="text/csv")
    drawn = figure.figure(traced, title, task)
    if chosen is CurveFormat.VEGA_LITE:  # all numbers, those that are not drawn among them
        drawn["usermeta"] = {**drawn.get("usermeta", {}), "curve": traced.model_dump(mode="json")}
    return Response(figure.render(drawn, chosen.value), media_type=MEDIA_TYPES[chosen])
