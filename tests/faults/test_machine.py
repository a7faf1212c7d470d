"""Submissions, cancels, retries, deletes and faults in any order: whatever Hypothesis thinks of, the history stays sound.

`make soak MINUTES=30` lets it think for longer. What breaks it is printed as the shortest sequence that does.
"""

import os
import signal
import sys
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule
from redis import Redis

from tests.faults.service import TERMINAL, Service

WORKERS = ("w1", "w2")
TROUBLES = ("", "", "", "crash=3", "hang=3", "fail=3")


class Machine(RuleBasedStateMachine):
    """The service as clients and misfortune see it."""

    service: Service
    injected = 0
    submitted = 0

    experiments: Bundle[str] = Bundle("experiments")

    @initialize()
    def begin(self) -> None:
        """Two workers on an empty service."""
        self.service.reset()
        for worker in WORKERS:
            self.service.start_worker(worker)
        self.known: dict[str, str] = {}
        self.stopped: list[int] = []

    # Clients

    @rule(target=experiments, steps=st.integers(1, 40), seed=st.integers(0, 9), trouble=st.sampled_from(TROUBLES))
    def submit(self, steps: int, seed: int, trouble: str) -> str:
        """Ask for a walk."""
        Machine.submitted += 1
        return self.service.submit(steps, seed, f"pace=0.02 {trouble}".strip())

    @rule(target=experiments, count=st.integers(2, 10))
    def submit_many(self, count: int) -> Any:
        """Ask for several short ones; one of them is spoken of afterwards."""
        Machine.submitted += count
        return [self.service.submit(2, seed, "pace=0") for seed in range(count)][-1]

    @rule(name=experiments)
    def cancel(self, name: str) -> None:
        """Ask for an end."""
        answer = self.service.ask("POST", f"/v1/experiments/{name}/cancel")
        assert answer.status_code in (202, 409, 404), answer.text

    @rule(target=experiments, name=experiments)
    def retry(self, name: str) -> str:
        """Ask for it once more; what has not ended cannot be."""
        answer = self.service.ask("POST", f"/v1/experiments/{name}/retry")
        assert answer.status_code in (202, 409, 404), answer.text
        if answer.status_code != 202:
            return name
        made: dict[str, Any] = answer.json()
        Machine.submitted += 1
        self.service.accepted[made["id"]] = made
        return str(made["id"])

    @rule(name=consumes(experiments))
    def delete(self, name: str) -> None:
        """Forget it; what has not ended cannot be."""
        answer = self.service.ask("DELETE", f"/v1/experiments/{name}")
        assert answer.status_code in (204, 409, 404), answer.text
        if answer.status_code == 204:
            self.known.pop(name, None)

    @rule(tenths=st.integers(1, 15))
    def wait(self, tenths: int) -> None:
        """Let time go by."""
        time.sleep(tenths / 10)

    # Misfortune

    @rule(worker=st.sampled_from(WORKERS), number=st.sampled_from((signal.SIGKILL, signal.SIGSEGV)))
    def kill_runners(self, worker: str, number: signal.Signals) -> None:
        """All of a worker's runners."""
        self._hurt(self.service.runners(worker), number)

    @rule(worker=st.sampled_from(WORKERS))
    def kill_worker(self, worker: str) -> None:
        """All of a worker, and start another."""
        self._hurt(self.service.family(worker), signal.SIGKILL)
        self.service.workers[worker].wait()
        self.service.start_worker(worker)

    @rule(worker=st.sampled_from(WORKERS))
    def drain_worker(self, worker: str) -> None:
        """End a worker in order, and start another."""
        self._go_on()
        Machine.injected += 1
        self.service.workers[worker].terminate()
        self.service.workers[worker].wait(60)
        self.service.start_worker(worker)

    @rule(worker=st.sampled_from(WORKERS), runners_alone=st.booleans())
    def stop(self, worker: str, runners_alone: bool) -> None:
        """Let a worker stand still, until it goes on."""
        pids = self.service.runners(worker) if runners_alone else self.service.family(worker)
        self._hurt(pids, signal.SIGSTOP)
        self.stopped += pids

    @rule()
    @precondition(lambda self: getattr(self, "stopped", None))
    def go_on(self) -> None:
        """What stood still goes on."""
        self._go_on()

    @rule()
    def lose_bells(self) -> None:
        """FLUSHALL."""
        Machine.injected += 1
        with Redis.from_url(self.service.redis.url) as link:
            link.flushall()

    @rule(part=st.sampled_from(("redis", "postgres", "api")))
    def restart(self, part: str) -> None:
        """Restart a server in order."""
        Machine.injected += 1
        self.service.restart(part)

    @rule()
    def kill_everything(self) -> None:
        """SIGKILL to all of it, and start it again."""
        Machine.injected += 1
        self.service.kill_everything()
        self.stopped.clear()
        self.service.revive()
        for worker in WORKERS:
            self.service.start_worker(worker)

    # What is always so

    @invariant()
    def what_has_ended_stays_so(self) -> None:
        """As clients see it."""
        if not hasattr(self, "known"):
            return
        for found in self.service.ask("GET", "/v1/experiments?limit=200").json()["data"]:
            before = self.known.get(found["id"])
            if before in TERMINAL:
                assert found["state"] == before
            self.known[found["id"]] = found["state"]

    def teardown(self) -> None:
        """Everything that was accepted ends, and the history is sound."""
        if hasattr(self, "known"):
            self._go_on()
            self.service.check()

    def _hurt(self, pids: list[int], number: signal.Signals) -> None:
        Machine.injected += 1
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _go_on(self) -> None:
        for pid in self.stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.stopped.clear()


QUICK = settings(
    max_examples=2,
    stateful_step_count=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
LONG = settings(QUICK, max_examples=100_000, stateful_step_count=25, derandomize=False)


def test_any_sequence_for_a_moment(hurt: Service) -> None:
    run(hurt, QUICK)


@pytest.mark.long
def test_any_sequence_at_length(hurt: Service, capsys: pytest.CaptureFixture[str]) -> None:
    """For SOAK_MINUTES, ten by default."""
    until = time.monotonic() + 60 * float(os.environ.get("SOAK_MINUTES", "10"))
    rounds = 0
    while time.monotonic() < until:
        run(hurt, settings(LONG, max_examples=5))
        rounds += 5
    with capsys.disabled():
        told = f"{Machine.injected} faults, {Machine.submitted} experiments, {rounds} sequences, no violation"
        sys.stdout.write(f"\n{told}\n")


def run(service: Service, chosen: settings) -> None:
    Machine.service = service
    case = Machine.TestCase
    case.settings = chosen
    case().runTest()
