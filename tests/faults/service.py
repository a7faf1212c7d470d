"""A whole service that can be hurt: the embedded servers on a folder of its own, the API over HTTP, and workers that walk."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from redis import Redis
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from app import children, embedded
from app.embedded import Postgres, free_port
from app.persistence.models import Base
from app.settings import settings, sqlalchemy_url
from tests.faults import history

DESIGNED: dict[str, float] = {}
SCALED = {
    "heartbeat": 0.5,
    "self_fence": 3,
    "kill_grace": 2,
    "lease": 8,
    "reconcile": 0.5,
    "idle_look": 1,
    "cancel_grace": 1,
    "stall": 10,
    "checkpoint": 0.2,
}
TIMERS = DESIGNED if os.environ.get("FAULTS_TIMERS") == "designed" else SCALED
PATIENCE = 120 if TIMERS else 900  # seconds within which everything has come to rest, on the slowest machine
MARK = "SWEETSPOT_FAULTS"
TERMINAL = ("succeeded", "failed", "cancelled")


class Service:
    """Servers, one API process, and as many workers as are asked for. Everything it starts carries a mark."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = f"{MARK}={uuid4().hex}"
        self.postgres, self.redis = Postgres(folder), embedded.Redis(folder)
        self.port = free_port()
        self.accepted: dict[str, dict[str, Any]] = {}
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.api: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60, trust_env=False)
        self.environment: dict[str, str] = {}
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The tests' own way into the database: a new connection each time, since servers come and go."""
        if self._engine is None:
            self._engine = create_engine(sqlalchemy_url(self.postgres.url), poolclass=NullPool)
        return self._engine

    def start(self) -> None:
        """Servers, tables, API."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.postgres.start()
        self.redis.start()
        name, _, value = self.mark.partition("=")
        self.environment = {
            **os.environ,
            **children.own_code(),
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.redis.url,
            "SWEETSPOT_DATA_DIR": str(self.folder),
            "SWEETSPOT_ARTIFACTS": str(self.folder / "artifacts"),
            "SWEETSPOT_TRADE": "tests.faults.tiny",
            "SWEETSPOT_THREADS": "1",
            name: value,
            **{f"SWEETSPOT_{name.upper()}_SECONDS": str(seconds) for name, seconds in TIMERS.items()},
        }
        subprocess.run([sys.executable, "-m", "migrations"], env=self.environment, check=True, capture_output=True)
        self.start_api()

    def reset(self) -> None:
        """Nothing in the database, no files, no workers; the servers and the API answer."""
        self.kill_workers()
        self.revive()
        with self.engine.begin() as connection:
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(table.delete())
        with Redis.from_url(self.redis.url) as link:
            link.flushall()
        shutil.rmtree(self.folder / "artifacts", ignore_errors=True)
        self.accepted.clear()
        history.record(self.engine)

    def start_api(self) -> None:
        """The API, answering."""
        command = ["uvicorn", "app.main:create_app", "--factory", "--port", str(self.port), "--no-access-log"]
        self.api = self._run(command, "api")
        eventually(self._api_answers)

    def start_worker(self, name: str = "w1", **environment: str) -> "subprocess.Popen[bytes]":
        """A worker, or another in the place of one that is gone."""
        self.workers[name] = self._run(["workers", "--name", name], name, environment)
        return self.workers[name]

    def _run(self, command: list[str], name: str, environment: dict[str, str] | None = None) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                env={**self.environment, **(environment or {})},
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[2],
                start_new_session=True,
            )

    # What is there

    def everything(self) -> list[int]:
        """All processes of the API and of workers, and what those started."""
        return children.marked(self.mark)

    def family(self, name: str = "w1") -> list[int]:
        """A worker and all that it started, its first process first."""
        return [self.workers[name].pid, *children.descendants(self.workers[name].pid)]

    def api_family(self) -> list[int]:
        """The API and all that it started."""
        return [self.api.pid, *children.descendants(self.api.pid)] if self.api else []

    def runners(self, name: str = "w1") -> list[int]:
        """A worker's runners, the idle one included."""
        return [pid for pid in self.family(name) if "workers.runner" in command_of(pid)]

    def trainer(self, name: str = "w1") -> int:
        """The runner that is at work: it prints into its attempt's log."""

        def at_work() -> list[int]:
            return [pid for pid in self.runners(name) if _prints_into(pid, "log.txt")]

        return int(eventually(at_work)[0])

    def supervisor(self, name: str = "w1") -> int:
        """The process of a worker's pool."""

        def pool() -> list[int]:
            return [pid for pid in self.family(name)[1:] if "workers.runner" not in command_of(pid)]

        return int(eventually(pool)[0])

    # What clients do

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """An answer; where there is none, or one that says to try again, after as many tries as it takes."""
        headers = {"Idempotency-Key": uuid4().hex}

        def answered() -> httpx.Response | None:
            with suppress(httpx.TransportError):
                answer = self.http.request(method, path, json=body, headers=headers)
                retryable = answer.status_code >= 400 and answer.json()["retryable"]
                return None if retryable else answer
            return None

        found: httpx.Response = eventually(answered)
        return found

    def submit(self, steps: int = 30, seed: int = 0, name: str = "", **parts: Any) -> str:
        """An accepted experiment."""
        answer = self.ask("POST", "/v1/experiments", spec(steps, seed, name, **parts))
        assert answer.status_code == 202, answer.text
        made: dict[str, Any] = answer.json()
        self.accepted[made["id"]] = made
        return str(made["id"])

    def experiment(self, name: str) -> dict[str, Any]:
        """As the API shows it."""
        answer = self.ask("GET", f"/v1/experiments/{name}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def walking(self, name: str, step: int = 2, attempt: int = 1) -> None:
        """Wait until an attempt is in the middle of its walk."""

        def is_there() -> bool:
            found = self.experiment(name)
            return bool((found["attempt"], found["progress"]["step"]) >= (attempt, step))

        eventually(is_there)

    def finished(self, name: str) -> dict[str, Any]:
        """An experiment once it has ended."""
        eventually(lambda: self.experiment(name)["state"] in TERMINAL)
        return self.experiment(name)

    def cancel(self, name: str) -> None:
        """Ask for an end; that it has ended meanwhile is an answer, too."""
        answer = self.ask("POST", f"/v1/experiments/{name}/cancel")
        assert answer.status_code in (202, 409), answer.text

    def sweep(self, asked: dict[str, Any]) -> str:
        """An accepted sweep."""
        answer = self.ask("POST", "/v1/sweeps", asked)
        assert answer.status_code == 202, answer.text
        self.accepted |= {member["id"]: member for member in answer.json()["experiments"]}
        return str(answer.json()["id"])

    def events(self, name: str, *kinds: str) -> list[dict[str, Any]]:
        """What happened to an experiment, of these kinds if any are named."""
        told = self.ask("GET", f"/v1/experiments/{name}/events").json()["data"]
        return [event for event in told if not kinds or event["type"] in kinds]

    def steps(self, name: str) -> list[history.Step]:
        """The steps that runners took for an experiment."""
        return [step for step in history.steps() if step.id == name]

    # What happens to it

    def restart_postgres(self) -> None:
        """In order, as for an update."""
        self.postgres.stop()
        self.postgres.start()

    def restart(self, part: str) -> None:
        """Restart postgres, redis, the api or the worker w1."""
        if part in ("postgres", "redis"):
            server = {"postgres": self.postgres, "redis": self.redis}[part]
            server.stop()
            server.start()
        elif part == "api":
            assert self.api
            self.api.terminate()
            self.api.wait()
            self.start_api()
        else:
            self.workers["w1"].terminate()
            self.workers["w1"].wait()
            self.start_worker("w1")

    def kill_everything(self) -> None:
        """SIGKILL to servers, API, workers and all that they started, at once."""
        servers = [server.pid for server in (self.postgres, self.redis) if server.pid]
        for pid in [*self.everything(), *servers, *(pid for server in servers for pid in children.descendants(server))]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in (self.api, *self.workers.values()):
            if process:
                process.wait()
        self.workers.clear()

    def revive(self) -> None:
        """Start the servers and the API that are gone."""
        for server in (self.postgres, self.redis):
            if server.poll() is not None:
                server.start()
        if self.api is None or self.api.poll() is not None:
            self.start_api()

    @staticmethod
    def lives(pid: int) -> bool:
        """Whether a process is there."""
        return command_of(pid) != ""

    # How it ends

    def come_to_rest(self, within: float = PATIENCE) -> None:
        """Wait until everything that was accepted has ended, and let the workers go in order."""

        def ended() -> bool:
            with self.engine.connect() as connection:
                query = "SELECT count(*) FROM experiments WHERE state NOT IN ('succeeded', 'failed', 'cancelled')"
                return connection.execute(text(query)).scalar() == 0

        eventually(ended, within)
        for worker in self.workers.values():
            worker.send_signal(signal.SIGTERM)
        for worker in self.workers.values():
            worker.wait(60)
        self.workers.clear()

    def check(self, within: float = PATIENCE) -> None:
        """Come to rest, and find nothing wrong with the history, and nobody left."""
        self.come_to_rest(within)
        with self.engine.connect() as connection:
            wrong = history.violations(connection, self.accepted)
        if wrong:
            raise AssertionError("\n".join(wrong))
        self.check_processes()

    def check_processes(self) -> None:
        """Of what was started only the API lives."""
        left = [f"process {pid} is left: {command_of(pid)}" for pid in self.everything() if pid not in self.api_family()]
        if left:
            raise AssertionError("\n".join(left))

    def kill_workers(self) -> None:
        """SIGKILL to all of every worker."""
        for name in self.workers:
            for pid in self.family(name):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for worker in self.workers.values():
            worker.wait()
        self.workers.clear()

    def stop(self) -> None:
        """End all of it."""
        self.kill_workers()
        self.http.close()
        if self.api:
            self.api.kill()
            self.api.wait()
        children.kill_all(self.everything)
        self.redis.stop()
        self.postgres.stop()

    def _api_answers(self) -> bool:
        with suppress(httpx.TransportError):
            return self.http.get("/healthz").status_code == 200
        return False


@contextmanager
def service(folder: Path) -> Iterator[Service]:
    """A service until the end of the block; this process's settings name its folder meanwhile."""
    made = Service(folder)
    kept = {name: os.environ.get(name) for name in ("SWEETSPOT_DATA_DIR", "SWEETSPOT_ARTIFACTS")}
    os.environ |= {"SWEETSPOT_DATA_DIR": str(folder), "SWEETSPOT_ARTIFACTS": str(folder / "artifacts")}
    settings.cache_clear()
    try:
        made.start()
        yield made
    finally:
        made.stop()
        for name, value in kept.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        settings.cache_clear()


def spec(steps: int = 30, seed: int = 0, name: str = "", **parts: Any) -> dict[str, Any]:
    """The smallest experiment, of so many steps."""
    return {
        "name": name,
        "dataset": {"name": "digits"},
        "views": {"kind": "noise", "sigma": 0.5},
        "pretrain": {"steps": steps, "batch_size": 32},
        "seed": seed,
        **parts,
    }


def eventually(happened: Callable[[], Any], within: float = PATIENCE) -> Any:
    """Wait until something has happened, and answer what."""
    deadline = time.monotonic() + within
    while not (found := happened()):
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not happen within {within:g} s")
        time.sleep(0.05)
    return found


def command_of(pid: int) -> str:
    """A process's command line; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _prints_into(pid: int, name: str) -> bool:
    try:
        return Path(f"/proc/{pid}/fd/2").readlink().name == name
    except OSError:
        return False
