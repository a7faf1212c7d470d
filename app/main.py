"""The API: `uvicorn --factory app.main:create_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi_offline import FastAPIOffline

from app import openapi, problems
from app.authentication import Authentication
from app.dependencies import Replay
from app.logs import configure_logs
from app.middleware import BodyLimit, EntityTags, Head, Latency, RequestId, SafeHeaders
from app.routers import (
    catalog,
    checkpoints,
    datasets,
    experiments,
    health,
    key,
    mi_estimates,
    pages,
    presets,
    previews,
    sign_in,
    sweeps,
)
from app.version import VERSION

LARGEST_BODY = 4 * 2**20  # bytes; the largest sweep of whole recipes needs a tenth
THREADS = 256  # endpoints are synchronous, and some wait for clients that prefer it
DESCRIPTION = """
Which *views* should contrastive learning use? Send a spec (view recipe, dataset, task); workers pretrain, measure the mutual
information between the views and the accuracy on the task; fetch the curve, its sweet spot and the verdict.
Information is in nats, images in pixels, intervals are 95 %.
"""


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
    streamed = (datasets.router, checkpoints.router, mi_estimates.router)
    app.add_middleware(BodyLimit, most=LARGEST_BODY, streamed=[router.prefix for router in streamed])
    app.add_middleware(EntityTags)
    app.add_middleware(Authentication)
    app.add_middleware(Head)
    app.add_middleware(SafeHeaders)
    app.add_middleware(Latency)
    app.add_middleware(RequestId)
    problems.install(app)
    app.add_exception_handler(Replay, _replay)
    v1 = (experiments, sweeps, presets, previews, datasets, checkpoints, mi_estimates, catalog, key)
    for module in (*v1, health, pages, sign_in):
        app.include_router(module.router)
    app.mount("/static", pages.static_files())
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    yield


def _replay(_: Request, replay: Exception) -> Response:
    assert isinstance(replay, Replay)
    return Response(replay.body, replay.status, headers=dict(replay.headers), media_type="application/json")
