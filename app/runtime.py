"""What runs on a data folder: the lock that only one process holds, and the note that says how to reach it."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO


class LockedError(RuntimeError):
    """Another process holds the lock; `pid` is its id, where it has written it."""

    def __init__(self, path: Path, pid: int | None):
        super().__init__(f"{path} is held by {f'process {pid}' if pid else 'another process'}")
        self.pid = pid


@dataclass(frozen=True)
class Runtime:
    """How to reach the service that runs on a data folder; `runtime.json`."""

    api_url: str
    database_url: str
    redis_url: str
    pid: int


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold `path` until the end of the block or of the process, however it ends. Raises LockedError where another does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        if not _taken(file):
            raise LockedError(path, _pid_in(path))
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def lock_path(data_dir: Path) -> Path:
    """The lock of the `sweetspot up` on a data folder."""
    return data_dir / "up.lock"


def read(data_dir: Path) -> Runtime | None:
    """The service that runs on the folder now. None where none does, even if one that was killed left its note behind."""
    try:
        with lock_path(data_dir).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pass  # held: it runs
    except OSError:
        return None
    else:
        return None
    try:
        return Runtime(**json.loads(_note(data_dir).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None  # it is still starting


def write(data_dir: Path, runtime: Runtime) -> None:
    """Leave the note, readable by its owner alone, whole or not at all."""
    part = _note(data_dir).with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(asdict(runtime), file, indent=2)
    part.replace(_note(data_dir))


def remove(data_dir: Path) -> None:
    """Take the note away."""
    _note(data_dir).unlink(missing_ok=True)


def _taken(file: IO[str]) -> bool:
    for _ in range(5):  # `read` holds it for an instant
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return True
    return False


def _note(data_dir: Path) -> Path:
    return data_dir / "runtime.json"


def _pid_in(path: Path) -> int | None:
    text = path.read_text()
    return int(text) if text.isdigit() else None
