"""The supervisor's end of a runner: a process in a session of its own, spoken to in lines of JSON."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any

from app.persistence.leases import Claim
from app.settings import settings

# glibc gives large blocks back to the kernel at once, and asks for them anew at the next step; keeping them is faster.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}


class RunnerProcess:
    """A runner. It is `idle` from when it has let go of its work until it is assigned the next."""

    def __init__(self) -> None:
        threads = str(settings().threads)
        environment = {
            **os.environ,
            **ALLOCATOR,
            "SWEETSPOT_DATA_DIR": str(settings().data_dir),
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "workers.runner", "--parent", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout, "both are pipes"
        os.set_blocking(self._process.stdout.fileno(), False)
        self._received = b""
        self._reaping = threading.Lock()  # two threads of a supervisor may look at once
        self.speaks = True
        self._kill_at: float | None = None
        self.idle = False
        self.heard_of = time.monotonic()

    def fileno(self) -> int:
        """Readable when it said something, or is gone."""
        assert self._process.stdout, "it is a pipe"
        return self._process.stdout.fileno()

    @property
    def pid(self) -> int:
        """Process and session id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is there. A stopped one that outlived its grace is sent SIGKILL here."""
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._signal(signal.SIGKILL)
        return not self._has_ended()

    @property
    def ending(self) -> bool:
        """Whether it was told to end."""
        return self._kill_at is not None

    def assign(self, claim: Claim, lease: float) -> None:
        """Hand over work, to be dropped unless `reassure`d within `lease` seconds."""
        self.idle = False
        self.heard_of = time.monotonic()
        self._say({"claim": asdict(claim), "lease": lease})

    def reassure(self, lease: float) -> None:
        """The lease was renewed: go on for so many seconds."""
        self._say({"lease": lease})

    def listen(self) -> None:
        """Hear what the runner said: any line is a sign of progress, `idle` that it let go of its work."""
        assert self._process.stdout, "it is a pipe"
        while self.speaks and select.select([self._process.stdout], [], [], 0)[0]:
            chunk = os.read(self._process.stdout.fileno(), 65536)
            if not chunk:
                self.speaks = False  # it has closed the line, and is about to end
                return
            self.heard_of = time.monotonic()
            *lines, self._received = (self._received + chunk).split(b"\n")
            self.idle = any(json.loads(line) == "idle" for line in lines) or self.idle

    def stop(self, grace: float) -> None:
        """Ask it to end, and see to it after `grace` seconds."""
        self._kill_at = time.monotonic() + grace
        self._signal(signal.SIGTERM if grace > 0 else signal.SIGKILL)

    def kill(self) -> None:
        """End it and all that it started, now; one that the kernel holds back is left to it."""
        self._signal(signal.SIGKILL)
        deadline = time.monotonic() + 1
        while not self._has_ended() and time.monotonic() < deadline:
            time.sleep(0.01)
        _close(self._process.stdin, self._process.stdout)

    @property
    def was_killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self._process.returncode == -signal.SIGKILL

    def how_it_ended(self) -> str:
        """In words, for an error message."""
        code = self._process.returncode
        if code == EXIT_OUT_OF_MEMORY:
            return "out of memory"
        if code == -signal.SIGBUS:  # a page of a memory-mapped file that the disk has no room for
            return "ended by SIGBUS, as where the disk is full"
        return f"ended by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit status {code}"

    def _say(self, message: Any) -> None:
        assert self._process.stdin, "it is a pipe"
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # it is gone, which the next look will show

    def _signal(self, number: signal.Signals) -> None:
        if not self._has_ended():
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _has_ended(self) -> bool:
        """Whether it has; then what it left of its group is killed, before the group's number can be another's."""
        with self._reaping:
            if self._process.returncode is None:
                with suppress(ChildProcessError, ProcessLookupError):
                    if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                        os.killpg(self._process.pid, signal.SIGKILL)
            return self._process.poll() is not None


EXIT_OUT_OF_MEMORY = 9


def _close(*pipes: IO[bytes] | None) -> None:
    for pipe in pipes:
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
