"""The web pages: each is a shell that asks the API under `/v1` for what it shows, as any other client does."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from sqlalchemy.exc import DataError
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Scope

from app.dependencies import SessionDep
from app.errors import NotFound
from app.middleware import PAGE
from app.persistence import experiments, sweeps

APP = Path(__file__).parent.parent
STATIC = APP / "static"
UNKNOWN = (NotFound, DataError)  # the second for an id that no database could keep
YEAR = 365 * 24 * 3600  # seconds
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": f"default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; {PAGE}",
}

router = APIRouter(include_in_schema=False)
templates = Jinja2Templates(APP / "templates")


@router.get("/")
def show_home(request: Request) -> Response:
    """Sweeps and experiments."""
    return page(request, "home.html")


@router.get("/sweeps/{sweep_id}")
def show_sweep(request: Request, sweep_id: str, session: SessionDep) -> Response:
    """A sweep and its curve, which grows."""
    try:
        row = sweeps.get(session, sweep_id)
    except UNKNOWN:
        return _missing(request, "sweep", sweep_id)
    return page(request, "sweep.html", id=row.id, title=row.name or "Sweep")


@router.get("/experiments/{experiment_id}")
def show_experiment(request: Request, experiment_id: str, session: SessionDep) -> Response:
    """An experiment, from its progress to its results."""
    try:
        row = experiments.get(session, experiment_id)
    except UNKNOWN:
        return _missing(request, "experiment", experiment_id)
    return page(request, "experiment.html", id=row.id, title=row.name or "Experiment")


@router.get("/new")
def show_form(request: Request) -> Response:
    """The form from which experiments and sweeps are submitted."""
    return page(request, "new.html")


@router.get("/compare")
def show_comparison(request: Request) -> Response:
    """Several sweeps' curves in one figure."""
    return page(request, "compare.html")


class Static(StaticFiles):
    """The pages' scripts and styles. Under the digest of them all they may be kept for a year, else they are asked for anew."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or 304 where the client has it."""
        first, _, rest = path.partition("/")
        pinned = first == digest()
        scope["headers"] = [header for header in scope["headers"] if header[0] != b"range"]  # they are small: whole or not at all
        response = await super().get_response(rest if pinned else path, scope)
        response.headers["Accept-Ranges"] = "none"
        response.headers["Cache-Control"] = f"public, max-age={YEAR}, immutable" if pinned else "no-cache"
        return response


def static_files() -> ASGIApp:
    """What is mounted at `/static`."""
    return GZipMiddleware(Static(directory=STATIC), minimum_size=1000)


@cache
def digest() -> str:
    """Of the names and contents of all static files."""
    found = hashlib.sha256()
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            found.update(f"{path.relative_to(STATIC).as_posix()}\n".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def page(request: Request, name: str, status: int = 200, **words: Any) -> Response:
    """A page out of its template, with these words."""
    known = {"static": f"/static/{digest()}", "signed_in": getattr(request.state, "signed_in", None)}
    return templates.TemplateResponse(request, name, {**known, **words}, status, HEADERS)


def _missing(request: Request, sort: str, sought: str) -> Response:
    return page(request, "missing.html", 404, sort=sort, id=sought)
