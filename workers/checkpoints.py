"""Checkpoints on disk: written whole or not at all, named by their hash, two kept, a bad one passed over."""

import hashlib
import os
import re
from pathlib import Path

KEPT = 2
NAME = re.compile(r"(\d{12})-([0-9a-f]{64})\.safetensors")


def store(folder: Path, step: int, content: bytes) -> None:
    """Write it beside the ones before, and drop all but the newest two. Raises OSError where the disk refuses."""
    write_whole(folder / f"{step:012d}-{hashlib.sha256(content).hexdigest()}.safetensors", content)
    for old in _newest_first(folder)[KEPT:]:
        old.unlink(missing_ok=True)


def newest(folder: Path) -> tuple[int, bytes] | None:
    """Step and content of the newest one that can be read and is what its name says."""
    for path in _newest_first(folder):
        match = NAME.fullmatch(path.name)
        try:
            content = path.read_bytes()
        except OSError:  # a bad block, say
            continue
        if match is not None and hashlib.sha256(content).hexdigest() == match[2]:
            return int(match[1]), content
    return None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, even if the power fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"), reverse=True)
