"""How workers hold experiments, previews, uploads and estimates: claims, leases and fenced writes.

The database is the truth and its clock the only one that leases know. Every write of a worker names (id, attempt, owner) and must
meet exactly one row: none means that the lease is lost, and whoever held it has nothing more to say.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

import structlog
from sqlalchemy import ColumnElement, and_, delete, func, insert, null, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from app.persistence import experiments, previews, quotas, tallies
from app.persistence.models import (
    IDLE,
    LEASED,
    Artifact,
    Dataset,
    Event,
    Experiment,
    IdempotencyKey,
    Metric,
    MiEstimate,
    Preview,
    SignIn,
)
from app.settings import settings
from app.version import CODE_VERSION

MAX_FAILURES = 3
SILENT = {"code": "lost", "message": "the worker was not heard of for the length of its lease"}
KILLED = {"code": "lost", "message": "the worker's process was killed"}
Row = type[Experiment] | type[Preview] | type[Dataset] | type[MiEstimate]
KINDS: dict[str, Row] = {"experiment": Experiment, "preview": Preview, "dataset": Dataset, "mi_estimate": MiEstimate}

log = structlog.get_logger()


class LeaseLost(Exception):
    """Another attempt owns the row now, or it is finished: leave quietly."""


@dataclass(frozen=True)
class Claim:
    """The right to work on one row, until its lease ends. `kind` is one of `KINDS`."""

    kind: str
    id: str
    attempt: int
    owner: str
    spec: dict[str, Any]


# Experiments ----------------------------------------------------------------------------------------------------------


def claim_experiment(session: Session, owner: str, queue: str, lease: float) -> Claim | None:
    """Take the best queued experiment: the highest priority, then the oldest. The lease is in seconds.

    Those of keys that have as many at work as they may are passed over.
    """
    best = select(Experiment.id, Experiment.key_id).where(
        Experiment.state == "queued", Experiment.queue == queue, Experiment.waits_for.is_(None), quotas.may_be_claimed()
    )
    best = best.order_by(Experiment.priority.desc(), Experiment.created_at).limit(1).with_for_update(skip_locked=True)
    found = session.execute(best).first()
    while found is not None and not quotas.may_run(session, found.key_id):  # another worker took its key's last place just now
        best = best.where(Experiment.key_id.is_distinct_from(found.key_id))
        found = session.execute(best).first()
    if found is None:
        return None
    row = session.execute(
        update(Experiment)
        .where(Experiment.id == found.id)
        .values(
            state="running",
            attempt=Experiment.attempt + 1,
            lease_owner=owner,
            lease_expires_at=_from_now(lease),
            started_at=func.clock_timestamp(),
            progress=IDLE,
            last_event=Experiment.last_event + 1,
        )
        .returning(Experiment.id, Experiment.attempt, Experiment.spec, Experiment.last_event)
    ).one()
    claim = Claim("experiment", row.id, row.attempt, owner, row.spec)
    _insert_event(session, claim, row.last_event, "running", {"worker": owner})
    return claim


def renew(session: Session, claim: Claim, lease: float) -> str:
    """Prolong the lease by `lease` seconds from now and answer the row's state. Raises LeaseLost."""
    model = _model(claim)
    state = session.scalar(update(model).where(_fence(claim)).values(lease_expires_at=_from_now(lease)).returning(model.state))
    if state is None:
        raise LeaseLost(claim)
    return state


def state_of(session: Session, claim: Claim) -> str:
    """The row's state, as long as the lease is ours. Raises LeaseLost."""
    state = session.scalar(select(_model(claim).state).where(_fence(claim)))
    if state is None:
        raise LeaseLost(claim)
    return state


def report(
    session: Session,
    claim: Claim,
    progress: dict[str, Any],
    metrics: Iterable[tuple[str, int, float]] = (),
    happened: Sequence[tuple[str, dict[str, Any]]] = (),
) -> None:
    """Tell how far an attempt is, with an experiment's metrics (name, step, value) and events since. Raises LeaseLost."""
    for event in happened or (None,):
        _write(session, claim, {"progress": progress}, event, LEASED)
    rows = [
        {"experiment_id": claim.id, "attempt": claim.attempt, "name": name, "step": step, "value": value}
        for name, step, value in metrics
    ]
    if rows:
        session.execute(upsert(Metric).values(rows).on_conflict_do_nothing())


def stages_told(session: Session, claim: Claim) -> int:
    """How many stages of this very attempt are in an experiment's history: the answer to a commit of unknown outcome."""
    told = select(func.count()).where(Event.experiment_id == claim.id, Event.attempt == claim.attempt, Event.type == "stage")
    return session.scalar(told) or 0


def succeed(session: Session, claim: Claim, results: dict[str, Any], artifacts: Sequence[dict[str, Any]]) -> None:
    """Finish an experiment or an estimate with results, under the code that made them. Of an experiment this attempt's files and
    numbers are the ones that show from now on.

    Raises LeaseLost also where a cancel came first.
    """
    values = {"state": "succeeded", "results": {**results, "code": CODE_VERSION}, "error": null(), **_finished()}
    _write(session, claim, values, ("succeeded", {}), ("running",))
    for artifact in artifacts:
        session.execute(insert(Artifact).values(experiment_id=claim.id, attempt=claim.attempt, **artifact))
    session.execute(delete(Metric).where(Metric.experiment_id == claim.id, Metric.attempt != claim.attempt))
    tallies.add(session, claim.owner, claim.kind, "succeeded")


def has_succeeded(session: Session, claim: Claim) -> bool:
    """Whether this very attempt's success is in the database: the answer to a commit of unknown outcome."""
    model = _model(claim)
    row = session.execute(select(model.state, model.attempt).where(model.id == claim.id)).first()
    return row is not None and (row.state, row.attempt) == ("succeeded", claim.attempt)


def fail(session: Session, claim: Claim, error: dict[str, Any], by: str = "") -> None:
    """Finish for good with `error` {code, message}, and so what waited for it; counted for whoever says so `by` proxy.

    Raises LeaseLost.
    """
    _write(session, claim, {"state": "failed", "error": error, **_finished()}, ("failed", error), ("running",))
    if claim.kind == "dataset":
        _settle(session, claim)
    tallies.add(session, by or claim.owner, claim.kind, "failed", error["code"])


def lose(session: Session, claim: Claim, error: dict[str, Any], by: str = "") -> bool:
    """An attempt broke off: queue the experiment again, or fail it at the third time, and say whether that was it. `by` is as in
    `fail`. Raises LeaseLost.
    """
    failures = session.scalar(select(_model(claim).failures).where(_fence(claim), _model(claim).state == "running"))
    if failures is None:
        raise LeaseLost(claim)
    if failures + 1 >= MAX_FAILURES:
        fail(session, claim, error, by)
        return True
    values = {"failures": failures + 1, "error": error, **_requeued(claim)}
    _write(session, claim, values, ("requeued", error), ("running",))
    tallies.add(session, by or claim.owner, claim.kind, "lost", error["code"])
    return False


def give_back(session: Session, claim: Claim) -> None:
    """Queue an experiment again because its worker shuts down; no failure is charged. Raises LeaseLost."""
    reason = {"code": "drained", "message": "the worker was shut down; another attempt will follow"}
    _write(session, claim, _requeued(claim), ("requeued", reason), ("running",))
    tallies.add(session, claim.owner, claim.kind, "requeued", reason["code"])


def release(session: Session, claim: Claim) -> None:
    """Give back what is held; what is to be cancelled is cancelled. Raises LeaseLost."""
    (confirm_cancelled if state_of(session, claim) == "cancelling" else give_back)(session, claim)


def confirm_cancelled(session: Session, claim: Claim, by: str = "") -> None:
    """Say `cancelled`, now that nothing works on it any more. `by` is as in `fail`. Raises LeaseLost."""
    _write(session, claim, {"state": "cancelled", **_finished()}, ("cancelled", {}), ("cancelling",))
    tallies.add(session, by or claim.owner, claim.kind, "cancelled")


def held_by(session: Session, owner: str) -> Sequence[Claim]:
    """What the database says that an owner holds, locked against changes: the answer to a claim of unknown outcome."""
    return [
        Claim(kind, row.id, row.attempt, owner, row.spec)
        for kind, model in KINDS.items()
        for row in session.scalars(select(model).where(model.lease_owner == owner).with_for_update())
    ]


# Previews -------------------------------------------------------------------------------------------------------------


def claim_preview(session: Session, owner: str, lease: float) -> Claim | None:
    """Take the oldest queued preview."""
    return _claim_oldest(session, "preview", owner, lease, Preview.waits_for.is_(None))


def succeed_preview(session: Session, claim: Claim, png: bytes) -> None:
    """Store the picture. Raises LeaseLost."""
    _write(session, claim, {"state": "succeeded", "png": png, "error": null(), **_finished()}, None, ("running",))
    tallies.add(session, claim.owner, claim.kind, "succeeded")


# Uploads --------------------------------------------------------------------------------------------------------------


def claim_dataset(session: Session, owner: str, lease: float) -> Claim | None:
    """Take the oldest upload that is to be decoded."""
    return _claim_oldest(session, "dataset", owner, lease)


def succeed_dataset(session: Session, claim: Claim, facts: dict[str, Any]) -> int:
    """It is decoded: let what waited for it be claimed, and say how much that is. Raises LeaseLost."""
    values = {"state": "succeeded", "facts": facts, "progress": IDLE, "error": null(), **_finished()}
    _write(session, claim, values, None, ("running",))
    settled = _settle(session, claim)
    tallies.add(session, claim.owner, claim.kind, "succeeded")
    return settled


# Estimates ------------------------------------------------------------------------------------------------------------


def claim_mi_estimate(session: Session, owner: str, lease: float) -> Claim | None:
    """Take the oldest queued estimate."""
    return _claim_oldest(session, "mi_estimate", owner, lease)


# Reconciling ----------------------------------------------------------------------------------------------------------


class Taken(NamedTuple):
    """What was taken back: how many rows were queued again, and the claims of those that have failed for good."""

    requeued: int
    failed: list[Claim]


def reconcile(session: Session, is_gone: Callable[[str], bool] = lambda owner: False) -> Taken:
    """Take back every lease that has run out or whose owner `is_gone`, and forget what nobody will ask for.

    A worker stops by itself before its lease ends, so that nothing works any more on what is taken back here. A row with which
    anything goes wrong is left to the next round, and keeps nobody else's from being taken back.
    """
    requeued, failed = 0, []
    for kind, model in KINDS.items():
        owners = session.scalars(select(model.lease_owner).where(model.lease_owner.is_not(None)).distinct())
        gone = [owner for owner in owners if owner and is_gone(owner)]
        over = or_(model.lease_expires_at < func.clock_timestamp(), model.lease_owner.in_(gone))
        expired = select(model).where(model.lease_owner.is_not(None), over)
        for row in session.scalars(expired.with_for_update(skip_locked=True)).all():
            claim = Claim(kind, row.id, row.attempt, str(row.lease_owner), row.spec)
            try:
                with session.begin_nested():
                    ended = _take_back(session, claim, row.state, KILLED if claim.owner in gone else SILENT)
            except Exception:
                log.exception("a lease could not be taken back", **{kind: claim.id}, attempt=claim.attempt)
                continue
            requeued += ended is False
            failed += [claim] if ended else []
    retention = settings().retention
    for table, since, days in (
        (Preview, Preview.finished_at, retention.previews),
        (IdempotencyKey, IdempotencyKey.created_at, retention.idempotency_keys),
    ):
        if days:
            session.execute(delete(table).where(since < func.clock_timestamp() - timedelta(days=days)))
    session.execute(delete(SignIn).where(SignIn.expires_at < func.clock_timestamp()))
    return Taken(requeued, failed)


def _take_back(session: Session, claim: Claim, state: str, error: dict[str, Any]) -> bool | None:
    """Whether it has failed with this; None where it is cancelled now."""
    if state == "cancelling":
        confirm_cancelled(session, claim, tallies.RECONCILER)
        return None
    return lose(session, claim, error, tallies.RECONCILER)


def _claim_oldest(session: Session, kind: str, owner: str, lease: float, *conditions: ColumnElement[bool]) -> Claim | None:
    model = KINDS[kind]
    oldest = (
        select(model.id)
        .where(model.state == "queued", *conditions)
        .order_by(model.created_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    row = session.scalar(
        update(model)
        .where(model.id == oldest)
        .values(
            state="running",
            attempt=model.attempt + 1,
            lease_owner=owner,
            lease_expires_at=_from_now(lease),
            started_at=func.clock_timestamp(),
        )
        .returning(model)
        .execution_options(populate_existing=True)
    )
    return None if row is None else Claim(kind, row.id, row.attempt, owner, row.spec)


def _settle(session: Session, claim: Claim) -> int:
    return experiments.settle(session, claim.id) + previews.settle(session, claim.id)


def _write(
    session: Session, claim: Claim, values: dict[str, Any], event: tuple[str, dict[str, Any]] | None, states: Sequence[str]
) -> None:
    model = _model(claim)
    if model is not Experiment:
        event = None
    if event is not None:
        values = {**values, "last_event": Experiment.last_event + 1}
    key = Experiment.last_event if model is Experiment else model.attempt
    written = session.execute(update(model).where(_fence(claim), model.state.in_(states)).values(values).returning(key)).first()
    if written is None:
        raise LeaseLost(claim)
    if event is not None:
        _insert_event(session, claim, written[0], *event)


def _insert_event(session: Session, claim: Claim, seq: int, kind: str, data: dict[str, Any]) -> None:
    session.execute(insert(Event).values(experiment_id=claim.id, seq=seq, attempt=claim.attempt, type=kind, data=data))


def _fence(claim: Claim) -> ColumnElement[bool]:
    model = _model(claim)
    return and_(model.id == claim.id, model.attempt == claim.attempt, model.lease_owner == claim.owner)


def _model(claim: Claim) -> Row:
    return KINDS[claim.kind]


def _from_now(seconds: float) -> ColumnElement[Any]:
    return func.clock_timestamp() + timedelta(seconds=seconds)


def _unleased() -> dict[str, Any]:
    return {"lease_owner": null(), "lease_expires_at": null()}


def _requeued(claim: Claim) -> dict[str, Any]:
    idle = {} if claim.kind == "preview" else {"progress": IDLE}
    return {"state": "queued", "started_at": null(), **idle, **_unleased()}


def _finished() -> dict[str, Any]:
    return {**_unleased(), "finished_at": func.clock_timestamp()}
