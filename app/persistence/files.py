"""Where an experiment's files lie: a folder an attempt, so that a late writer cannot touch another attempt's."""

import shutil
from pathlib import Path

from app.settings import settings

LONGEST_LOG = 1_000_000  # bytes that `logs` answers, from the end


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
    path = attempt_folder(experiment_id, attempt) / "log.txt"
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - LONGEST_LOG, 0))
        return file.read().decode(errors="replace")


def remove(experiment_id: str) -> None:
    """Free an experiment's files."""
    remove_folder(experiment_folder(experiment_id))


def remove_folder(folder: Path) -> None:
    """Remove a folder, if it is there, with all that is in it."""
    shutil.rmtree(folder, ignore_errors=True)
