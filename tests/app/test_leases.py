"""Leases: who may work on what, and the only ways from one state to another."""

import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text

from app.errors import StateConflict
from app.persistence import experiments, leases
from app.persistence.database import engine, open_session
from app.persistence.leases import Claim, LeaseLost
from app.persistence.models import TERMINAL, Event, Experiment

ERROR = {"code": "lost", "message": "the training process ended early"}
STATES = ("queued", "running", "cancelling", *TERMINAL)


def row(experiment_id: str) -> Experiment:
    with open_session() as session:
        return experiments.get(session, experiment_id)


def history(experiment_id: str) -> list[tuple[int, str]]:
    with open_session() as session:
        events = session.scalars(select(Event).where(Event.experiment_id == experiment_id).order_by(Event.seq))
        return [(event.seq, event.type) for event in events]


def let_expire(experiment_id: str) -> None:
    with engine().begin() as connection:
        expired = text("UPDATE experiments SET lease_expires_at = clock_timestamp() - interval '1 second' WHERE id = :id")
        connection.execute(expired, {"id": experiment_id})


# Claims


def test_higher_priority_goes_first_then_the_older(work: Any, submit: Callable[..., Any]) -> None:
    old, new, urgent, idle = (submit(priority=priority)["id"] for priority in (0, 0, 5, -5))
    assert [work.claimed().id for _ in range(4)] == [urgent, old, new, idle]
    assert work.claim() is None


def test_a_claim_starts_the_next_attempt(work: Any, submit: Callable[..., Any]) -> None:
    experiment = submit()
    claim = work.claimed()
    found = row(experiment["id"])
    assert (found.state, found.attempt, found.lease_owner) == ("running", 1, "worker-1")
    assert claim.spec == experiment["spec"]
    work.write(lambda session: leases.give_back(session, claim))
    assert work.claimed("worker-2").attempt == 2


def test_many_claimers_at_once_never_get_the_same_row(work: Any, api: TestClient, sweep_spec: dict[str, Any]) -> None:
    api.post("/v1/sweeps", json=sweep_spec | {"seeds": 13})

    def drain(owner: str) -> list[str]:
        return [claim.id for claim in iter(lambda: work.claim(owner), None)]

    with ThreadPoolExecutor(8) as pool:
        claimed = list(itertools.chain(*pool.map(drain, [f"worker-{number}" for number in range(8)])))
    assert len(claimed) == len(set(claimed)) == 39


def test_another_queue_is_another_queue(work: Any, submit: Callable[..., Any]) -> None:
    submit()
    assert work.write(lambda session: leases.claim_experiment(session, "worker-1", "gpu", 60)) is None


# The fence

WRITES: dict[str, Callable[[Any, Claim], Any]] = {
    "renew": lambda session, claim: leases.renew(session, claim, 60),
    "state_of": leases.state_of,
    "report": lambda session, claim: leases.report(session, claim, {"stage": "pretrain", "step": 1}, [("loss", 1, 0.5)]),
    "succeed": lambda session, claim: leases.succeed(session, claim, {"mi": {}}, []),
    "fail": lambda session, claim: leases.fail(session, claim, ERROR),
    "lose": lambda session, claim: leases.lose(session, claim, ERROR),
    "give_back": leases.give_back,
    "confirm_cancelled": leases.confirm_cancelled,
}


@pytest.mark.parametrize("write", WRITES)
def test_a_stale_attempt_or_another_owner_writes_nothing(write: str, work: Any, submit: Callable[..., Any]) -> None:
    experiment = submit()
    stale = work.claimed()
    work.write(lambda session: leases.give_back(session, stale))
    current = work.claimed()
    before = row(experiment["id"])
    for intruder in (stale, replace(current, owner="worker-2"), replace(current, attempt=3)):
        with pytest.raises(LeaseLost), open_session() as session:
            WRITES[write](session, intruder)
            session.commit()
    after = row(experiment["id"])
    columns = Experiment.__table__.columns.keys()
    assert [getattr(after, name) for name in columns] == [getattr(before, name) for name in columns]


# States


@pytest.fixture
def in_state(work: Any, submit: Callable[..., Any]) -> Callable[[str], Claim]:
    """A claim whose experiment was brought into a state."""

    def bring(state: str) -> Claim:
        submit()
        claim: Claim = work.claimed()
        if state in ("cancelling", "cancelled"):
            work.write(lambda session: experiments.cancel(session, claim.id))
        last = {"cancelled": "confirm_cancelled", "queued": "give_back", "succeeded": "succeed", "failed": "fail"}.get(state)
        if last:
            work.write(lambda session: WRITES[last](session, claim))
        assert row(claim.id).state == state
        return claim

    return bring


ALLOWED = {
    ("queued", "cancel"): "cancelled",
    ("queued", "claim"): "running",
    ("running", "cancel"): "cancelling",
    ("running", "succeed"): "succeeded",
    ("running", "fail"): "failed",
    ("running", "lose"): "queued",
    ("running", "give_back"): "queued",
    ("running", "expire"): "queued",
    ("running", "renew"): "running",
    ("running", "report"): "running",
    ("cancelling", "cancel"): "cancelling",
    ("cancelling", "confirm_cancelled"): "cancelled",
    ("cancelling", "expire"): "cancelled",
    ("cancelling", "renew"): "cancelling",
    ("cancelling", "report"): "cancelling",
}
ACTIONS: dict[str, Callable[[Any, Claim], Any]] = {
    **{name: write for name, write in WRITES.items() if name != "state_of"},
    "cancel": lambda session, claim: experiments.cancel(session, claim.id),
    "claim": lambda session, claim: leases.claim_experiment(session, "worker-2", "default", 60),
    "expire": lambda session, _: leases.reconcile(session),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("state", STATES)
def test_the_transitions_of_the_contract_and_none_other(state: str, action: str, work: Any, in_state: Any) -> None:
    claim = in_state(state)
    if action == "expire":
        let_expire(claim.id)
    expected = ALLOWED.get((state, action), state)
    before = history(claim.id)
    try:
        work.write(lambda session: ACTIONS[action](session, claim))
    except (LeaseLost, StateConflict):
        assert (state, action) not in ALLOWED
    found = row(claim.id)
    assert found.state == expected
    events = history(claim.id)
    assert [seq for seq, _ in events] == list(range(1, len(events) + 1))
    assert len(events) - len(before) == (expected != state)
    assert (found.lease_owner is not None) == (found.state in ("running", "cancelling"))
    assert (found.finished_at is not None) == (found.state in TERMINAL)


def test_cancel_and_success_race_and_one_of_them_wins(work: Any, submit: Callable[..., Any]) -> None:
    for _ in range(10):
        experiment_id = submit()["id"]
        claim = work.claimed()

        def cancel(experiment_id: str = experiment_id) -> str:
            try:
                return str(work.write(lambda session: experiments.cancel(session, experiment_id)).state)
            except StateConflict as conflict:
                return str(conflict.extra["state"])

        def succeed(claim: Claim = claim) -> str:
            try:
                work.succeed(claim)
            except LeaseLost:
                return "lost"
            return "succeeded"

        with ThreadPoolExecutor(2) as pool:
            cancelled, succeeded = (future.result() for future in (pool.submit(cancel), pool.submit(succeed)))
        assert (cancelled, succeeded) in (("cancelling", "lost"), ("succeeded", "succeeded"))
        assert row(experiment_id).state == cancelled


# Attempts


def test_the_third_failure_is_final(work: Any, submit: Callable[..., Any]) -> None:
    experiment = submit()
    for attempt in (1, 2):
        work.write(lambda session: leases.lose(session, work.claimed(), ERROR))
        found = row(experiment["id"])
        assert (found.state, found.attempt, found.failures, found.error) == ("queued", attempt, attempt, ERROR)
    work.write(lambda session: leases.lose(session, work.claimed(), ERROR))
    found = row(experiment["id"])
    assert (found.state, found.attempt, found.error) == ("failed", 3, ERROR)
    assert [kind for _, kind in history(experiment["id"])] == ["queued", *["running", "requeued"] * 2, "running", "failed"]


def test_leases_that_run_out_are_failures_too(work: Any, submit: Callable[..., Any]) -> None:
    experiment = submit()
    for _ in range(3):
        let_expire(work.claimed().id)
        work.write(leases.reconcile)
    found = row(experiment["id"])
    assert (found.state, found.attempt) == ("failed", 3)
    assert found.error is not None and found.error["code"] == "lost"


def test_shutting_a_worker_down_charges_no_failure(work: Any, submit: Callable[..., Any]) -> None:
    experiment = submit()
    for _ in range(5):
        work.write(lambda session: leases.give_back(session, work.claimed()))
    found = row(experiment["id"])
    assert (found.state, found.attempt, found.failures) == ("queued", 5, 0)


def test_a_success_clears_the_error_of_the_attempt_before(work: Any, submit: Callable[..., Any]) -> None:
    experiment = submit()
    work.write(lambda session: leases.lose(session, work.claimed(), ERROR))
    work.succeed(work.claimed())
    assert row(experiment["id"]).error is None


def test_a_lease_that_was_renewed_is_not_taken_back(work: Any, submit: Callable[..., Any]) -> None:
    submit()
    claim = work.claimed(lease=60)
    let_expire(claim.id)
    work.write(lambda session: leases.renew(session, claim, 60))
    work.write(leases.reconcile)
    assert row(claim.id).state == "running"


def test_reconciling_says_how_many_it_queued_again(work: Any, submit: Callable[..., Any]) -> None:
    for _ in range(3):
        submit()
    let_expire(work.claimed().id)
    work.claimed()
    assert work.write(leases.reconcile).requeued == 1


# Metrics


def test_metrics_of_an_older_attempt_are_not_seen(work: Any, submit: Callable[..., Any], api: TestClient) -> None:
    url = f"/v1/experiments/{submit()['id']}/metrics"
    first = work.claimed()
    work.write(lambda session: leases.report(session, first, experiments.IDLE, [("loss", 10, 5.5), ("loss", 20, 5.0)]))
    work.write(lambda session: leases.give_back(session, first))
    second = work.claimed()
    work.write(lambda session: leases.report(session, second, experiments.IDLE, [("loss", 10, 4.5)]))
    expected = [{"name": "loss", "step": 10, "value": 4.5}]
    assert api.get(url).json()["data"] == expected
    work.succeed(second)
    assert api.get(url).json()["data"] == expected


def test_a_metric_told_twice_counts_once(work: Any, submit: Callable[..., Any], api: TestClient) -> None:
    experiment = submit()
    claim = work.claimed()
    for _ in range(2):
        work.write(lambda session: leases.report(session, claim, experiments.IDLE, [("loss", 10, 5.5)]))
    assert len(api.get(f"/v1/experiments/{experiment['id']}/metrics").json()["data"]) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_no_number_is_null(value: float, work: Any, submit: Callable[..., Any], api: TestClient) -> None:
    experiment = submit()
    claim = work.claimed()
    work.write(lambda session: leases.report(session, claim, experiments.IDLE, [("loss", 10, value)]))
    assert api.get(f"/v1/experiments/{experiment['id']}/metrics").json()["data"] == [{"name": "loss", "step": 10, "value": None}]


# Previews


@pytest.fixture
def preview(api: TestClient, spec: dict[str, Any]) -> Iterator[str]:
    answer = api.post("/v1/previews", json=spec, headers={"Prefer": "wait=0"})
    assert answer.status_code == 202
    yield answer.json()["id"]


def test_a_preview_has_the_same_fence(work: Any, preview: str) -> None:
    first = work.write(lambda session: leases.claim_preview(session, "worker-1", 60))
    assert work.write(lambda session: leases.claim_preview(session, "worker-2", 60)) is None
    work.write(lambda session: leases.give_back(session, first))
    second = work.write(lambda session: leases.claim_preview(session, "worker-2", 60))
    with pytest.raises(LeaseLost):
        work.write(lambda session: leases.succeed_preview(session, first, b"stale"))
    work.write(lambda session: leases.succeed_preview(session, second, b"PNG"))
    assert (first.id, second.id, second.attempt) == (preview, preview, 2)


def test_a_preview_that_kills_its_worker_three_times_fails(work: Any, preview: str, api: TestClient) -> None:
    for _ in range(3):
        claim = work.write(lambda session: leases.claim_preview(session, "worker-1", 60))
        work.write(lambda session, claim=claim: leases.lose(session, claim, ERROR))
    answer = api.get(f"/v1/previews/{preview}")
    assert answer.status_code == 422
    assert answer.json()["code"] == "lost"
