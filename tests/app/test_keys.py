"""Who is let in, what a key may do, how much and how often."""

import asyncio
import io
import os
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from app import rates
from app.authentication import local_path
from app.cli import main
from app.client import AuthError, Sweetspot
from app.embedded import Servers, free_port
from app.errors import Unauthorized
from app.main import create_app
from app.middleware import NOTHING
from app.persistence import files, keys, leases
from app.persistence.database import open_session
from app.persistence.models import ApiKey, Artifact, Experiment, SignIn
from app.routers import experiments
from app.settings import settings
from tests.app.conftest import new_key

Json = dict[str, Any]
Remote = Callable[..., TestClient]
LOOPBACK = ("127.0.0.1", 50000)
UNKNOWN = f"ssk_{'x' * 43}"


@pytest.fixture(autouse=True)
def _fresh(database: Servers) -> Iterator[None]:
    files.remove_folder(settings().uploads_dir)
    yield
    for cached in (rates.rates, rates.failures):
        cached.cache_clear()


@pytest.fixture
def auth(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets SWEETSPOT_AUTH."""

    def auth(value: str) -> None:
        monkeypatch.setenv("SWEETSPOT_AUTH", value)
        settings.cache_clear()

    yield auth
    monkeypatch.undo()
    settings.cache_clear()


def bearer(secret: str) -> Json:
    return {"Authorization": f"Bearer {secret}"}


def problem(answer: Any, status: int, slug: str) -> Json:
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json"), answer.text
    found = dict(answer.json())
    assert found["type"] == f"urn:sweetspot:problem:{slug}"
    assert found["request_id"] == answer.headers["X-Request-Id"]
    return found


# On this machine, and elsewhere


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "localhost:8123", "[::1]:8000", "127.0.0.1"])
def test_on_this_machine_nobody_needs_a_key(host: str) -> None:
    with TestClient(create_app(), base_url="http://127.0.0.1:8000", client=LOOPBACK) as client:
        answer = client.get("/v1/key", headers={"Host": host})
    assert (answer.status_code, answer.json()["id"], answer.json()["owner"]) == (200, None, "local")


@pytest.mark.parametrize(
    ("base_url", "client", "headers"),
    [
        ("http://127.0.0.1:8000", ("192.168.1.9", 50000), {}),
        ("http://192.168.1.2:8000", LOOPBACK, {"Host": "127.0.0.1"}),
        ("http://192.168.1.2:8000", ("192.168.1.9", 50000), {"Host": "localhost"}),
        ("http://127.0.0.1:8000", LOOPBACK, {"Host": "evil.example"}),
        ("http://127.0.0.1:8000", LOOPBACK, {"Host": "127.0.0.1.evil.example"}),
        ("http://127.0.0.1:8000", LOOPBACK, {"Host": "localhost:8000@evil.example"}),
        ("http://127.0.0.1:8000", LOOPBACK, {"Host": ""}),
        ("http://127.0.0.1:8000", LOOPBACK, {"X-Forwarded-For": "127.0.0.1"}),
        ("http://127.0.0.1:8000", LOOPBACK, {"Forwarded": "for=127.0.0.1"}),
        ("http://127.0.0.1:8000", LOOPBACK, {"X-Real-IP": "127.0.0.1"}),
        ("http://127.0.0.1:8000", LOOPBACK, {"Via": "1.1 proxy"}),
        ("http://127.0.0.1:8000", LOOPBACK, {"X-Forwarded-Proto": "https"}),
    ],
)
def test_whatever_may_come_from_elsewhere_needs_one(base_url: str, client: Any, headers: Json) -> None:
    with TestClient(create_app(), base_url=base_url, client=client) as asking:
        found = problem(asking.get("/v1/experiments", headers=headers), 401, "unauthorized")
        assert "sweetspot keys create" in found["detail"]
        assert asking.get("/healthz", headers=headers).status_code == 200
        assert asking.get("/v1/experiments", headers=headers | bearer(new_key("anna")[1])).status_code == 200


def test_keys_can_be_asked_of_everybody_or_of_nobody(auth: Callable[[str], None], api: TestClient, remote: Remote) -> None:
    auth("on")
    assert (api.get("/v1/key").status_code, remote().get("/v1/key").status_code) == (401, 401)
    auth("off")
    assert (api.get("/v1/key").json()["owner"], remote().get("/v1/key").json()["owner"]) == ("local", "local")
    auth("perhaps")
    with pytest.raises(RuntimeError, match="SWEETSPOT_AUTH must be auto, on or off, not 'perhaps'"):
        settings()


OPEN = ["/healthz", "/readyz", "/version", "/openapi.json", "/docs", "/sign-in", "/static/style.css"]


@pytest.mark.parametrize("path", [*OPEN, "/static-offline-docs/swagger-ui.css"])
def test_what_is_open_is_open(remote: Remote, path: str) -> None:
    assert remote().get(path).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/key", "/metrics", "/v1", "/v1/nowhere", "/healthz/../v1/key", "/static/../v1/key", "//v1/key"]
)
def test_the_rest_is_not(remote: Remote, path: str) -> None:
    answer = remote().get(path)
    assert answer.status_code in (401, 404) or answer.headers["Location"].startswith("/sign-in")


def test_a_page_without_a_key_leads_to_the_sign_in(remote: Remote) -> None:
    for path, asked in (
        ("/", "/"),
        ("/compare?a=1&b=2", "/compare%3Fa%3D1%26b%3D2"),
        ("/experiments/exp_1", "/experiments/exp_1"),
    ):
        answer = remote().get(path)
        assert (answer.status_code, answer.headers["Location"]) == (303, f"/sign-in?next={asked}")


# Keys


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_key_lets_in(remote: Remote, scheme: str) -> None:
    key_id, secret = new_key("anna", max_queued=3)
    found = remote().get("/v1/key", headers={"Authorization": f"{scheme} {secret}"}).json()
    assert (found["id"], found["name"], found["owner"], found["scopes"]) == (key_id, "anna's key", "anna", ["read", "submit"])
    assert found["quotas"]["max_queued"] == {"limit": 3, "used": 0}
    assert found["quotas"]["max_running"] == {"limit": None, "used": 0}
    assert secret not in str(found)


def test_the_database_knows_no_secret() -> None:
    _, secret = new_key("anna")
    assert re.fullmatch(r"ssk_[A-Za-z0-9_-]{43}", secret)
    with open_session() as session:
        row = session.scalars(select(ApiKey)).one()
        assert len(row.hash) == 64
        assert secret not in str(vars(row))


@pytest.mark.parametrize("sent", [UNKNOWN, "ssk_", "x", "", "ssk_\u00e9", "ssk_" + "x" * 9000, "a b"])
def test_a_bad_key_is_refused_on_this_machine_too(api: TestClient, sent: str) -> None:
    answer = api.get("/v1/key", headers={"Authorization": f"Bearer {sent}".encode("latin-1")})  # type: ignore[dict-item]
    assert problem(answer, 401, "unauthorized")["detail"] == "there is no such key"
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_other_ways_to_authorize_are_refused(api: TestClient) -> None:
    assert api.get("/v1/key", headers={"Authorization": "Basic YTpi"}).status_code == 401


def test_why_a_key_is_refused_is_told_to_whoever_knows_it(remote: Remote) -> None:
    key_id, secret = new_key("anna", expires_at=datetime(2026, 1, 2, tzinfo=UTC))
    assert problem(remote().get("/v1/key", headers=bearer(secret)), 401, "unauthorized")["detail"] == (
        f"the key {key_id} expired on 2026-01-02"
    )
    key_id, secret = new_key("anna")
    with open_session() as session:
        keys.revoke(session, key_id)
        session.commit()
    assert f"the key {key_id} was revoked on " in remote().get("/v1/key", headers=bearer(secret)).json()["detail"]


def test_the_last_use_is_noted_once_a_minute_and_waits_for_nobody(remote: Remote) -> None:
    client = remote("anna")

    def last_used() -> Any:
        with open_session() as session:
            return session.scalar(select(ApiKey.last_used_at))

    with open_session() as holding:
        holding.execute(select(ApiKey.id).with_for_update())
        assert client.get("/v1/experiments").status_code == 200
    assert last_used() is None
    client.get("/v1/key")
    first = last_used()
    client.get("/v1/key")
    assert first is not None and last_used() == first


SCOPES = [
    ("GET", "/v1/experiments", "read"),
    ("HEAD", "/v1/experiments", "read"),
    ("GET", "/", "read"),
    ("POST", "/v1/experiments", "submit"),
    ("POST", "/v1/previews", "submit"),
    ("DELETE", f"/v1/experiments/exp_{'0' * 32}", "submit"),
    ("GET", "/metrics", "admin"),
]


@pytest.mark.parametrize(("method", "path", "needed"), SCOPES)
def test_a_key_does_what_its_scopes_allow(remote: Remote, method: str, path: str, needed: str) -> None:
    for scope in ("read", "submit", "admin"):
        answer = remote("anna", [scope]).request(method, path)
        if scope in (needed, "admin"):
            assert answer.status_code not in (401, 403)
        else:
            assert answer.status_code == 403
            if method != "HEAD":
                assert problem(answer, 403, "forbidden")["scope"] == needed


def test_too_many_bad_keys_of_one_address_are_429_and_good_ones_pass(remote: Remote) -> None:
    client, good = remote(), bearer(new_key("anna")[1])
    statuses = Counter(client.get("/v1/key", headers=bearer(UNKNOWN)).status_code for _ in range(rates.MOST_FAILURES + 3))
    assert statuses == {401: rates.MOST_FAILURES, 429: 3}
    assert client.get("/v1/key", headers=good).status_code == 200
    refused = client.post("/sign-in", data={"key": UNKNOWN})
    assert problem(refused, 429, "rate-limit") and int(refused.headers["Retry-After"]) <= 60
    with TestClient(create_app(), base_url="https://sweetspot.example", client=("203.0.113.8", 1)) as neighbour:
        assert neighbour.get("/v1/key", headers=bearer(UNKNOWN)).status_code == 401


def test_an_ipv6_address_is_counted_with_its_neighbours() -> None:
    assert rates._place("2001:db8::1") == rates._place("2001:db8::ffff:2") != rates._place("2001:db8:0:1::1")


# Other sites' pages


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_site_changes_nothing(api: TestClient, remote: Remote, spec: Json, headers: Json) -> None:
    assert problem(api.post("/v1/experiments", json=spec, headers=headers), 403, "forbidden")
    signed_in = remote()
    signed_in.post("/sign-in", data={"key": new_key("anna")[1]})
    for path in ("/v1/experiments", "/sign-in", "/sign-out"):
        assert problem(signed_in.post(path, json=spec, headers=headers), 403, "forbidden")
    assert api.get("/v1/experiments", headers=headers).json()["data"] == []


@pytest.mark.parametrize(
    ("setting", "scheme", "status"),
    [("off", "Basic", 403), ("off", "Bearer", 403), ("auto", "Basic", 403), ("auto", "Bearer", 401), ("on", "bearer", 401)],
)
def test_only_a_key_that_is_looked_at_shows_that_no_page_of_another_site_asks(
    api: TestClient, auth: Callable[[str], None], spec: Json, setting: str, scheme: str, status: int
) -> None:
    """Browsers add what a proxy asks for, `Basic`, by themselves."""
    auth(setting)
    headers = {"Origin": "https://evil.example", "Authorization": f"{scheme} {UNKNOWN}"}
    assert api.post("/v1/experiments", json=spec, headers=headers).status_code == status


def test_a_key_is_good_wherever_it_is_sent_from(remote: Remote, spec: Json) -> None:
    headers = {"Origin": "https://another.example", "Sec-Fetch-Site": "cross-site"}
    assert remote("anna").post("/v1/experiments", json=spec, headers=headers).status_code == 202


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]
)
def test_our_own_pages_do(api: TestClient, spec: Json, headers: Json) -> None:
    assert api.post("/v1/experiments", json=spec, headers=headers).status_code == 202


# What lasts


@pytest.mark.parametrize("ends", ["revoked_at", "expires_at"])
def test_a_stream_of_events_ends_with_its_key(
    remote: Remote, api: TestClient, spec: Json, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, begun, look = remote("anna"), threading.Event(), experiments._look
    experiment = client.post("/v1/experiments", json=spec).json()["links"]["self"]

    def look_once(*arguments: Any) -> Any:
        found = look(*arguments)
        begun.set()
        return found

    monkeypatch.setattr(experiments, "_look", look_once)
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(client.get, f"{experiment}/events", headers={"Accept": "text/event-stream"})
        try:
            assert begun.wait(20)
            with open_session() as session:
                session.execute(update(ApiKey).values({ends: func.clock_timestamp()}))
                session.commit()
            text = stream.result(20).text
        finally:
            api.post(f"{experiment}/cancel")  # ends it in any case
    assert "id: 1\nevent: queued\n" in text and "event: cancelled" not in text
    resumed = client.get(f"{experiment}/events", headers={"Accept": "text/event-stream", "Last-Event-ID": "1"})
    assert problem(resumed, 401, "unauthorized")


# Signing in


def test_a_browser_signs_in_and_out(remote: Remote) -> None:
    browser = remote()
    form = browser.get("/sign-in?next=/new")
    assert '<input type="hidden" name="next" value="/new">' in form.text and "Sign out" not in form.text
    answer = browser.post("/sign-in", data={"key": f" {new_key('anna')[1]} ", "next": "/new"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/new")
    cookie = answer.headers["Set-Cookie"]
    for part in ("sweetspot_session=", "HttpOnly", "Max-Age=604799", "Path=/", "SameSite=strict", "Secure"):
        assert part in cookie.replace("604800", "604799"), cookie
    page = browser.get("/new")
    assert page.status_code == 200 and "anna&#39;s key" in page.text and 'action="/sign-out"' in page.text
    assert browser.get("/v1/key").json()["owner"] == "anna"
    kept = browser.cookies["sweetspot_session"]
    assert browser.post("/sign-out").headers["Location"] == "/sign-in"
    assert not browser.cookies
    assert browser.get("/v1/key", headers={"Cookie": f"sweetspot_session={kept}"}).status_code == 401
    with open_session() as session:
        assert session.scalar(select(func.count()).select_from(SignIn)) == 0


def test_a_wrong_key_does_not_sign_in(remote: Remote) -> None:
    answer = remote().post("/sign-in", data={"key": "ssk_wrong<b>", "next": "/new"})
    assert answer.status_code == 401 and answer.headers["Content-Type"].startswith("text/html")
    assert "there is no such key" in answer.text and "ssk_wrong" not in answer.text and 'value="/new"' in answer.text
    assert "Set-Cookie" not in answer.headers


def test_by_plain_http_the_cookie_is_not_kept_for_https(api: TestClient) -> None:
    assert "Secure" not in api.post("/sign-in", data={"key": new_key("anna")[1]}, follow_redirects=False).headers["Set-Cookie"]


def test_a_sign_in_ends_with_its_key(remote: Remote) -> None:
    key_id, secret = new_key("anna", expires_at=datetime.now(UTC) + timedelta(hours=1))
    browser = remote()
    seconds = re.search(r"Max-Age=(\d+)", browser.post("/sign-in", data={"key": secret}).headers["Set-Cookie"])
    assert seconds is not None and 3590 <= int(seconds[1]) <= 3600
    assert browser.get("/v1/key").status_code == 200
    with open_session() as session:
        keys.revoke(session, key_id)
        session.commit()
    assert browser.get("/v1/key").status_code == 401


def test_sign_ins_that_are_over_are_forgotten(remote: Remote) -> None:
    browser = remote()
    browser.post("/sign-in", data={"key": new_key("anna")[1]})
    with open_session() as session:
        session.execute(update(SignIn).values(expires_at=func.now() - timedelta(seconds=1)))
        session.commit()
    assert browser.get("/v1/key").status_code == 401
    with open_session() as session:
        leases.reconcile(session)
        assert session.scalar(select(func.count()).select_from(SignIn)) == 0


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("/new", "/new"),
        ("/compare?a=1&b=2", "/compare?a=1&b=2"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/a\\b", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/\t/evil.example", "/"),
        ("/a\r\nSet-Cookie: b=c", "/"),
        ("", "/"),
    ],
)
def test_after_signing_in_one_stays_here(remote: Remote, asked: str, path: str) -> None:
    assert local_path(asked) == path
    answer = remote().post("/sign-in", data={"key": new_key("anna")[1], "next": asked})
    assert answer.headers["Location"] == path


# Quotas


def test_of_50_posts_at_once_as_many_are_queued_as_may_be(remote: Remote, spec: Json) -> None:
    client = remote("anna", max_queued=7)
    together = threading.Barrier(50)

    def post(_: int) -> Any:
        together.wait()
        return client.post("/v1/experiments", json=spec)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(post, range(50)))
    assert Counter(answer.status_code for answer in answers) == {202: 7, 429: 43}
    refused = next(answer for answer in answers if answer.status_code == 429)
    found = problem(refused, 429, "quota")
    assert (found["quota"], found["limit"], found["used"], found["retryable"]) == ("max_queued", 7, 7, True)
    assert int(refused.headers["Retry-After"]) > 0
    assert client.get("/v1/key").json()["quotas"]["max_queued"] == {"limit": 7, "used": 7}
    assert client.post("/v1/experiments?dry_run=true", json=spec).status_code == 200
    client.post(f"{answers[[answer.status_code for answer in answers].index(202)].headers['Location']}/cancel")
    assert client.post("/v1/experiments", json=spec).status_code == 202


def test_sweeps_retries_searches_and_estimates_count_too(remote: Remote, sweep_spec: Json) -> None:
    client = remote("anna", max_queued=6)
    search = sweep_spec | {"axis": {"path": "views.sigma", "search": {"low": 0.1, "high": 2.5, "trainings": 24}}, "seeds": 1}
    np.savez(arrays := io.BytesIO(), x=np.eye(64), y=np.eye(64))
    assert client.post("/v1/sweeps", json=sweep_spec | {"seeds": 3}).status_code == 429
    sweep = client.post("/v1/sweeps", json=sweep_spec).json()["id"]
    assert client.post("/v1/mi-estimates", files={"file": arrays.getvalue()}).status_code == 429
    assert client.post("/v1/sweeps", json=search).status_code == 429
    client.post(f"/v1/sweeps/{sweep}/cancel")
    assert client.post("/v1/mi-estimates", files={"file": arrays.getvalue()}).status_code == 202
    assert client.post(f"/v1/sweeps/{sweep}/retry").status_code == 429
    assert client.post("/v1/sweeps", json=search).status_code == 202
    assert client.get("/v1/key").json()["quotas"]["max_queued"]["used"] == 2
    assert not [*files.incoming().glob("*")]


def test_previews_count_too(remote: Remote, spec: Json, work: Any) -> None:
    client = remote("anna", max_queued=1)
    answers = [client.post("/v1/previews", json=spec, headers={"Prefer": "wait=0"}) for _ in range(8)]
    assert [answer.status_code for answer in answers] == [202] + [429] * 7
    assert problem(answers[-1], 429, "quota")["used"] == client.get("/v1/key").json()["quotas"]["max_queued"]["used"] == 1
    assert client.post("/v1/experiments", json=spec).status_code == 429
    assert work.write(lambda session: leases.claim_preview(session, "worker-1", 60)) is not None
    assert client.post("/v1/experiments", json=spec).status_code == 202


def test_what_experiments_leave_counts_as_stored(remote: Remote, spec: Json, work: Any) -> None:
    client = remote("anna", max_stored_bytes=1000)
    experiment = client.post("/v1/experiments", json=spec).json()["id"]
    work.succeed(work.claimed(), artifacts={"embeddings.npz": b"x" * 1001})
    assert client.get("/v1/key").json()["quotas"]["max_stored_bytes"]["used"] == 1001
    assert problem(client.post("/v1/experiments", json=spec), 429, "quota")["quota"] == "max_stored_bytes"
    assert client.delete(f"/v1/experiments/{experiment}").status_code == 204
    assert client.post("/v1/experiments", json=spec).status_code == 202


def test_what_a_key_stores_is_limited(remote: Remote) -> None:
    client = remote("anna", max_stored_bytes=100_000)
    first = client.post("/v1/datasets", files={"file": b"P" * 60_000})
    assert first.status_code == 202
    assert client.get("/v1/key").json()["quotas"]["max_stored_bytes"] == {"limit": 100_000, "used": 60_000}
    found = problem(client.post("/v1/datasets", files={"file": b"Q" * 60_000}), 429, "quota")
    assert (found["quota"], found["limit"], found["used"]) == ("max_stored_bytes", 100_000, 60_000)
    assert not [*files.incoming().glob("*")]


def test_an_upload_beyond_the_quota_is_refused_before_it_is_read(remote: Remote) -> None:
    client, read = remote("anna", max_stored_bytes=1000), []

    def body(told: int) -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(told):
            read.append(1)
            yield bytes(2**16)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    told = client.post("/v1/datasets", content=body(4), headers=headers | {"Content-Length": str(2**18)})
    assert problem(told, 429, "quota")
    assert problem(client.post("/v1/datasets", content=body(40), headers=headers), 429, "quota")
    assert not [*files.incoming().glob("*")]


@pytest.mark.parametrize("told", [True, False])
def test_uploads_that_come_at_once_share_what_room_there_is(remote: Remote, told: bool) -> None:
    client = remote("anna", max_stored_bytes=1_000_000)
    begin, end = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n', b"\r\n--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Authorization": client.headers["Authorization"]}
    other, meanwhile = begin + bytes(700_000) + end, []

    async def post() -> int:
        here = httpx.ASGITransport(create_app(), client=("203.0.113.7", 50000))  # which passes each piece on as it comes
        async with httpx.AsyncClient(transport=here, base_url="https://sweetspot.example", headers=headers) as at_once:

            async def pieces() -> AsyncIterator[bytes]:
                yield other

            async def body() -> AsyncIterator[bytes]:
                yield begin + bytes(800_000)
                for _ in range(3):
                    meanwhile.append(await at_once.post("/v1/datasets", content=other if told else pieces()))
                yield end

            return (await at_once.post("/v1/datasets", content=body())).status_code

    assert asyncio.run(post()) == 202
    assert [problem(answer, 429, "quota")["quota"] for answer in meanwhile] == ["max_stored_bytes"] * 3
    assert client.post("/v1/datasets", files={"file": bytes(200_000)}).status_code == 202
    assert not [*files.incoming().glob("*")]


def test_as_many_run_as_may(remote: Remote, spec: Json, work: Any) -> None:
    limited, other = remote("anna", max_running=2), remote("bert")
    mine = [limited.post("/v1/experiments", json=spec).json()["id"] for _ in range(4)]
    theirs = other.post("/v1/experiments", json=spec).json()["id"]
    claims = [work.claimed() for _ in range(3)]
    assert [claim.id for claim in claims] == [mine[0], mine[1], theirs]
    assert work.claim() is None
    assert limited.get("/v1/key").json()["quotas"]["max_running"] == {"limit": 2, "used": 2}
    work.succeed(claims[0])
    assert work.claimed().id == mine[2]
    assert work.claim() is None


def test_two_workers_at_the_same_instant_do_not_take_one_too_many(remote: Remote, spec: Json, work: Any) -> None:
    limited = remote("anna", max_running=3)
    for _ in range(12):
        limited.post("/v1/experiments", json=spec)
    other = remote("bert").post("/v1/experiments", json=spec).json()["id"]
    together = threading.Barrier(8)

    def claim(number: int) -> Any:
        together.wait()
        return work.claim(f"worker-{number}")

    with ThreadPoolExecutor(8) as pool:
        taken = [claim for claim in pool.map(claim, range(8)) if claim is not None]
    assert len(taken) == 4 and other in [claim.id for claim in taken]


# Rates


@pytest.mark.parametrize("redis", ["there", "away"])
def test_a_key_asks_as_often_as_it_may(remote: Remote, redis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if redis == "away":
        monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
        settings.cache_clear()
    try:
        client = remote("anna", per_minute=5)
        answers = [client.get("/v1/key") for _ in range(6)]
        assert [answer.headers["RateLimit-Remaining"] for answer in answers] == ["4", "3", "2", "1", "0", "0"]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        assert problem(answers[-1], 429, "rate-limit")["retryable"]
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
        assert answers[0].headers["RateLimit-Limit"] == "5"
        assert answers[0].json()["quotas"]["per_minute"] == {"limit": 5, "used": 1}
        assert remote("anna").get("/v1/key").headers.get("RateLimit-Limit") is None
        shared = rates.Rates(settings().redis_url)  # another process of the API
        assert [rates.rates().count("key", 1).good, shared.count("key", 1).good] == [True, redis == "away"]
    finally:
        monkeypatch.undo()
        settings.cache_clear()


def test_a_redis_that_does_not_answer_is_asked_once_in_ten_seconds() -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # takes connections and says nothing
    counted = rates.Rates(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
    assert all(counted.count("key", 100).good for _ in range(20))
    silent.setblocking(False)
    silent.accept()[0].close()
    with pytest.raises(BlockingIOError):  # nobody else has knocked
        silent.accept()
    silent.close()


# What browsers are told


def test_every_answer_says_what_browsers_may_do_with_it(api: TestClient, remote: Remote, work: Any, spec: Json) -> None:
    experiment = api.post("/v1/experiments", json=spec).json()["id"]
    evil = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    work.succeed(work.claimed(), artifacts={"a.html": b"<script>alert(1)</script>", "a.svg": evil})
    path = f"/v1/experiments/{experiment}/artifacts"
    with open_session() as session:
        session.execute(update(Artifact).where(Artifact.name == "a.svg").values(media_type="image/svg+xml"))
        session.execute(update(Artifact).where(Artifact.name == "a.html").values(media_type="text/html"))
        session.commit()
    answers = {
        where: api.get(where)
        for where in (
            "/",
            "/v1/experiments",
            "/nowhere",
            "/docs",
            "/static/style.css",
            f"{path}/a.svg",
            f"{path}/a.html",
            "/metrics",
        )
    }
    answers["401"] = remote().get("/v1/key")
    for where, answer in answers.items():
        assert answer.headers["X-Content-Type-Options"] == "nosniff", where
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        for secure in ("Strict-Transport-Security", "Cross-Origin-Opener-Policy"):
            assert (secure in answer.headers) == (where == "401")
    policies = {where: answer.headers["Content-Security-Policy"] for where, answer in answers.items()}
    assert policies["/v1/experiments"] == policies[f"{path}/a.html"] == policies["401"] == NOTHING
    assert "default-src 'none'" in policies[f"{path}/a.svg"] and "sandbox" in policies[f"{path}/a.svg"]
    assert policies["/"].startswith("default-src 'self'") and "script-src" not in policies["/"]


def test_a_defect_of_ours_says_so_too(api: TestClient, spec: Json) -> None:
    experiment = api.post("/v1/experiments", json=spec).json()["id"]
    with open_session() as session:
        session.execute(update(Experiment).values(spec={"this": "is no spec"}))
        session.commit()
    answer = api.get(f"/v1/experiments/{experiment}")
    assert (answer.status_code, answer.headers["Content-Security-Policy"]) == (500, NOTHING)


def test_no_secret_is_told_or_logged(remote: Remote, capsys: pytest.CaptureFixture[str], spec: Json) -> None:
    client = remote("anna")
    secret = client.headers["Authorization"].removeprefix("Bearer ")
    told = [
        client.post("/v1/experiments", json=spec | {"name": {"key": secret}}),
        client.post("/v1/experiments", json=spec | {"dataset": {"name": secret}}),
        client.get(f"/v1/experiments?state={secret}"),
        client.get(f"/v1/experiments/{secret}"),
        client.post(f"/v1/presets/{secret}/run"),
        client.get("/v1/key", headers={"X-Request-Id": secret}),
        client.post("/sign-in", data={"key": f"{secret}x"}),
    ]
    assert [answer.status_code for answer in told] == [422, 422, 422, 404, 404, 200, 401]
    assert not [answer.text for answer in told if secret in answer.text]
    assert secret not in "".join(capsys.readouterr())


# The command line and the client


@pytest.fixture
def sweetspot(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("COLUMNS", "200")

    def sweetspot(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sweetspot", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    return sweetspot


def test_keys_are_made_listed_and_revoked(sweetspot: Callable[..., Any], remote: Remote) -> None:
    limits = ["--max-queued", "5", "--max-running", "2", "--max-stored-bytes", "1000", "--per-minute", "0", "--expires", "30d"]
    status, secret, told = sweetspot("keys", "create", "ci", "--owner", "anna", "--scope", "read", *limits)
    assert status == 0 and re.fullmatch(r"ssk_[A-Za-z0-9_-]{43}\n", secret) and secret.strip() not in told
    found = remote().get("/v1/key", headers=bearer(secret.strip())).json()
    assert (found["name"], found["owner"], found["scopes"]) == ("ci", "anna", ["read"])
    assert {name: quota["limit"] for name, quota in found["quotas"].items()} == {
        "max_queued": 5,
        "max_running": 2,
        "max_stored_bytes": 1000,
        "per_minute": None,
    }
    assert 29 <= (datetime.fromisoformat(found["expires_at"]) - datetime.now(UTC)).days <= 30
    _, listed, _ = sweetspot("keys", "list")
    assert found["id"] in listed and "anna" in listed and secret.strip() not in listed
    assert sweetspot("keys", "revoke", found["id"])[0] == 0
    assert "revoked" in sweetspot("keys", "list")[1]
    with open_session() as session, pytest.raises(Unauthorized, match="was revoked on"):
        keys.caller(session, secret.strip())
    status, _, told = sweetspot("keys", "revoke", "key_17")
    assert status == 1 and "there is no key 'key_17'" in told


def test_a_new_key_reads_and_submits_600_times_a_minute_for_90_days(sweetspot: Callable[..., Any], remote: Remote) -> None:
    found = remote().get("/v1/key", headers=bearer(sweetspot("keys", "create", "me")[1].strip())).json()
    assert (found["owner"], found["scopes"], found["quotas"]["per_minute"]["limit"]) == ("me", ["read", "submit"], 600)
    assert 89 <= (datetime.fromisoformat(found["expires_at"]) - datetime.now(UTC)).days <= 90
    forever = sweetspot("keys", "create", "me", "--expires", "none")[1].strip()
    assert remote().get("/v1/key", headers=bearer(forever)).json()["expires_at"] is None


@pytest.mark.parametrize("arguments", [["--expires", "soon"], ["--expires", "0d"], ["--scope", "write"], ["--max-queued", "0"]])
def test_a_key_that_cannot_be_is_refused(sweetspot: Callable[..., Any], arguments: list[str]) -> None:
    assert sweetspot("keys", "create", "me", *arguments)[0] == 2


def test_keys_need_a_database(sweetspot: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("SWEETSPOT_DATA_DIR", str(tmp_path))
    settings.cache_clear()
    try:
        status, secret, told = sweetspot("keys", "create", "me")
        assert (status, secret) == (1, "") and "DATABASE_URL is not set" in told
    finally:
        monkeypatch.undo()
        settings.cache_clear()


def test_an_api_for_others_does_not_start_without_a_key(
    sweetspot: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, auth: Callable[[str], None]
) -> None:
    started: list[str] = []
    monkeypatch.setattr("app.cli._become", lambda *arguments: started.append(os.environ["SWEETSPOT_AUTH"]))
    auth("auto")
    status, _, told = sweetspot("api", "--host", "0.0.0.0")
    assert status == 1 and "sweetspot keys create me --scope admin" in told and not started
    assert sweetspot("api", "--host", "127.0.0.1")[0] == 0
    auth("off")
    status, _, told = sweetspot("api", "--host", "0.0.0.0")
    assert status == 0 and "warning: SWEETSPOT_AUTH is off" in told
    auth("auto")
    new_key("anna")
    assert sweetspot("api", "--host", "::")[0] == 0
    assert started == ["auto", "off", "on"]


def test_the_client_sends_its_key_and_does_not_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = UNKNOWN
    monkeypatch.setenv("SWEETSPOT_KEY", f"{secret}\n")
    for client in (Sweetspot("http://127.0.0.1:1"), Sweetspot("http://127.0.0.1:1", key=secret)):
        assert client._http.headers["Authorization"] == f"Bearer {secret}"
        assert secret not in repr(client) and secret not in repr(vars(client))


def test_the_client_says_what_a_key_lacks(remote: Remote, spec: Json) -> None:
    with Sweetspot("http://127.0.0.1:1", key=new_key("anna", ["read"])[1]) as service:
        headers = service._http.headers
        service._http = remote()
        service._http.headers.update({"Authorization": headers["Authorization"]})
        assert list(service.experiments()) == []
        with pytest.raises(AuthError, match="it takes a key with the scope `submit`; this one has read"):
            service.submit(spec)
        service._http.headers["Authorization"] = f"Bearer {UNKNOWN}"
        with pytest.raises(AuthError, match="there is no such key"):
            list(service.experiments())
    with pytest.raises(Exception, match="look at SWEETSPOT_KEY") as error:
        Sweetspot("http://127.0.0.1:1", key="ssk_a\nb")
    assert "ssk_a" not in str(error.value)


def test_a_help_of_keys_is_there_at_once() -> None:
    done = subprocess.run([sys.executable, "-m", "app.cli", "keys", "--help"], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in ("create", "list", "revoke"))
