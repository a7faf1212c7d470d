"""The runner's end of the line to its supervisor: lines of JSON, claims and leases in, signs of life out."""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import BinaryIO

from app.persistence.leases import Claim

SAID_EVERY = 0.5  # seconds between signs of life
EXIT_LEASE_LOST = 10


class Stop(Exception):
    """SIGTERM came: let go, with a checkpoint if there is time."""


class AttemptLost(RuntimeError):
    """The attempt broke off, and nothing says that the experiment was at fault: as if this process had been lost."""


class Line:
    """The runner's end of the line to its supervisor."""

    def __init__(self) -> None:
        # What others print must not come between: the line keeps the pipe, and standard output becomes standard error.
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._claims: list[Claim] = []
        self._arrived = threading.Semaphore(0)
        self._lease_ends = float("inf")
        self._said = 0.0
        self.stopping = False
        threading.Thread(target=self._hear, args=(sys.stdin.buffer,), daemon=True).start()
        threading.Thread(target=self._watch_lease, daemon=True).start()

    def work(self) -> Iterator[Claim]:
        """Claims as they come; ends with SIGTERM."""
        while not self.stopping:
            if self._arrived.acquire(timeout=0.5):
                yield self._claims.pop(0)

    def let_go(self) -> None:
        """Say that the work is done; from here on there is no lease to mind, until the next claim brings one."""
        self._lease_ends = float("inf")
        self.say("idle")

    def say(self, word: str) -> None:
        """Tell the supervisor; `alive` not more often than it cares."""
        now = time.monotonic()
        self._mind_lease(now)  # one that was stopped for a while must not take another step
        if word != "alive" or now - self._said > SAID_EVERY:
            self._said = now
            self._out.write(json.dumps(word).encode() + b"\n")

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        """SIGTERM: let go after the current step."""
        self.stopping = True

    def _hear(self, stdin: BinaryIO) -> None:
        for text in stdin:
            message = json.loads(text)
            if "claim" in message or self._lease_ends != float("inf"):  # the lease of what was let go may still be renewed
                self._lease_ends = time.monotonic() + message["lease"]
            if "claim" in message:
                self._claims.append(Claim(**message["claim"]))
                self._arrived.release()
        os._exit(0)  # the supervisor closed the line

    def _watch_lease(self) -> None:
        """Whoever cannot be vouched for must not go on, not even inside a long computation."""
        while True:
            time.sleep(0.25)
            self._mind_lease(time.monotonic())

    def _mind_lease(self, now: float) -> None:
        if now > self._lease_ends:
            os._exit(EXIT_LEASE_LOST)
