"""Takes back the leases that have run out, so that no status outlives the worker that it tells of, and tidies up.

Every worker does it, one at a time; `python -m workers.reconciler` does it where no worker may be left.
"""

import signal
import threading
import time

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from app.logs import configure_logs
from app.persistence import bell, datasets, files, garbage, leases, mi_estimates
from app.persistence.database import open_session
from app.settings import settings
from workers import owners

RECONCILER_LOCK = 7302452  # any number that nobody else locks
GARBAGE_EVERY = 3600  # seconds

log = structlog.get_logger()


def reconcile() -> None:
    """One round, unless another reconciler is at it: take leases back, ring for what that queued again, and tidy up."""
    try:
        with open_session() as session:
            if not session.scalar(select(func.pg_try_advisory_xact_lock(RECONCILER_LOCK))):
                return
            taken = leases.reconcile(session, owners.is_gone)
            session.commit()
            bell.ring("default", taken.requeued)
            for claim in taken.failed:
                files.remove_folder(files.checkpoints_folder(claim.id))
            datasets.tidy(session)
            mi_estimates.tidy(session)
            session.commit()
    except (SQLAlchemyError, OSError) as error:
        log.warning("could not reconcile", error=str(error).splitlines()[0])
    except Exception:  # whoever calls must outlive whatever goes wrong in one round
        log.exception("could not reconcile")


def collect_garbage() -> None:
    """Remove what nobody has a use for any more, as `sweetspot gc` does; it may take minutes."""
    try:
        with open_session() as session:
            if garbage.retire(session):
                session.commit()
                garbage.remove(session)
            session.commit()
    except (SQLAlchemyError, OSError) as error:
        log.warning("could not collect garbage", error=str(error).splitlines()[0])
    except Exception:
        log.exception("could not collect garbage")


def main() -> None:
    """Reconcile until SIGTERM."""
    configure_logs()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    collected = time.monotonic()
    while not stop.wait(settings().timers.reconcile):
        reconcile()
        if time.monotonic() - collected >= GARBAGE_EVERY:
            collect_garbage()
            collected = time.monotonic()


if __name__ == "__main__":
    main()
