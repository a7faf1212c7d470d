"""Sweeps: experiments along one axis, and what their states add up to."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete as delete_from
from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session

from app.errors import NotFound, StateConflict
from app.ids import new_id
from app.persistence import callers, experiments, quotas
from app.persistence.models import ACTIVE, Experiment, Sweep, SweepMember
from ml.spec import ExperimentSpec

BEGUN: dict[str, Any] = {"places": [], "peak": None, "told": 0, "spent": 0.0, "ended": None, "error": None}  # a new search


@dataclass(frozen=True)
class Member:
    """An experiment at its place on the axis."""

    index: int
    seed: int
    reused: bool
    experiment: Experiment


def create(session: Session, name: str, spec: dict[str, Any], trainings: Iterable[tuple[int, ExperimentSpec]]) -> Sweep:
    """Queue a sweep of resolved specs, each with the index of its axis value; finished twins are reused, not trained again.

    One that searches begins with none: workers choose what to train.
    """
    searching = spec["axis"].get("search") is not None
    sweep = Sweep(id=new_id("swp"), name=name, spec=spec, search=dict(BEGUN) if searching else None)
    if searching:
        quotas.require_place(session, 1)
    session.add(sweep)
    session.flush()
    if not searching:
        add(session, sweep, trainings)
    return sweep


def add(session: Session, sweep: Sweep, trainings: Iterable[tuple[int, ExperimentSpec]]) -> int:
    """Queue resolved specs in a sweep, each with its index; say how many finished twins are reused. Raises Invalid, SpecError."""
    places = list(trainings)
    twins = experiments.finished_twins(session, [training for _, training in places])
    missing = [(training, None) for (_, training), twin in zip(places, twins, strict=True) if twin is None]
    made = iter(experiments.create_all(session, missing))
    for (index, training), twin in zip(places, twins, strict=True):
        session.add(
            SweepMember(
                sweep_id=sweep.id,
                axis_index=index,
                seed=training.seed,
                experiment_id=twin or next(made).id,
                reused=twin is not None,
            )
        )
    session.flush()
    return sum(twin is not None for twin in twins)


def get(session: Session, sweep_id: str, *, lock: bool = False) -> Sweep:
    """The sweep, locked against changes if asked. Raises NotFound."""
    sweep = session.get(Sweep, sweep_id, with_for_update=lock or None)
    if sweep is None:
        raise NotFound(f"there is no sweep {sweep_id!r}")
    return sweep


def page(session: Session, *, after: str | None, limit: int) -> Sequence[Sweep]:
    """Newest first, by keyset."""
    query = select(Sweep).order_by(Sweep.id.desc()).limit(limit)
    return session.scalars(query if after is None else query.where(Sweep.id < after)).all()


def members(session: Session, sweep: Sweep) -> Sequence[Member]:
    """The sweep's experiments in the order of the axis and of the seeds."""
    rows = session.execute(
        select(SweepMember, Experiment)
        .join(Experiment, Experiment.id == SweepMember.experiment_id)
        .where(SweepMember.sweep_id == sweep.id)
        .order_by(SweepMember.axis_index, SweepMember.seed)
        .execution_options(populate_existing=True)
    )
    return [Member(place.axis_index, place.seed, place.reused, experiment) for place, experiment in rows]


def whole(session: Session, sweep_id: str) -> tuple[Sweep, Sequence[Member]]:
    """A sweep with its experiments as they are now; read in this order, no experiment is missing among a search's places.

    Raises NotFound.
    """
    found = members(session, get(session, sweep_id))
    row = session.get(Sweep, sweep_id, populate_existing=True)
    if row is None:
        raise NotFound(f"there is no sweep {sweep_id!r}")
    return row, found


def counts(session: Session, sweep_ids: Sequence[str]) -> dict[str, Counter[str]]:
    """Experiments of each sweep by state."""
    found: dict[str, Counter[str]] = {sweep_id: Counter() for sweep_id in sweep_ids}
    query = (
        select(SweepMember.sweep_id, Experiment.state, func.count())
        .join(Experiment, Experiment.id == SweepMember.experiment_id)
        .where(SweepMember.sweep_id.in_(sweep_ids))
        .group_by(SweepMember.sweep_id, Experiment.state)
    )
    for sweep_id, experiment_state, count in session.execute(query):
        found[sweep_id][experiment_state] = count
    return found


def state(counts: Counter[str], search: dict[str, Any] | None = None) -> str:
    """What the experiments' states add up to: `failed` only if all failed, `running` as soon as one has begun.

    A search that goes on is `running` between its experiments, too.
    """
    total = counts.total()
    if not any(counts[active] for active in ACTIVE):
        if search is not None:
            if search["ended"] is None:
                return "running" if total else "queued"
            if search["ended"] == "cancelled":
                return "cancelled"
        if counts["failed"] == total:
            return "failed"
        return "cancelled" if counts["cancelled"] else "succeeded"
    if counts["queued"] == total:
        return "queued"
    return "cancelling" if counts["cancelling"] and not counts["queued"] and not counts["running"] else "running"


def state_now(session: Session, sweep_id: str) -> str:
    """A sweep's state. Raises NotFound."""
    found = counts(session, [sweep_id])[sweep_id]
    return state(found, get(session, sweep_id).search)


def cancel(session: Session, sweep: Sweep) -> None:
    """Cancel what is not finished yet of a locked sweep, and end its search. Raises StateConflict where all of it is."""
    found = members(session, sweep)
    active = sorted(member.experiment.id for member in found if member.experiment.state in ACTIVE and not member.reused)
    searching = sweep.search is not None and sweep.search["ended"] is None
    if not active and not searching:
        now = _state(sweep, found)
        raise StateConflict(f"{sweep.id} has {now} and cannot be cancelled", now)
    if searching:
        sweep.search = {**(sweep.search or {}), "ended": "cancelled"}
    for experiment_id in active:
        try:
            experiments.cancel(session, experiment_id)
        except StateConflict:  # it finished between the look and the lock
            continue


def retry(session: Session, sweep: Sweep) -> int:
    """Queue a locked sweep's failed and cancelled experiments anew, say how many; a search that was broken off goes on.

    Raises StateConflict where there is nothing to do.
    """
    found = members(session, sweep)
    broken = [member for member in found if member.experiment.state in ("failed", "cancelled")]
    broken_off = sweep.search is not None and sweep.search["ended"] in ("cancelled", "failed")
    if sweep.search is not None and (broken or broken_off):
        sweep.search = {**sweep.search, "ended": None, "error": None}
    if not broken and not broken_off:
        now = _state(sweep, found)
        raise StateConflict(f"{sweep.id} is {now} and has no failed or cancelled experiment to retry", now)
    wanted = [(ExperimentSpec.model_validate(member.experiment.spec), member.experiment.id) for member in broken]
    with callers.on_behalf_of(sweep.owner):
        made = experiments.create_all(session, wanted)
    places = [
        {"sweep_id": sweep.id, "axis_index": member.index, "seed": member.seed, "experiment_id": again.id}
        for member, again in zip(broken, made, strict=True)
    ]
    if places:
        session.execute(update(SweepMember), places)
    session.flush()
    return len(broken)


def delete(session: Session, sweep: Sweep) -> Sequence[str]:
    """Forget a finished, locked sweep and the experiments that were made for it alone; answer their ids.

    Experiments that it reused, or that another sweep reuses, stay. Raises StateConflict while anything still works.
    """
    found = members(session, sweep)
    now = _state(sweep, found)
    if any(member.experiment.state in ACTIVE and not member.reused for member in found) or now in ACTIVE:
        raise StateConflict(f"{sweep.id} is {now}; cancel it before deleting it", now)
    own = [member.experiment.id for member in found if not member.reused]
    session.delete(sweep)
    session.flush()
    # from here on no new sweep can reuse them unseen: who is about to holds them with a lock of its own
    session.execute(select(Experiment.id).where(Experiment.id.in_(own)).order_by(Experiment.id).with_for_update())
    held = exists().where(SweepMember.experiment_id == Experiment.id)
    return session.scalars(delete_from(Experiment).where(Experiment.id.in_(own), ~held).returning(Experiment.id)).all()


def searching(session: Session) -> Sequence[str]:
    """Ids of the sweeps whose search goes on, the oldest first."""
    ended = Sweep.search["ended"].astext
    return session.scalars(select(Sweep.id).where(Sweep.search.is_not(None), ended.is_(None)).order_by(Sweep.id)).all()


def held(session: Session, sweep_id: str) -> Sweep | None:
    """A sweep locked against changes; None where somebody else holds it now, or it is gone."""
    query = select(Sweep).where(Sweep.id == sweep_id).with_for_update(skip_locked=True)
    return session.scalar(query.execution_options(populate_existing=True))


def _state(sweep: Sweep, found: Sequence[Member]) -> str:
    return state(Counter(member.experiment.state for member in found), sweep.search)
