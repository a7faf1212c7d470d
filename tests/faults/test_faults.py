"""Faults that the service survives, on real processes. Each test does something terrible, and ends with the history checker.

`FAULTS_TIMERS=designed` runs them with the timers as they are meant, else they are scaled down.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import permutations
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_FSIZE, prlimit
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.persistence import files
from app.settings import Timers
from tests.faults import tiny
from tests.faults.service import TIMERS, Service, eventually, spec

TIMES = Timers(**TIMERS)
SUCCEEDED_AT_SECOND = ("succeeded", 2)
AT_LENGTH = pytest.mark.long


def outcome(experiment: dict[str, Any]) -> tuple[str, int]:
    return experiment["state"], experiment["attempt"]


def test_nothing_happens(service: Service) -> None:
    """The undisturbed run that the others are compared with."""
    service.start_worker()
    names = [service.submit(20, seed=seed) for seed in range(3)]
    assert [outcome(service.finished(name)) for name in names] == [("succeeded", 1)] * 3
    service.check()


# Processes


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, *(pytest.param(number, marks=AT_LENGTH) for number in (signal.SIGSEGV, signal.SIGABRT))]
)
def test_a_runner_is_killed(service: Service, number: signal.Signals) -> None:
    service.start_worker()
    name = service.submit(60)
    service.walking(name)
    os.kill(service.trainer(), number)
    assert outcome(service.finished(name)) == SUCCEEDED_AT_SECOND
    service.check()


def test_a_supervisor_is_killed(service: Service) -> None:
    """Its runner goes with it, and whoever comes in its place knows at once that it is gone."""
    service.start_worker()
    name = service.submit(60)
    service.walking(name)
    os.kill(service.supervisor(), signal.SIGKILL)
    found = service.finished(name)
    assert outcome(found) == SUCCEEDED_AT_SECOND
    lost = [event for event in service.events(name) if event["type"] == "requeued"]
    assert [(event["data"]["code"], event["data"]["message"]) for event in lost] == [("lost", "the worker's process was killed")]
    service.check()


def test_a_worker_is_stopped_for_longer_than_its_lease_and_goes_on(service: Service) -> None:
    service.start_worker("w1")
    name = service.submit(100, name="pace=0.05")
    service.walking(name)
    family = service.family("w1")
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    service.start_worker("w2")
    service.walking(name, attempt=2)
    time.sleep(max(0, 2 * TIMES.lease - TIMES.lease))
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    assert outcome(service.finished(name)) == SUCCEEDED_AT_SECOND
    service.check()


def test_a_supervisor_is_stopped_and_its_runner_does_not_go_on_alone(service: Service) -> None:
    service.start_worker("w1")
    name = service.submit(2000, name="pace=0.05")
    service.walking(name)
    supervisor, runner = service.supervisor("w1"), service.trainer("w1")
    os.kill(supervisor, signal.SIGSTOP)
    eventually(lambda: not service.lives(runner))
    assert service.experiment(name)["state"] == "running", "until the lease ends nobody else may begin"
    os.kill(supervisor, signal.SIGCONT)
    service.walking(name, attempt=2)
    service.cancel(name)
    service.check()


@AT_LENGTH
def test_workers_are_restarted_one_after_the_other(service: Service) -> None:
    """A rolling restart charges nobody a failure."""
    for worker in ("w1", "w2"):
        service.start_worker(worker)
    names = [service.submit(100, seed=seed, name="pace=0.02") for seed in range(8)]
    for worker in ("w1", "w2", "w1"):
        service.trainer(worker)
        service.workers[worker].send_signal(signal.SIGTERM)
        service.workers[worker].wait(60)
        service.start_worker(worker)
    assert {service.finished(name)["state"] for name in names} == {"succeeded"}
    assert {event["data"]["code"] for name in names for event in service.events(name, "requeued")} == {"drained"}
    service.check()


@AT_LENGTH
def test_a_worker_is_ended_at_every_moment_of_its_start(service: Service) -> None:
    name = service.submit(400, name="pace=0.02")
    for tenths in range(2, 50, 4):
        worker = service.start_worker()
        time.sleep(tenths / 10)
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)
        eventually(lambda: len(service.everything()) == len(service.api_family()))
    service.start_worker()
    assert service.finished(name)["state"] == "succeeded"
    assert {event["data"]["code"] for event in service.events(name, "requeued")} <= {"drained"}
    service.check()


def test_a_runner_that_eats_its_memory_is_told_from_one_that_is_lost(service: Service) -> None:
    service.start_worker(SWEETSPOT_RUNNER_MEMORY=str(400 * 2**20))
    once, always = service.submit(20, name="eat=5"), service.submit(20, name="eat=5x3")
    assert outcome(service.finished(once)) == SUCCEEDED_AT_SECOND
    found = service.finished(always)
    assert (found["state"], found["attempt"], found["error"]["code"]) == ("failed", 3, "oom")
    assert {event["data"]["code"] for event in service.events(once, "requeued")} == {"oom"}
    service.check()


@AT_LENGTH
def test_a_runner_that_hangs_is_told_from_one_that_is_lost(service: Service) -> None:
    service.start_worker()
    name = service.submit(20, name="hang=5")
    assert outcome(service.finished(name)) == SUCCEEDED_AT_SECOND
    assert {event["data"]["code"] for event in service.events(name, "requeued")} == {"stalled"}
    service.check()


def test_what_breaks_off_three_times_has_failed_and_what_is_at_fault_fails_at_once(service: Service) -> None:
    service.start_worker()
    poison, wrong = service.submit(20, name="crash=5x9"), service.submit(20, name="fail=5")
    found = service.finished(poison)
    assert (found["state"], found["attempt"], found["error"]["code"]) == ("failed", 3, "lost")
    found = service.finished(wrong)
    assert (found["state"], found["attempt"], found["error"]["code"]) == ("failed", 1, "internal")
    assert "as it was asked to" in service.http.get(f"/v1/experiments/{wrong}/logs").text
    service.check()


def test_it_is_cancelled_at_every_moment_of_its_life(service: Service) -> None:
    service.start_worker()
    service.finished(service.submit(1))
    states = set()
    for number in range(24):
        name = service.submit(10, seed=number, name="pace=0.02")
        time.sleep(number**2 * 0.006)
        service.cancel(name)
        states.add(service.finished(name)["state"])
    assert states == {"cancelled", "succeeded"}
    service.check()


@AT_LENGTH
def test_clocks_are_wrong(service: Service) -> None:
    """By an hour, in both directions: leases run on the database's."""
    for worker, skew in (("w1", 3600), ("w2", -3600)):
        path = os.pathsep.join([str(Path(__file__).parent / "skewed"), service.environment["PYTHONPATH"]])
        service.start_worker(worker, FAULTS_SKEW=str(skew), PYTHONPATH=path)
    names = [service.submit(60, seed=seed, name="pace=0.02") for seed in range(4)]
    service.walking(names[0])
    os.kill(service.supervisor("w1"), signal.SIGKILL)
    assert {service.finished(name)["state"] for name in names} == {"succeeded"}
    service.check()


# Redis


def test_all_bells_are_lost(service: Service) -> None:
    """FLUSHALL with a hundred queued, before and while a worker listens."""
    service.start_worker()
    busy = service.submit(200, name="pace=0.02")
    service.walking(busy)
    names = [service.submit(1, seed=seed, name="pace=0") for seed in range(100)]
    with Redis.from_url(service.redis.url) as link:
        link.flushall()
    assert {service.finished(name)["state"] for name in (busy, *names)} == {"succeeded"}
    service.check()


@AT_LENGTH
def test_all_bells_are_lost_before_anybody_listens(service: Service) -> None:
    names = [service.submit(1, seed=seed, name="pace=0") for seed in range(100)]
    with Redis.from_url(service.redis.url) as link:
        link.flushall()
    service.start_worker()
    assert {service.finished(name)["state"] for name in names} == {"succeeded"}
    service.check()


def test_redis_is_down_while_clients_submit_poll_and_cancel(service: Service) -> None:
    service.start_worker()
    service.finished(service.submit(2))
    service.redis.stop()
    name, other = service.submit(20), service.submit(5000, seed=1)
    assert service.finished(name)["state"] == "succeeded", "workers look for themselves"
    service.walking(other)
    service.cancel(other)
    assert service.finished(other)["state"] == "cancelled"
    service.redis.start()
    assert service.finished(service.submit(5, seed=2))["state"] == "succeeded"
    service.check()


@AT_LENGTH
def test_redis_is_paused(service: Service) -> None:
    service.start_worker()
    service.finished(service.submit(2))
    assert service.redis.pid
    os.kill(service.redis.pid, signal.SIGSTOP)
    try:
        name = service.submit(20)
        assert service.finished(name)["state"] == "succeeded"
    finally:
        os.kill(service.redis.pid, signal.SIGCONT)
    assert service.finished(service.submit(5, seed=2))["state"] == "succeeded"
    service.check()


def test_each_bell_rings_ten_times_and_in_another_order(service: Service) -> None:
    names = [service.submit(2, seed=seed, name="pace=0") for seed in range(20)]
    with Redis.from_url(service.redis.url) as link:
        bells = link.lrange("default", 0, -1)
        assert len(bells) == 20
        link.rpush("default", *(bell for bell in reversed(bells) for _ in range(9)))
    for worker in ("w1", "w2"):
        service.start_worker(worker)
    assert {outcome(service.finished(name)) for name in names} == {("succeeded", 1)}
    service.check()


# Postgres


def test_postgres_is_restarted_in_mid_training(service: Service) -> None:
    service.start_worker()
    name = service.submit(300, name="pace=0.02")
    service.walking(name)
    service.restart_postgres()
    found = service.finished(name)
    assert found["state"] == "succeeded"
    service.check()


@AT_LENGTH
def test_postgres_is_down_for_longer_than_a_worker_may_go_on_without(service: Service) -> None:
    service.start_worker()
    name = service.submit(400, name="pace=0.02")
    service.walking(name)
    runner = service.trainer()
    service.postgres.stop()
    eventually(lambda: not service.lives(runner))
    time.sleep(max(0, TIMES.lease - TIMES.self_fence))
    service.postgres.start()
    assert outcome(service.finished(name)) == SUCCEEDED_AT_SECOND
    service.check()


def test_backends_are_terminated_at_random_while_commits_finish(service: Service) -> None:
    """A commit of unknown outcome is re-read: nothing is told twice, and nothing is lost."""
    service.start_worker()
    with finishing_slowly(service), terminating(service, seed=1):
        names = [service.submit(10, seed=seed, name="pace=0.01") for seed in range(12)]
        found = [service.finished(name) for name in names]
    assert [experiment["state"] for experiment in found] == ["succeeded"] * 12
    service.check()


# Disks


def test_the_disk_is_full_while_checkpoints_are_written(service: Service) -> None:
    """Neither checkpoints nor the log find room: a resume at worst is lost, not the training."""
    service.start_worker()
    name = service.submit(150, name="pace=0.02")
    service.walking(name)
    runner = service.trainer()
    prlimit(runner, RLIMIT_FSIZE, (0, RLIM_INFINITY))
    service.walking(name, step=80)
    prlimit(runner, RLIMIT_FSIZE, (RLIM_INFINITY, RLIM_INFINITY))
    assert outcome(service.finished(name)) == ("succeeded", 1)
    service.check()


@pytest.mark.parametrize("length", [pytest.param(0, marks=AT_LENGTH), 3], ids=["empty", "shortened"])
def test_the_newest_checkpoint_is_cut_short(service: Service, length: int) -> None:
    name = service.submit(300, name="pace=0.02")
    for attempt in (1, 2):  # each leaves one as its worker ends
        worker = service.start_worker()
        service.walking(name, step=60 * attempt, attempt=attempt)
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)
    older, newest = sorted(files.checkpoints_folder(name).glob("*.safetensors"))
    os.truncate(newest, length)
    service.start_worker()
    assert outcome(service.finished(name)) == ("succeeded", 3)
    first = next(step for step in service.steps(name) if step.attempt == 3)
    assert first.step == int(older.name[:12]) + 1
    service.check()


# Clients


def test_fifty_equal_posts_at_once_make_one_experiment(service: Service) -> None:
    service.start_worker()

    def post(_: int) -> Any:
        return service.http.post("/v1/experiments", json=spec(20), headers={"Idempotency-Key": "one and only".replace(" ", "-")})

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(post, range(50)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    (name,) = {answer.json()["id"] for answer in answers if answer.status_code == 202}
    assert service.http.get("/v1/experiments").json()["data"][0]["id"] == name
    assert len(service.http.get("/v1/experiments").json()["data"]) == 1
    service.accepted[name] = {}
    service.finished(name)
    service.check()


# Everything


@pytest.mark.parametrize("times", [3, pytest.param(100, marks=AT_LENGTH)])
def test_everything_is_killed_again_and_again(service: Service, times: int) -> None:
    """What was accepted ends; what was lost three times has failed as such, and all else has its numbers."""
    chance = random.Random(times)
    for round in range(times):
        service.revive()
        for worker in ("w1", "w2"):
            service.start_worker(worker)
        for number in range(3):
            service.submit(20, seed=10 * round + number, name="pace=0.02")
        time.sleep(chance.uniform(0, 4))
        service.kill_everything()
    service.revive()
    for worker in ("w1", "w2"):
        service.start_worker(worker)
    service.check(within=900)
    ended = [service.experiment(name) for name in service.accepted]
    assert {found["error"]["code"] for found in ended if found["state"] == "failed"} <= {"lost"}


ORDERS = list(permutations(("postgres", "redis", "api", "worker")))


@pytest.mark.parametrize(
    "order",
    [pytest.param(order, marks=[] if index == 13 else [AT_LENGTH], id="-".join(order)) for index, order in enumerate(ORDERS)],
)
def test_everything_is_restarted_during_a_sweep(service: Service, order: tuple[str, ...]) -> None:
    """In any order, and the sweep ends with the undisturbed curve."""
    service.start_worker()
    values = [0.1, 0.3, 1.0]
    asked = {"base": spec(40, name="pace=0.02"), "axis": {"path": "views.sigma", "values": values}, "seeds": 2}
    sweep = service.sweep(asked)
    for part in order:
        time.sleep(0.5)
        service.restart(part)
    eventually(lambda: service.ask("GET", f"/v1/sweeps/{sweep}").json()["state"] == "succeeded")
    curve = service.ask("GET", f"/v1/sweeps/{sweep}/curve.json").json()
    ends = [tiny.results(tiny.end(seed, 40)) for seed in (0, 1)]
    accuracy = sum(found["tasks"]["classification"]["value"] for found in ends) / 2
    information = sum(found["mi"]["infonce"]["value"] for found in ends) / 2
    assert [point["value"] for point in curve["points"]] == values
    for point in curve["points"]:
        assert point["i_nce"] == pytest.approx(information)
        assert point["tasks"]["classification"]["value"] == pytest.approx(accuracy)
        assert point["tasks"]["classification"]["seeds"] == 2
    service.check()


@contextmanager
def finishing_slowly(service: Service) -> Iterator[None]:
    """Commits that finish an experiment take a tenth of a second, so that they can be interrupted."""
    slowly = """
        CREATE OR REPLACE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.state = 'succeeded' THEN PERFORM pg_sleep(0.1); END IF; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER slowly AFTER UPDATE ON experiments DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION slowly();"""
    with service.engine.begin() as connection:
        connection.execute(text(slowly))
    try:
        yield
    finally:
        with service.engine.begin() as connection:
            connection.execute(text("DROP TRIGGER slowly ON experiments"))


@contextmanager
def terminating(service: Service, seed: int) -> Iterator[None]:
    """Backends that finish an experiment, or do anything else, are terminated, three a second."""
    chance = random.Random(seed)
    over = threading.Event()
    query = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'sweetspot' AND pid != pg_backend_pid()"
        " AND state != 'idle' AND random() < 0.5"
    )

    def terminate() -> None:
        while not over.wait(chance.uniform(0.05, 0.5)):
            with suppress(OperationalError), service.engine.connect() as connection:
                connection.execute(query)

    thread = threading.Thread(target=terminate)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
