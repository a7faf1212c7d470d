"""The Celery side of a worker: a bell that wakes the supervisor, which lives in the one process of the pool."""

import multiprocessing
from typing import Any

from celery import signals

from app.persistence.bell import ANSWER_THE_BELL, celery
from workers.supervisor import Supervisor

app = celery()
draining = multiprocessing.Event()  # made before the pool forks: set in the main process, seen in the pool's
supervisor: Supervisor | None = None


@app.task(name=ANSWER_THE_BELL)
def answer_the_bell() -> None:
    """Work until the queue is empty."""
    assert supervisor is not None, "the pool's process has been set up"
    supervisor.work()


@signals.worker_process_init.connect
def _move_in(**_: Any) -> None:
    global supervisor  # noqa: PLW0603 - the pool's process is one supervisor, and Celery calls functions
    supervisor = Supervisor(draining)
    supervisor.start()


@signals.worker_process_shutdown.connect
def _move_out(**_: Any) -> None:
    if supervisor is not None:
        supervisor.close()


@signals.worker_shutting_down.connect
def _drain(**_: Any) -> None:
    draining.set()
