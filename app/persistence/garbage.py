"""What nobody has a use for any more: files that no row owns, and what was kept as long as the settings say.

Nothing is removed that was touched within a day or that belongs to an unfinished experiment. Folders are listed before it is
asked whose they are, and rows are committed before their folders are made: so what begins meanwhile is nobody's garbage.

It commits as it goes, unlike the rest of `persistence`: files take longer than a transaction may be idle, and a round that fails
must leave less to the next one.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from sqlalchemy import ColumnElement, delete, exists, func, or_, select, tuple_
from sqlalchemy.orm import Session

from app.errors import NotFound, StateConflict
from app.persistence import checkpoints, datasets, experiments, files, mi_estimates, sweeps, tallies
from app.persistence.files import Garbage
from app.persistence.models import TERMINAL, Artifact, Experiment, Metric, Sweep, SweepMember, Worker
from app.settings import settings

AT_ONCE = 500  # experiments asked for together
MOST = 1000  # experiments or sweeps forgotten in one round
METRICS = 10_000  # forgotten in one statement, which takes a fraction of a second where half a minute is allowed
FORGOTTEN = timedelta(days=7)  # after which a silent worker is one that was


def find(session: Session) -> list[Garbage]:
    """All that `retire` and `remove`, in this order, would take away now."""
    old = _old_experiments(session, without=_old_sweeps(session))
    folders = (files.experiment_folder(experiment_id) for experiment_id in old)
    found = [Garbage(folder, "of an experiment kept for long enough") for folder in folders if folder.is_dir()]
    known = {one.path for one in found}
    for part in (_unwanted_checkpoints, _of_experiments, datasets.garbage, mi_estimates.garbage, checkpoints.garbage):
        session.commit()
        found += [one for one in part(session) if not known & {one.path, *one.path.parents}]
    return found


def retire(session: Session) -> bool:
    """Forget what was kept for long enough; its files are nobody's then. False where another is at it, or a backup runs."""
    with files.alone() as alone:
        if alone:
            _forget_experiments(session)
            _forget_metrics(session)
            session.execute(delete(Worker).where(Worker.seen_at < func.clock_timestamp() - FORGOTTEN))
            tallies.fold(session, FORGOTTEN)
            session.commit()
            _set_checkpoints_aside(session)  # last, since retries wait from here on
    return alone


def remove(session: Session) -> None:
    """Remove the files that are nobody's, unless another is at it, or a backup runs."""
    with files.alone() as alone:
        for part in (datasets, mi_estimates, checkpoints) if alone else ():
            found = list(part.garbage(session))
            session.commit()
            for one in found:
                part.discard(session, one)
                session.commit()
        for one in list(_of_experiments(session)) if alone else ():
            files.remove_path(one.path)


def _forget_experiments(session: Session) -> None:
    """Sweeps and experiments, but for those that a client deleted or found a use for since they were listed."""
    for sweep_id in _old_sweeps(session):
        with suppress(NotFound, StateConflict), session.begin_nested():
            sweeps.delete(session, sweeps.get(session, sweep_id, lock=True))
        session.commit()
    for experiment_id in _old_experiments(session):
        with suppress(NotFound, StateConflict), session.begin_nested():
            experiments.delete(session, experiment_id)
        session.commit()


def _forget_metrics(session: Session) -> None:
    if not settings().retention.metrics:
        return
    measured = exists().where(Metric.experiment_id == Experiment.id)
    old = select(Experiment.id).where(_finished_before(settings().retention.metrics), measured).limit(MOST)
    key = (Metric.experiment_id, Metric.attempt, Metric.name, Metric.step)
    for experiment_id in session.scalars(old).all():
        some = tuple_(*key).in_(select(*key).where(Metric.experiment_id == experiment_id).limit(METRICS))
        gone = delete(Metric).where(Metric.experiment_id == experiment_id, some).returning(Metric.step)
        while session.scalars(gone, execution_options={"synchronize_session": False}).first() is not None:
            session.commit()


def _set_checkpoints_aside(session: Session) -> None:
    if found := _old_checkpoints(session):
        wanted = experiments.gone_on_from(session)
        for one in found:
            if one.path.parent.name not in wanted:
                files.set_aside(one.path)


def _of_experiments(session: Session) -> Iterator[Garbage]:
    """Folders of deleted experiments, files that no finished one's rows name, and what a killed process left half done."""
    folders = sorted(files.experiment_folder("").glob("exp_*"))
    for path in files.experiment_folder("").glob(".restore-*"):
        if files.untouched(path):
            yield Garbage(path, "half restored")
    for start in range(0, len(folders), AT_ONCE):
        some = {folder.name: folder for folder in folders[start : start + AT_ONCE]}
        asked = select(Experiment.id, Experiment.state, Experiment.attempt).where(Experiment.id.in_(some))
        rows = {row.id: row for row in session.execute(asked)}
        finished = {id: row for id, row in rows.items() if row.state in TERMINAL}
        named = _named(session, list(finished))
        session.commit()
        for experiment_id in some.keys() - rows.keys():
            if files.untouched(some[experiment_id]):
                yield Garbage(some[experiment_id], "of no experiment")
        for experiment_id, row in finished.items():
            for path in sorted(some[experiment_id].iterdir()):
                yield from _of_finished(path, row.state, named.get((experiment_id, path.name), set()))


def _of_finished(path: Path, state: str, named: set[str]) -> Iterator[Garbage]:
    """Of one file or folder in a finished experiment's; `named` are those of an attempt's files that have rows."""
    if path.name == "checkpoints":
        half = path.glob(".*") if state == "cancelled" else ()
        yield from (Garbage(one, "half written") for one in half if files.abandoned(one))
        if state != "cancelled" and files.untouched(path):
            yield Garbage(path, f"of an experiment that has {state}")
    elif path.name.startswith("."):
        if files.untouched(path):
            yield Garbage(path, "set aside")
    else:
        for one in sorted(path.iterdir() if path.is_dir() else ()):
            if one.name not in named and one.name != files.LOG and files.untouched(one):
                yield Garbage(one, "of an attempt that came to nothing, or half written")


def _named(session: Session, experiment_ids: list[str]) -> dict[tuple[str, str], set[str]]:
    """The files that rows name, by experiment and folder of the attempt."""
    found: dict[tuple[str, str], set[str]] = {}
    rows = session.execute(
        select(Artifact.experiment_id, Artifact.attempt, Artifact.name).where(Artifact.experiment_id.in_(experiment_ids))
    )
    for experiment_id, attempt, name in rows:
        folder = files.attempt_folder(experiment_id, attempt).name
        found.setdefault((experiment_id, folder), set()).add(name.partition("/")[0])
    return found


def _unwanted_checkpoints(session: Session) -> list[Garbage]:
    """Those of experiments that were cancelled long ago, and that none which is unfinished goes on from.

    At a glance: what is decided by `experiments.gone_on_from` has retries wait.
    """
    found = _old_checkpoints(session)
    wanted = experiments.gone_on_from_now(session)
    return [one for one in found if one.path.parent.name not in wanted]


def _old_checkpoints(session: Session) -> list[Garbage]:
    """Those of experiments that were cancelled long ago."""
    days = settings().retention.checkpoints
    if not days:
        return []
    there = {path.parent.name: path for path in files.experiment_folder("").glob("exp_*/checkpoints")}
    query = select(Experiment.id).where(Experiment.state == "cancelled", _finished_before(days))
    why = f"of an experiment cancelled {days:g} days ago or before"
    return [Garbage(there[experiment_id], why) for experiment_id in session.scalars(query) if experiment_id in there]


def _old_sweeps(session: Session) -> Sequence[str]:
    """Whose experiments have all been kept for long enough."""
    days = settings().retention.experiments
    return session.scalars(select(Sweep.id).where(_old_sweep(days)).limit(MOST)).all() if days else []


def _old_experiments(session: Session, without: Collection[str] = ()) -> Sequence[str]:
    """Those that were kept for long enough, and that no sweep holds, or would hold `without` these."""
    days = settings().retention.experiments
    if not days:
        return []
    holder = exists().where(SweepMember.experiment_id == Experiment.id, SweepMember.sweep_id.not_in(without))
    return session.scalars(select(Experiment.id).where(_finished_before(days), ~holder).limit(MOST)).all()


def _old_sweep(days: float) -> ColumnElement[bool]:
    young = or_(Experiment.finished_at.is_(None), ~_finished_before(days))
    held = exists().where(SweepMember.sweep_id == Sweep.id, SweepMember.experiment_id == Experiment.id, young)
    over = or_(Sweep.search.is_(None), Sweep.search["ended"].astext.is_not(None))
    return (Sweep.created_at < func.clock_timestamp() - timedelta(days=days)) & over & ~held


def _finished_before(days: float) -> ColumnElement[bool]:
    return Experiment.finished_at < func.clock_timestamp() - timedelta(days=days)
