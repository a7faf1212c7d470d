"""What nobody has a use for any more: files that no row owns, and what was kept as long as the settings say.

Nothing is removed that was touched within a day or that belongs to an unfinished experiment. Folders are listed before it is
asked whose they are, and rows are committed before their folders are made: so what begins meanwhile is nobody's garbage.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from sqlalchemy import ColumnElement, delete, exists, func, or_, select
from sqlalchemy.orm import Session

from app.persistence import checkpoints, datasets, experiments, files, mi_estimates, sweeps, tallies
from app.persistence.files import Garbage
from app.persistence.models import TERMINAL, Artifact, Experiment, Metric, Sweep, SweepMember, Worker
from app.settings import settings

LOCK = 7302454  # any number that nobody else locks; a backup shares it, so that what it is about to copy stays
AT_ONCE = 500  # experiments asked for together
MOST = 1000  # experiments or sweeps forgotten in one round
FORGOTTEN = timedelta(days=7)  # after which a silent worker is one that was


def find(session: Session) -> list[Garbage]:
    """All that `retire` and `remove`, in this order, would take away now."""
    folders = (files.experiment_folder(experiment_id) for experiment_id in _old_experiments(session))
    found = [Garbage(folder, "of an experiment kept for long enough") for folder in folders if folder.is_dir()]
    known = {one.path for one in found}
    for part in (_old_checkpoints, _of_experiments, datasets.garbage, mi_estimates.garbage, checkpoints.garbage):
        found += [one for one in part(session) if not known & {one.path, *one.path.parents}]
    return found


def retire(session: Session) -> bool:
    """Forget what was kept for long enough; its files are nobody's then. False where another is at it, or a backup runs."""
    if not _alone(session):
        return False
    for sweep_id in _old_sweeps(session):
        sweeps.delete(session, sweeps.get(session, sweep_id, lock=True))
    for experiment_id in _old_experiments(session):
        experiments.delete(session, experiment_id)
    if settings().retention.metrics:
        measured = exists().where(Metric.experiment_id == Experiment.id)
        old = select(Experiment.id).where(_finished_before(settings().retention.metrics), measured).limit(MOST)
        session.execute(delete(Metric).where(Metric.experiment_id.in_(old)))
    session.execute(delete(Worker).where(Worker.seen_at < func.clock_timestamp() - FORGOTTEN))
    tallies.fold(session, FORGOTTEN)
    for found in _old_checkpoints(session):  # last, since retries wait from here on
        files.set_aside(found.path)
    return True


def remove(session: Session) -> None:
    """Remove the files that are nobody's, unless another is at it, or a backup runs."""
    if not _alone(session):
        return
    for part in (datasets, mi_estimates, checkpoints):
        part.tidy(session)
    for found in list(_of_experiments(session)):
        files.remove_path(found.path)


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
        for experiment_id in some.keys() - rows.keys():
            if files.untouched(some[experiment_id]):
                yield Garbage(some[experiment_id], "of no experiment")
        finished = {id: row for id, row in rows.items() if row.state in TERMINAL}
        named = _named(session, list(finished))
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


def _old_checkpoints(session: Session) -> list[Garbage]:
    """Those of experiments that were cancelled long ago, and that none which is unfinished retries."""
    days = settings().retention.checkpoints
    if not days:
        return []
    there = {path.parent.name: path for path in files.experiment_folder("").glob("exp_*/checkpoints")}
    wanted = experiments.gone_on_from(session)
    query = select(Experiment.id).where(Experiment.state == "cancelled", _finished_before(days))
    old = (experiment_id for experiment_id in session.scalars(query) if experiment_id in there.keys() - wanted)
    return [Garbage(there[experiment_id], f"of an experiment cancelled {days:g} days ago or before") for experiment_id in old]


def _old_sweeps(session: Session) -> Sequence[str]:
    """Whose experiments have all been kept for long enough."""
    days = settings().retention.experiments
    return session.scalars(select(Sweep.id).where(_old_sweep(days)).limit(MOST)).all() if days else []


def _old_experiments(session: Session) -> Sequence[str]:
    """Those that were kept for long enough, and that no other sweep holds."""
    days = settings().retention.experiments
    if not days:
        return []
    holder = exists().where(SweepMember.experiment_id == Experiment.id, SweepMember.sweep_id == Sweep.id, ~_old_sweep(days))
    return session.scalars(select(Experiment.id).where(_finished_before(days), ~holder).limit(MOST)).all()


def _old_sweep(days: float) -> ColumnElement[bool]:
    young = or_(Experiment.finished_at.is_(None), ~_finished_before(days))
    held = exists().where(SweepMember.sweep_id == Sweep.id, SweepMember.experiment_id == Experiment.id, young)
    over = or_(Sweep.search.is_(None), Sweep.search["ended"].astext.is_not(None))
    return (Sweep.created_at < func.clock_timestamp() - timedelta(days=days)) & over & ~held


def _finished_before(days: float) -> ColumnElement[bool]:
    return Experiment.finished_at < func.clock_timestamp() - timedelta(days=days)


def _alone(session: Session) -> bool:
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(LOCK))))
