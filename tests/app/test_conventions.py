"""What holds for every part of the API: problems, ids, tags, pages, idempotency, waiting, and servers that are away."""

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from app.embedded import free_port
from app.main import create_app
from app.persistence import bell, experiments, leases
from app.persistence import database as connection
from app.persistence.database import engine, open_session
from app.persistence.models import Experiment, IdempotencyKey
from app.settings import settings

Json = dict[str, Any]
Submit = Callable[..., Json]
NOWHERE = f"exp_{'0' * 32}"


def count(model: type[Any]) -> int:
    with open_session() as session:
        return session.scalar(select(func.count()).select_from(model)) or 0


# Problems

PROBLEMS: list[tuple[str, str, int]] = [
    ("GET", "/v2", 404),
    ("GET", "/v1", 404),
    ("GET", f"/v1/experiments/{NOWHERE}", 404),
    ("GET", "/v1/experiments/17", 404),
    ("GET", "/v1/experiments/%00", 404),
    ("GET", f"/v1/experiments/{NOWHERE}/events", 404),
    ("GET", f"/v1/experiments/{NOWHERE}/metrics", 404),
    ("GET", f"/v1/experiments/{NOWHERE}/artifacts", 404),
    ("GET", f"/v1/experiments/{NOWHERE}/artifacts/a", 404),
    ("GET", f"/v1/experiments/{NOWHERE}/preview.png", 404),
    ("GET", f"/v1/experiments/{NOWHERE}/logs", 404),
    ("GET", f"/v1/experiments/{NOWHERE}/reproduce", 404),
    ("POST", f"/v1/experiments/{NOWHERE}/cancel", 404),
    ("POST", f"/v1/experiments/{NOWHERE}/retry", 404),
    ("DELETE", f"/v1/experiments/{NOWHERE}", 404),
    ("GET", f"/v1/sweeps/swp_{'0' * 32}", 404),
    ("GET", f"/v1/sweeps/swp_{'0' * 32}/curve", 404),
    ("GET", f"/v1/sweeps/swp_{'0' * 32}/curve.bmp", 404),
    ("POST", f"/v1/sweeps/swp_{'0' * 32}/cancel", 404),
    ("POST", f"/v1/sweeps/swp_{'0' * 32}/retry", 404),
    ("DELETE", f"/v1/sweeps/swp_{'0' * 32}", 404),
    ("DELETE", "/v1/experiments", 405),
    ("PUT", "/v1/sweeps", 405),
    ("POST", "/healthz", 405),
    ("GET", "/v1/experiments?limit=0", 422),
    ("GET", "/v1/experiments?limit=201", 422),
    ("GET", "/v1/experiments?limit=many", 422),
    ("GET", "/v1/experiments?cursor=17", 422),
    ("GET", "/v1/experiments?cursor=%27;drop", 422),
    ("GET", "/v1/experiments?state=asleep", 422),
    ("GET", "/v1/experiments?q=%00", 422),
    ("GET", "/v1/experiments?tag=%00", 422),
    ("GET", "/v1/sweeps?cursor=%00", 422),
    ("POST", "/v1/experiments", 422),
    ("POST", "/v1/experiments?dry_run=perhaps", 422),
]


@pytest.mark.parametrize(("method", "path", "status"), PROBLEMS, ids=[f"{method} {path}" for method, path, _ in PROBLEMS])
def test_every_error_is_a_problem_document(api: TestClient, method: str, path: str, status: int) -> None:
    answer = api.request(method, path)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert set(problem) >= {"type", "title", "status", "detail", "errors", "request_id", "retryable"}
    assert problem["type"].startswith("urn:sweetspot:problem:") and problem["title"] and problem["detail"]
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    assert all(set(error) == {"pointer", "message"} for error in problem["errors"])
    assert bool(problem["errors"]) or status != 422


def test_405_names_what_is_allowed(api: TestClient) -> None:
    assert api.put("/v1/presets/digits-noise/run").headers["Allow"] == "POST"


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/x-www-form-urlencoded", None])
def test_a_body_of_another_type_is_415(api: TestClient, spec: Json, kind: str | None) -> None:
    answer = api.post("/v1/experiments", content=json.dumps(spec), headers={"Content-Type": kind} if kind else {})
    assert answer.status_code == 415
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/merge-patch+json"])
def test_json_may_say_more_of_itself(api: TestClient, spec: Json, kind: str) -> None:
    assert api.post("/v1/experiments", content=json.dumps(spec), headers={"Content-Type": kind}).status_code == 202


def test_a_defect_of_ours_is_a_problem_document_too(api: TestClient, submit: Submit) -> None:
    experiment_id = submit()["id"]
    with engine().begin() as connection:
        connection.execute(Experiment.__table__.update().values(spec={"this": "is no spec"}))
    answer = api.get(f"/v1/experiments/{experiment_id}", headers={"X-Request-Id": "mine"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (500, "application/problem+json")
    assert (answer.json()["request_id"], answer.headers["X-Request-Id"]) == ("mine", "mine")
    assert "spec" not in answer.json()["detail"]


# Request ids, HEAD, slashes


@pytest.mark.parametrize("path", ["/v1/experiments", "/healthz", "/nowhere", "/docs"])
def test_the_request_id_is_echoed(api: TestClient, path: str) -> None:
    assert api.get(path, headers={"X-Request-Id": "abc-123"}).headers["X-Request-Id"] == "abc-123"


@pytest.mark.parametrize("given", ["", "two words", "x" * 129])
def test_an_unfit_request_id_is_replaced(api: TestClient, given: str) -> None:
    made = api.get("/v1/experiments", headers={"X-Request-Id": given}).headers["X-Request-Id"]
    assert re.fullmatch("[0-9a-f]{32}", made)


@pytest.mark.parametrize("path", ["/v1/experiments", "/healthz", "/metrics", "/openapi.json", "/nowhere"])
def test_head_is_get_without_the_body(api: TestClient, path: str) -> None:
    head, whole = api.head(path), api.get(path)
    assert head.content == b""
    assert head.status_code == whole.status_code
    assert head.headers["Content-Type"] == whole.headers["Content-Type"]
    assert head.headers.get("ETag") == whole.headers.get("ETag")


def test_a_trailing_slash_leads_to_the_same(api: TestClient, submit: Submit) -> None:
    path = f"/v1/experiments/{submit()['id']}"
    assert api.get(f"{path}/").json() == api.get(path).json()
    assert api.get("/v1/experiments/?limit=1").json() == api.get("/v1/experiments?limit=1").json()


# Entity tags


def test_a_strong_tag_saves_the_body_until_something_changes(api: TestClient, submit: Submit, work: Any) -> None:
    path = f"/v1/experiments/{submit()['id']}"
    first = api.get(path)
    tag = first.headers["ETag"]
    assert re.fullmatch(r'"[0-9a-f]+"', tag)
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        same = api.get(path, headers={"If-None-Match": known})
        assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", tag)
        assert "Content-Type" not in same.headers
    assert api.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    work.claimed()
    changed = api.get(path, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != tag


@pytest.mark.parametrize("suffix", ["", "/events", "/metrics", "/artifacts", "/logs", "/reproduce"])
def test_every_part_of_an_experiment_has_one(api: TestClient, submit: Submit, suffix: str) -> None:
    path = f"/v1/experiments/{submit()['id']}{suffix}"
    assert api.get(path, headers={"If-None-Match": api.get(path).headers["ETag"]}).status_code == 304


def test_neither_an_error_nor_a_post_has_one(api: TestClient, spec: Json) -> None:
    assert "ETag" not in api.get(f"/v1/experiments/{NOWHERE}", headers={"If-None-Match": "*"}).headers
    assert "ETag" not in api.post("/v1/experiments", json=spec, headers={"If-None-Match": "*"}).headers


# Lists


@pytest.mark.parametrize("collection", ["experiments", "sweeps"])
def test_pages_hold_every_item_once_while_others_come_in(api: TestClient, spec: Json, sweep_spec: Json, collection: str) -> None:
    body = spec if collection == "experiments" else sweep_spec
    made = [api.post(f"/v1/{collection}", json=body).json()["id"] for _ in range(7)]
    seen: list[str] = []
    query: Json = {"limit": 3}
    while True:
        page = api.get(f"/v1/{collection}", params=query).json()
        assert set(page) == {"data", "has_more", "next_cursor"}
        seen += [item["id"] for item in page["data"]]
        api.post(f"/v1/{collection}", json=body)
        if not page["has_more"]:
            break
        query["cursor"] = page["next_cursor"]
    assert page["next_cursor"] is None
    assert seen == made[::-1]


def test_a_page_goes_on_where_its_last_item_was_deleted(api: TestClient, submit: Submit) -> None:
    made = [submit()["id"] for _ in range(4)]
    page = api.get("/v1/experiments?limit=2").json()
    api.post(f"/v1/experiments/{made[2]}/cancel")
    assert api.delete(f"/v1/experiments/{made[2]}").status_code == 204
    rest = api.get(f"/v1/experiments?limit=2&cursor={page['next_cursor']}").json()
    assert [item["id"] for item in rest["data"]] == [made[1], made[0]]
    assert not rest["has_more"]


def test_limits_may_be_1_to_200(api: TestClient, submit: Submit) -> None:
    for _ in range(2):
        submit()
    assert len(api.get("/v1/experiments?limit=1").json()["data"]) == 1
    assert len(api.get("/v1/experiments?limit=200").json()["data"]) == 2


# Idempotency


def creations(api: TestClient, spec: Json, sweep_spec: Json, work: Any) -> dict[str, Json]:
    """Every POST that creates, with a body."""
    old = api.post("/v1/experiments", json=spec).json()["id"]
    work.succeed(work.claimed())
    sweep = api.post("/v1/sweeps", json=sweep_spec).json()["id"]
    api.post(f"/v1/sweeps/{sweep}/cancel")
    return {
        "/v1/experiments": spec | {"pretrain": {"learning_rate": 1e-5}},
        f"/v1/experiments/{old}/retry": {},
        "/v1/sweeps": sweep_spec,
        f"/v1/sweeps/{sweep}/retry": {},
        "/v1/presets/digits-noise/run": {"seed": 3},
    }


def test_a_replay_is_the_first_answer_byte_for_byte(api: TestClient, spec: Json, sweep_spec: Json, work: Any) -> None:
    for number, (path, body) in enumerate(creations(api, spec, sweep_spec, work).items()):
        key = {"Idempotency-Key": f"key-{number}"}
        first = api.post(path, json=body, headers=key)
        before = count(Experiment)
        work.claim()  # what was created goes on, and the answer stays
        again = api.post(path, json=body, headers=key)
        assert (first.status_code, again.status_code) == (202, 202), path
        assert again.content == first.content
        for name in ("Content-Type", "Location"):
            assert again.headers[name] == first.headers[name]
        assert again.headers["Idempotent-Replayed"] == "true" and "Idempotent-Replayed" not in first.headers
        assert count(Experiment) == before


def test_the_same_json_in_another_order_is_the_same_request(api: TestClient, spec: Json) -> None:
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    first = api.post("/v1/experiments", content=json.dumps(spec), headers=headers)
    turned = dict(reversed(spec.items()))
    again = api.post("/v1/experiments", content=json.dumps(turned, indent=2), headers=headers)
    assert again.content == first.content


@pytest.mark.parametrize(
    ("path", "change"), [("/v1/experiments", {"seed": 1}), ("/v1/experiments?dry_run=false", {}), ("/v1/sweeps", {})]
)
def test_a_key_belongs_to_one_request(api: TestClient, spec: Json, sweep_spec: Json, path: str, change: Json) -> None:
    headers = {"Idempotency-Key": "k"}
    api.post("/v1/experiments", json=spec, headers=headers)
    answer = api.post(path, json=(sweep_spec if path == "/v1/sweeps" else spec) | change, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:sweetspot:problem:idempotency-mismatch")
    assert answer.json()["errors"][0]["pointer"] == "header/Idempotency-Key"
    assert count(Experiment) == 1


def test_a_refused_request_leaves_its_key_free(api: TestClient, spec: Json) -> None:
    headers = {"Idempotency-Key": "k"}
    assert api.post("/v1/experiments", json=spec | {"mi": {"k": 541}}, headers=headers).status_code == 422
    assert api.post("/v1/experiments?dry_run=true", json=spec, headers=headers).status_code == 200
    assert count(IdempotencyKey) == 0
    assert api.post("/v1/experiments", json=spec, headers=headers).status_code == 202


def test_the_key_is_stored_in_the_transaction_of_what_it_made(api: TestClient, spec: Json) -> None:
    with engine().begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no keys today'; END$$"
        )
        connection.exec_driver_sql("CREATE TRIGGER refuse BEFORE INSERT ON idempotency_keys EXECUTE FUNCTION refuse()")
    try:
        assert api.post("/v1/experiments", json=spec, headers={"Idempotency-Key": "k"}).status_code == 500
        assert count(Experiment) == 0
    finally:
        with engine().begin() as connection:
            connection.exec_driver_sql("DROP FUNCTION refuse CASCADE")


def test_of_50_equal_posts_at_once_one_creates(api: TestClient, spec: Json) -> None:
    together = threading.Barrier(50)

    def post(_: int) -> Any:
        together.wait()
        return api.post("/v1/experiments", json=spec, headers={"Idempotency-Key": "k"})

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(post, range(50)))
    assert count(Experiment) == 1
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {202, 409}
    created = [answer for answer in answers if answer.status_code == 202]
    assert len({answer.content for answer in created}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in created) == 1
    for answer in answers:
        if answer.status_code == 409:
            assert answer.json()["type"] == "urn:sweetspot:problem:in-flight"
            assert answer.json()["retryable"] and answer.headers["Retry-After"]


def test_a_key_whose_first_request_is_in_flight_is_409(api: TestClient, spec: Json) -> None:
    def post() -> Any:
        return api.post("/v1/experiments", json=spec, headers={"Idempotency-Key": "k"})

    with ThreadPoolExecutor(1) as pool:
        with engine().begin() as blocking:
            blocking.exec_driver_sql("LOCK TABLE experiments IN EXCLUSIVE MODE")
            first = pool.submit(post)
            with pytest.raises(TimeoutError):
                first.result(0.3)
            refused = post()
        created = first.result()
    assert (refused.status_code, refused.json()["retryable"], refused.headers["Retry-After"]) == (409, True, "1")
    assert created.status_code == 202
    assert post().content == created.content


@pytest.mark.parametrize("key", ["", "x" * 201, "two words", "\u00e9"])
def test_an_unfit_key_is_refused(api: TestClient, spec: Json, key: str) -> None:
    answer = api.post("/v1/experiments", json=spec, headers={"Idempotency-Key": key.encode("latin-1")})  # type: ignore[dict-item]
    assert answer.status_code == 422
    assert count(Experiment) == 0


# Prefer: wait


@pytest.fixture
def slow_finish(work: Any) -> Iterator[Callable[[], None]]:
    """Lets the next experiment finish in a moment, while somebody waits."""
    timers: list[threading.Timer] = []

    def start() -> None:
        timers.append(threading.Timer(0.3, lambda: work.succeed(work.claimed())))
        timers[-1].start()

    yield start
    for timer in timers:
        timer.join()


def test_a_post_may_wait_for_the_end(api: TestClient, spec: Json, slow_finish: Callable[[], None]) -> None:
    slow_finish()
    answer = api.post("/v1/experiments", json=spec, headers={"Prefer": "wait=50"})
    assert (answer.status_code, answer.json()["state"]) == (202, "succeeded")
    assert answer.headers["Preference-Applied"] == "wait=50"


@pytest.mark.parametrize("prefer", ["wait=50", "respond-async, wait=50", "wait=3600; foo"])
def test_a_get_may_wait_for_the_end(api: TestClient, submit: Submit, slow_finish: Callable[[], None], prefer: str) -> None:
    path = f"/v1/experiments/{submit()['id']}"
    slow_finish()
    answer = api.get(path, headers={"Prefer": prefer})
    assert answer.json()["state"] == "succeeded"
    assert answer.headers["Preference-Applied"] in ("wait=50", "wait=60")


def test_a_cancel_may_wait_until_nothing_works_on_it(api: TestClient, submit: Submit, work: Any) -> None:
    path = f"/v1/experiments/{submit()['id']}"
    claim = work.claimed()
    confirm = threading.Timer(0.3, lambda: work.write(lambda session: leases.confirm_cancelled(session, claim)))
    confirm.start()
    assert api.post(f"{path}/cancel", headers={"Prefer": "wait=50"}).json()["state"] == "cancelled"
    confirm.join()


def test_a_sweep_may_be_waited_for(api: TestClient, sweep_spec: Json, slow_finish: Callable[[], None]) -> None:
    one = sweep_spec | {"axis": {"path": "views.sigma", "values": [0.7]}, "seeds": 1}
    slow_finish()
    assert api.post("/v1/sweeps", json=one, headers={"Prefer": "wait=50"}).json()["state"] == "succeeded"


def test_after_n_seconds_it_is_answered_as_it_is(api: TestClient, submit: Submit) -> None:
    answer = api.get(f"/v1/experiments/{submit()['id']}", headers={"Prefer": "wait=1"})
    assert (answer.status_code, answer.json()["state"]) == (200, "queued")
    assert answer.headers["Preference-Applied"] == "wait=1"


@pytest.mark.parametrize("prefer", ["wait=0", "wait=-1", "wait=soon", "wait", "await=9", "return=minimal", ""])
def test_what_is_no_wait_is_not_waited_for(api: TestClient, submit: Submit, prefer: str) -> None:
    answer = api.get(f"/v1/experiments/{submit()['id']}", headers={"Prefer": prefer})
    assert answer.status_code == 200
    assert "Preference-Applied" not in answer.headers


# While a server is away


def failed_rings(api: TestClient) -> float:
    return float(re.findall(r"^sweetspot_ring_failures_total (\S+)$", api.get("/metrics").text, re.MULTILINE)[0])


@pytest.fixture
def no_redis(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    for cached in (settings, bell.celery):
        cached.cache_clear()
    yield
    monkeypatch.undo()
    for cached in (settings, bell.celery):
        cached.cache_clear()


def test_submitting_works_while_redis_is_down_and_is_counted(
    api: TestClient, no_redis: None, submit: Submit, work: Any, sweep_spec: Json
) -> None:
    before = failed_rings(api)
    experiment = submit()
    assert api.post("/v1/sweeps", json=sweep_spec).status_code == 202
    assert failed_rings(api) == before + 2
    assert work.claimed().id == experiment["id"]
    assert api.get("/readyz").status_code == 200


def test_with_redis_there_every_bell_is_rung(api: TestClient, submit: Submit) -> None:
    before = failed_rings(api)
    submit()
    assert failed_rings(api) == before


def test_while_the_database_is_away_it_is_503_and_retryable(
    api: TestClient, spec: Json, monkeypatch: pytest.MonkeyPatch, database: Any
) -> None:
    away = re.sub("port=[0-9]+", "port=1", database.database_url)
    assert away != database.database_url
    monkeypatch.setenv("DATABASE_URL", away)
    caches = (settings, connection.engine, connection._sessions)
    kept = connection.engine()
    for cached in caches:
        cached.cache_clear()
    try:
        for answer in (api.get("/v1/experiments"), api.post("/v1/experiments", json=spec)):
            assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json")
            assert answer.json()["retryable"] and answer.headers["Retry-After"]
        assert (api.get("/healthz").status_code, api.get("/readyz").status_code) == (200, 503)
    finally:
        monkeypatch.undo()
        for cached in caches:
            cached.cache_clear()
        kept.dispose()
    assert api.get("/v1/experiments").status_code == 200


# The service itself


def test_the_roots(api: TestClient) -> None:
    assert api.get("/healthz").json()["status"] == "ok"
    assert api.get("/readyz").json()["status"] == "ready"
    assert set(api.get("/version").json()) == {"version", "code"}
    assert api.get("/", follow_redirects=False).status_code in (200, 307)


def test_an_api_that_starts_anew_finds_everything_as_it_was(api: TestClient, submit: Submit) -> None:
    experiment = submit()
    with TestClient(create_app(), base_url=api.base_url, client=("127.0.0.1", 50000)) as another:
        assert another.get(experiment["links"]["self"]).json() == experiment
    with open_session() as session:
        assert experiments.get(session, experiment["id"]).state == "queued"
