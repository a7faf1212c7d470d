"""Child processes whose output shares one terminal, and what there is to know about processes that nobody waits for."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

import app
from app import launch

_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)  # ANSI foregrounds that are readable on light and dark
_PR_SET_CHILD_SUBREAPER = 36


class Printer:
    """Writes the lines of many processes to one terminal, each behind the coloured name of who says it."""

    def __init__(self, stream: IO[str], width: int = 10):
        self._stream = stream
        self._width = width
        self._colours: dict[str, int] = {}
        self._coloured = stream.isatty() and "NO_COLOR" not in os.environ
        self._lock = threading.Lock()

    def say(self, name: str, text: str) -> None:
        """One line, or several, of the process `name`."""
        with self._lock, suppress(OSError, ValueError):  # a terminal that was closed must not end the service
            colour = self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
            label = f"{name:<{self._width}} │"
            label = f"\x1b[{colour}m{label}\x1b[0m" if self._coloured else label
            self._stream.write("".join(f"{label} {line}\n" for line in text.splitlines() or [""]))
            self._stream.flush()

    def banner(self, text: str) -> None:
        """Text of our own, without a name."""
        with self._lock, suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()


class Child:
    """A process in a session of its own that dies with us, its output going to the printer line by line."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], printer: Printer):
        self.name = name
        self._command = command
        self._environment = environment
        self._printer = printer
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; again, if it died."""
        self._process = subprocess.Popen(
            launch.command(self._command, signal.SIGKILL),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,  # Ctrl-C is for us: we end the children in order
        )
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()

    def poll(self) -> int | None:
        """None while it lives, else its exit status; what it left of its process group is killed then."""
        if self._process is None:
            return 0
        before, status = self._process.returncode, self._process.poll()
        if before is None and status is not None:
            self.kill()
        return status

    def terminate(self) -> None:
        """Ask it to end."""
        if self._process:
            self._process.terminate()

    def kill(self) -> None:
        """Kill its process group."""
        if self._process:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    @property
    def pid(self) -> int | None:
        """Its process id, once started."""
        return self._process.pid if self._process else None

    def _read(self, output: IO[bytes]) -> None:
        with output:
            for line in output:
                self._printer.say(self.name, line.decode(errors="replace").rstrip().rpartition("\r")[2])


class Restartable(Protocol):
    """What can be watched: a child or an embedded server."""

    name: str

    def start(self) -> None:
        """Start it (again)."""

    def poll(self) -> int | None:
        """None while it lives, else its exit status."""


class Watch:
    """Starts again what dies, later each time; five deaths within a minute are too many."""

    def __init__(self, watched: Restartable, say: Callable[[str], None], first_delay: float = 0.5):
        self.watched = watched
        self._first_delay = first_delay
        self._say = say
        self._deaths: deque[float] = deque(maxlen=5)
        self._restart_at: float | None = None

    def look(self) -> bool:
        """Do what there is to do now; False once it died too often."""
        now = time.monotonic()
        if self._restart_at is not None:
            if now >= self._restart_at:
                self._restart_at = None
                self.watched.start()
            return True
        status = self.watched.poll()
        if status is None:
            return True
        self._deaths.append(now)
        recent = [death for death in self._deaths if now - death < 60]
        if len(recent) == self._deaths.maxlen:
            return False
        delay = self._first_delay * 2 ** (len(recent) - 1)
        self._restart_at = now + delay
        self._say(f"{self.watched.name} died ({_words(status)}); it starts again in {delay:g} s")
        return True


def own_code() -> dict[str, str]:
    """The environment in which Python children import this very code, whatever folder named `app` the working directory holds."""
    path = [str(Path(app.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}


def adopt_orphans() -> None:
    """From now on the children of children that die become ours, so that none can be lost. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int, spare: Set[int | None] = frozenset()) -> list[int]:
    """The living processes below `pid`, parents first, without those to `spare` and what is below them; needs /proc."""
    children: dict[int, list[int]] = {}
    for child, state, parent in _processes():
        if state != "Z" and child not in spare:
            children.setdefault(parent, []).append(child)
    found, queue = [], [pid]
    while queue:
        below = children.get(queue.pop(0), [])
        found += below
        queue += below
    return found


def bury_orphans(known: Set[int | None]) -> None:
    """Kill and reap our children other than the `known`: they were started by a child that died."""
    for pid, state, parent in _processes():
        if parent == os.getpid() and pid not in known:
            with suppress(ProcessLookupError, ChildProcessError):
                if state != "Z":
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)


def marked(*variables: str) -> list[int]:
    """The processes, other than this one, whose environment has all of these `NAME=value`; ours to look into only."""
    wanted = {variable.encode() for variable in variables}
    found = []
    for pid, _, _ in _processes():
        with suppress(OSError):
            if pid != os.getpid() and wanted <= set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")):
                found.append(pid)
    return found


def kill_all(find: Callable[[], list[int]], patience: float = 10) -> None:
    """Kill what `find` finds until it finds nothing more."""
    deadline = time.monotonic() + patience
    while (pids := find()) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _processes() -> Iterator[tuple[int, str, int]]:
    """(pid, state, parent) of every process."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent = entry.joinpath("stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            yield int(entry.name), state, int(parent)


def _words(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
