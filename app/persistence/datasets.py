"""Uploads as clients see and steer them, and who waits for them. What workers write to them is in `leases`.

An upload's file lies under its SHA-256, and several uploads may share it. Whoever stores or removes such a file holds the lock of
its hash meanwhile, so that none is removed that another upload has just begun to share.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app import datasets as library
from app.errors import Invalid, NotFound, StateConflict
from app.ids import new_id
from app.persistence import callers, files, quotas
from app.persistence.files import Garbage
from app.persistence.models import ACTIVE, IDLE, Dataset, Experiment, Sweep
from ml.spec import Dataset as DatasetSpec
from ml.spec import DatasetFacts, ExperimentSpec, SpecError, resolve

ID = re.compile(r"ds_[0-9a-f]{32}")


def create(session: Session, name: str, layout: str | None, received: Path, sha256: str, size: int) -> Dataset:
    """Store a received file and queue it to be decoded; at once ready where the same file was decoded before.

    Raises QuotaExceeded, or OSError where it cannot be stored.
    """
    _lock(session, sha256)
    quotas.require_room(session, size)
    files.keep(received, files.blob(sha256))
    dataset = Dataset(id=new_id("ds"), name=name, layout=layout, sha256=sha256, size=size, progress=IDLE)
    session.add(dataset)
    session.flush()
    same = select(Dataset).where(Dataset.sha256 == sha256, Dataset.layout.is_not_distinct_from(layout))
    same = same.where(Dataset.state == "succeeded", Dataset.owner == dataset.owner).order_by(Dataset.id).limit(1)
    twin = session.scalar(same.with_for_update(read=True))  # so that its files are not removed now
    if twin is not None:
        with suppress(OSError):  # a disk without hard links: then it is decoded once more
            facts = {**(twin.facts or {}), "name": dataset.id}
            files.share(twin.id, dataset.id, facts)
            now = session.scalar(select(func.clock_timestamp()))
            dataset.state, dataset.finished_at, dataset.facts, dataset.same_as = "succeeded", now, facts, twin.id
            session.flush()
    return dataset


def get(session: Session, dataset_id: str, *, lock: bool = False) -> Dataset:
    """The upload, locked against changes if asked. Raises NotFound."""
    dataset = session.get(Dataset, dataset_id, with_for_update=lock or None)
    if dataset is None:
        raise NotFound(f"there is no dataset {dataset_id!r}")
    return dataset


def title(session: Session, name: str) -> str:
    """What people call a dataset: of an upload its title, if it is still there."""
    upload = session.get(Dataset, name) if ID.fullmatch(name) else None
    return name if upload is None else upload.name


def page(session: Session, *, after: str | None, limit: int) -> Sequence[Dataset]:
    """Newest first, by keyset."""
    query = select(Dataset).order_by(Dataset.id.desc()).limit(limit)
    return session.scalars(query if after is None else query.where(Dataset.id < after)).all()


def delete(session: Session, dataset_id: str) -> Dataset:
    """Forget an upload; the caller must `free` its files. Raises NotFound, StateConflict while anybody works on or with it."""
    dataset = get(session, dataset_id, lock=True)
    if dataset.state in ACTIVE:
        raise StateConflict(f"{dataset_id} is still {dataset.status}; delete it once it is ready or rejected", dataset.status)
    named = [{"dataset": {field: dataset_id}} for field in ("name", "backgrounds")]
    named += [{"tasks": [part]} for part in named]
    using = select(Experiment.id, Experiment.owner).where(Experiment.state.in_(ACTIVE))
    using = using.where(or_(*(Experiment.spec.contains(part) for part in named))).limit(1)
    searching = select(Sweep.id, Sweep.owner).where(Sweep.search.is_not(None), Sweep.search["ended"].astext.is_(None))
    searching = searching.where(or_(*(Sweep.spec["base"].contains(part) for part in named))).limit(1)
    with callers.asked_by(None):  # an admin may be at work on it
        user, searcher = session.execute(using).first(), session.execute(searching).first()
    if user is not None:
        who = user.id if user.owner == dataset.owner else "another owner's experiment"
        raise StateConflict(f"{who} is at work on {dataset_id}; cancel it before deleting the dataset", dataset.status)
    if searcher is not None:
        who = searcher.id if searcher.owner == dataset.owner else "another owner's sweep"
        raise StateConflict(f"{who} still searches on it; cancel that before deleting the dataset", dataset.status)
    session.delete(dataset)
    session.flush()
    return dataset


def free(session: Session, dataset_id: str, sha256: str) -> None:
    """Remove a forgotten upload's files, and the file as it came unless another upload has a use for it."""
    files.remove_dataset(dataset_id)
    _remove_unless_of_use(session, sha256)


def garbage(session: Session) -> Iterator[Garbage]:
    """Files that are of no use any more: of rejected uploads, and what a killed process left half received or decoded."""
    decoded = [*files.dataset_folder("").glob("ds_*"), *files.dataset_folder("").glob(".ds_*")]
    prepared, blobs = files.prepared_uploads(), list(files.blob("").glob("*"))  # all listed before it is asked whose they are
    owned = {row.id: row for row in session.execute(select(Dataset.id, Dataset.state, Dataset.sha256))}
    for path in files.incoming().glob("*"):
        if files.abandoned(path):
            yield Garbage(path, "half received")
    for path in decoded:
        owner = owned.get(path.name.lstrip(".").partition(".")[0])
        half_made = path.name.startswith(".") and (owner is None or owner.state not in ACTIVE)
        if (owner is None or half_made) and files.abandoned(path):
            yield Garbage(path, "half decoded" if half_made else "of no dataset")
    for path in prepared:
        if path.name.partition("-")[0] not in owned:
            yield Garbage(path, "made out of no dataset")
    of_use = {row.sha256 for row in owned.values() if row.state != "failed"}
    for path in blobs:
        if path.name not in of_use:
            yield Garbage(path, "of no dataset, or of a rejected one")


def tidy(session: Session) -> None:
    """Remove such files, unless another is at it, or a backup runs, which may be about to copy them."""
    if found := list(garbage(session)):
        with files.alone() as alone:
            for one in found if alone else ():
                discard(session, one)


def discard(session: Session, found: Garbage) -> None:
    """Remove such a file or folder, unless another upload has a use for it by now."""
    if found.path == files.blob(found.path.name):
        _remove_unless_of_use(session, found.path.name)
    else:
        files.remove_path(found.path)


class Named:
    """The uploads that specs name. Each stays as it is, once it was looked at, until the transaction ends."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._rows: dict[str, Dataset | None] = {}

    def awaited(self, spec: ExperimentSpec) -> str | None:
        """One that must be decoded before the spec can be resolved. Raises Invalid where one is not there or was rejected."""
        found = None
        for pointer, name in uploads_in(spec):
            row = self._row(name)
            if row is None:
                raise Invalid.field(pointer, f"there is no dataset {name!r}")
            if row.state == "failed":
                raise Invalid.field(pointer, f"{name} was rejected: {(row.error or {}).get('message', 'no reason is known')}")
            found = name if row.state in ACTIVE else found
        return found

    def settled(self, spec: ExperimentSpec) -> tuple[ExperimentSpec, str | None]:
        """The spec as it can be run, or as it was asked with the upload that it waits for. Raises Invalid, SpecError."""
        if not uploads_in(spec):
            return spec, None
        waits_for = self.awaited(spec)
        return (spec, waits_for) if waits_for else (resolve(spec, self.facts), None)

    def facts(self, dataset: DatasetSpec, pointer: str) -> DatasetFacts:
        """What is known of a dataset at `pointer` of a spec, uploaded or not. Raises Invalid."""
        row = self._row(dataset.name) if ID.fullmatch(dataset.name) else None
        return library.facts(dataset) if row is None else DatasetFacts.model_validate(row.facts)

    def _row(self, name: str) -> Dataset | None:
        if name not in self._rows:
            query = select(Dataset).where(Dataset.id == name).with_for_update(read=True)
            self._rows[name] = self._session.scalar(query.execution_options(populate_existing=True))
        return self._rows[name]


def why(error: Invalid | SpecError | ValidationError) -> dict[str, str]:
    """Why that which waited for an upload failed: it does not fit, there is no such upload after all, or the spec is of a version
    that is not understood any more."""
    if isinstance(error, SpecError):
        return {"code": "invalid", "message": f"{error.pointer}: {error.message}"}
    if isinstance(error, ValidationError):
        return {"code": "invalid", "message": f"the spec cannot be read by this version: {error.errors()[0]['msg']}"}
    return {"code": "user", "message": error.detail}


def uploads_in(spec: ExperimentSpec) -> list[tuple[str, str]]:
    """Ids of the uploads that a spec names, each with the JSON pointer of the name.

    What only looks like an id is among them, and then not found: a disk that does not tell cases apart has its folder.
    """
    parts = [("/dataset", spec.dataset)]
    parts += [(f"/tasks/{index}/dataset", task.dataset) for index, task in enumerate(spec.tasks) if task.dataset]
    named = [(f"{pointer}/{field}", getattr(part, field)) for pointer, part in parts for field in ("name", "backgrounds")]
    return [(pointer, name) for pointer, name in named if name is not None and name.lower().startswith("ds_")]


def _remove_unless_of_use(session: Session, sha256: str) -> None:
    _lock(session, sha256)
    of_use = select(Dataset.id).where(Dataset.sha256 == sha256, Dataset.state != "failed").limit(1)
    with callers.asked_by(None):  # whoever sent it has a use for it
        if session.scalar(of_use) is None:
            files.blob(sha256).unlink(missing_ok=True)


def _lock(session: Session, sha256: str) -> None:
    number = int.from_bytes(hashlib.sha256(f"upload {sha256}".encode()).digest()[:8], signed=True)
    session.execute(select(func.pg_advisory_xact_lock(number)))
