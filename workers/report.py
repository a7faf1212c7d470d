"""What an attempt tells the database, under the fence of its claim."""

import hashlib
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from app.persistence import files, leases
from app.persistence.database import open_session
from app.persistence.leases import Claim
from ml.events import Artifact, Metric, Progress, Result, Stage
from workers import checkpoints

REPORT_EVERY = 0.5  # seconds between writes of progress


class Report:
    """What an attempt tells the database, not more often than anybody looks."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self._metrics: list[tuple[str, int, float]] = []
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._artifacts: list[dict[str, Any]] = []
        self._results: dict[str, Any] = {}
        self._progress: dict[str, Any] = {"stage": None, "step": 0, "total": None, "rate": None, "eta_s": None}
        self._stage_began: tuple[float, int | None] = (time.monotonic(), None)
        self._reported = 0.0
        self._told = 0  # events that are in the database for certain
        self._in_doubt = False

    def tell(self, event: Any) -> None:
        """Take in one event; write if it is time. Raises LeaseLost."""
        match event:
            case Stage(name):
                self.begin(name)
            case Progress(stage, step, total):
                self.step(stage, step, total)
            case Metric(name, step, value):
                self._metrics.append((name, step, value))
            case Artifact(name, media_type, content):
                self._store(name, media_type, content)
            case Result(results):
                self._results = results

    def begin(self, stage: str) -> None:
        """A stage begins. Raises LeaseLost."""
        self._stage_began = (time.monotonic(), None)
        self._progress = {"stage": stage, "step": 0, "total": None, "rate": None, "eta_s": None}
        self._events.append(("stage", {"stage": stage}))
        self._write()

    def step(self, stage: str, step: int, total: int) -> None:
        """So much of the stage is done; written if it is time. Raises LeaseLost."""
        self._progress = self._pace(stage, step, total)
        if time.monotonic() - self._reported > REPORT_EVERY:
            self._write()

    def succeed(self) -> None:
        """Everything is there: say so, once. Raises LeaseLost."""
        self._write()

        def finish(session: Any) -> None:
            if not leases.has_succeeded(session, self.claim):  # as after a commit of unknown outcome
                leases.succeed(session, self.claim, self._results, self._artifacts)

        persist(finish)

    def _pace(self, stage: str, step: int, total: int) -> dict[str, Any]:
        began, first = self._stage_began
        if first is None:  # a resumed stage does not begin at 1, and the steps before are not ours
            self._stage_began = (began, first := max(step - 1, 0))
        progress = {"stage": stage, "step": step, "total": total, "rate": None, "eta_s": None}
        if step > first:
            rate = (step - first) / max(time.monotonic() - began, 1e-6)
            progress |= {"rate": round(rate, 3), "eta_s": round((total - step) / rate, 3)}
        return progress

    def _write(self) -> None:
        """A database that is away for a moment does not stop the training; the lease decides for how long."""
        self._reported = time.monotonic()
        try:
            with open_session() as session:
                if self._in_doubt:  # a commit of unknown outcome is re-read: no event is told twice
                    known = leases.stages_told(session, self.claim) - self._told
                    self._told, self._events = self._told + known, self._events[known:]
                leases.report(session, self.claim, self._progress, self._metrics, self._events)
                session.commit()
            self._told += len(self._events)
            self._metrics, self._events, self._in_doubt = [], [], False
        except SQLAlchemyError as error:
            self._in_doubt = True
            print(f"the database does not answer: {error}", flush=True)  # noqa: T201 - it goes into the attempt's log

    def _store(self, name: str, media_type: str, content: bytes) -> None:
        checkpoints.write_whole(files.attempt_folder(self.claim.id, self.claim.attempt) / name, content)
        digest = hashlib.sha256(content).hexdigest()
        self._artifacts.append({"name": name, "media_type": media_type, "size": len(content), "sha256": digest})


def persist(words: Callable[[Session], None]) -> None:
    """Write until the database takes it; the lease ends this if that takes too long. Raises LeaseLost."""
    while True:
        try:
            with open_session() as session:
                words(session)
                return session.commit()
        except (DataError, IntegrityError):
            raise  # trying again would not help
        except SQLAlchemyError as error:
            print(f"the database does not answer: {error}", flush=True)  # noqa: T201 - it goes into the attempt's log
            time.sleep(0.5)
