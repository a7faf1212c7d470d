"""Where files lie: those of an experiment in a folder an attempt, so that a late writer cannot touch another attempt's; an upload
as it came, under its hash, and decoded, under its id; the arrays of an estimate under its id; a checkpoint under its hash.

Whoever removes what nobody owns is `alone` with it meanwhile, and nobody is while a backup is made.
"""

import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from uuid6 import uuid7

from app.logs import redacted
from app.persistence.database import engine
from app.settings import settings

FACTS = "facts.json"  # in the folder of a decoded upload
LONGEST_LOG = 1_000_000  # bytes that `logs` answers, from the end
ABANDONED = 86_400  # seconds after which nobody writes any more into what nobody owns
LOG = "log.txt"  # what an attempt printed
LOCK = 7302454  # any number that nobody else locks; a backup shares it, so that what it is about to copy stays


@dataclass(frozen=True)
class Garbage:
    """A file or folder that nobody has a use for any more, and why not."""

    path: Path
    why: str


@contextmanager
def alone() -> Iterator[bool]:
    """Whether nobody else removes what is of no use, and no backup runs; if so, none begins before the block ends.

    The lock is a connection's own, on which no transaction is open: files take longer than the database lets one be idle.
    """
    with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as link:
        is_alone = bool(link.scalar(select(func.pg_try_advisory_lock(LOCK))))
        try:
            yield is_alone
        finally:
            if is_alone:
                link.execute(select(func.pg_advisory_unlock(LOCK)))


def experiment_folder(experiment_id: str) -> Path:
    """The folder of an experiment's attempts."""
    return settings().artifacts_dir / experiment_id


def attempt_folder(experiment_id: str, attempt: int) -> Path:
    """The folder of one attempt."""
    return experiment_folder(experiment_id) / f"a{attempt}"


def checkpoints_folder(experiment_id: str) -> Path:
    """Where an unfinished experiment's checkpoints lie, from one attempt to the next."""
    return experiment_folder(experiment_id) / "checkpoints"


def log_text(experiment_id: str, attempt: int) -> str:
    """The end of what an attempt printed; empty where it printed nothing."""
    path = attempt_folder(experiment_id, attempt) / LOG
    if path.is_symlink() or not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - LONGEST_LOG, 0))
        return redacted(file.read().decode(errors="replace"))


def remove(experiment_id: str) -> None:
    """Free an experiment's files."""
    remove_folder(experiment_folder(experiment_id))


def remove_folder(folder: Path) -> None:
    """Remove a folder, if it is there, with all that is in it."""
    shutil.rmtree(folder, ignore_errors=True)


def remove_path(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        remove_folder(path)
    else:
        path.unlink(missing_ok=True)


def set_aside(folder: Path) -> None:
    """Take a folder away from those who may want it, at once and whole; what it holds is removed at leisure."""
    with suppress(FileNotFoundError):
        folder.rename(folder.with_name(f".{folder.name}.{uuid7().hex}"))


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(found.st_size for found in _below(path))


def remove_unfinished(folder: Path) -> None:
    """Remove what was being written there when its writer ended."""
    for path in folder.glob(".*"):
        with suppress(OSError):  # then a later tidying up finds it
            path.unlink(missing_ok=True)


def incoming() -> Path:
    """The folder of uploads that are still being received."""
    return settings().uploads_dir / "incoming"


def blob(sha256: str) -> Path:
    """An upload as it came."""
    return settings().uploads_dir / "blobs" / sha256


def dataset_folder(dataset_id: str) -> Path:
    """An upload, decoded."""
    return settings().uploads_dir / dataset_id


def decoding_folder(dataset_id: str, attempt: int) -> Path:
    """Where an attempt at decoding it writes, in a folder of its own."""
    return settings().uploads_dir / f".{dataset_id}.a{attempt}" / dataset_id


def arrays(estimate_id: str) -> Path:
    """The npz of an estimate that is not finished."""
    return settings().uploads_dir / "arrays" / f"{estimate_id}.npz"


def checkpoint(sha256: str) -> Path:
    """Weights from which experiments begin, as they came."""
    return settings().uploads_dir / "checkpoints" / sha256


def description(path: Path) -> Path:
    """What is known of such weights, as JSON beside them."""
    return path.with_name(f"{path.name}.json")


def keep(received: Path, path: Path) -> None:
    """Store what has been received whole where it belongs. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    received.replace(path)


def put_in_place(made: Path, dataset_id: str) -> None:
    """Let a folder that was made whole be the decoded upload, unless it is so already. Raises OSError."""
    folder = dataset_folder(dataset_id)
    if made.is_dir():
        remove_folder(folder)
        made.replace(folder)


def remove_dataset(dataset_id: str) -> None:
    """Free a decoded upload, and what this machine made once out of it."""
    remove_folder(dataset_folder(dataset_id))
    for folder in prepared_uploads(dataset_id):
        remove_folder(folder)


def prepared_uploads(dataset_id: str = "ds_*") -> list[Path]:
    """What this machine made once out of uploads: folders that each begin with an id and a dash."""
    return [*settings().prepared_dir.glob(f"{dataset_id}-*")]


def share(dataset_id: str, with_id: str, facts: dict[str, Any]) -> None:
    """Let another upload have the same decoded files, with facts of its own. Raises OSError where the disk has no hard links."""
    made = decoding_folder(with_id, 0)
    try:
        shutil.copytree(dataset_folder(dataset_id), made, ignore=shutil.ignore_patterns(FACTS), copy_function=os.link)
        os.utime(made)
        (made / FACTS).write_text(json.dumps(facts))
        put_in_place(made, with_id)
    finally:
        remove_folder(made.parent)


def abandoned(path: Path) -> bool:
    """Whether it is there, and so old that whoever made it does not live."""
    try:
        return time.time() - path.stat().st_mtime > ABANDONED
    except FileNotFoundError:
        return False


def untouched(folder: Path) -> bool:
    """Whether it and all that is in it is as old as that."""
    return abandoned(folder) and all(time.time() - found.st_mtime > ABANDONED for found in _below(folder))


def _below(path: Path) -> Iterator[os.stat_result]:
    """Of a file, or of all files in a folder; what goes away meanwhile is passed over."""
    for found in path.rglob("*") if path.is_dir() else [path]:
        with suppress(FileNotFoundError):
            if stat.S_ISREG((known := found.lstat()).st_mode):
                yield known
