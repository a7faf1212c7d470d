"""Clients that submit and poll all at once while workers run tiny jobs: `python -m benchmarks.load`.

The service is the real one, on servers and a folder of its own, with the timers as they are meant; only what a runner does is
tiny. Every status read is timed by the client who makes it. Ends with the history checker of the fault suite.
"""

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from statistics import mean, quantiles
from typing import Any

os.environ["FAULTS_TIMERS"] = "designed"  # before the suite's timers are chosen

from sqlalchemy import text

from tests.faults import history
from tests.faults.service import TERMINAL, Service, eventually, service, spec

RESULTS = Path(__file__).with_name("load.jsonl")
STATES = text("SELECT state, attempt, count(*) AS number FROM experiments GROUP BY state, attempt")


def main() -> None:
    """Measure, print, and append to the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--experiments", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between a client's requests")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, service(Path(folder) / "data") as running:
        found = measure(running, arguments)
    sys.stdout.write(f"{json.dumps(found, indent=2)}\n")
    with RESULTS.open("a") as file:
        file.write(f"{json.dumps(found)}\n")


def measure(running: Service, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run of it."""
    running.reset()
    for number in range(arguments.workers):
        running.start_worker(f"w{number + 1}")
    clients = [Client(running.port, number, arguments) for number in range(arguments.clients)]
    memory = Memory(running.api.pid if running.api else 0)
    began = time.monotonic()
    memory.start()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    submitted = time.monotonic() - began
    with running.engine.connect() as connection:
        eventually(lambda: all(row.state in TERMINAL for row in connection.execute(STATES)), within=3600)
        ended = time.monotonic() - began
        states = Counter({(row.state, row.attempt): row.number for row in connection.execute(STATES)})
    memory.over.set()
    memory.join()
    accepted = [name for client in clients for name in client.accepted]
    running.accepted = {name: {} for name in accepted}
    running.come_to_rest()
    with running.engine.connect() as connection:
        wrong = history.violations(connection, accepted)
    reads = sorted(1000 * seconds for client in clients for seconds in client.reads)
    writes = sorted(1000 * seconds for client in clients for seconds in client.writes)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {"cores": os.cpu_count(), "processor": _processor(), "python": platform.python_version()},
        "clients": arguments.clients,
        "workers": arguments.workers,
        "accepted": len(accepted),
        "accepted_twice": len(accepted) - len(set(accepted)),
        "ended": {f"{state} at attempt {attempt}": number for (state, attempt), number in sorted(states.items())},
        "violations": wrong,
        "seconds": {"submitting": round(submitted, 1), "until all ended": round(ended, 1)},
        "status reads": len(reads),
        "status read ms": _spread(reads),
        "submission ms": _spread(writes),
        "other answers": dict(sum((client.others for client in clients), Counter())),
        "API memory MiB": {name: round(value / 2**20, 1) for name, value in memory.quarters().items()},
    }


class Client(threading.Thread):
    """Submits its share, and looks at one of its own after each."""

    def __init__(self, port: int, number: int, arguments: argparse.Namespace) -> None:
        super().__init__(daemon=True)
        self.share = arguments.experiments // arguments.clients
        self.pause = arguments.pause
        self.chance = random.Random(number)
        self.number = number
        self.link = HTTPConnection("127.0.0.1", port, timeout=60)
        self.accepted: list[str] = []
        self.reads: list[float] = []
        self.writes: list[float] = []
        self.others: Counter[str] = Counter()

    def run(self) -> None:
        """Until its share is accepted and has ended."""
        waiting: set[str] = set()
        while len(self.accepted) < self.share or waiting:
            if len(self.accepted) < self.share:
                made = self._ask("POST", "/v1/experiments", self.writes, spec(1, len(self.accepted), "pace=0"))
                if made is not None:
                    self.accepted.append(made["id"])
                    waiting.add(made["id"])
            time.sleep(self.pause * self.chance.uniform(0.5, 1.5))
            if waiting:
                name = self.chance.choice(sorted(waiting))
                found = self._ask("GET", f"/v1/experiments/{name}", self.reads)
                if found is not None and found["state"] in TERMINAL:
                    waiting.discard(name)
                    if len(self.accepted) == self.share:
                        waiting = {name for name in waiting if self.chance.random() < 0.5}  # the database knows of the rest

    def _ask(self, method: str, path: str, times: list[float], body: Any = None) -> Any:
        began = time.monotonic()
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"{self.number}-{len(self.accepted)}"}
        self.link.request(method, path, json.dumps(body) if body else None, headers if body else {})
        answer = self.link.getresponse()
        content = answer.read()
        times.append(time.monotonic() - began)
        if answer.status not in (200, 202):
            self.others[str(answer.status)] += 1
            return None
        return json.loads(content)


class Memory(threading.Thread):
    """Samples what a process holds, each second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.over = threading.Event()
        self.samples: list[int] = []

    def run(self) -> None:
        """Until it is over."""
        while not self.over.wait(1):
            status = Path(f"/proc/{self.pid}/status").read_text()
            self.samples.append(next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS")))

    def quarters(self) -> dict[str, float]:
        """The means of the four quarters."""
        quarter = max(len(self.samples) // 4, 1)
        return {f"quarter {number + 1}": mean(self.samples[number * quarter : (number + 1) * quarter]) for number in range(4)}


def _spread(milliseconds: list[float]) -> dict[str, float]:
    percents = quantiles(milliseconds, n=100)
    return {
        "median": round(percents[49], 1),
        "p95": round(percents[94], 1),
        "p99": round(percents[98], 1),
        "most": round(milliseconds[-1], 1),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
