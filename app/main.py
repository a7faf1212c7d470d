"""The API: `uvicorn --factory app.main:create_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import structlog
from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import RedirectResponse, Response
from fastapi_offline import FastAPIOffline

from app import problems
from app.dependencies import Replay
from app.middleware import EntityTags, RequestId
from app.routers import catalog, experiments, health, presets, previews, sweeps
from app.schemas import Problem
from app.settings import configure_logs
from app.version import VERSION

THREADS = 256  # endpoints are synchronous, and some wait for clients that prefer it
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
DESCRIPTION = """
Which *views* should contrastive learning use? Send a spec (view recipe, dataset, task); workers pretrain, measure the mutual
information between the views and the accuracy on the task; fetch the curve, its sweet spot and the verdict.
Information is in nats, images in pixels, intervals are 95 %.
"""

log = structlog.get_logger()


def create_app() -> FastAPI:
    """The ASGI application. Nothing is connected before the first request."""
    configure_logs()
    app = FastAPIOffline(
        title="Sweetspot",
        version=VERSION,
        description=DESCRIPTION,
        redoc_url=None,
        lifespan=_lifespan,
        separate_input_output_schemas=False,
    )
    app.add_middleware(EntityTags)
    app.add_middleware(RequestId)
    problems.install(app)
    app.add_exception_handler(Replay, _replay)
    for module in (experiments, sweeps, presets, previews, catalog, health):
        app.include_router(module.router)
    app.add_api_route("/", _home, include_in_schema=False)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    yield


def _replay(_: Request, replay: Exception) -> Response:
    assert isinstance(replay, Replay)
    return Response(replay.body, replay.status, headers=dict(replay.headers), media_type="application/json")


def _home() -> RedirectResponse:
    return RedirectResponse("/docs")


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with what every operation may answer besides: problem documents, 304, replays."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = document["components"]["schemas"]
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs"))
        schemas["Problem"] = problem
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                _add_common_responses(path, method, operation)
        app.openapi_schema = document
    return app.openapi_schema


def _add_common_responses(path: str, method: str, operation: dict[str, Any]) -> None:
    if not path.startswith("/v1"):
        operation["responses"].pop("422", None)
        return
    statuses = {"422": "A field is at fault; `errors` names it.", "503": "The database is away; try again in a moment."}
    if "{" in path:
        statuses["404"] = "There is no such thing."
    if method != "get":
        statuses["409"] = "The state forbids it, or a request with this Idempotency-Key is in flight."
    for status, description in statuses.items():
        operation["responses"][status] = {"description": description, "content": PROBLEM}
    if method == "get":
        operation["responses"]["304"] = {"description": "As `If-None-Match` has it."}
