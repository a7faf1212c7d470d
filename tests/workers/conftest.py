"""A real worker on the real servers, with the timers scaled down."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.embedded import Servers
from app.settings import settings

TIMERS = {
    "SWEETSPOT_HEARTBEAT_SECONDS": "0.5",
    "SWEETSPOT_SELF_FENCE_SECONDS": "3",
    "SWEETSPOT_KILL_GRACE_SECONDS": "3",
    "SWEETSPOT_LEASE_SECONDS": "8",
    "SWEETSPOT_RECONCILE_SECONDS": "1",
    "SWEETSPOT_IDLE_LOOK_SECONDS": "2",
    "SWEETSPOT_STALL_SECONDS": "30",
}
SOON = 120.0  # seconds within which what must happen has happened, on the slowest machine


class WorkerProcess:
    """`python -m workers`, and what it started."""

    def __init__(self, log: Path, **environment: str) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "workers", "--name", log.stem],
                env={**os.environ, **TIMERS, "SWEETSPOT_THREADS": "1", **environment},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def runners(self) -> list[int]:
        """Process ids of its runners, the idle one included."""
        return [pid for pid in self.family() if b"workers.runner" in _command(pid)]

    def supervisor(self) -> int:
        """The process of the Celery pool."""
        return next(pid for pid in self.family() if b"workers.runner" not in _command(pid))

    def family(self) -> list[int]:
        """All that descends from it."""
        parents = {int(entry.name): _parent(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
        found, generation = [], {self.process.pid}
        while generation := {pid for pid, parent in parents.items() if parent in generation}:
            found += sorted(generation)
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it and wait for it."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.fixture(scope="module")
def worker(embedded: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """One worker for a module's tests."""
    running = WorkerProcess(tmp_path_factory.mktemp("worker") / "shared.log")
    yield running
    family = running.family()
    running.stop()
    eventually(lambda: not any(_command(pid) for pid in family))


@pytest.fixture
def new_worker(embedded: Servers, tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Workers of a test's own; ended with it."""
    started: list[WorkerProcess] = []

    def start(name: str = "own", **environment: str) -> WorkerProcess:
        started.append(WorkerProcess(tmp_path / f"{name}.log", **environment))
        return started[-1]

    yield start
    for running in started:
        for pid in [*running.family(), running.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        running.process.wait()


@pytest.fixture
def submit(api: TestClient) -> Callable[..., str]:
    """Submit a small experiment on digits, with so many steps, and answer its id."""

    def submit_steps(steps: int, **parts: Any) -> str:
        spec = {
            "dataset": {"name": "digits", "image_size": 8},
            "views": {"kind": "noise", "sigma": 0.5},
            "encoder": {"kind": "small_conv", "width": 4},
            "method": {"kind": "simclr", "projection": 8},
            "pretrain": {"steps": steps, "batch_size": 32},
            "mi": {"k": 32},
            **parts,
        }
        response = api.post("/v1/experiments", json=spec)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    return submit_steps


@pytest.fixture
def state_of(api: TestClient) -> Callable[[str], dict[str, Any]]:
    """An experiment as the API shows it."""
    return lambda experiment_id: api.get(f"/v1/experiments/{experiment_id}").json()


@pytest.fixture(name="eventually")
def _eventually() -> Callable[[Callable[[], Any]], Any]:
    return eventually


def eventually(happened: Callable[[], Any]) -> Any:
    """Wait until something has happened, and answer what."""
    deadline = time.monotonic() + SOON
    while not (found := happened()):
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen")
        time.sleep(0.05)
    return found


@pytest.fixture
def artifacts(embedded: Servers) -> Path:
    """The folder of the experiments' files."""
    return settings().artifacts_dir


@pytest.fixture
def finished(state_of: Callable[[str], dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
    """Wait until an experiment has ended, and answer it."""

    def wait(experiment_id: str) -> dict[str, Any]:
        eventually(lambda: state_of(experiment_id)["state"] in ("succeeded", "failed", "cancelled"))
        return state_of(experiment_id)

    return wait


@pytest.fixture
def training(state_of: Callable[[str], dict[str, Any]]) -> Callable[[str], None]:
    """Wait until an experiment is in the middle of its pretraining."""
    return lambda experiment_id: eventually(lambda: state_of(experiment_id)["progress"]["step"] > 1)


@pytest.fixture
def events(api: TestClient) -> Callable[[str], list[dict[str, Any]]]:
    """An experiment's history, which has no gaps."""

    def read(experiment_id: str) -> list[dict[str, Any]]:
        found = api.get(f"/v1/experiments/{experiment_id}/events").json()["data"]
        assert [event["seq"] for event in found] == list(range(1, len(found) + 1))
        return found

    return read


@pytest.fixture
def exists() -> Callable[[int], bool]:
    """Whether a process lives."""
    return _lives
