"""Experiments as clients see and steer them. What workers write to them is in `leases`."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime

from pydantic import ValidationError
from sqlalchemy import Select, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from app.errors import Invalid, NotFound, StateConflict
from app.ids import new_id
from app.persistence import callers, checkpoints, events, quotas, steering
from app.persistence.datasets import Named, why
from app.persistence.models import ACTIVE, IDLE, LEASED, TERMINAL, Artifact, Experiment, Metric, SweepMember
from app.version import CODE_VERSION
from ml.spec import ExperimentSpec, SpecError, identity

RETRY_LOCK = 7302453  # any number that nobody else locks


def create(session: Session, spec: ExperimentSpec, retry_of: str | None = None) -> Experiment:
    """Queue an experiment of a resolved spec, or of one as it was asked for that names an upload which is not decoded yet."""
    return create_all(session, [(spec, retry_of)])[0]


def create_all(session: Session, wanted: Iterable[tuple[ExperimentSpec, str | None]]) -> Sequence[Experiment]:
    """The same for several, each with the id of the one that it retries, to be taken in this order.

    Raises Invalid, SpecError, QuotaExceeded.
    """
    named = Named(session)
    made = []
    for asked, retry_of in wanted:
        checkpoints.require(session, asked)
        spec, waits_for = named.settled(asked)
        made.append(
            Experiment(
                id=new_id("exp"),
                name=spec.name,
                tags=list(spec.tags),
                priority=spec.priority,
                spec=spec.model_dump(mode="json", exclude_unset=waits_for is not None),  # what was left open decides defaults
                identity=identity_hash(spec),
                progress=IDLE,
                retry_of=retry_of,
                waits_for=waits_for,
                last_event=0,
            )
        )
    quotas.require_place(session, len(made))
    if any(row.retry_of for row in made):
        session.execute(select(func.pg_advisory_xact_lock_shared(RETRY_LOCK)))  # what they go on from stays from here on
    session.add_all(made)
    session.flush()
    told = ({"retry_of": row.retry_of, "waits_for": row.waits_for} for row in made)
    events.append(session, "queued", zip(made, [{key: id for key, id in ids.items() if id} for ids in told], strict=True))
    return made


def settle(session: Session, dataset_id: str) -> int:
    """Resolve what waits for an upload that is decoded now, or fail what does not fit it; say how much can be claimed."""
    waiting = select(Experiment).where(Experiment.waits_for == dataset_id, Experiment.state == "queued").order_by(Experiment.id)
    rows = session.scalars(waiting.with_for_update()).all()
    named = Named(session)
    now = session.scalar(select(func.clock_timestamp()))
    failed, resolved = [], []
    for row in rows:
        try:
            spec, row.waits_for = named.settled(ExperimentSpec.model_validate(row.spec))
        except (Invalid, SpecError, ValidationError) as error:
            row.state, row.finished_at, row.error = "failed", now, why(error)
            failed.append((row, row.error))
            continue
        if row.waits_for is None:
            row.spec, row.identity = spec.model_dump(mode="json"), identity_hash(spec)
            resolved.append((row, {"dataset": dataset_id}))
    events.append(session, "failed", failed)
    events.append(session, "resolved", resolved)
    return len(resolved)


def identity_hash(spec: ExperimentSpec) -> str:
    """Equal for two experiments that must come to the same numbers: the same resolved spec under the same code."""
    content = json.dumps([identity(spec), CODE_VERSION], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def get(session: Session, experiment_id: str, *, lock: bool = False) -> Experiment:
    """The experiment, locked against changes if asked. Raises NotFound."""
    experiment = session.get(Experiment, experiment_id, with_for_update=lock or None)
    if experiment is None:
        raise NotFound(f"there is no experiment {experiment_id!r}")
    return experiment


def finished_twins(session: Session, specs: Sequence[ExperimentSpec]) -> Sequence[str | None]:
    """For each spec the id of the owner's newest succeeded experiment of this resolved spec and code, kept from being deleted."""
    wanted = [identity_hash(spec) for spec in specs]
    twins = select(Experiment.identity, Experiment.id).where(Experiment.identity.in_(wanted), Experiment.state == "succeeded")
    twins = twins.where(Experiment.owner == callers.owner())
    rows = session.execute(twins.order_by(Experiment.id).with_for_update(read=True, key_share=True)).all()
    found = {row.identity: row.id for row in rows}
    return [found.get(identity) for identity in wanted]


def at_work(session: Session, queue: str) -> int:
    """Experiments of a queue that workers hold, or could take now."""
    claimable = and_(Experiment.state == "queued", Experiment.waits_for.is_(None))
    query = select(func.count()).select_from(Experiment).where(Experiment.queue == queue)
    return session.scalar(query.where(or_(Experiment.state.in_(LEASED), claimable))) or 0


def gone_on_from(session: Session) -> set[str]:
    """Experiments that unfinished ones retry, or that those retried, and so on: their checkpoints may be wanted still.

    From now on, until the transaction ends, none can join them.
    """
    session.execute(select(func.pg_advisory_xact_lock(RETRY_LOCK)))
    return gone_on_from_now(session)


def gone_on_from_now(session: Session) -> set[str]:
    """The same at a glance: a retry may join them at once."""
    chain = select(Experiment.retry_of.label("id")).where(Experiment.state.in_(ACTIVE), Experiment.retry_of.is_not(None))
    known = chain.cte("chain", recursive=True)
    before = select(Experiment.retry_of).join(known, Experiment.id == known.c.id).where(Experiment.retry_of.is_not(None))
    return set(session.scalars(select(known.union(before).c.id)))


def cancelled_twins(session: Session, experiment_id: str) -> list[str]:
    """The cancelled experiments that this one retries, the last one first: where they stopped, it may go on.

    They are of the same spec and of the code that asks, so that the numbers will be those of one that was never cancelled.
    """
    row = get(session, experiment_id)
    found: list[str] = []
    if row.identity != identity_hash(ExperimentSpec.model_validate(row.spec)):
        return found
    before = session.get(Experiment, row.retry_of) if row.retry_of else None
    while before is not None and before.state == "cancelled" and before.identity == row.identity:
        found.append(before.id)
        before = session.get(Experiment, before.retry_of) if before.retry_of else None
    return found


def page(
    session: Session,
    *,
    after: str | None,
    limit: int,
    state: str | None = None,
    sweep: str | None = None,
    tag: str | None = None,
    created_after: datetime | None = None,
    q: str | None = None,
) -> Sequence[Experiment]:
    """Newest first, by keyset: up to `limit` experiments that come after the one called `after`."""
    query: Select[tuple[Experiment]] = select(Experiment).order_by(Experiment.id.desc()).limit(limit)
    if after is not None:
        query = query.where(Experiment.id < after)
    if state is not None:
        query = query.where(Experiment.state == state)
    if sweep is not None:
        query = query.where(exists().where(SweepMember.experiment_id == Experiment.id, SweepMember.sweep_id == sweep))
    if tag is not None:
        query = query.where(Experiment.tags.contains([tag]))
    if created_after is not None:
        query = query.where(Experiment.created_at > created_after)
    if q is not None:
        query = query.where(or_(Experiment.name.icontains(q, autoescape=True), Experiment.id == q))
    return session.scalars(query).all()


def cancel(session: Session, experiment_id: str) -> Experiment:
    """Cancel at once what is queued; ask the worker to stop what is running. Raises NotFound, StateConflict."""
    experiment = get(session, experiment_id, lock=True)
    if steering.cancel(session, experiment):
        events.append(session, experiment.state, [(experiment, {})])
    return experiment


def retry(session: Session, experiment_id: str) -> Experiment:
    """A new experiment of the same spec and owner. Raises NotFound, StateConflict while the old one still works."""
    experiment = get(session, experiment_id)
    if experiment.state not in TERMINAL:
        raise StateConflict(f"{experiment_id} is {experiment.state}; only a finished experiment can be retried", experiment.state)
    with callers.on_behalf_of(experiment.owner):
        return create(session, ExperimentSpec.model_validate(experiment.spec), retry_of=experiment.id)


def delete(session: Session, experiment_id: str) -> None:
    """Forget a finished experiment. Raises NotFound, StateConflict where it still works or a sweep holds it."""
    experiment = get(session, experiment_id, lock=True)
    if experiment.state not in TERMINAL:
        raise StateConflict(f"{experiment_id} is {experiment.state}; cancel it before deleting it", experiment.state)
    holder = session.scalar(select(SweepMember.sweep_id).where(SweepMember.experiment_id == experiment_id).limit(1))
    if holder is not None:
        raise StateConflict(f"{experiment_id} is part of {holder}; delete the sweep instead", experiment.state)
    session.delete(experiment)
    session.flush()


def metrics(session: Session, experiment: Experiment, names: Sequence[str] | None = None) -> Sequence[Metric]:
    """The current attempt's metrics, by name and step."""
    query = select(Metric).where(Metric.experiment_id == experiment.id, Metric.attempt == experiment.attempt)
    if names:
        query = query.where(Metric.name.in_(names))
    return session.scalars(query.order_by(Metric.name, Metric.step)).all()


def artifacts(session: Session, experiment: Experiment) -> Sequence[Artifact]:
    """The files of the current attempt, by name."""
    query = select(Artifact).where(Artifact.experiment_id == experiment.id, Artifact.attempt == experiment.attempt)
    return session.scalars(query.order_by(Artifact.name)).all()


def artifact(session: Session, experiment: Experiment, name: str) -> Artifact:
    """One file of the current attempt. Raises NotFound."""
    found = session.get(Artifact, (experiment.id, experiment.attempt, name))
    if found is None:
        raise NotFound(f"{experiment.id} has no artifact {name!r}")
    return found
