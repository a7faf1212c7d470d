"""The doorbell: a Celery message that says 'there may be work', and nothing else."""

from collections.abc import Callable
from functools import cache
from typing import Any

import structlog
from celery import Celery, signals
from prometheus_client import Counter

from app.settings import settings

ANSWER_THE_BELL = "sweetspot.answer_the_bell"
MOST_RINGS = 64  # for one request: workers drain the queue, so that a bell wakes a worker rather than stands for a job

log = structlog.get_logger()
rings_failed = Counter("sweetspot_ring_failures_total", "Doorbells that could not be rung; workers look by themselves in time.")
Ring = Callable[[str, int], None]


@signals.setup_logging.connect
def _leave_logs_alone(**_: Any) -> None:
    """Celery sets up no logging where somebody listens here: its records are drawn as ours are."""


@cache
def celery() -> Celery:
    """The Celery application that the API rings with and workers listen to. It gives up on a silent broker within a second."""
    app = Celery("sweetspot", broker=settings().require_redis_url())
    app.conf.update(
        task_ignore_result=True,
        task_default_queue="default",
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"socket_connect_timeout": 0.4, "socket_timeout": 0.8, "max_retries": 0},
    )
    return app


def ring(queue: str, times: int = 1) -> None:
    """Wake up to `times` workers of a queue. Failing is counted, never raised: the database holds the work."""
    try:
        for _ in range(min(times, MOST_RINGS)):
            celery().send_task(ANSWER_THE_BELL, queue=queue, retry=False, ignore_result=True)
    except Exception as error:  # whatever the broker's client raises: the work is queued already
        rings_failed.inc()
        log.warning("the doorbell could not be rung", queue=queue, error=str(error))
