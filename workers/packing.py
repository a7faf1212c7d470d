"""Checkpoints of trainings as bytes and back: safetensors, which execute nothing."""

import json
from pathlib import Path

from safetensors.torch import load, save

from ml.events import Checkpoint
from workers import checkpoints


def pack(checkpoint: Checkpoint) -> tuple[int, bytes]:
    """The step of a checkpoint, and all of it as bytes."""
    return checkpoint.step, save(dict(checkpoint.tensors), metadata={"scalars": json.dumps(dict(checkpoint.scalars))})


def unpack(step: int, content: bytes) -> Checkpoint:
    """What was packed."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return Checkpoint(step, load(content), json.loads(header["__metadata__"]["scalars"]))


def newest(folder: Path) -> Checkpoint | None:
    """The newest sound one of a folder."""
    found = checkpoints.newest(folder)
    return None if found is None else unpack(*found)
