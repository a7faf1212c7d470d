"""The client against a real HTTP server that answers as it is told."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app import runtime
from app.client import (
    ConflictError,
    InvalidError,
    NotFoundError,
    ProblemError,
    Sweetspot,
    SweetspotError,
    UnavailableError,
    UnreachableError,
    WaitTimeoutError,
)
from app.embedded import free_port
from app.settings import settings

Answer = tuple[int, dict[str, str], bytes] | None
JSON = {"Content-Type": "application/json"}


class Service:
    """Answers the requests in turn with `answers`, the last one again and again; None hangs up without an answer."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                service.requests.append((self.command, self.path, dict(self.headers), body))
                answer = service.answers.pop(0) if len(service.answers) > 1 else service.answers[0]
                if answer is None:
                    self.close_connection = True
                    return
                status, headers, content = answer
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def headers(self, name: str) -> list[str | None]:
        return [{key.lower(): value for key, value in headers.items()}.get(name.lower()) for _, _, headers, _ in self.requests]


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    thread = threading.Thread(target=service.server.serve_forever, args=(0.02,))
    thread.start()
    yield service
    service.server.shutdown()
    thread.join()
    service.server.server_close()


def answer(status: int, content: Any, **headers: str) -> Answer:
    return status, {**JSON, **headers}, json.dumps(content).encode()


def problem(status: int, **more: Any) -> Answer:
    document = {"type": "urn:x", "title": "No", "status": status, "detail": "because", "errors": [], "request_id": "r1", **more}
    return status, {"Content-Type": "application/problem+json"}, json.dumps(document).encode()


QUEUED = answer(202, {"id": "exp_1", "state": "queued"})


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, InvalidError), (404, NotFoundError), (409, ConflictError), (422, InvalidError), (418, ProblemError)],
)
def test_a_problem_document_becomes_its_error(service: Service, status: int, kind: type[ProblemError]) -> None:
    service.answers = [problem(status)]
    with Sweetspot(service.url) as client, pytest.raises(kind) as caught:
        client.get("exp_1")
    assert type(caught.value) is kind
    assert str(caught.value) == "No: because"
    assert len(service.requests) == 1


def test_the_fields_at_fault_are_listed_a_line_each(service: Service) -> None:
    errors = [{"pointer": "/views/sigma", "message": "unknown field"}, {"pointer": "/mi/k", "message": "2 to 512, not 1"}]
    service.answers = [problem(422, errors=errors)]
    with Sweetspot(service.url) as client, pytest.raises(InvalidError) as caught:
        client.submit({"dataset": {"name": "digits"}})
    assert str(caught.value) == "No:\n  /views/sigma: unknown field\n  /mi/k: 2 to 512, not 1"
    assert caught.value.errors == [("/views/sigma", "unknown field"), ("/mi/k", "2 to 512, not 1")]


def test_an_error_that_is_no_problem_document_is_still_told(service: Service) -> None:
    service.answers = [(500, {"Content-Type": "text/html"}, b"<html>")]
    with Sweetspot(service.url) as client, pytest.raises(ProblemError, match="500 Internal Server Error"):
        client.get("exp_1")


@pytest.mark.parametrize("trouble", [None, problem(503, retryable=True), problem(409, retryable=True), (502, {}, b"")])
def test_trouble_is_tried_again_under_the_same_key(service: Service, trouble: Answer) -> None:
    service.answers = [trouble, trouble, QUEUED]
    with Sweetspot(service.url) as client:
        assert client.submit({"seed": 1})["id"] == "exp_1"
    assert len(service.requests) == 3
    assert len(set(service.headers("Idempotency-Key"))) == 1
    assert len({body for *_, body in service.requests}) == 1


def test_two_submissions_have_two_keys(service: Service) -> None:
    service.answers = [QUEUED]
    with Sweetspot(service.url) as client:
        client.submit({})
        client.sweep({})
        client.run_preset("digits-noise", seed=3)
        client.retry("exp_1")
    keys = service.headers("Idempotency-Key")
    assert None not in keys
    assert len(set(keys)) == 4
    paths = [path for _, path, _, _ in service.requests]
    assert paths == ["/v1/experiments", "/v1/sweeps", "/v1/presets/digits-noise/run", "/v1/experiments/exp_1/retry"]
    assert json.loads(service.requests[2][3]) == {"seed": 3}


def test_patience_ends(service: Service) -> None:
    service.answers = [problem(503, retryable=True)]
    with Sweetspot(service.url, patience=0.3) as client, pytest.raises(UnavailableError):
        client.get("exp_1")
    assert len(service.requests) > 1


def test_a_service_that_is_not_there_is_told_with_what_starts_it() -> None:
    with (
        Sweetspot(f"http://127.0.0.1:{free_port()}", patience=0.1) as client,
        pytest.raises(UnreachableError, match="sweetspot up"),
    ):
        client.get("exp_1")


def test_the_key_goes_along(service: Service) -> None:
    service.answers = [answer(200, {"data": []})]
    with Sweetspot(service.url, key="secret") as client:
        client.catalog("views")
    assert service.headers("Authorization") == ["Bearer secret"]


def test_a_spec_that_is_not_json_and_an_id_that_is_none_are_refused_here(service: Service) -> None:
    with Sweetspot(service.url) as client:
        with pytest.raises(SweetspotError, match="JSON"):
            client.submit({"views": {"sigma": float("nan")}})
        with pytest.raises(SweetspotError, match="exp_"):
            client.get("nonsense")
    assert service.requests == []


def test_waiting_asks_the_service_to_wait_and_tells_of_changes(service: Service) -> None:
    states = [{"id": "exp_1", "state": state} for state in ("queued", "running", "running", "succeeded")]
    service.answers = [answer(200, state) for state in states]
    seen: list[str] = []
    with Sweetspot(service.url) as client:
        found = client.wait("exp_1", on_change=lambda found: seen.append(found["state"]))
    assert found["state"] == "succeeded"
    assert seen == ["queued", "running", "succeeded"]
    assert service.headers("Prefer") == ["wait=1"] * 4


def test_waiting_without_an_audience_waits_long_and_has_an_end(service: Service) -> None:
    service.answers = [answer(200, {"id": "swp_1", "state": "running"})]
    with Sweetspot(service.url) as client, pytest.raises(WaitTimeoutError, match="still running"):
        client.wait("swp_1", timeout=0)
    service.answers = [answer(200, {"id": "swp_1", "state": "failed"})]
    with Sweetspot(service.url) as client:
        assert client.wait("swp_1")["state"] == "failed"
    assert service.headers("Prefer") == [None, "wait=60"]


def test_a_preview_is_fetched_where_it_will_be(service: Service) -> None:
    service.answers = [
        answer(202, {}, Location="/v1/previews/prv_1"),
        answer(202, {}, Location="/v1/previews/prv_1"),
        (200, {}, b"PNG"),
    ]
    with Sweetspot(service.url) as client:
        assert client.preview({"name": "digits"}, {"kind": "noise"}) == b"PNG"
    assert [path for _, path, _, _ in service.requests] == ["/v1/previews", "/v1/previews/prv_1", "/v1/previews/prv_1"]


def test_an_upload_that_is_tried_again_is_sent_whole_again(service: Service, tmp_path: Path) -> None:
    (tmp_path / "mine.zip").write_bytes(b"PK" * 100_000)
    service.answers = [problem(503, retryable=True), answer(202, {"id": "ds_1", "state": "processing"})]
    with Sweetspot(service.url) as client:
        assert client.upload(tmp_path / "mine.zip", layout="photos")["id"] == "ds_1"
    assert len(set(service.headers("Idempotency-Key"))) == 1
    for _, path, headers, body in service.requests:
        assert path == "/v1/datasets" and headers["Content-Type"].startswith("multipart/form-data; boundary=")
        assert b'name="layout"\r\n\r\nphotos\r\n' in body and b'filename="mine.zip"' in body
        assert b"PK" * 100_000 in body and body.index(b"photos") < body.index(b"PK")


def test_lists_go_on_over_the_pages(service: Service) -> None:
    service.answers = [
        answer(200, {"data": [{"id": "exp_2"}], "has_more": True, "next_cursor": "exp_2"}),
        answer(200, {"data": [{"id": "exp_1"}], "has_more": False, "next_cursor": None}),
    ]
    with Sweetspot(service.url) as client:
        assert [found["id"] for found in client.experiments(state="failed")] == ["exp_2", "exp_1"]
    assert [path for _, path, _, _ in service.requests] == [
        "/v1/experiments?state=failed",
        "/v1/experiments?state=failed&cursor=exp_2",
    ]


def test_a_curve_comes_parsed_or_as_a_file(service: Service) -> None:
    service.answers = [answer(200, {"points": []}), (200, {}, b"<svg/>")]
    with Sweetspot(service.url) as client:
        assert client.curve("swp_1") == {"points": []}
        assert client.curve("swp_1", "svg") == b"<svg/>"
    assert [path for _, path, _, _ in service.requests] == ["/v1/sweeps/swp_1/curve.json", "/v1/sweeps/swp_1/curve.svg"]


def test_events_go_on_after_the_last_one_when_the_stream_breaks(service: Service) -> None:
    def stream(*seqs: int, broken: bool = False) -> Answer:
        text = "".join(f'id: {seq}\nevent: stage\ndata: {{"seq": {seq}}}\n\n: still here\n\n' for seq in seqs)
        text += 'event: progress\ndata: {"step": 1}\n\n'
        length = {"Content-Length": str(len(text) + 10)} if broken else {}
        return 200, {"Content-Type": "text/event-stream", **length}, text.encode()

    service.answers = [
        stream(1, 2, broken=True),
        answer(200, {"state": "running"}),
        stream(3),
        answer(200, {"state": "succeeded"}),
        answer(200, {"data": []}),
    ]
    with Sweetspot(service.url) as client:
        events = list(client.events("exp_1"))
    assert [event.id for event in events if event.id] == [1, 2, 3]
    assert [event.data for event in events if event.type == "progress"] == [{"step": 1}] * 2
    assert [value for value in service.headers("Last-Event-ID") if value] == ["0", "2"]


def test_the_url_is_the_environments_else_the_running_services_else_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SWEETSPOT_URL", raising=False)
    url: Callable[[], str] = lambda: Sweetspot(data_dir=tmp_path).url  # noqa: E731
    usual = f"http://127.0.0.1:{settings().port}"
    assert url() == usual
    runtime.write(tmp_path, runtime.Runtime("http://127.0.0.1:1", "postgresql://", "redis://", 1))
    assert url() == usual, "a note that was left behind is not believed"
    with runtime.lock(runtime.lock_path(tmp_path)):
        assert url() == "http://127.0.0.1:1"
        monkeypatch.setenv("SWEETSPOT_URL", "http://elsewhere/")
        assert url() == "http://elsewhere"
