"""The course of an experiment's attempt: where it begins, what it leaves on the way, how it ends."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app.persistence import experiments, files
from app.persistence.database import open_session
from app.persistence.leases import Claim
from app.settings import settings
from ml.events import Event, Progress
from workers import checkpoints
from workers.line import Line, Stop
from workers.report import Report


def begin(claim: Claim) -> Path:
    """The folder of the experiment's checkpoints, from the newest of which it goes on."""
    keep = files.checkpoints_folder(claim.id)
    if not keep.exists():
        _inherit(claim, keep)
    files.remove_unfinished(keep)
    return keep


def follow(events: Iterable[Event], keep: Path, report: Report, line: Line, pack: Callable[[Any], tuple[int, bytes]]) -> None:
    """Tell of each event, and keep checkpoints now and then, to the end. Raises LeaseLost, or Stop once it can let go."""
    last = time.monotonic()
    for event in events:
        line.say("alive")
        report.tell(event)
        if isinstance(event, Progress):
            if event.snapshot and (line.stopping or time.monotonic() - last > settings().timers.checkpoint):
                _keep(keep, *pack(event.snapshot()))
                last = time.monotonic()
            if line.stopping:
                raise Stop
    report.succeed()
    files.remove_folder(keep)


def _inherit(claim: Claim, keep: Path) -> None:
    """Take over the checkpoints of a cancelled experiment that this one retries; without them it begins afresh, and no worse."""
    try:
        with open_session() as session:
            retried = experiments.cancelled_twins(session, claim.id)
        folders = [folder for folder in map(files.checkpoints_folder, retried) if folder.is_dir()]
        if folders:
            keep.parent.mkdir(parents=True, exist_ok=True)
            folders[0].replace(keep)
    except (SQLAlchemyError, OSError) as error:
        print(f"nothing could be taken over: {error}", flush=True)  # noqa: T201 - it goes into the attempt's log


def _keep(folder: Path, step: int, content: bytes) -> None:
    """A disk that refuses a checkpoint costs a resume at worst, not the training."""
    try:
        checkpoints.store(folder, step, content)
    except OSError as error:
        print(f"no checkpoint could be kept: {error}", flush=True)  # noqa: T201 - it goes into the attempt's log
