"""A trade for runners without torch: a deterministic walk instead of a training, and what trouble an experiment's name asks for.

`steps=40 pace=0.01 hang=20` sleeps for .01 s a step, and hangs in the 20th of its first attempt. The walk's numbers depend on all
steps before, so that an attempt that goes on from the wrong place ends with other ones.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from app.persistence.leases import Claim
from app.settings import settings
from ml.events import Artifact, Checkpoint, Event, Metric, Progress, Result, Stage
from workers import checkpoints, course
from workers.line import Line
from workers.report import Report

PRIME = 2**61 - 1


def prepare() -> None:
    """Nothing to import."""


def run_experiment(claim: Claim, line: Line) -> None:
    """Walk."""
    keep = course.begin(claim)
    course.follow(_events(claim, checkpoints.newest(keep)), keep, Report(claim), line, _pack)


def is_out_of_memory(error: Exception) -> bool:
    """As Python says it."""
    return isinstance(error, MemoryError)


def describe(error: Exception) -> dict[str, Any]:
    """Ours are all of one kind."""
    return {"code": "internal", "message": f"{type(error).__name__}: {error}"}


WORK = {"experiment": run_experiment}


def walk(place: int, step: int) -> int:
    """The next place."""
    return (place * 6364136223846793005 + step * 1442695040888963407 + 1) % PRIME


def end(seed: int, steps: int) -> int:
    """Where an undisturbed walk ends."""
    place = seed + 1
    for step in range(1, steps + 1):
        place = walk(place, step)
    return place


def results(place: int) -> dict[str, Any]:
    """What an experiment found that ended there: its I_NCE and its accuracy are the place's digits."""
    information, accuracy = 3 * (place % 10**9) / 10**9, (place // 10**9 % 10**6) / 10**6
    estimate = {"value": information, "stderr": 0.01, "log_k": 4.0, "saturated": False, "low": False, "kind": "lower"}
    score = {"metric": "accuracy", "value": accuracy, "ci": [accuracy, accuracy], "chance": 0.1}
    measured = {"mi": {"infonce": estimate}, "tasks": {"classification": score}}
    return measured | {"information": None, "quality": None, "timing": {}, "hardware": {}, "data": {}}


def _events(claim: Claim, resumed: tuple[int, bytes] | None) -> Iterator[Event]:
    first, place = (0, claim.spec["seed"] + 1) if resumed is None else (resumed[0], int(resumed[1]))
    asked = dict(part.split("=") for part in claim.spec["name"].split() if "=" in part)
    steps = claim.spec["pretrain"]["steps"]
    yield Stage("pretrain")
    for step in range(first + 1, steps + 1):
        place = walk(place, step)
        time.sleep(float(asked.get("pace", 0.01)))
        _note(claim, step)
        _trouble(asked, claim.attempt, step)
        if step % 10 == 0:
            yield Metric("loss", step, place / PRIME)
        yield Progress("pretrain", step, steps, lambda step=step, place=place: Checkpoint(step, {}, {"place": place}))  # type: ignore[misc]
    yield Stage("tasks")
    yield Artifact("place.txt", "text/plain", str(place).encode())
    yield Result(results(place))


def _pack(checkpoint: Checkpoint) -> tuple[int, bytes]:
    return checkpoint.step, str(checkpoint.scalars["place"]).encode()


def _note(claim: Claim, step: int) -> None:
    """Who took which step when, on the clock that all processes of a machine share."""
    words = f"{claim.id} {claim.attempt} {step} {os.getpid()} {time.monotonic_ns()}\n"
    with suppress(OSError):  # a full disk must not end a walk that would have gone on
        note = os.open(settings().data_dir / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(note, words.encode())
        os.close(note)


def _trouble(asked: dict[str, str], attempt: int, step: int) -> None:
    troubles = {"hang": _hang, "eat": _eat, "crash": _crash, "fail": _fail}
    for name in asked.keys() & troubles.keys():
        when, _, attempts = asked[name].partition("x")
        if step == int(when) and attempt <= int(attempts or 1):
            troubles[name]()


def _hang() -> None:
    while True:
        time.sleep(60)


def _eat() -> None:
    eaten = []
    while True:
        eaten.append(bytearray(os.urandom(4096)) * 4096)  # 16 MiB that are really there
        time.sleep(0.02)


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _fail() -> None:
    raise ValueError("as it was asked to")
