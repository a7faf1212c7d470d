"""Log lines: whose they are, how they look, and what never stands in them."""

import json
import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import structlog
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.embedded import free_port
from app.logs import configure_logs, redacted
from app.persistence import bell, files
from app.persistence.database import engine
from app.settings import SettingsError, settings

Json = dict[str, Any]
SECRET = "s3cret-pa55"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[Json]]]:
    """What was logged since, as JSON."""
    before = warnings.showwarning
    monkeypatch.setenv("SWEETSPOT_LOG_FORMAT", "json")
    settings.cache_clear()
    configure_logs()
    capsys.readouterr()
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    monkeypatch.undo()
    settings.cache_clear()
    logging.captureWarnings(False)
    warnings.showwarning = before
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


@pytest.fixture
def json_api(database: Any, lines: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    from app.main import create_app  # noqa: PLC0415

    here: Json = {"base_url": "http://127.0.0.1:8000", "client": ("127.0.0.1", 50000)}
    with TestClient(create_app(), **here, raise_server_exceptions=False) as client:
        yield client


# Whose they are


def test_every_line_of_a_request_carries_its_id(json_api: TestClient, spec: Json, lines: Any, monkeypatch: Any) -> None:
    """Those of the doorbell and of the database as well, which know nothing of requests."""
    monkeypatch.setenv("REDIS_URL", f"redis://:{SECRET}@127.0.0.1:{free_port()}/0")
    for cached in (settings, bell.celery):
        cached.cache_clear()
    try:
        answer = json_api.post("/v1/experiments", json=spec, headers={"X-Request-Id": "mine"})
    finally:
        bell.celery.cache_clear()
    assert answer.status_code == 202
    told = lines()
    assert [line["event"] for line in told] == ["the doorbell could not be rung", "POST /v1/experiments"]
    assert all(line["request_id"] == "mine" for line in told)
    assert json_api.get("/v1/nowhere").status_code == 404
    (other,) = lines()
    assert other["request_id"] != "mine"


def test_a_defect_is_logged_once_with_id_and_traceback(json_api: TestClient, lines: Any, monkeypatch: Any) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"postgresql://sweetspot:{SECRET}@db/x")

    monkeypatch.setattr("app.routers.experiments.experiments.page", broken)
    answer = json_api.get("/v1/experiments", headers={"X-Request-Id": "mine"})
    assert answer.status_code == 500
    (told,) = [line for line in lines() if line["event"] == "unexpected error"]
    assert told["request_id"] == "mine" and "RuntimeError" in told["exception"]
    assert SECRET not in json.dumps(told) + answer.text


def test_who_asks_by_a_key_is_in_the_line(remote: Any, spec: Json, lines: Any) -> None:
    client = remote("ada")
    secret = client.headers["Authorization"].removeprefix("Bearer ")
    lines()
    assert client.post("/v1/experiments", json=spec).status_code == 202
    told = lines()
    assert {line["owner"] for line in told} == {"ada"} and all(line["key"] for line in told)
    assert secret.startswith("ssk_") and secret not in json.dumps(told)


# How they look


def test_json_has_full_times_in_utc_and_the_level(lines: Any) -> None:
    structlog.get_logger().warning("something", number=3)
    (line,) = lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert line == {"event": "something", "level": "warning", "number": 3}


@pytest.mark.parametrize("name", ["uvicorn.error", "celery.worker.consumer", "alembic", "py.warnings"])
def test_others_records_look_as_ours(lines: Any, name: str) -> None:
    structlog.contextvars.bind_contextvars(request_id="mine")
    logging.getLogger(name).warning("cannot reach %s", f"redis://:{SECRET}@host/0")
    (line,) = lines()
    assert line["event"] == "cannot reach redis://:[redacted]@host/0"
    assert (line["level"], line["request_id"]) == ("warning", "mine")


def test_pythons_warnings_are_lines_too(lines: Any) -> None:
    warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "DeprecationWarning: old" in lines()[0]["event"]


def test_configuring_twice_tells_once(lines: Any) -> None:
    configure_logs()
    logging.getLogger("celery").error("x")
    structlog.get_logger().error("y")
    assert [line["event"] for line in lines()] == ["x", "y"]


LOGFMT = r'timestamp=\S+Z level=info event="two words"'
FORMATS = {
    "logfmt": LOGFMT,
    "auto": LOGFMT,
    "console": r"\d\d:\d\d:\d\d \[info     \] two words",
    "json": r'\{.*"event": "two words".*\}',
}


@pytest.mark.parametrize(("shown", "expected"), FORMATS.items())
def test_formats(lines: Any, monkeypatch: Any, capsys: pytest.CaptureFixture[str], shown: str, expected: str) -> None:
    monkeypatch.setenv("SWEETSPOT_LOG_FORMAT", shown)
    settings.cache_clear()
    configure_logs()
    structlog.get_logger().info("two words")
    assert re.fullmatch(expected, capsys.readouterr().err.strip())


def test_a_line_break_in_a_path_begins_no_line(json_api: TestClient, monkeypatch: Any, capsys: Any) -> None:
    for shown in ("logfmt", "json"):
        monkeypatch.setenv("SWEETSPOT_LOG_FORMAT", shown)
        settings.cache_clear()
        configure_logs()
        json_api.get("/nowhere%0Aforged")
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_level_is_the_least_that_is_told(lines: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("SWEETSPOT_LOG_LEVEL", "error")
    settings.cache_clear()
    configure_logs()
    structlog.get_logger().warning("no")
    logging.getLogger("uvicorn.error").warning("no")
    structlog.get_logger().error("yes")
    assert [line["event"] for line in lines()] == ["yes"]


@pytest.mark.parametrize(("name", "value"), [("FORMAT", "xml"), ("LEVEL", "loud")])
def test_other_settings_are_refused(lines: Any, monkeypatch: Any, name: str, value: str) -> None:
    monkeypatch.setenv(f"SWEETSPOT_LOG_{name}", value)
    settings.cache_clear()
    with pytest.raises(SettingsError, match=f"SWEETSPOT_LOG_{name} must be one of .*, not '{value}'"):
        configure_logs()


def test_uvicorn_itself_speaks_json(database: Any) -> None:
    """Its lines about its start and its end, from a process of its own. Of requests it says nothing: theirs are our lines."""
    import os  # noqa: PLC0415

    command = [sys.executable, "-m", "uvicorn", "app.main:create_app", "--factory", "--port", str(port := free_port())]
    environment = os.environ | {"SWEETSPOT_LOG_FORMAT": "json"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
    assert process.stderr is not None
    told = [json.loads(process.stderr.readline()) for _ in range(4)]
    assert httpx.get(f"http://127.0.0.1:{port}/v1/nowhere?q={SECRET}").status_code == 404
    process.terminate()
    rest = process.communicate(timeout=30)
    told += [json.loads(line) for line in rest[1].splitlines()]
    assert rest[0] == ""
    assert any("Started server process" in line["event"] for line in told)
    assert [line["event"] for line in told if "nowhere" in line["event"]] == ["GET /v1/nowhere"]
    assert SECRET not in rest[1]


# What never stands in them

TEXTS = [
    f"connection to postgresql://user:{SECRET}@host:5432/db failed",
    f"postgresql+psycopg://user:{SECRET}@/db?host=%2Ftmp",
    f"Error while reading from redis://:{SECRET}@127.0.0.1:6379/0",
    f"postgresql://user:p@{SECRET}@host/db",
    f"postgresql://user:a/{SECRET}@host/db",
    f"Authorization: Bearer {SECRET}",
    f"{{'authorization': 'Bearer {SECRET}'}}",
    f"[(b'authorization', b'Basic {SECRET}')]",
    f"curl -H 'Authorization: {SECRET}'",
    f"ssk_{SECRET} is no key",
    f"host=db user=u password={SECRET} dbname=x",
    f"{{'password': '{SECRET}'}}",
]


@pytest.mark.parametrize("words", TEXTS)
@pytest.mark.parametrize("shown", ["json", "logfmt", "console"])
def test_no_secret_reaches_a_line(lines: Any, monkeypatch: Any, capsys: Any, words: str, shown: str) -> None:
    monkeypatch.setenv("SWEETSPOT_LOG_FORMAT", shown)
    settings.cache_clear()
    configure_logs()
    log = structlog.get_logger()
    log.error(words, error=words, held={"deep": [words]}, headers={"Authorization": SECRET}, thing=RuntimeError(words))
    try:
        raise OSError(words)
    except OSError:
        log.exception("it failed")
        logging.getLogger("uvicorn.error").exception("it failed: %s", words)
    told = capsys.readouterr().err
    assert "it failed" in told and SECRET not in told


@pytest.mark.parametrize(
    "words",
    ["http://127.0.0.1:8000/v1/experiments", "the key's owner", "basic stem", "loss: 0.3, step 5", "mail to a@b.example"],
)
def test_what_is_no_secret_stays(words: str) -> None:
    assert redacted(words) == words


def test_a_problem_document_repeats_no_secret(json_api: TestClient, spec: Json, lines: Any) -> None:
    answer = json_api.post("/v1/experiments", json=spec | {"seed": f"ssk_{SECRET}"})
    assert answer.status_code == 422
    assert SECRET not in answer.text and "ssk_[redacted]" in answer.text
    assert SECRET not in json.dumps(lines())


def test_an_error_of_the_database_says_nothing_of_what_was_sent(database: Any) -> None:
    with pytest.raises(Exception) as caught, engine().connect() as link:
        link.execute(text("SELECT 1 / length(:sent) + 'x'::int"), {"sent": SECRET})
    assert SECRET not in str(caught.value)


def test_a_database_that_is_away_is_logged_without_its_password(json_api: TestClient, lines: Any, monkeypatch: Any) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("SELECT 1", None, RuntimeError(f"connection to postgresql://u:{SECRET}@db/x failed"))

    monkeypatch.setattr("app.routers.experiments.experiments.page", away)
    answer = json_api.get("/v1/experiments")
    assert answer.status_code == 503
    told = lines()
    assert "the database does not answer" in [line["event"] for line in told]
    assert SECRET not in json.dumps(told) + answer.text


def test_what_an_attempt_printed_is_answered_without_secrets(json_api: TestClient, spec: Json) -> None:
    experiment = json_api.post("/v1/experiments", json=spec).json()
    path = files.attempt_folder(experiment["id"], 1) / files.LOG
    path.parent.mkdir(parents=True)
    path.write_text(f"step 1\nthe database does not answer: postgresql://u:{SECRET}@db/x\n")
    answer = json_api.get(f"/v1/experiments/{experiment['id']}/logs?attempt=1")
    assert answer.text == "step 1\nthe database does not answer: postgresql://u:[redacted]@db/x\n"


def test_what_only_looks_like_the_beginning_of_a_url_stays(lines: Any) -> None:
    """However often it does: this would take hours in a time that grows as the square."""
    assert redacted("a://b:" * 20_000) == "a://b:" * 20_000
