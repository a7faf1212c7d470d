"""The whole service on one machine, in one terminal: servers, migrations, API, workers and reconciler under one supervisor."""

import errno
import http.client
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from app import children, runtime
from app.children import Child, Printer, Watch
from app.embedded import EmbeddedError, Postgres, Redis, Server, free_port
from app.settings import settings

_HOST = "127.0.0.1"
_READY_WITHIN = 120.0  # seconds; importing everything for the first time on a slow disk takes a while
_GRACE = {"api": 5.0, "worker": 25.0, "reconciler": 5.0}  # seconds to end in order; a runner may be writing a checkpoint


class UpError(RuntimeError):
    """The service cannot be started or kept up here, and why."""


@dataclass(frozen=True)
class Device:
    """Where a worker computes: what CUDA_VISIBLE_DEVICES says, several GPUs with commas between them; or None for one core."""

    gpu: str | None


def up(
    port: int | None = None,
    data_dir: Path | None = None,
    workers: int | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Run the service on `data_dir` until Ctrl-C, SIGTERM or SIGHUP, then end all of it in order.

    Port 0 is any free one. `on_ready` is told the URL once the API answers. To be called in the main thread. Raises UpError where
    it already runs on this folder, the port is taken, or a part does not stay up.
    """
    folder = (data_dir or settings().data_dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with runtime.lock(runtime.lock_path(folder)):
            runtime.remove(folder)  # of one that was killed
            children.kill_all(lambda: children.marked(*_marks(folder)))
            _Supervisor(folder, usable_port(settings().port if port is None else port), _devices(workers)).run(on_ready)
    except runtime.LockedError as error:
        running = runtime.read(folder)
        where = f" at {running.api_url}" if running else ""
        raise UpError(
            f"sweetspot already runs on {folder}{where} (process {error.pid}); end that one first, or choose another --data-dir"
        ) from None


def gpus() -> list[str]:
    """This machine's GPUs as CUDA_VISIBLE_DEVICES names them, without loading CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    return [str(index) for index, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


def cores() -> int:
    """The cores that we may use: those of our affinity, or of the container's quota where that is less."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, max(1, int(quota) // int(period)))
    return count


def usable_port(port: int) -> int:
    """The port, or a free one for 0. Raises UpError where it is taken."""
    if port == 0:
        return free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            raise UpError(f"port {port} {reason}; choose another with --port, or 0 for any free one") from None
        except OverflowError:
            raise UpError(f"port {port} does not exist; 0 to 65535") from None
    return port


class _Stopped(Exception):
    pass


class _Supervisor:
    """Starts the parts, watches them, ends them."""

    def __init__(self, folder: Path, port: int, devices: Sequence[Device]):
        self._folder = folder
        self._port = port
        self._devices = devices
        self._printer = Printer(sys.stdout)
        self._servers: list[Server] = []
        self._children: list[Child] = []
        self._signals: list[float] = []  # when they came
        self._orphans_at = 0.0

    def run(self, on_ready: Callable[[str], None] | None) -> None:
        children.adopt_orphans()
        with self._hearing_signals():
            try:
                database_url, redis_url = self._start_servers()
                environment = self._environment(database_url, redis_url)
                self._migrate(environment)
                watches = self._start_children(environment)
                self._await_ready(watches)
                url = f"http://{_HOST}:{self._port}"
                runtime.write(self._folder, runtime.Runtime(url, database_url, redis_url, os.getpid()))
                self._printer.banner(self._banner(url))
                if on_ready:
                    on_ready(url)
                while True:
                    self._look(watches)
            except _Stopped:
                self._say("ending; once more Ctrl-C ends it the hard way")
            except EmbeddedError as error:
                raise UpError(str(error)) from None
            finally:
                self._end()

    def _start_servers(self) -> tuple[str, str]:
        given = settings()
        urls = []
        for variable, url, kind in (("DATABASE_URL", given.database_url, Postgres), ("REDIS_URL", given.redis_url, Redis)):
            if url:
                self._say(f"{variable} is set: using that server")
            else:
                server = kind(self._folder)
                self._servers.append(server)
                self._say(f"{variable} is not set: starting {server.name} in {server.home}")
                server.start()
                url = server.url  # noqa: PLW2901 (this is what the loop is for)
            urls.append(url)
            self._check()
        return urls[0], urls[1]

    def _environment(self, database_url: str, redis_url: str) -> dict[str, str]:
        own = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "SWEETSPOT_PORT": str(self._port)}
        return os.environ | children.own_code() | own | dict(mark.split("=", 1) for mark in _marks(self._folder))

    def _migrate(self, environment: dict[str, str]) -> None:
        migration = self._child("migrate", ["migrations"], environment)
        migration.start()
        while (status := migration.poll()) is None:
            self._pause()
        self._children.remove(migration)
        if status != 0:
            raise UpError("the migrations failed; see above")

    def _start_children(self, environment: dict[str, str]) -> list[Watch]:
        api = ["uvicorn", "app.main:create_app", "--factory", "--host", _HOST, "--port", str(self._port), "--ws", "none"]
        self._child("api", [*api, "--no-access-log", "--timeout-graceful-shutdown", "3"], environment)
        single = {"SWEETSPOT_THREADS": os.environ.get("SWEETSPOT_THREADS", "1")}
        for index, device in enumerate(self._devices, start=1):
            its = {} if device.gpu is None else {"CUDA_VISIBLE_DEVICES": device.gpu}
            self._child(f"worker-{index}", ["workers", "--name", f"w{index}"], environment | single | its)
        self._child("reconciler", ["workers.reconciler"], environment)
        for child in self._children:
            child.start()
        return [Watch(part, self._say) for part in self._parts()]

    def _parts(self) -> list[Server | Child]:
        return [*self._servers, *self._children]

    def _child(self, name: str, module: list[str], environment: dict[str, str]) -> Child:
        child = Child(name, [sys.executable, "-m", *module], environment, self._printer)
        self._children.append(child)
        return child

    def _await_ready(self, watches: list[Watch]) -> None:
        deadline = time.monotonic() + _READY_WITHIN
        while not _answers(self._port):
            self._look(watches)
            if time.monotonic() > deadline:
                raise UpError(f"the API does not answer at /readyz after {_READY_WITHIN:.0f} s; see above")

    def _look(self, watches: list[Watch]) -> None:
        for watch in watches:
            if not watch.look():
                raise UpError(f"{watch.watched.name} died five times within a minute; see above")
        if time.monotonic() > self._orphans_at:
            self._orphans_at = time.monotonic() + 2
            children.bury_orphans({part.pid for part in self._parts()})
        self._pause()

    def _pause(self) -> None:
        time.sleep(0.1)
        self._check()

    def _check(self) -> None:
        if self._signals:
            raise _Stopped

    def _end(self) -> None:
        runtime.remove(self._folder)
        for kind, grace in _GRACE.items():
            self._end_children([child for child in self._children if child.name.startswith(kind)], grace)
        for child in self._children:
            child.kill()
        children.kill_all(lambda: children.descendants(os.getpid(), spare={server.pid for server in self._servers}))
        for server in reversed(self._servers):
            server.stop()
        children.kill_all(lambda: children.descendants(os.getpid()))
        children.bury_orphans(set())

    def _end_children(self, ending: list[Child], grace: float) -> None:
        for child in ending:
            child.terminate()
        deadline = time.monotonic() + grace
        while any(child.poll() is None for child in ending) and time.monotonic() < deadline and len(self._signals) < 2:
            time.sleep(0.02)
        for child in ending:
            if child.poll() is None:
                self._say(f"{child.name} did not end in time: killing it")
                child.kill()

    @contextmanager
    def _hearing_signals(self) -> Iterator[None]:
        def hear(_number: int, _frame: FrameType | None) -> None:
            now = time.monotonic()
            if not self._signals or now - self._signals[-1] > 1:  # one cause may signal several times at once
                self._signals.append(now)

        numbers = [
            number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN
        ]
        before = {number: signal.signal(number, hear) for number in numbers}  # nohup stays nohup
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _say(self, text: str) -> None:
        self._printer.say("sweetspot", text)

    def _banner(self, url: str) -> str:
        named = [device.gpu for device in self._devices if device.gpu is not None]
        where = f"on GPU {', '.join(dict.fromkeys(named))}" if named else "on the CPU, single-threaded"
        inside = " and ".join(server.name.capitalize() for server in self._servers)
        return (
            f"\n  Sweetspot is up at {url}\n\n"
            f"  API docs  {url}/docs\n"
            f"  Data      {self._folder}{f' (with {inside})' if inside else ''}\n"
            f"  Workers   {len(self._devices)}, {where}\n\n"
            f"  Ctrl-C ends all of it.\n\n"
        )


def _marks(folder: Path) -> tuple[str, str]:
    """What the environment of every process of an `up` on this folder holds, and of no other process."""
    return f"SWEETSPOT_DATA_DIR={folder}", "SWEETSPOT_SUPERVISED=1"


def _devices(workers: int | None) -> list[Device]:
    if workers is not None and workers < 1:
        raise UpError(f"{workers} workers; at least 1")
    names = gpus()
    if not names:
        return [Device(None)] * (workers or cores())
    count = workers or len(names)
    return [Device(",".join(names[index::count] or [names[index % len(names)]])) for index in range(count)]


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(_HOST, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
