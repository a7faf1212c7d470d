"""What Prometheus and a load balancer are told: of the queue, the workers, this process, and of a database that is away."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from app.persistence import database as connection
from app.persistence import experiments, leases, schema, tallies, workers
from app.persistence.database import engine, open_session
from app.persistence.models import Dataset, Experiment, MiEstimate, Preview
from app.settings import settings

Json = dict[str, Any]
Submit = Callable[..., Json]
ERROR = {"code": "stalled", "message": "no step was taken"}


def scraped(api: TestClient) -> dict[str, dict[tuple[str, ...], float]]:
    """Samples by name and the values of their labels, in this order."""
    order = ("state", "kind", "outcome", "code", "claimable", "experiment", "route", "method", "status", "waited", "le")
    answer = api.get("/metrics")
    assert answer.status_code == 200
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels[name] for name in order if name in sample.labels)] = (
                sample.value
            )
    return found


def let_expire(*ids: str) -> None:
    with engine().begin() as link:
        expired = text("UPDATE experiments SET lease_expires_at = clock_timestamp() - interval '1 second' WHERE id = ANY(:ids)")
        link.execute(expired, {"ids": list(ids)})


def age(seconds: int) -> None:
    """Everything happened so much earlier."""
    with engine().begin() as link:
        for column, table in (("created_at", "experiments"), ("at", "tallies")):
            link.execute(text(f"UPDATE {table} SET {column} = {column} - make_interval(secs => {seconds})"))


@pytest.fixture
def away(database: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DATABASE_URL", re.sub("port=[0-9]+", "port=1", database.database_url))
    caches = (settings, connection.engine, connection._sessions)
    kept = connection.engine()
    for cached in caches:
        cached.cache_clear()
    yield
    monkeypatch.undo()
    for cached in caches:
        cached.cache_clear()
    kept.dispose()


# The queue


def test_experiments_by_state(api: TestClient, submit: Submit, work: Any) -> None:
    for _ in range(3):
        submit()
    work.succeed(work.claimed())
    states = scraped(api)["sweetspot_experiments"]
    assert states == {(state,): {"queued": 2.0, "succeeded": 1.0}.get(state, 0.0) for (state,) in states}
    assert len(states) == 6


def test_what_waits_for_an_upload_cannot_be_claimed_and_is_told_apart(api: TestClient, submit: Submit, work: Any) -> None:
    row = {"name": "d", "sha256": "0" * 64, "size": 1, "progress": {}}
    work.write(lambda session: session.add(Dataset(id=f"ds_{'0' * 32}", **row)))
    submit(), submit(dataset={"name": f"ds_{'0' * 32}"})
    age(100)
    found = scraped(api)
    assert found["sweetspot_queued"][("experiment", "yes")] == found["sweetspot_queued"][("experiment", "no")] == 1
    assert found["sweetspot_queued"][("dataset", "yes")] == 1
    assert found["sweetspot_oldest_queued_seconds"][()] == pytest.approx(100, abs=20)


def test_every_attempt_is_counted_once_by_how_it_ended(api: TestClient, submit: Submit, work: Any) -> None:
    for _ in range(6):
        submit()
    work.succeed(work.claimed("w1/1"))
    work.write(lambda session: leases.fail(session, work.claimed("w1/1"), {"code": "user", "message": "no"}))
    lost = work.claimed("w1/1")
    work.write(lambda session: leases.lose(session, lost, ERROR))
    work.write(lambda session: leases.give_back(session, work.claimed("w2/9")))
    cancelled = work.claimed("w2/9")
    work.write(lambda session: experiments.cancel(session, cancelled.id))
    work.write(lambda session: leases.confirm_cancelled(session, cancelled))
    found = scraped(api)["sweetspot_attempts_total"]
    kinds = {(outcome, code): count for (kind, outcome, code), count in found.items() if kind == "experiment"}
    assert kinds == {
        ("succeeded", ""): 1,
        ("failed", "user"): 1,
        ("lost", "stalled"): 1,
        ("requeued", "drained"): 1,
        ("cancelled", ""): 1,
    }


def test_the_third_loss_is_a_failure_of_the_same_code(api: TestClient, submit: Submit, work: Any) -> None:
    submit()
    for _ in range(leases.MAX_FAILURES):
        work.write(lambda session: leases.lose(session, work.claimed(), ERROR))
    found = scraped(api)["sweetspot_attempts_total"]
    assert found == {("experiment", "lost", "stalled"): 2, ("experiment", "failed", "stalled"): 1}


@pytest.mark.parametrize(
    ("model", "finish"),
    [
        (Preview, lambda session, claim: leases.succeed_preview(session, claim, b"png")),
        (Dataset, lambda session, claim: leases.succeed_dataset(session, claim, {})),
        (MiEstimate, lambda session, claim: leases.succeed(session, claim, {}, [])),
    ],
    ids=["preview", "dataset", "mi_estimate"],
)
def test_so_are_those_beside_the_training(api: TestClient, work: Any, model: Any, finish: Any) -> None:
    claims = {Preview: leases.claim_preview, Dataset: leases.claim_dataset, MiEstimate: leases.claim_mi_estimate}
    values = {"name": "n", "sha256": "0" * 64, "size": 1, "progress": {}, "spec": {}}
    row = {key: value for key, value in values.items() if key in model.__table__.columns}
    work.write(lambda session: session.add(model(id="x_1", **row)))
    claim = work.write(lambda session: claims[model](session, "w1/1", 60))
    work.write(lambda session: finish(session, claim))
    assert scraped(api)["sweetspot_attempts_total"] == {(claim.kind, "succeeded", ""): 1}


def test_a_write_that_the_fence_refuses_counts_nothing(api: TestClient, submit: Submit, work: Any) -> None:
    submit()
    stale = work.claimed()
    let_expire(stale.id)
    work.write(leases.reconcile)
    with pytest.raises(leases.LeaseLost):
        work.write(lambda session: leases.fail(session, stale, ERROR))
    assert scraped(api)["sweetspot_attempts_total"] == {("experiment", "lost", "lost"): 1}


def test_leases_that_ran_out_are_the_reconcilers_to_count(api: TestClient, submit: Submit, work: Any) -> None:
    for _ in range(3):
        submit()
    first, second, alive = (work.claimed("w1@host/17") for _ in range(3))
    work.write(lambda session: experiments.cancel(session, second.id))
    let_expire(first.id, second.id)
    work.write(leases.reconcile)
    work.succeed(alive)
    assert scraped(api)["sweetspot_leases_lost_total"][("experiment",)] == 2
    with open_session() as session:
        assert [tuple(row) for row in tallies.totals(session, "w1@host")] == [("experiment", "succeeded", "", 1)]


def test_workers_tally_without_waiting_for_each_other(submit: Submit, work: Any) -> None:
    for _ in range(2):
        submit()
    one, other = work.claimed("w1/1"), work.claimed("w2/1")
    with open_session() as first, open_session() as second:
        leases.succeed(first, one, {}, [])
        second.execute(text("SET LOCAL lock_timeout = '1s'"))
        leases.succeed(second, other, {}, [])
        second.commit()
        first.commit()


def test_counts_do_not_fall_when_workers_of_old_are_folded(api: TestClient, submit: Submit, work: Any) -> None:
    for number in range(4):
        submit()
        work.succeed(work.claimed(f"host-{number}/1"))
    work.write(lambda session: workers.hello(session, "host-3", {}))
    age(100)
    work.write(lambda session: workers.hello(session, "host-3", {}))
    before = scraped(api)["sweetspot_attempts_total"]
    for _ in range(2):
        work.write(lambda session: tallies.fold(session, timedelta(seconds=50)))
    with open_session() as session:
        names = session.scalars(text("SELECT worker FROM tallies ORDER BY worker")).all()
    assert names == ["former workers", "host-3"]
    assert scraped(api)["sweetspot_attempts_total"] == before == {("experiment", "succeeded", ""): 4}


def test_step_rates_of_what_runs(api: TestClient, submit: Submit, work: Any) -> None:
    for rate in (20.0, 2.5, None):
        submit()
        claim = work.claimed()
        work.write(lambda session, claim=claim, rate=rate: leases.report(session, claim, {"stage": "pretrain", "rate": rate}))
    found = scraped(api)
    assert found["sweetspot_steps_per_second"][()] == 22.5
    assert sorted(found["sweetspot_experiment_steps_per_second"].values()) == [2.5, 20.0]


def test_workers_heard_of(api: TestClient, work: Any) -> None:
    work.write(lambda session: workers.hello(session, "w1", {}))
    assert scraped(api)["sweetspot_workers"][()] == 1


def test_counting_by_state_reads_the_index_alone(submit: Submit, work: Any) -> None:
    submit()
    copy = """
        INSERT INTO experiments (id, name, tags, priority, spec, identity, progress, state, finished_at)
        SELECT id || n, name, tags, priority, spec, identity, progress, 'failed', clock_timestamp()
        FROM experiments, generate_series(1, 20000) AS n"""
    with psycopg.connect(engine().url.render_as_string(False).replace("+psycopg", ""), autocommit=True) as link:
        link.execute(copy)
        link.execute("VACUUM ANALYZE experiments")
        asked = ("SELECT state, count(*) FROM experiments GROUP BY state",)
        asked += ("SELECT count(*), min(created_at) FROM experiments WHERE state = 'queued' AND waits_for IS NULL",)
        plans = ["\n".join(row[0] for row in link.execute(f"EXPLAIN {query}").fetchall()) for query in asked]
    assert all("Index Only Scan" in plan or "Index Scan using ix_experiments_claim" in plan for plan in plans), plans
    assert "Index Only Scan using ix_experiments_state_id" in plans[0]


# This process


def requests(api: TestClient) -> dict[tuple[str, ...], float]:
    return scraped(api)["sweetspot_request_seconds_count"]


def test_latency_is_by_route_and_never_by_path(api: TestClient, submit: Submit) -> None:
    before = requests(api)
    experiment = submit()
    for path in (experiment["links"]["self"], f"/v1/experiments/exp_{'0' * 32}", "/v1/nowhere", "/wp-admin.php"):
        api.get(path)
    api.head(experiment["links"]["self"])
    api.request("BREW", "/v1/experiments")
    api.get(experiment["links"]["self"], headers={"Prefer": "wait=1"})
    after = requests(api)
    more = {labels: count - before.get(labels, 0) for labels, count in after.items() if count != before.get(labels, 0)}
    more.pop(("/metrics", "GET", "2xx", "no"), None)
    one = "/v1/experiments/{id}"
    assert more == {
        ("/v1/experiments", "POST", "2xx", "no"): 1,
        (one, "GET", "2xx", "no"): 1,
        (one, "GET", "4xx", "no"): 1,
        (one, "HEAD", "2xx", "no"): 1,
        (one, "GET", "2xx", "yes"): 1,
        ("none", "GET", "4xx", "no"): 2,
        ("/v1/experiments", "other", "4xx", "no"): 1,
    }


def test_a_defect_is_a_5xx(api: TestClient, monkeypatch: Any) -> None:
    monkeypatch.setattr("app.routers.experiments.experiments.page", lambda *_, **__: 1 / 0)
    before = requests(api).get(("/v1/experiments", "GET", "5xx", "no"), 0)
    assert api.get("/v1/experiments").status_code == 500
    assert requests(api)[("/v1/experiments", "GET", "5xx", "no")] == before + 1


# While the database is away


def test_metrics_tell_what_the_process_knows(api: TestClient, away: None) -> None:
    found = scraped(api)
    assert found["sweetspot_database_up"] == {(): 0}
    assert "sweetspot_ring_failures_total" in found and "sweetspot_request_seconds_count" in found
    assert not found.keys() & {"sweetspot_experiments", "sweetspot_workers", "sweetspot_attempts_total"}, "these are not known"


def test_with_it_there_is_its_answer_time(api: TestClient) -> None:
    found = scraped(api)
    assert found["sweetspot_database_up"] == {(): 1}
    assert 0 < found["sweetspot_database_seconds"][()] < 5


def test_it_is_not_ready_and_says_why(api: TestClient, away: None) -> None:
    answer = api.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
    assert answer.json()["checks"] == {"database": "it does not answer (OperationalError)"}


# Ready


@pytest.fixture
def at_version(database: Any) -> Iterator[Callable[[str | None], None]]:
    def claim(version: str | None) -> None:
        with engine().begin() as link:
            link.execute(text("DELETE FROM sweetspot_migrations"))
            if version:
                link.execute(text("INSERT INTO sweetspot_migrations VALUES (:version)"), {"version": version})

    yield claim
    claim(schema.newest())


@pytest.mark.parametrize(("version", "why"), [(None, "not migrated"), ("0004", "of version 0004"), ("9999", "of version 9999")])
def test_tables_of_another_version_are_no_readiness(api: TestClient, at_version: Any, version: str | None, why: str) -> None:
    at_version(version)
    answer = api.get("/readyz")
    assert answer.status_code == 503
    assert why in answer.json()["checks"]["database"] and "sweetspot migrate" in answer.json()["checks"]["database"]


def checks(api: TestClient) -> Json:
    answer = api.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    return dict(answer.json()["checks"])


def test_it_is_ready_without_a_worker_and_names_them(api: TestClient, work: Any) -> None:
    assert checks(api) == {"database": "ok", "workers": "0", "claims": "idle"}
    work.write(lambda session: workers.hello(session, "w1", {}))
    assert checks(api)["workers"] == "1"


def test_claims_move_while_one_is_held_or_the_next_taken_in_time(api: TestClient, submit: Submit, work: Any) -> None:
    submit(), submit()
    assert checks(api)["claims"] == "moving"
    claim = work.claimed()
    age(1000)
    assert checks(api)["claims"] == "moving", "one trains, the other waits for its turn"
    work.succeed(claim)
    assert checks(api)["claims"] == "moving", "the last one has only just ended"
    age(300)
    words = checks(api)["claims"]
    assert re.fullmatch(r"nobody has claimed for 30\d s what waits since \d{4}-\S+Z \(kind: experiment\)", words)


def test_a_worker_that_died_holds_nothing(api: TestClient, submit: Submit, work: Any) -> None:
    submit(), submit()
    claim = work.claimed()
    age(1000)
    with engine().begin() as link:
        link.execute(
            text("UPDATE experiments SET lease_expires_at = clock_timestamp() - interval '90 s' WHERE state = 'running'")
        )
    assert "nobody has claimed for 9" in checks(api)["claims"], claim


def test_what_waits_for_an_upload_is_nobodys_fault(api: TestClient, submit: Submit, work: Any) -> None:
    row = {"name": "d", "sha256": "0" * 64, "size": 1, "progress": {}}
    work.write(lambda session: session.add(Dataset(id=f"ds_{'0' * 32}", **row)))
    submit(dataset={"name": f"ds_{'0' * 32}"})
    work.write(lambda session: leases.claim_dataset(session, "w1/1", 60))
    age(1000)
    assert checks(api)["claims"] == "moving"


def test_nothing_is_asked_of_the_broker(api: TestClient, monkeypatch: Any) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://192.0.2.1:6379/0")  # an address that answers nobody
    settings.cache_clear()
    assert checks(api)["database"] == "ok"


def test_of_all_owners_whoever_asks(remote: Any, spec: Json) -> None:
    assert remote("ada").post("/v1/experiments", json=spec).status_code == 202
    assert remote().get("/readyz").json()["checks"]["claims"] == "moving"
    assert 'sweetspot_experiments{state="queued"} 1.0' in remote("root", ("admin",)).get("/metrics").text
    with open_session() as session:
        assert session.query(Experiment).count() == 1
